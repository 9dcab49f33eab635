"""A module out of a state dict, in memory or in a file that holds tensors and nothing else."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sparkdl.errors import BundleError
from sparkdl.interop import common


def module(factory: Callable[[], nn.Module], state: Mapping[str, Tensor] | str | os.PathLike[str]) -> nn.Module:
    """What ``factory`` makes, with the weights of ``state``. Raises BundleError, StoreError."""
    made = factory()
    uri = None if isinstance(state, Mapping) else os.fspath(state)
    tensors = state if isinstance(state, Mapping) else read(os.fspath(state))
    try:
        made.load_state_dict(dict(tensors), strict=True)
    except (RuntimeError, TypeError) as error:
        raise BundleError(f"the weights are not those of {type(made).__name__}: {error}", uri=uri) from error
    return made


def read(uri: str) -> Mapping[str, Tensor]:
    """The tensors in a ``.safetensors`` file, or in one by ``torch.save``. Raises BundleError, StoreError."""
    content = common.content(uri)
    try:
        if uri.endswith(".safetensors"):
            return safetensors.torch.load(content)
        loaded: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise BundleError(
            f"{uri!r} is not a state dict that holds tensors only: {error}. Save it by "
            "torch.save(module.state_dict(), path), or as .safetensors",
            uri=uri,
        ) from error
    if not isinstance(loaded, Mapping):
        raise BundleError(f"{uri!r} holds a {type(loaded).__name__}, not a state dict", uri=uri)
    return loaded
