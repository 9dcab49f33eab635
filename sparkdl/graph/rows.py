"""The tensors of a graph out of Arrow columns, as its description tells: what a reader in any language has to do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkdl import columns
from sparkdl.columns import Ragged
from sparkdl.graph.graph import Graph, Input, Text
from sparkdl.preprocess.cells import floats, texts
from sparkdl.preprocess.hashed import Hashed
from sparkdl.signature import TensorSpec


def tensors(graph: Graph, rows: Mapping[str, pa.Array]) -> dict[str, np.ndarray]:
    """By the names of the graph's inputs, ``(B, *shape)``; what varies in length padded to the longest row, to 1 at least.

    Raises BadRows for a null, or a value of another shape, where that is a bad row; what an input ``refuses`` is let by.
    """
    made: dict[str, np.ndarray] = {}
    masks: dict[str, np.ndarray] = {}
    for one in graph.inputs:
        if one.mask_of:
            continue
        value = _read(one, rows)
        if isinstance(value, Ragged):
            length = max(1, int(value.lengths.max(initial=0)))
            made[one.name], masks[one.name] = value.padded(np.arange(len(value)), length)
        else:
            made[one.name] = value
    return {one.name: masks[one.mask_of].astype(one.dtype) if one.mask_of else made[one.name] for one in graph.inputs}


def _read(one: Input, rows: Mapping[str, pa.Array]) -> np.ndarray | Ragged:
    if one.hashed is not None:
        hashing = Hashed(buckets=one.hashed.count, seed=one.hashed.seed)
        return hashing.read({name: rows[name] for name in one.columns})
    if one.missing is None:
        numbers = {name: _number(rows[name]) for name in one.columns}
        return columns.read(numbers, TensorSpec(one.name, one.dtype, one.shape, one.columns, one.types))
    cells: list[np.ndarray]
    if isinstance(one.missing, Text):
        known = [pc.fill_null(texts(rows[name]), one.missing.text) for name in one.columns]
        cells = [cell.to_numpy(zero_copy_only=False).astype(object) for cell in known]
    else:
        cells = [floats(_number(rows[name])).astype(one.dtype) for name in one.columns]
    return np.stack(cells, axis=1) if one.shape else cells[0]


def _number(column: pa.Array) -> pa.Array:
    """Of a date the days since 1970, of a moment the microseconds; anything else as it is."""
    if pa.types.is_date(column.type):
        return column.cast(pa.date32()).cast(pa.int32())
    return column.cast(pa.timestamp("us")).cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
