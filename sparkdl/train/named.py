"""Losses and optimizers by the names that torch gives them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparkdl.errors import InvalidParamError, did_you_mean


def _losses() -> dict[str, Callable[[], Callable[[Any, Tensor], Tensor]]]:
    found: dict[str, Any] = {
        name: (lambda name=name: getattr(nn.functional, name))
        for name, value in vars(nn.functional).items()
        if callable(value) and not name.startswith("_") and (name.endswith("_loss") or "cross_entropy" in name)
    }
    return found | {name: getattr(nn, name) for name in dir(nn) if name.endswith("Loss")}


def loss_named(name: str) -> Callable[[Any, Tensor], Tensor]:
    """The function of that name in torch.nn.functional, or a new module of that name in torch.nn.

    Raises InvalidParamError listing the nearest names.
    """
    losses = _losses()
    if name not in losses:
        raise InvalidParamError(
            f"'loss' must be a function, or the name of a loss in torch.nn or torch.nn.functional (got {name!r})"
            f"{did_you_mean(name, losses)}",
            param="loss",
            value=name,
        )
    return losses[name]()


@dataclass(frozen=True)
class NamedOptimizer:
    """``torch.optim``'s optimizer of a name, with its arguments; a function of the parameters."""

    name: str
    arguments: Mapping[str, Any]

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of these parameters."""
        optimizer: torch.optim.Optimizer = optimizer_class(self.name)(parameters, **self.arguments)
        return optimizer


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """``torch.optim``'s class of that name, whatever the case. Raises InvalidParamError listing the nearest names."""
    classes = {
        key: value
        for key, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
    }
    for key, value in classes.items():
        if key.lower() == name.lower():
            return value
    raise InvalidParamError(
        f"'optimizer' must be a function, or the name of an optimizer in torch.optim (got {name!r})"
        f"{did_you_mean(name, classes)}",
        param="optimizer",
        value=name,
    )


def named_optimizer(name: str, arguments: Mapping[str, Any]) -> NamedOptimizer:
    """A NamedOptimizer whose arguments the class takes. Raises InvalidParamError if it does not."""
    cls = optimizer_class(name)
    known = [key for key in inspect.signature(cls).parameters if key != "params"]
    for key in arguments:
        if key not in known:
            raise InvalidParamError(
                f"torch.optim.{cls.__name__} takes no {key!r}{did_you_mean(key, known)}; it takes {known}",
                param="optimizerParams",
                value=dict(arguments),
            )
    return NamedOptimizer(name, dict(arguments))
