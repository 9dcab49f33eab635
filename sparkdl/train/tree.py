"""Nested state (dictionaries, lists, numbers, tensors) as one safetensors file: nothing in it is ever unpickled."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

_KEY = "sparkdl.tree"


def dump(tree: Any) -> bytes:
    """The file's content. Raises TypeError naming the place of a value that it cannot hold."""
    tensors: dict[str, Tensor] = {}
    skeleton = _encoded(tree, "state", tensors)
    return safetensors.torch.save(tensors, {_KEY: json.dumps(skeleton)})


def load(content: bytes) -> Any:
    """What ``dump`` was given, tensors on the CPU. Raises ValueError if the content is something else."""
    try:
        size = int.from_bytes(content[:8], "little")
        skeleton = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][_KEY])
        return _decoded(skeleton, safetensors.torch.load(content))
    except (KeyError, TypeError, ValueError, IndexError, safetensors.SafetensorError) as error:
        raise ValueError(f"not a file of nested state: {error}") from error


def _encoded(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (Tensor, np.ndarray)):
        name = str(len(tensors))
        kind = "tensor" if isinstance(value, Tensor) else "array"
        tensor = value.detach() if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value))
        tensors[name] = tensor.to("cpu", copy=True).contiguous()
        return {kind: name}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encoded(item, f"{place}[{i}]", tensors) for i, item in enumerate(value)]}
    if isinstance(value, dict):
        items = [[_key(key, place), _encoded(item, f"{place}[{key!r}]", tensors)] for key, item in value.items()]
        return {"dict": items}
    raise TypeError(f"{place} is a {type(value).__name__}, which a checkpoint cannot hold")


def _key(key: Any, place: str) -> Any:
    if isinstance(key, (str, int)):
        return key
    raise TypeError(f"{place} has a {type(key).__name__} as a key, which a checkpoint cannot hold")


def _decoded(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "dict":
        return {key: _decoded(item, tensors) for key, item in content}
    items = [_decoded(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
