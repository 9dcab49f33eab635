"""Record batches in, predictions out: what a worker does, whoever hands it the batches.

While the model computes on some rows the next are read and decoded in a thread. A bad row never touches another one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa

from sparkdl import columns
from sparkdl.columns import BadRows
from sparkdl.data.ahead import ahead
from sparkdl.errors import DataError
from sparkdl.score import failing, worker
from sparkdl.score.inputs import Inputs
from sparkdl.score.scoring import Scoring
from sparkdl.score.transfer import Arrays
from sparkdl.signature import Signature

PIECE_BYTES = 32 << 20  # of tensors, read at once: two such pieces are alive
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Scored:
    """The predictions of a record batch.

    outputs: a column for each output of the signature, by its name; null in bad rows.
    problems: what is wrong with a bad row, by its place in the batch, such as ``null: column 'x': …``; the word before
    the first colon is one of ``columns.KINDS``.
    """

    outputs: dict[str, pa.Array]
    problems: dict[int, str]


@dataclass
class Seconds:
    """What scoring takes: ``decode`` columns into tensors, in a thread beside the ``model``."""

    decode: float = 0.0
    model: float = 0.0


@dataclass(frozen=True)
class Scorer:
    """Travels to the workers. fetch: gives the bundle's files; trusted: as for ``Bundle.load``."""

    digest: str
    fetch: Callable[[], Files]
    signature: Signature
    scoring: Scoring
    trusted: bool | Collection[str]

    def score(
        self, batches: Iterable[pa.RecordBatch], seconds: Seconds | None = None
    ) -> Iterator[tuple[pa.RecordBatch, Scored]]:
        """Each batch, in order, with its predictions. A batch has the signature's columns, and maybe others.

        seconds: to which is added what it takes. Raises DataError for the first bad row if ``scoring.invalid`` is
        ``error``; otherwise a row on which the model raises is a bad row too, unless it raises on a great many.
        """
        seconds = seconds or Seconds()
        pieces: list[tuple[_Piece, Arrays]] = []
        predictor = None
        worker.use_cores()
        with ExitStack() as task:
            for piece in ahead(partial(self._pieces, batches, seconds)):
                predictor = predictor or task.enter_context(worker.predictor(self))
                started = time.perf_counter()
                pieces.append(self._predicted(predictor, piece))
                seconds.model += time.perf_counter() - started
                if piece.batch is not None:
                    yield piece.batch, self._scored(pieces)
                    pieces = []

    def _predicted(self, predictor: Any, piece: _Piece) -> tuple[_Piece, Arrays]:
        try:
            return piece, predictor.predict(piece.inputs)
        except Exception as error:  # whatever a model's operators raise
            if self.scoring.invalid == "error" or not failing.may_be_a_rows(error):
                raise
        good, outputs, reasons = failing.predict_rest(predictor.predict, piece.inputs, len(piece.good))
        problems = piece.problems | {int(piece.good[row]): why for row, why in reasons.items()}
        return replace(piece, good=piece.good[good], problems=problems), outputs

    def _pieces(
        self, batches: Iterable[pa.RecordBatch], seconds: Seconds, stopped: Event
    ) -> Generator[_Piece, None, None]:
        for batch in batches:
            most = max(1, PIECE_BYTES // self._row_bytes(batch))
            for start in range(0, max(len(batch), 1), most):
                if stopped.is_set():
                    return
                started = time.perf_counter()
                piece = self._read(batch.slice(start, most), start)
                seconds.decode += time.perf_counter() - started
                yield replace(piece, batch=batch) if start + most >= len(batch) else piece

    def _row_bytes(self, batch: pa.RecordBatch) -> int:
        sizes = (
            math.ceil(batch.column(spec.columns[0]).nbytes / max(len(batch), 1))
            if spec.is_ragged
            else spec.size * np.dtype(spec.dtype).itemsize
            for spec in self.signature.inputs
            if spec.columns
        )
        return max(1, sum(sizes))

    def _read(self, rows: pa.RecordBatch, start: int) -> _Piece:
        """The model's inputs out of the good rows."""
        named = {name: rows.column(name) for name in self.signature.columns}
        inputs: Inputs = {}
        good, problems = np.arange(len(rows)), {}
        for spec in self.signature.inputs:
            while spec.columns and spec.name not in inputs:
                try:
                    inputs[spec.name] = columns.read(named, spec)
                except BadRows as error:
                    if self.scoring.invalid == "error":
                        raise error.first(start) from None
                    problems.update({int(good[row]): why for row, why in zip(error.rows, error.reasons, strict=True)})
                    rest = np.delete(np.arange(len(good)), error.rows)
                    good = good[rest]
                    named = {name: column.take(pa.array(rest)) for name, column in named.items()}
                    inputs = failing.taken(inputs, rest)
                    if error.rest is not None:
                        inputs[spec.name] = error.rest
        return _Piece(start, rows, inputs, good, problems)

    def _scored(self, pieces: list[tuple[_Piece, Arrays]]) -> Scored:
        problems: dict[int, str] = {}
        made: dict[str, list[pa.Array]] = {name: [] for name in columns.answers(self.signature)}
        for piece, outputs in pieces:
            found = self._non_finite(piece, outputs)
            if found:  # a decoder is not made for them
                finite = np.flatnonzero(~np.isin(piece.good, list(found)))
                piece = replace(piece, good=piece.good[finite])
                outputs = {name: values[finite] for name, values in outputs.items()}
            bad = piece.problems | found
            problems |= {piece.start + row: why for row, why in bad.items()}
            place = np.full(len(piece.rows), -1)
            place[piece.good] = np.arange(len(piece.good))
            for name, column in columns.answered(self.signature, outputs, piece.good_rows).items():
                made[name].append(column.take(pa.array(place, mask=place < 0)) if bad else column)
        whole = {name: parts[0] if len(parts) == 1 else pa.concat_arrays(parts) for name, parts in made.items()}
        return Scored(whole, dict(sorted(problems.items())))

    def _non_finite(self, piece: _Piece, outputs: Arrays) -> dict[int, str]:
        found: dict[int, str] = {}
        for name, values in outputs.items():
            if values.dtype.kind != "f" or np.isfinite(values).all():
                continue
            by_row = values.reshape(len(values), -1)
            for row in np.flatnonzero(~np.isfinite(by_row).all(axis=1)):
                got = by_row[row][~np.isfinite(by_row[row])][0]
                place = int(piece.good[row])
                if self.scoring.invalid == "error":
                    raise DataError(
                        f"output {name!r}, row {piece.start + place}: the model returned {got}; say handleInvalid='keep' "
                        "or 'skip' to go on without such rows",
                        column=name,
                        row=piece.start + place,
                        file=None,
                        expected="finite numbers",
                        got=float(got),
                    )
                found.setdefault(place, f"non-finite: output {name!r}: the model returned {got}")
        return found


@dataclass(frozen=True)
class _Piece:
    """Some rows of a batch, read. good: the places of those that ``inputs`` hold. batch: set in a batch's last piece."""

    start: int
    rows: pa.RecordBatch
    inputs: Inputs
    good: np.ndarray
    problems: dict[int, str]
    batch: pa.RecordBatch | None = None

    @property
    def good_rows(self) -> dict[str, pa.Array]:
        """The columns of the rows that ``inputs`` holds."""
        whole = len(self.good) == len(self.rows)
        rows = self.rows if whole else self.rows.take(pa.array(self.good))
        return dict(zip(rows.schema.names, rows.columns, strict=True))
