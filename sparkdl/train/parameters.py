"""A module's parameters by name patterns: which are frozen, and which form a group with settings of its own.

Patterns are those of shell file names: ``encoder.*``, ``*.bias`` (fnmatch).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from sparkdl.errors import InvalidParamError, did_you_mean


def freeze(module: nn.Module, patterns: Sequence[str]) -> None:
    """Parameters whose name matches one of ``patterns`` are not trained."""
    for name, parameter in module.named_parameters():
        if _matches(name, patterns):
            parameter.requires_grad_(False)


def in_training(module: nn.Module, patterns: Sequence[str]) -> nn.Module:
    """The module in training mode, but for parts whose parameters are all frozen: their batch norm keeps the statistics
    that it was trained to, and nothing in them drops out."""
    module.train()
    frozen = {id(parameter) for name, parameter in module.named_parameters() if _matches(name, patterns)}
    for part in module.modules() if frozen else ():
        own = [id(parameter) for parameter in part.parameters()]
        if own and frozen.issuperset(own):
            part.eval()
    return module


def grouped(module: nn.Module, groups: Sequence[Mapping[str, Any]]) -> Any:
    """What an optimizer is made of: the trained parameters, or parameter groups of them.

    groups: each a dictionary with ``params``, a pattern or several, and the group's settings (``lr``, say). A parameter
    goes to the first group that it matches; those that match none form a last one with the optimizer's own settings.
    """
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not groups:
        return list(trained.values())
    made = []
    for group in groups:
        chosen = [name for name in trained if _matches(name, _patterns(group))]
        made.append({**group, "params": [trained.pop(name) for name in chosen]})
    return [group for group in [*made, {"params": list(trained.values())}] if group["params"]]


def check_state(module: nn.Module) -> None:
    """Raise InvalidParamError if the module's state is not of tensors alone, as bundles and checkpoints keep it."""
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            raise InvalidParamError(
                f"the model's state holds a {type(value).__name__} as {name!r}; only tensors can be kept: make it a "
                "buffer, or an argument of the model",
                param="model",
                value=name,
            )


def check(module: nn.Module, frozen: Sequence[str], groups: Sequence[Mapping[str, Any]]) -> None:
    """Raise InvalidParamError for a pattern that no parameter's name matches."""
    names = [name for name, _ in module.named_parameters()]
    given = [("frozen", pattern) for pattern in frozen]
    given += [("parameterGroups", pattern) for group in groups for pattern in _patterns(group)]
    for param, pattern in given:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InvalidParamError(
                f"{param!r}: no parameter of the model matches {pattern!r}{did_you_mean(pattern, names)}; "
                f"they are {names[:20]}{'…' if len(names) > 20 else ''}",
                param=param,
                value=pattern,
            )


def check_trainable(module: nn.Module, frozen: Sequence[str]) -> None:
    """Raise InvalidParamError if nothing is left to train."""
    if not any(parameter.requires_grad and not _matches(name, frozen) for name, parameter in module.named_parameters()):
        raise InvalidParamError(
            "the model has no parameter to train"
            + (f": 'frozen' covers them all (got {list(frozen)})" if frozen else ""),
            param="frozen" if frozen else "model",
            value=list(frozen),
        )


def check_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise InvalidParamError naming what differs if ``weights`` are not a state of ``module``."""
    ours = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in weights.items()}
    found = [f"{name!r} is missing" for name in ours if name not in theirs]
    found += [f"{name!r} is not in the model{did_you_mean(name, ours)}" for name in theirs if name not in ours]
    found += [
        f"{name!r} has shape {theirs[name]}, the model's has {shape}"
        for name, shape in ours.items()
        if name in theirs and theirs[name] != shape
    ]
    if found:
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise InvalidParamError(
            f"'initialWeights' do not fit the model: {'; '.join(found[:5])}{more}", param="initialWeights", value=found
        )


def _patterns(group: Mapping[str, Any]) -> list[str]:
    given = group["params"]
    return [given] if isinstance(given, str) else list(given)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
