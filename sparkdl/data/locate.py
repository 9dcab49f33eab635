"""A bad row with the file that it came from, which the hot path does not carry along. No Spark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sparkdl.data.manifest import Layout
from sparkdl.data.writer import lay_out
from sparkdl.errors import DataError


def located_error(problem: dict[str, Any], file: str | None, row: int | None) -> DataError:
    """The error that ``problem`` tells of, its row counted in ``file`` if that is known."""
    row = problem["row"] if row is None else row
    where = f"row {row} of {file}" if file else f"row {row} of its partition (rows count from 0)"
    return DataError(
        f"column {problem['column']!r}, {where}: {problem['text'].split(': ', 1)[-1]}",
        column=problem["column"],
        row=row,
        file=file,
        expected=problem["expected"],
        got=problem["got"],
    )


@dataclass(frozen=True)
class Locator:
    """Runs in the executors: the first bad row of a partition with its ``__place__``."""

    layout: Layout

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """One row about the first bad row, or none."""
        for batch in batches:
            try:
                lay_out(batch, self.layout)
            except DataError as error:
                place = batch.column(batch.schema.get_field_index("__place__"))[error.row].as_py()
                problem = {"column": error.column, "row": error.row, "text": str(error),
                           "expected": error.expected, "got": error.got}  # fmt: skip
                yield pa.RecordBatch.from_arrays(
                    [
                        pa.array([place["file"]], pa.string()),
                        pa.array([place["row"]], pa.int64()),
                        pa.array([json.dumps(problem, default=str)]),
                    ],
                    names=["file", "row", "problem"],
                )
                return
