"""Kafka's records in, Kafka's records out: one projection, for real-time mode takes nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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

SCORED = "__scored__"
SOURCE_TIME = "sparkdl-source-time"  # header: the timestamp of the record that was scored, milliseconds since 1970
REASON_LENGTH = 1000  # characters of the header sparkdl-reason
HEADERS_ROOM = 2048  # bytes of a message that are Kafka's own and its headers, but for the reason
_KEY, _VALUE, _REASON, _TOO_LARGE = "__key__", "__value__", "__reason__", "__too_large__"
_ID, _TIME, _VERSION = "__id__", "__time__", "__version__"
_TOLD = (_ID, _TIME, _VERSION)
_POSITION = "concat(topic, '-', `partition`, '-', `offset`)"


@dataclass(frozen=True)
class Route:
    """Where records go. key_kind: the type of the sink's ``key``. dead: the topic of those that cannot be scored; without it they are left out, or, if ``keeps``,
    scored as nulls. longest: bytes of a message that each topic takes."""

    sink: Kafka
    key_kind: str
    dead: Kafka | None
    keeps: bool
    longest: Mapping[str, int]

    def room(self, topic: str) -> int:
        """Bytes of a record's key, value and reason."""
        return max(0, self.longest[topic] - HEADERS_ROOM)


def records(parsed: DataFrame, shape: Shape, scored: Callable[[Column], Column], route: Route, query: str) -> DataFrame:
    """What the writer sends: ``topic``, ``key``, ``value``, ``headers``.

    parsed: as ``shape.parsed_events`` gives it. scored: of a struct of the model's columns, why the record cannot be
    parsed, and its timestamp, the struct that ``sparkdl.jvm.Scorer`` gives: answers, ``problem``, ``model_version``. query: the id.

    A dead letter is the record as it came, with the reason as the header ``sparkdl-reason``. A row that is longer than the
    sink's topic takes cannot be sent, and is one too. What is longer than its topic takes even so goes without its value,
    and without its key if that alone is too long.
    """
    from pyspark.sql import functions as sf

    fields = parsed.schema[PARSED].dataType.names if PARSED in parsed.columns else []  # type: ignore[attr-defined]

    def place(name: str) -> str:  # a field of the payload that is called as a column of the events is meant
        return f"{PARSED}.{quoted(name)}" if name in fields else quoted(name)

    def given(name: str) -> Column:
        from pyspark.ml.functions import vector_to_array

        column = sf.col(place(name))
        return (vector_to_array(column) if name in shape.vectors else column).alias(name)

    unparsable = sf.col(UNPARSABLE) if UNPARSABLE in parsed.columns else sf.lit(None).cast("string")
    told = (unparsable.alias("__why__"), sf.col("timestamp").alias("__at__"))
    answered = parsed.select("*", scored(sf.struct(*map(given, shape.inputs), *told)).alias(SCORED))
    row = {name: place(name) for name in shape.passed}
    row |= {name: f"{SCORED}.{quoted(output)}" for output, name in shape.outputs.items()}
    row[VERSION] = f"{SCORED}.{VERSION}"
    key = key_of(row[route.sink.key], route.key_kind) if route.sink.key else "null"
    made = answered.selectExpr(
        "key",
        "value",
        f"cast({key} as binary) as {_KEY}",
        f"cast({row_text(f'{sql} as {quoted(name)}' for name, sql in row.items())} as binary) as {_VALUE}",
        f"{SCORED}.problem as {_REASON}",
        f"{_POSITION} as {_ID}",
        f"unix_millis(timestamp) as {_TIME}",
        f"{SCORED}.{VERSION} as {_VERSION}",
    )
    return _sent(_routed(made, route), route, query)


def _routed(made: DataFrame, route: Route) -> DataFrame:
    """Rows and dead letters, each with its topic and reason."""
    sink, dead = route.sink, route.dead
    reason = _REASON
    if dead or not route.keeps:
        reason = f"coalesce({_REASON}, {_too_large(f'{_size(_KEY)} + {_size(_VALUE)}', sink.topic, route)})"
    told = made.withColumn(_REASON, _sql(f"left({reason}, {REASON_LENGTH})"))
    if dead is None:
        sent = told if route.keeps else told.where(f"{_REASON} is null")
        return sent.selectExpr(f"'{sink.topic}' as topic", _KEY, _VALUE, _REASON, *_TOLD)
    chosen = {"topic": (f"'{sink.topic}'", f"'{dead.topic}'"), _KEY: (_KEY, "key"), _VALUE: (_VALUE, "value")}
    either = [f"if({_REASON} is null, {fine}, {bad}) as {name}" for name, (fine, bad) in chosen.items()]
    return told.selectExpr(*either, _REASON, *_TOLD)


def _sent(routed: DataFrame, route: Route, query: str) -> DataFrame:
    """These records, with their headers, and cut short where they are too large."""
    topics = {one.topic for one in (route.sink, route.dead) if one}
    size = f"{_size(_KEY)} + {_size(_VALUE)} + {_size(_REASON)}"
    each = " ".join(f"when '{topic}' then {_too_large(size, topic, route)}" for topic in sorted(topics))
    least = min(map(route.room, topics))
    told = routed.withColumn(_TOO_LARGE, _sql(f"case topic {each} end"))
    headers = header_array(
        {
            "sparkdl-id": _ID,
            "sparkdl-query": f"'{query}'",
            SOURCE_TIME: f"cast({_TIME} as string)",
            "sparkdl-model-version": _VERSION,  # null: it has not seen what cannot be parsed
            "sparkdl-reason": f"nullif(concat_ws('; ', {_TOO_LARGE}, {_REASON}), '')",
        }
    )
    return told.selectExpr(
        "topic",
        f"if({_TOO_LARGE} is not null and {_size(_KEY)} + {_size(_REASON)} > {least}, null, {_KEY}) as key",
        f"if({_TOO_LARGE} is null, {_VALUE}, null) as value",
        f"filter({headers}, header -> header.value is not null) as headers",
    )


def _size(column: str) -> str:
    return f"coalesce(octet_length({column}), 0)"


def _too_large(size: str, topic: str, route: Route) -> str:
    """As SQL: the reason where so many bytes are more than the topic takes, else null."""
    room = route.room(topic)
    return f"if({size} > {room}, concat('too large: ', {size}, ' bytes, and the topic {topic} takes {room}'), null)"


def _sql(text: str) -> Column:
    from pyspark.sql import functions as sf

    return sf.expr(text)
