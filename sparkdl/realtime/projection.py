"""Kafka's records in, Kafka's records out: one projection, for real-time mode takes nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkdl.payloads import PARSED, UNPARSABLE
from sparkdl.signature import quoted
from sparkdl.sinks.kafka import header_array, key_of, row_text
from sparkdl.stream.rows import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import Column, DataFrame

    from sparkdl.sinks.kafka import Kafka
    from sparkdl.stream.rows import Shape

SCORED, TIMESTAMP = "__scored__", "__timestamp__"
_REASON = "__reason__"
_POSITION = "concat(topic, '-', `partition`, '-', `offset`)"


def records(
    parsed: DataFrame,
    shape: Shape,
    scored: Callable[[Column], Column],
    *,
    sink: Kafka,
    dead: Kafka | None,
    keeps: bool,
    key_kind: str,
    query: str,
) -> DataFrame:
    """What the writer sends: ``topic``, ``key``, ``value``, ``headers``.

    parsed: as ``shape.parsed_events`` gives it. scored: of a struct of the model's columns and, last, the record's
    timestamp, the struct that ``sparkdl.jvm.Scorer`` gives: answers, ``problem``, ``model_version``.
    dead: where records that cannot be scored go, as they came, with the reason as the header ``sparkdl-reason``. Without
    one they are left out, or, if ``keeps``, scored as nulls. key_kind: the type of the sink's
    ``key``. query: the id.
    """
    from pyspark.sql import functions as sf

    fields = parsed.schema[PARSED].dataType.names if PARSED in parsed.columns else []  # type: ignore[attr-defined]

    def place(name: str) -> str:  # a field of the payload may have the name of the payload's column, and is meant then
        return f"{PARSED}.{quoted(name)}" if name in fields else quoted(name)

    def given(name: str) -> Column:
        from pyspark.ml.functions import vector_to_array

        column = sf.col(place(name))
        return (vector_to_array(column) if name in shape.vectors else column).alias(name)

    answer = scored(sf.struct(*map(given, shape.inputs), sf.col("timestamp").alias(TIMESTAMP)))
    unparsable = sf.col(UNPARSABLE) if UNPARSABLE in parsed.columns else sf.lit(None).cast("string")
    answered = parsed.select("*", sf.when(unparsable.isNull(), answer).alias(SCORED))
    told = answered.withColumn(_REASON, sf.coalesce(unparsable, sf.col(f"{SCORED}.problem")))
    if dead is None and not keeps:
        told = told.where(f"{_REASON} is null")
    headers = {"sparkdl-id": _POSITION, "sparkdl-query": f"'{query}'"}
    row = [f"{place(name)} as {quoted(name)}" for name in shape.passed]
    row += [f"{SCORED}.{quoted(output)} as {quoted(name)}" for output, name in shape.outputs.items()]
    row.append(f"{SCORED}.{VERSION} as {VERSION}")
    sent = {
        "topic": (f"'{sink.topic}'", dead and f"'{dead.topic}'"),
        "key": (f"cast({key_of(place(sink.key), key_kind) if sink.key else 'null'} as binary)", "key"),
        "value": (f"cast({row_text(row)} as binary)", "value"),
        "headers": (_with_version(headers), _with_version({**headers, "sparkdl-reason": _REASON})),
    }
    return told.selectExpr(
        *(
            f"{fine} as {name}" if dead is None else f"if({_REASON} is null, {fine}, {bad}) as {name}"
            for name, (fine, bad) in sent.items()
        )
    )


def _with_version(headers: dict[str, str]) -> str:
    """As SQL: these headers and the version of the model, which has not seen what cannot be parsed."""
    version = f"{SCORED}.{VERSION}"
    return (
        f"if({version} is null, {header_array(headers)}, {header_array({**headers, 'sparkdl-model-version': version})})"
    )
