"""How arrays get to the device and outputs back, without the one that computes waiting for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sparkdl.columns import as_tensor

Arrays = dict[str, np.ndarray]


class Transfer(Protocol):
    """Moves arrays to a device and outputs back."""

    def put(self, arrays: Sequence[np.ndarray]) -> Callable[[], list[Tensor]]:
        """Begin to move arrays there; what is returned gives the tensors, when they are about to be used."""
        ...

    def take(self, outputs: Mapping[str, Tensor]) -> Callable[[], Arrays]:
        """Begin to move outputs back; what is returned waits for them and gives the arrays."""
        ...

    def free(self) -> None:
        """Give memory of the device that is in no use back to it."""
        ...


def transfer(device: torch.device) -> Transfer:
    """What moves arrays to this device and back."""
    return _OnGpu(device) if device.type == "cuda" else _OnCpu()


class _OnCpu:
    """The model computes in the arrays' own memory."""

    def put(self, arrays: Sequence[np.ndarray]) -> Callable[[], list[Tensor]]:
        tensors = [as_tensor(array) for array in arrays]
        return lambda: tensors

    def take(self, outputs: Mapping[str, Tensor]) -> Callable[[], Arrays]:
        arrays = {name: np.asarray(_in_numpy(value).numpy()) for name, value in outputs.items()}
        return lambda: arrays

    def free(self) -> None:
        pass


class _OnGpu:
    """Pinned memory and a stream each way beside the one that computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.inward, self.outward = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def put(self, arrays: Sequence[np.ndarray]) -> Callable[[], list[Tensor]]:
        with torch.cuda.stream(self.inward):
            tensors = [as_tensor(array).pin_memory().to(self.device, non_blocking=True) for array in arrays]
            moved = self.inward.record_event()

        def arrived() -> list[Tensor]:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_event(moved)
            for tensor in tensors:
                tensor.record_stream(computing)  # else its memory could be given away while it is still computed with
            return tensors

        return arrived

    def take(self, outputs: Mapping[str, Tensor]) -> Callable[[], Arrays]:
        outputs = {name: _in_numpy(value) for name, value in outputs.items()}
        self.outward.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.outward):
            back = {
                name: torch.empty(value.shape, dtype=value.dtype, pin_memory=True) for name, value in outputs.items()
            }
            for name, value in outputs.items():
                back[name].copy_(value, non_blocking=True)
                value.record_stream(self.outward)
            moved = self.outward.record_event()

        def arrays() -> Arrays:
            moved.synchronize()
            return {name: value.numpy() for name, value in back.items()}

        return arrays

    def free(self) -> None:
        torch.cuda.empty_cache()


def _in_numpy(value: Tensor) -> Tensor:
    """In a dtype that numpy has."""
    return value.float() if value.dtype == torch.bfloat16 else value
