"""Losses, optimizers, learning-rate schedulers and metrics by the names that torch and torchmetrics give them."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from sparkdl import tasks
from sparkdl.errors import InvalidParamError, did_you_mean

if TYPE_CHECKING:
    from torchmetrics import Metric


def _losses() -> dict[str, Any]:
    """torch's loss functions, and its loss modules that need no settings."""
    functions = {
        name: value
        for name, value in vars(nn.functional).items()
        if callable(value) and not name.startswith("_") and (name.endswith("_loss") or "cross_entropy" in name)
    }
    modules = {name: getattr(nn, name) for name in dir(nn) if name.endswith("Loss")}
    return functions | {name: cls for name, cls in modules.items() if not _required(cls)}


def loss_named(name: str, reduction: Literal["mean", "none"] = "mean") -> Callable[[Any, Tensor], Tensor]:
    """The function of that name in torch.nn.functional, or a new module of that name in torch.nn.

    reduction: ``mean`` gives one number, ``none`` a loss for each row (of a row of several numbers: for each of them),
    which can be weighted. Raises InvalidParamError listing the nearest names.
    """
    losses = _losses()
    if name not in losses:
        raise InvalidParamError(
            f"'loss' must be a function, or the name of a loss in torch.nn or torch.nn.functional (got {name!r})"
            f"{did_you_mean(name, losses)}",
            param="loss",
            value=name,
        )
    loss: Any = losses[name]
    if isinstance(loss, type):
        loss = loss(reduction=reduction)
    elif reduction == "none":
        loss = functools.partial(loss, reduction="none")
    found: Callable[[Any, Tensor], Tensor] = loss
    return found


@dataclass(frozen=True)
class NamedOptimizer:
    """``torch.optim``'s optimizer of a name, with its arguments; a function of the parameters."""

    name: str
    arguments: Mapping[str, Any]

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of these parameters."""
        optimizer: torch.optim.Optimizer = optimizer_class(self.name)(parameters, **self.arguments)
        return optimizer


_UNFIT = {
    "LBFGS": "evaluates the loss several times a step; ranks take one",
    "SparseAdam": "takes sparse gradients only; ranks add up dense ones: Adam does",
}


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """``torch.optim``'s class of that name, whatever the case. Raises InvalidParamError listing the nearest names."""
    classes = {
        key: value
        for key, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
    }
    for key, value in classes.items():
        if key.lower() == name.lower():
            if key in _UNFIT:
                raise InvalidParamError(
                    f"'optimizer' cannot be {key}, which {_UNFIT[key]}", param="optimizer", value=name
                )
            return value
    raise InvalidParamError(
        f"'optimizer' must be a function, or the name of an optimizer in torch.optim (got {name!r})"
        f"{did_you_mean(name, classes)}",
        param="optimizer",
        value=name,
    )


def _check_known(cls: str, arguments: Mapping[str, Any], known: list[str], param: str) -> None:
    for key in arguments:
        if key not in known:
            raise InvalidParamError(
                f"{cls} takes no {key!r}{did_you_mean(key, known)}; it takes {known}",
                param=param,
                value=dict(arguments),
            )


def named_optimizer(name: str, arguments: Mapping[str, Any]) -> NamedOptimizer:
    """A NamedOptimizer whose arguments the class takes. Raises InvalidParamError if it does not."""
    cls = optimizer_class(name)
    known = [key for key in inspect.signature(cls).parameters if key != "params"]
    _check_known(f"torch.optim.{cls.__name__}", arguments, known, "optimizerParams")
    return NamedOptimizer(name, dict(arguments))


@dataclass(frozen=True)
class NamedScheduler:
    """``torch.optim.lr_scheduler``'s scheduler of a name, with its arguments; a function of the optimizer and of how
    often it will be stepped."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def is_plateau(self) -> bool:
        """True if it is stepped with the monitored value."""
        return issubclass(scheduler_class(self.name), lr_scheduler.ReduceLROnPlateau)

    def for_mode(self, mode: str) -> NamedScheduler:
        """The same, told whether the monitored value is better low (``min``) or high (``max``), if it asks and was not
        told."""
        return replace(self, arguments={"mode": mode, **self.arguments}) if self.is_plateau else self

    def __call__(self, optimizer: torch.optim.Optimizer, steps_in_all: int) -> lr_scheduler.LRScheduler:
        """The scheduler of this optimizer. ``total_steps`` and ``T_max`` are ``steps_in_all`` unless they were given."""
        cls = scheduler_class(self.name)
        arguments = dict(self.arguments)
        if not {"epochs", "steps_per_epoch"} <= arguments.keys():
            for key in _FILLED.intersection(inspect.signature(cls).parameters):
                arguments.setdefault(key, max(steps_in_all, 1))
        scheduler: lr_scheduler.LRScheduler = cls(optimizer, **arguments)
        return scheduler


_FILLED = frozenset({"total_steps", "T_max"})


def scheduler_class(name: str) -> type[lr_scheduler.LRScheduler]:
    """``torch.optim.lr_scheduler``'s class of that name; case, ``_`` and the ending ``LR`` do not matter.

    Raises InvalidParamError listing the nearest names, also for those made of other schedulers.
    """
    base = lr_scheduler.LRScheduler
    classes = {
        key: value
        for key, value in vars(lr_scheduler).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base and not key.startswith("_")
        if "schedulers" not in inspect.signature(value).parameters
    }
    short = name.replace("_", "").replace("-", "").lower()
    for key, value in classes.items():
        if key.lower() in (short, f"{short}lr"):
            return value
    raise InvalidParamError(
        "'scheduler' must be a function of the optimizer, or the name of a scheduler in torch.optim.lr_scheduler that is "
        f"not made of others (got {name!r}){did_you_mean(name, classes)}",
        param="scheduler",
        value=name,
    )


def named_scheduler(name: str, arguments: Mapping[str, Any]) -> NamedScheduler:
    """A NamedScheduler whose arguments the class takes, none missing. Raises InvalidParamError if it does not."""
    cls = scheduler_class(name)
    known = [key for key in inspect.signature(cls).parameters if key not in ("optimizer", "last_epoch")]
    _check_known(f"torch.optim.lr_scheduler.{cls.__name__}", arguments, known, "schedulerParams")
    missing = [key for key in _required(cls) if key not in {"optimizer", *_FILLED, *arguments}]
    if missing:
        raise InvalidParamError(
            f"torch.optim.lr_scheduler.{cls.__name__} needs {', '.join(map(repr, missing))}; give it in schedulerParams",
            param="schedulerParams",
            value=dict(arguments),
        )
    return NamedScheduler(name, dict(arguments))


_SHORT = {
    "f1": "f1score",
    "auc": "auroc",
    "rocauc": "auroc",
    "prauc": "averageprecision",
    "auprc": "averageprecision",
    "mcc": "matthewscorrcoef",
    "mse": "meansquarederror",
    "mae": "meanabsoluteerror",
    "mape": "meanabsolutepercentageerror",
    "r2": "r2score",
    "pearson": "pearsoncorrcoef",
    "spearman": "spearmancorrcoef",
}
_CURVES = ("roc", "precisionrecallcurve")  # their values are no figures


def metric_named(name: str, task: str | None, classes: int | None) -> Metric:
    """torchmetrics' metric of that name for the task; case, ``_``, ``-`` and spaces do not matter.

    ``f1``, ``auc``, ``mcc``, ``mse``, ``rmse``, ``mae``, ``mape``, ``r2`` … are short for the names torchmetrics has.
    Of several classes the mean over classes is taken (torchmetrics' ``macro``), but ``accuracy`` is the share of rows.
    task: None, as regression, has the metrics that compare numbers. classes: how many, for ``multiclass``.

    Raises InvalidParamError if there is none, listing the nearest, or if it belongs to another task.
    """
    short = re.sub(r"[\s_-]", "", str(name)).lower()
    known, settings = _classes_for(task), dict[str, Any]()
    if short == "rmse":
        short, settings = "mse", {"squared": False}
    cls = known.get(_SHORT.get(short, short))
    if cls is None:
        raise InvalidParamError(_unknown(name, _SHORT.get(short, short), task, known), param="metrics", value=name)
    if task in ("binary", "multiclass"):
        settings["validate_args"] = False  # costs a look at every batch; labels were checked as they were written
    if task == "multiclass":
        settings["num_classes"] = classes
        if short == "accuracy":
            settings["average"] = "micro"
    return cls(**settings)


def _classes_for(task: str | None) -> dict[str, type[Metric]]:
    """By its name in lower case, each metric that compares outputs and labels of that task and needs no settings."""
    import torchmetrics.classification
    import torchmetrics.regression

    prefix = {"binary": "Binary", "multiclass": "Multiclass"}.get(task or "", "")
    module = torchmetrics.classification if prefix else torchmetrics.regression
    found: dict[str, type[Metric]] = {}
    for name in module.__all__:
        cls, short = getattr(module, name), name.removeprefix(prefix).lower()
        needs = set(_required(cls)) - {"num_classes"}
        if (
            name.startswith(prefix)
            and not needs
            and set(_required(cls.update)) - {"self"} == {"preds", "target"}
            and short not in _CURVES
        ):
            found[short] = cls
    return found


def _unknown(name: str, short: str, task: str | None, known: Iterable[str]) -> str:
    said = f"'metrics' knows no {name!r} for task {task!r}"
    others = [other for other in tasks.TASKS if other != task and short in _classes_for(other)]
    if others:
        return f"{said}: it is one of task {' or '.join(map(repr, others))}; this task has {sorted(known)}"
    return f"{said}{did_you_mean(short, known)}; it has {sorted(known)}, and takes any torchmetrics object"


def _required(function: Any) -> list[str]:
    """The arguments without which a function cannot be called, or a class not be made."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]
