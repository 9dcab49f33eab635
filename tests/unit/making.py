"""What several tests need made: signatures, a data set on disk, a DataFrame's schema without a session."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sparkdl.columns import flat
from sparkdl.data import writer
from sparkdl.data.manifest import DataFile, Dataset, LabelFacts, Layout, merged
from sparkdl.signature import Signature, TensorSpec

ARRAY = "array<float>"


def spec(name="x", dtype="float32", shape=(), type=None, columns=None):
    """An input whose one column has its name."""
    return TensorSpec(name, dtype, shape, columns or (name,), (type or (ARRAY if shape else "float"),))


def signature(*inputs):
    return Signature(inputs)


@dataclass
class Frame:
    """A DataFrame as Signature.from_dataframe sees it: a schema, and rows to take a sample from."""

    schema: Any
    rows: list[tuple[Any, ...]] | None = None
    isStreaming: bool = False

    def select(self, quoted):
        assert quoted[0] == quoted[-1] == "`"
        return Column(self.rows, self.schema.names.index(quoted[1:-1].replace("``", "`")))


@dataclass
class Column:
    rows: Any
    index: int

    def where(self, condition):
        assert condition.endswith(" IS NOT NULL")
        return Column([row for row in self.rows if row[self.index] is not None], self.index)

    def head(self, count):
        return [(row[self.index],) for row in self.rows[:count]]


def dataset(folder, layout, *, width=3, weighted=False):
    """Row i holds x = [i, i + .25, ...] (float32; the scalar i if width is None), key = i (int64), the label i
    (float32) and, if asked for, the weight i / 8 (float32).

    layout: for each file the rows of its row groups.
    """
    inputs = signature(spec("x", shape=() if width is None else (width,)), spec("key", "int64", type="long"))
    told = Layout(inputs, spec("y", type="float"), spec("w", type="float") if weighted else None)
    files, first, facts = [], 0, []
    for number, groups in enumerate(layout):
        with flushing_every_batch():
            written = writer.write_partition(str(folder), "data", number, told, batches(first, groups, width))
        assert [file["row_groups"] for file in written["files"]] == [list(groups)]
        (Path(folder) / written["files"][0]["path"]).rename(Path(folder) / f"part-{number}.parquet")
        files.append(DataFile(f"part-{number}.parquet", tuple(groups)))
        facts.append(LabelFacts(**written["facts"]))
        first += sum(groups)
    return Dataset(str(folder), tuple(files), inputs, told.label, told.weight, label_facts=merged(facts))


def batches(first, groups, width=3):
    for rows in groups:
        number = np.arange(first, first + rows)
        x = number if width is None else number[:, None] + np.arange(width) / 4
        columns = [
            flat(x.astype(np.float32)),
            pa.array(number),
            *(pa.array(v.astype(np.float32)) for v in (number, number / 8)),
        ]
        yield pa.RecordBatch.from_arrays(columns, names=["x", "key", "y", "w"])
        first += rows


def flushing_every_batch():
    """So that each batch becomes a row group, whatever its size."""
    from unittest.mock import patch

    return patch("sparkdl.data.writer.ROW_GROUP_BYTES", 1)


def one_piece(files):
    """A table's files as one piece of work."""
    from unittest.mock import patch

    from sparkdl.score.pieces import cut

    with patch("sparkdl.score.pieces.PIECES_A_SLOT", 1):
        (piece,) = cut(files, 1)
    return piece
