"""Made-up records through the query's projection before it starts: the JVM's compilers see the code before the first record does.

Without it the first seconds' records wait for an interpreter, and on few cores also for each other.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sparkdl.payloads import JSON, PARSED, UNPARSABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType

    from sparkdl.payloads import Payload
    from sparkdl.signature import Signature

FIRST, LAST = 64, 8192  # rows of a slot in the first and the last round; each round has twice those of the one before
SECONDS = 10.0  # after which no further round begins: a slow model needs its time for one


def warm_up(
    parsed: DataFrame, payload: Payload | None, signature: Signature, sent: Callable[[DataFrame], DataFrame]
) -> None:
    """Run made-up events in all slots of the session; what ``sent`` makes of them goes nowhere. parsed: as
    ``shape.parsed_events`` gives the events.

    Of payloads only JSON is made up. Records of another kind count as unparsable here, and what is behind the parser stays
    cold. The records have no timestamp, and so the Scorer's metrics leave them out.
    """
    spark = parsed.sparkSession
    slots = spark.sparkContext.defaultParallelism
    columns = made_up(parsed, payload, signature)
    rows, until = FIRST, time.monotonic() + SECONDS
    while rows <= LAST and time.monotonic() < until:
        made = spark.range(0, rows * slots, 1, slots).select(*columns)
        sent(made).write.format("noop").mode("overwrite").save()
        rows *= 2


def made_up(parsed: DataFrame, payload: Payload | None, signature: Signature) -> list[Column]:
    """Of ``id``: columns of the same names and types as the events'."""
    from pyspark.sql import functions as sf

    sizes = {
        spec.columns[0]: spec.shape for spec in signature.inputs if spec.preprocess is None and len(spec.columns) == 1
    }
    kinds = {field.name: field.dataType for field in parsed.schema.fields}
    columns = {
        name: value(kind, sizes.get(name, ())) for name, kind in kinds.items() if name not in (PARSED, UNPARSABLE)
    }
    columns["timestamp"] = sf.lit(None).cast(kinds["timestamp"])
    if isinstance(payload, JSON):
        columns[payload.column] = _text(kinds[PARSED], sizes).cast(kinds[payload.column])
    return [column.alias(name) for name, column in columns.items()]


def _text(kind: Any, sizes: Mapping[str, Sequence[int]]) -> Column:
    from pyspark.sql import functions as sf

    return sf.to_json(
        sf.struct(*(value(field.dataType, sizes.get(field.name, ())).alias(field.name) for field in kind.fields))
    )


def value(kind: DataType, sizes: Sequence[int] = ()) -> Column:
    """Of ``id``: a value of this type, its arrays as long as ``sizes`` say (1 where they say nothing, or -1); null where none is made up."""
    from pyspark.sql import functions as sf
    from pyspark.sql import types

    if isinstance(kind, types.ArrayType):
        length = max(1, sizes[0]) if sizes else 1
        return sf.array_repeat(value(kind.elementType, sizes[1:]), length)
    if isinstance(kind, types.StructType):
        return sf.struct(*(value(field.dataType).alias(field.name) for field in kind.fields))
    if isinstance(kind, types.BooleanType):
        return sf.col("id") % 2 == 0
    if isinstance(kind, types.FractionalType):
        return sf.sin("id").cast(kind)
    if isinstance(kind, types.IntegralType):
        return (sf.col("id") % 100).cast(kind)
    if isinstance(kind, types.StringType):
        return sf.col("id").cast(kind)
    return sf.lit(None).cast(kind)
