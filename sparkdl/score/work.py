"""What a task does with a piece of a table: read, score, write, at the same time. No Spark."""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sparkdl import store
from sparkdl.errors import DataError
from sparkdl.score.output import Layout, PieceWriter
from sparkdl.score.parquet import read
from sparkdl.score.pieces import Piece
from sparkdl.score.scorer import Scored, Scorer
from sparkdl.score.staging import Staging
from sparkdl.score.udf import problem_column
from sparkdl.score.written import Told

_AHEAD = 2  # batches that wait for the writer


@dataclass(frozen=True)
class Work:
    """Travels to the workers.

    read: the columns of the source that are needed. table: those of the table: some that are read, then ``outputs`` (the
    column of each output of the model), then ``error_column`` if there is one. files: the schema of the table's files.
    staging: None to write nothing.
    """

    scorer: Scorer
    read: pa.Schema
    table: pa.Schema
    outputs: dict[str, str]
    error_column: str | None
    files: pa.Schema
    layout: Layout
    staging: Staging | None

    def do(self, number: int, piece: Piece) -> Told:
        """Score the piece, unless it is finished, and tell of it, as JSON values.

        ``files``: under the table's folder; ``rows``; ``written``; ``invalid``: how many rows of each kind; under a lease
        ``sha256``, of each file. Or, if a row or a file ends the run: ``problem``, the message and fields of a DataError.
        """
        found = self.staging.finished(number) if self.staging else None  # by an attempt whose answer was lost
        if found is not None:
            return found
        try:
            return self._done(number, piece)
        except DataError as error:
            fields = ("column", "row", "file", "expected", "got")
            problem = {name: _plain(getattr(error, name, None)) for name in fields}
            told = {"problem": {"message": str(error), **problem}}
            if self.staging:
                self.staging.fail(told)
            return told

    def _done(self, number: int, piece: Piece) -> Told:
        attempt = uuid.uuid4().hex
        name = f"part-{number:05d}-{attempt}.parquet"
        writer = PieceWriter(self.staging.work(attempt), name, self.files, self.layout) if self.staging else None
        try:
            told = self._written(piece, writer)
            if self.staging and writer:
                told["files"] = writer.close()
                if self.staging.token is not None:
                    place = self.staging.work(attempt)
                    told["sha256"] = {file: store.sha256(store.join(place, file)) for file in told["files"]}
                self.staging.finish(number, attempt, told)
        except BaseException:
            if self.staging and writer:
                writer.abort()
                self.staging.drop(attempt)
            raise
        return told

    def _written(self, piece: Piece, writer: PieceWriter | None) -> Told:
        """What is told of the piece, when all of its rows are with the writer."""
        rows, written = 0, 0
        invalid: Counter[str] = Counter()
        with ThreadPoolExecutor(1, thread_name_prefix="sparkdl-write") as thread:
            waiting: deque[Future[None]] = deque()
            for batch, scored in self._scored(piece):
                rows += len(batch)
                invalid.update(problem.split(":", 1)[0] for problem in scored.problems.values())
                if writer is None:
                    continue
                made = self._made(batch, scored)
                written += len(made)
                if len(waiting) == _AHEAD:
                    waiting.popleft().result()
                waiting.append(thread.submit(writer.add, made))
            for future in waiting:
                future.result()
        return {"files": [], "rows": rows, "written": written, "invalid": dict(invalid)}

    def _scored(self, piece: Piece) -> Iterator[tuple[pa.RecordBatch, Scored]]:
        """As ``Scorer.score``, but a bad row's DataError says in which file it is."""
        rows = 0
        try:
            for batch, scored in self.scorer.score(read(piece, self.read)):
                yield batch, scored
                rows += len(batch)
        except DataError as error:
            if error.file is None and error.row is not None:
                error.file, row = piece.place(rows + error.row)
                error.args = (str(error).replace(f"row {error.row}", f"row {row} of {error.file}", 1),)
                error.row = row
            raise

    def _made(self, batch: pa.RecordBatch, scored: Scored) -> pa.RecordBatch:
        """The table's rows."""
        columns: dict[str, Any] = {column: scored.outputs[output] for output, column in self.outputs.items()}
        if self.error_column is not None:
            columns[self.error_column] = problem_column(scored, len(batch))
        arrays = [columns[field.name] if field.name in columns else batch.column(field.name) for field in self.table]
        made = pa.RecordBatch.from_arrays(arrays, schema=self.table)
        if scored.problems and self.scorer.scoring.invalid == "skip":
            is_good = np.ones(len(batch), bool)
            is_good[list(scored.problems)] = False
            return made.filter(pa.array(is_good))
        return made


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, type(None))) else str(value)
