"""Named arrays in, named arrays out: a bundle's model, run in batches on one device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sparkdl import tasks
from sparkdl.columns import Ragged
from sparkdl.errors import SignatureError, SparkdlError
from sparkdl.probe import LENGTH, example_inputs
from sparkdl.score import engine
from sparkdl.score.inputs import Inputs, checked
from sparkdl.score.scoring import Scoring
from sparkdl.score.sizing import LEAST, PROBE_ROWS, Sizing
from sparkdl.score.transfer import Arrays, transfer
from sparkdl.signature import TensorSpec

if TYPE_CHECKING:
    from sparkdl.bundle import Bundle

DEFAULT = Scoring()
INT8_ROWS = 1024  # a batch has one scale for its 8-bit inputs, so its size is part of the result
LENGTHS = 8  # rows whose length varies are padded to a multiple of this
Rows = slice | np.ndarray  # which rows of the inputs
Moved = Callable[[], list[Tensor]]
Computed = tuple[Rows, Callable[[], Arrays]]
logger = logging.getLogger(__name__)


class Predictor:
    """Runs a bundle's model. Make one a process and keep it: loading is what costs.

    Raises InvalidParamError or SparkdlError if the model cannot run in the way that ``scoring`` asks for.
    """

    def __init__(self, bundle: Bundle, scoring: Scoring = DEFAULT) -> None:
        self.device = engine.device_of(scoring.device)
        self.task = bundle.task
        self.signature = bundle.signature
        self.reference = bundle.training.get("reference")  # of drift, see ``sparkdl.drift``
        self._forward = engine.prepared(bundle.module(), self.device, scoring.precision, scoring.compile)
        self._copies = self.device.type == "cpu" and engine.may_write_inputs(self._forward.module, bundle.program.kind)
        self._transfer = transfer(self.device)
        batch_size = scoring.batch_size or (INT8_ROWS if scoring.precision == "int8" else 0)
        self._sizing = Sizing.of(batch_size, self.device.type)

    @property
    def batch_size(self) -> int:
        """Rows to a forward pass: those asked for, those that suit the model once it has run, or fewer since they did not
        fit the memory. Where lengths vary, of rows of 12 steps."""
        return self._sizing.rows(LENGTH if self.signature.is_ragged else 1)

    def predict(self, inputs: Mapping[str, Any]) -> Arrays:
        """See ``Bundle.predict``. Raises SparkdlError if a single row does not fit the memory."""
        given = checked(inputs, self.signature)
        rows = len(next(iter(given.values())))
        if self._sizing.wants_measure(rows):
            self._measure(given, rows)
        outputs = {s.name: np.empty((rows, *s.shape), dtype=s.dtype) for s in self.signature.outputs}
        for part, arrays in self._computed(given, rows):
            returned = arrays()
            for spec in self.signature.outputs:
                outputs[spec.name][part] = _returned(returned, spec, _count(part))
        return outputs

    def _computed(self, inputs: Inputs, rows: int) -> Iterator[Computed]:
        """While the device computes one batch, the next is on its way there and the one before on its way back."""
        before: list[Computed] = []
        parts = self._parts(inputs, rows)
        part = next(parts, None)
        moved = self._moved(inputs, part)
        while part is not None:
            computed = self._compute(inputs, part, moved)
            part = next(parts, None)
            moved = self._moved(inputs, part)
            yield from before
            before = computed
        yield from before

    def _parts(self, inputs: Inputs, rows: int) -> Iterator[Rows]:
        """Which rows go together: those of like length, the longest first."""
        lengths = next((value.lengths for value in inputs.values() if isinstance(value, Ragged)), None)
        order = None if lengths is None else np.argsort(-lengths, kind="stable")
        start = 0
        while start < rows:
            longest = 1 if lengths is None or order is None else int(lengths[order[start]])
            stop = min(start + self._sizing.rows(longest), rows)
            yield slice(start, stop) if order is None else order[start:stop]
            start = stop

    def _measure(self, inputs: Inputs, rows: int) -> None:
        """Find out how large the model's tensors are: on the first rows or, where lengths vary, on those it was bundled
        with, so that it does not depend on which rows a process meets first."""
        ragged = self.signature.is_ragged
        try:
            if ragged:
                probes = [argument.numpy() for argument in example_inputs(self.signature, PROBE_ROWS)]
            else:
                probes = self._arguments(inputs, np.arange(PROBE_ROWS) % rows)
            nbytes = self._forward.largest_tensor(*self._transfer.put(probes)())
        except Exception as error:  # whatever a model raises that was bundled with examples of its own
            if not ragged and not engine.is_out_of_memory(error):
                raise
            self._sizing = Sizing(min(LEAST, self._sizing.most))
            logger.info("%d rows to a forward pass; it could not be measured: %s", self.batch_size, error)
            return
        self._sizing = self._sizing.measured(nbytes, LENGTH if ragged else 1)
        logger.info(
            "%d rows to a forward pass; the largest tensor of %d takes %d bytes", self.batch_size, PROBE_ROWS, nbytes
        )

    def _moved(self, inputs: Inputs, part: Rows | None) -> Moved | None:
        """The rows on their way to the device; None if its memory is full, or there are none."""
        if part is None:
            return None
        try:
            return self._transfer.put(self._arguments(inputs, part))
        except (RuntimeError, MemoryError) as error:
            if not engine.is_out_of_memory(error):
                raise
        return None

    def _compute(self, inputs: Inputs, part: Rows, moved: Moved | None = None) -> list[Computed]:
        """The outputs of these rows, in several parts if they do not fit the memory together."""
        rows = _count(part)
        try:
            put = moved or self._transfer.put(self._arguments(inputs, part))
            with torch.inference_mode():
                return [(part, self._transfer.take(tasks.predictions(self.task, self._forward(*put()))))]
        except (RuntimeError, MemoryError) as error:
            if not engine.is_out_of_memory(error):
                raise
            if rows == 1:
                raise SparkdlError(
                    f"one row does not fit the memory of {self.device}, beside the model: {error}. Use a device or "
                    "machine with more memory, fewer processes on it (modelsPerGpu, cores of an executor), or "
                    "precision bfloat16"
                ) from error
        del moved
        self._transfer.free()
        half = rows // 2
        logger.warning("%d rows do not fit the memory of %s; going on with %d at a time", rows, self.device, half)
        self._sizing = self._sizing.at_most(half)
        first, second = _halves(part, half)
        return [*self._compute(inputs, first), *self._compute(inputs, second)]

    def _arguments(self, inputs: Inputs, part: Rows) -> list[np.ndarray]:
        """The model's arguments for these rows, padded where their length varies, and the masks."""
        made: Arrays = {}
        masks: Arrays = {}
        for name, value in inputs.items():
            if isinstance(value, Ragged):
                rows = np.arange(part.start, part.stop) if isinstance(part, slice) else part
                longest = int(value.lengths[rows].max())
                padded = max(1, min(-(-longest // LENGTHS) * LENGTHS, int(value.lengths.max())))
                made[name], masks[name] = value.padded(rows, padded)
            else:
                made[name] = value[part].copy() if self._copies else value[part]  # the caller's memory, or Arrow's
        return [
            masks[spec.mask_of].astype(spec.dtype) if spec.mask_of else made[spec.name]
            for spec in self.signature.inputs
        ]


def _count(part: Rows) -> int:
    return int(part.stop - part.start) if isinstance(part, slice) else len(part)


def _halves(part: Rows, half: int) -> tuple[Rows, Rows]:
    if isinstance(part, slice):
        return slice(part.start, part.start + half), slice(part.start + half, part.stop)
    return part[:half], part[half:]


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
