"""Named arrays in, named arrays out: a bundle's model, run in batches on one device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sparkdl import tasks
from sparkdl.columns import as_tensor
from sparkdl.errors import SignatureError
from sparkdl.signature import TensorSpec

if TYPE_CHECKING:
    from sparkdl.bundle import Bundle

BATCH_ROWS = 4096


class Predictor:
    """Runs a bundle's model. Make one a process and keep it: loading is what costs.

    device: ``auto`` takes the GPU if there is one. batch_size: rows to a forward pass.
    """

    def __init__(self, bundle: Bundle, *, device: str = "auto", batch_size: int = BATCH_ROWS) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.task = bundle.task
        self.signature = bundle.signature
        self.module = bundle.module().to(self.device)

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See ``Bundle.predict``."""
        arrays = [_checked(inputs, spec) for spec in self.signature.inputs]
        rows = len(arrays[0])
        for spec, array in zip(self.signature.inputs, arrays, strict=True):
            if len(array) != rows:
                raise SignatureError(
                    f"input {spec.name!r} has {len(array)} rows, {self.signature.inputs[0].name!r} has {rows}",
                    column=spec.name,
                    expected=rows,
                    got=len(array),
                )
        outputs = {s.name: np.empty((rows, *s.shape), dtype=s.dtype) for s in self.signature.outputs}
        for start in range(0, rows, self.batch_size):
            stop = min(start + self.batch_size, rows)
            returned = self._forward([array[start:stop] for array in arrays])
            for spec in self.signature.outputs:
                outputs[spec.name][start:stop] = _returned(returned, spec, stop - start)
        return outputs

    def _forward(self, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            outputs = self.module(*(as_tensor(array).to(self.device) for array in arrays))
            return {name: _as_array(value) for name, value in tasks.predictions(self.task, outputs).items()}


def _as_array(value: Tensor) -> np.ndarray:
    value = value.float() if value.dtype == torch.bfloat16 else value
    return np.asarray(value.cpu().numpy())


def _returned(outputs: Mapping[str, np.ndarray], spec: TensorSpec, rows: int) -> np.ndarray:
    """The output of ``spec``. Raises SignatureError rather than let numpy broadcast another shape to it."""
    got = outputs[spec.name].shape if spec.name in outputs else None
    if got != (rows, *spec.shape):
        raise SignatureError(
            f"the model returned {got} as {spec.name!r} for {rows} rows; its signature says {spec}",
            column=None,
            expected=(rows, *spec.shape),
            got=got,
        )
    return outputs[spec.name]


def _checked(inputs: Mapping[str, np.ndarray], spec: TensorSpec) -> np.ndarray:
    if spec.name not in inputs:
        raise SignatureError(
            f"input {spec.name!r} is missing; given are {sorted(inputs)}",
            column=spec.name,
            expected=str(spec),
            got=sorted(inputs),
        )
    array = np.asarray(inputs[spec.name])
    if array.shape[1:] != spec.shape or array.ndim == 0:
        raise SignatureError(
            f"input {spec.name!r} must have shape (B, {', '.join(map(str, spec.shape))}) (got {array.shape})",
            column=spec.name,
            expected=spec.shape,
            got=array.shape,
        )
    if not np.can_cast(array.dtype, spec.dtype, "same_kind"):
        raise SignatureError(
            f"input {spec.name!r} must be {spec.dtype} (got {array.dtype}, which it cannot hold)",
            column=spec.name,
            expected=spec.dtype,
            got=str(array.dtype),
        )
    cast = array.astype(spec.dtype, copy=False)
    if array.dtype.kind in "iu" and spec.dtype.startswith(("int", "uint")) and not np.array_equal(cast, array):
        raise SignatureError(
            f"input {spec.name!r} must be {spec.dtype} (got {array.dtype} values that it cannot hold)",
            column=spec.name,
            expected=spec.dtype,
            got=str(array.dtype),
        )
    return cast
