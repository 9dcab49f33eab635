"""Augmentation of images while training, by torchvision's transforms v2."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparkdl.errors import InvalidParamError, did_you_mean
from sparkdl.interop.common import needed


class Augment(nn.Module):
    """Changes each image of a batch by chance, ``(B, C, H, W)`` in and out, in training only; else gives it as it is.

    transforms: in this order, names of classes in ``torchvision.transforms.v2``, or dictionaries from such a name to its
    arguments: ``["horizontal_flip", {"random_crop": {"padding": 4}}, {"ColorJitter": {"brightness": 0.2}}]``.
    ``random_`` may be left out, and a ``size`` that is not given is that of the images. shape: ``(C, H, W)``, of ``uint8``.

    Raises InvalidParamError for a transform that is not there, does not take its arguments, or does not keep the shape
    and dtype of an image; SparkdlError without torchvision.
    """

    def __init__(self, transforms: Sequence[str | Mapping[str, Any]], shape: Sequence[int]) -> None:
        super().__init__()
        told = [pair for one in checked(transforms) for pair in one.items()]
        self.transforms = nn.ModuleList(_made(name, arguments, tuple(shape)) for name, arguments in told)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """See the class."""
        if not self.training or not len(self.transforms):
            return image_BCHW
        rows = []
        for row in image_BCHW:  # a transform draws once for all that it is given
            for transform in self.transforms:
                row = transform(row)
            rows.append(row)
        return torch.stack(rows)


def checked(transforms: Any) -> list[dict[str, dict[str, Any]]]:
    """Dictionaries from names to arguments. Raises InvalidParamError for what is not written so."""
    told = [transforms] if isinstance(transforms, (str, Mapping)) else transforms
    if not isinstance(told, (list, tuple)):
        raise _refused("a list of names, or of dictionaries from a name to its arguments", transforms)
    found = []
    for one in told:
        pairs = {one: {}} if isinstance(one, str) else one
        if not isinstance(pairs, Mapping) or not all(isinstance(name, str) for name in pairs):
            raise _refused("a list of names, or of dictionaries from a name to its arguments", one)
        for name, arguments in pairs.items():
            if not isinstance(arguments, (Mapping, type(None))):
                raise _refused(f"with the arguments of {name!r} by name", arguments)
        found.append({name: dict(arguments or {}) for name, arguments in pairs.items()})
    return found


def _made(name: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> nn.Module:
    kind = _class_named(name)
    if "size" in inspect.signature(kind).parameters:
        arguments = {"size": list(shape[1:]), **arguments}
    try:
        transform: nn.Module = kind(**arguments)
        with torch.random.fork_rng(devices=[]):
            given = transform(torch.zeros(shape, dtype=torch.uint8))
    except Exception as error:  # each transform checks its arguments in a way of its own
        raise _refused(f"made of transforms that take their arguments; {name!r}: {error}", arguments) from error
    if not isinstance(given, Tensor) or given.shape != shape or given.dtype != torch.uint8:
        got = f"{given.dtype} of {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        raise _refused(f"made of transforms that keep uint8 of {shape}; {name!r} gives {got}", arguments)
    return transform


def _class_named(name: str) -> Any:
    v2 = needed("torchvision.transforms.v2", "image")
    known = {key: one for key, one in vars(v2).items() if isinstance(one, type) and issubclass(one, v2.Transform)}
    camel = name if name in known else "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    for key in (camel, f"Random{camel}"):
        if key in known and key != "Transform":
            return known[key]
    raise _refused(f"made of transforms in torchvision.transforms.v2{did_you_mean(camel, known)}", name)


def _refused(rule: str, value: Any) -> InvalidParamError:
    return InvalidParamError(f"'augment' must be {rule} (got {value!r:.200})", param="augment", value=value)
