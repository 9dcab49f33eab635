"""Dead letters: rows that could not be parsed, decoded or scored, whole, with the reason and where they came from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from sparkdl.connectors import POSITION

COLUMNS = {
    "kind": pa.string(),
    "reason": pa.string(),
    "time": pa.timestamp("us", tz="UTC"),
    "query": pa.string(),
    "batch_id": pa.int64(),
    "model_version": pa.string(),
    "source": pa.string(),
}
_SPARK = {"time": "timestamp", "batch_id": "long"}


def schema(event: dict[str, Any]) -> dict[str, Any]:
    """Of the table of dead letters, Spark's as JSON values. event: of the rows as they come."""
    fields = [{"name": name, "type": _SPARK.get(name, "string"), "nullable": True, "metadata": {}} for name in COLUMNS]
    return {"type": "struct", "fields": [*fields, {"name": "row", "type": event, "nullable": True, "metadata": {}}]}


def dead_letters(
    rows: pa.StructArray, reasons: Sequence[str], versions: Sequence[str], *, query: str, batch: int
) -> pa.RecordBatch:
    """rows: as they came. reasons: ``KIND: what is wrong``. versions: of the model that was to score them; "" for none."""
    made: dict[str, Any] = {
        "kind": [reason.split(":", 1)[0] for reason in reasons],
        "reason": list(reasons),
        "time": [int(time.time() * 1e6)] * len(reasons),
        "query": [query] * len(reasons),
        "batch_id": [batch] * len(reasons),
        "model_version": [version or None for version in versions],
        "source": _positions(rows),
    }
    arrays = [pa.array(made[name], kind) for name, kind in COLUMNS.items()]
    return pa.RecordBatch.from_arrays([*arrays, rows], names=[*COLUMNS, "row"])


def _positions(rows: pa.StructArray) -> list[str | None]:
    """``topic-partition@offset``, of rows that Kafka gave."""
    names = [rows.type.field(i).name for i in range(rows.type.num_fields)]
    if not all(name in names for name in POSITION):
        return [None] * len(rows)
    columns = (rows.field(names.index(name)).to_pylist() for name in POSITION)
    return [f"{topic}-{partition}@{offset}" for topic, partition, offset in zip(*columns, strict=True)]


def struct_of(batch: pa.RecordBatch, names: Sequence[str]) -> pa.StructArray:
    """Columns as one; nothing is copied."""
    fields = [batch.schema.field(name).with_nullable(True) for name in names]
    return pa.StructArray.from_arrays([batch.column(batch.schema.get_field_index(n)) for n in names], fields=fields)
