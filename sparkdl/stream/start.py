"""``score_stream``: all that can be wrong is found before anything runs; then the query starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pyarrow import fs

from sparkdl import session, store
from sparkdl.errors import ColumnNotFoundError, InvalidParamError, SignatureError, SinkError
from sparkdl.score.job import told_type
from sparkdl.sinks.parquet import Parquet
from sparkdl.sinks.sink import Sink
from sparkdl.stream import letters, records
from sparkdl.stream.batch import MicroBatches, Target
from sparkdl.stream.query import ScoreQuery
from sparkdl.stream.rows import ARRAY, OTHER_VERSION, PARSED, SHARE, UNPARSABLE, VERSION, Shape
from sparkdl.stream.told import Told
from sparkdl.stream.versions import Models

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sparkdl.model import TorchModel
    from sparkdl.payloads import Payload
    from sparkdl.registry.registry import Registry
    from sparkdl.stream.monitor import Monitor

_AVAILABLE_NOW = "available now"
_FILE_MANAGERS = tuple(  # of checkpoints; where Spark 4.1 and later have it, and before
    f"org.apache.spark.sql.execution.streaming.{place}FileSystemBasedCheckpointFileManager"
    for place in ("checkpointing.", "")
)
_FILE_MANAGER_CONF = "spark.sql.streaming.checkpointFileManagerClass"


def score_stream(
    events: DataFrame,
    *,
    model: Any,
    sink: Sink,
    checkpoint: str,
    deadLetter: str | Sink | None = None,
    trigger: str = "1 second",
    payload: Payload | None = None,
    columns: Sequence[str] | None = None,
    registry: Registry | None = None,
    challenger: Any = None,
    share: float = 0.0,
    shareBy: str | None = None,
    settings: Mapping[str, Any] | None = None,
    trusted: bool | Sequence[str] = False,
    outputMode: str = "append",
    name: str | None = None,
    monitor: Monitor | None = None,
) -> ScoreQuery:
    """Score every row of a stream once, by a model that may be swapped while the query runs.

    events: a streaming DataFrame, with whatever is before it: watermarks, joins with tables, stateful operators.
    model: ``registry://fraud@champion``: the alias is looked up at the start of each micro-batch, a new version is loaded
        beside the running one and taken between two batches; or the URI of a bundle, a Bundle, a TorchModel.
    sink: ``sparkdl.sinks.Parquet``, ``Delta``, ``Kafka`` or ``foreach``; ``docs/streaming.md`` has what each promises.
    checkpoint: the URI of a folder: what the query has done. It belongs to this query alone.
    deadLetter: a Parquet table (its URI) or sink that takes the rows which cannot be parsed, decoded or scored, whole, with
        the reason, instead of the model's ``handleInvalid``. Without one a row that cannot be parsed ends the query,
        or is left out with ``handleInvalid`` ``skip``.
    trigger: ``1 second``, ``0 seconds`` for batch after batch, or ``available now``: what is there now, then end.
    payload: ``sparkdl.payloads.JSON``, ``Avro`` or ``Protobuf``: the model reads its fields.
    columns: of the events, or of the payload, that the sink keeps; all but the payload itself by default.
    registry: that of ``registry://`` names; by default that of ``spark.sparkdl.registry`` or ``SPARKDL_REGISTRY``.
    challenger: a second model, of the same signature, that scores every row too: its outputs are columns ``other_…``.
    share: of the rows, 0 to 1, that the challenger serves, by the hash of column ``shareBy``: then ``other_…`` are the
        champion's. Column ``model_version`` says which version served a row, ``other_version`` which the other was.
    settings: Params of TorchModel. trusted: as for ``Bundle.load``. outputMode: ``append`` or ``update``.
    name: of the query. monitor: where events, metrics and alerts go.

    Rows of the sink: ``columns``, the model's outputs, ``model_version``.

    Raises InvalidParamError, ColumnNotFoundError, SignatureError, BundleError, RegistryError, SinkError; StreamError if the
    checkpoint is another query's, in use, or damaged. What ends the query later, ``awaitTermination`` raises.
    """
    _check_stream(events, outputMode)
    kind = _trigger(trigger)
    sink, dead_sink = _sinks(sink, deadLetter)
    _check_share(share, shareBy, challenger)
    spark = events.sparkSession
    models = Models(model, registry=registry, spark=spark, trusted=trusted, settings=settings)
    served = models.first().model
    challengers = None
    if challenger is not None:
        challengers = Models(challenger, registry=registry, spark=spark, trusted=trusted, settings=settings)
        _check_alike(served, challengers.first().model)
    parsed = _parsed(events, payload)
    flat = _flat(parsed, payload)
    shape = _shape(events, flat, payload, served, columns, both=challenger is not None)
    if shareBy is not None and shareBy not in flat.columns:
        raise ColumnNotFoundError(shareBy, flat.columns, role="shareBy")
    rows = Target(sink, _row_schema(flat, shape, served))
    sink.check(spark, rows.schema)
    dead = Target(dead_sink, letters.schema(events.schema.jsonValue())) if dead_sink else None
    if dead:
        dead.sink.check(spark, dead.schema)
    checkpoint = store.absolute(checkpoint).rstrip("/")
    held = ExitStack()
    try:
        identity = {
            "model": models.identity,
            "challenger": challengers.identity if challengers else None,
            "sink": sink.identity,
            "deadLetter": dead_sink.identity if dead_sink else None,
        }
        held.enter_context(records.locked(checkpoint))
        record = records.opened(checkpoint, identity)
        told = Told(record.query, name, _seconds(kind), monitor)
        batches = MicroBatches(record, models, challengers, share, shape, rows, dead, told)
        writer = _prepared(parsed, payload, shape, shareBy if share else None).writeStream.foreachBatch(batches)
        writer = writer.outputMode(outputMode).option("checkpointLocation", store.hadoop_uri(checkpoint))
        if name:
            writer = writer.queryName(name)
        query = _started(spark, writer.trigger(**kind), checkpoint)
    except BaseException:
        held.close()
        raise
    return ScoreQuery(query, batches, told, held)


def _check_stream(events: Any, output_mode: str) -> None:
    if not hasattr(events, "isStreaming"):
        raise InvalidParamError(
            f"'events' must be a streaming DataFrame (got {type(events).__name__})", param="events", value=events
        )
    if session.is_connect(events.sparkSession):
        raise InvalidParamError(
            "'events' is of a Spark Connect session, whose driver score_stream cannot reach; use a classic session, or "
            "model.transform(events).writeStream, which works over Connect",
            param="events",
            value=events,
        )
    if not events.isStreaming:
        raise InvalidParamError(
            "'events' must be a streaming DataFrame, from spark.readStream; score a table with score_table or "
            "model.transform",
            param="events",
            value=events,
        )
    if output_mode not in ("append", "update"):
        raise InvalidParamError(
            f"'outputMode' must be 'append' or 'update' (got {output_mode!r})", param="outputMode", value=output_mode
        )


def _trigger(trigger: Any) -> dict[str, Any]:
    if trigger == _AVAILABLE_NOW:
        return {"availableNow": True}
    try:
        seconds_of(trigger)
    except ValueError:
        raise InvalidParamError(
            f"'trigger' must be a time such as '1 second', or {_AVAILABLE_NOW!r} (got {trigger!r})",
            param="trigger",
            value=trigger,
        ) from None
    return {"processingTime": trigger}


def _seconds(trigger: Mapping[str, Any]) -> float | None:
    """Between two micro-batches; None if that is not what was asked for."""
    return seconds_of(trigger["processingTime"]) if "processingTime" in trigger else None


def seconds_of(trigger: Any) -> float:
    """Of a trigger's text, such as ``500 milliseconds``. Raises ValueError."""
    import pandas as pd

    if not isinstance(trigger, str) or not trigger.strip():
        raise ValueError(trigger)
    seconds = float(pd.Timedelta(trigger).total_seconds())
    if not seconds >= 0:
        raise ValueError(trigger)
    return seconds


def _sinks(sink: Any, dead: Any) -> tuple[Sink, Sink | None]:
    if not isinstance(sink, Sink):
        raise InvalidParamError(
            f"'sink' must be one of sparkdl.sinks: Parquet('…'), Delta('…'), Kafka(…), foreach(…) (got {sink!r})",
            param="sink",
            value=sink,
        )
    if isinstance(dead, (str, os.PathLike)):
        dead = Parquet(os.fspath(dead))
    if dead is not None and not isinstance(dead, Sink):
        raise InvalidParamError(
            f"'deadLetter' must be the URI of a table, or a sink (got {dead!r})", param="deadLetter", value=dead
        )
    if dead is not None and dead.identity == sink.identity:
        raise SinkError(f"dead letters and scored rows both go to {sink!r}; name another deadLetter", sink=repr(sink))
    return sink, dead


def _check_share(share: Any, share_by: str | None, challenger: Any) -> None:
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise InvalidParamError(f"'share' must be a number from 0 to 1 (got {share!r})", param="share", value=share)
    if share and (challenger is None or share_by is None):
        missing = "challenger" if challenger is None else "shareBy"
        raise InvalidParamError(
            f"'share' is {share}, and {missing!r} is not given: the rows with the same {share_by or 'key'} go to one model",
            param=missing,
            value=None,
        )


def _check_alike(champion: TorchModel, challenger: TorchModel) -> None:
    if champion.signature != challenger.signature:
        raise SignatureError(
            f"champion and challenger must have one signature; the champion's is {champion.signature}, the challenger's "
            f"{challenger.signature}",
            column=None,
            expected=champion.signature,
            got=challenger.signature,
        )


def _parsed(events: DataFrame, payload: Payload | None) -> DataFrame:
    if payload is None:
        return events
    from sparkdl import payloads

    return payloads.parse(events, payload)


def _flat(parsed: DataFrame, payload: Payload | None) -> DataFrame:
    """The columns that the model reads and the sink may keep. Raises SignatureError."""
    if payload is None:
        return parsed
    fields = parsed.schema[PARSED].dataType.names  # type: ignore[attr-defined]
    events = [name for name in parsed.columns if name not in (PARSED, UNPARSABLE, payload.column)]
    taken = {name.lower(): name for name in events}
    for field in fields:
        if field.lower() in taken:
            raise SignatureError(
                f"the payload has a field {field!r}, and the events a column {taken[field.lower()]!r}; rename or drop the "
                "column of the events",
                column=field,
                expected="names that differ by more than case",
                got=taken[field.lower()],
            )
    return parsed.select(*(f"`{name}`" for name in events), f"{PARSED}.*")


def _shape(
    events: DataFrame,
    flat: DataFrame,
    payload: Payload | None,
    model: TorchModel,
    columns: Sequence[str] | None,
    *,
    both: bool,
) -> Shape:
    if columns is not None and (isinstance(columns, str) or not all(isinstance(name, str) for name in columns)):
        raise InvalidParamError(
            f"'columns' must be a list of column names, or None for all (got {columns!r})",
            param="columns",
            value=columns,
        )
    kinds = model.input_kinds(flat)
    passed = tuple(flat.columns if columns is None else dict.fromkeys(columns))
    for name in passed:
        if name not in flat.columns:
            raise ColumnNotFoundError(name, flat.columns, role="in columns, column")
    outputs = model.output_columns(passed)
    if both:
        outputs |= {f"other_{output}": f"other_{name}" for output, name in outputs.items()}
    taken = [*passed, *outputs.values()]
    for name in (VERSION, *([OTHER_VERSION] if both else [])):
        if name in taken:
            raise SignatureError(
                f"the events have a column {name!r}, which is to hold the model's version; rename or drop it",
                column=name,
                expected="a new name",
                got=name,
            )
    vectors = tuple(name for name, kind in kinds.items() if kind == "vector")
    return Shape(tuple(events.columns), passed, tuple(model.signature.columns), vectors, outputs)


def _row_schema(flat: DataFrame, shape: Shape, model: TorchModel) -> dict[str, Any]:
    """Of the sink's rows, Spark's as JSON values."""
    fields = {field["name"]: field for field in flat.schema.jsonValue()["fields"]}
    types = {spec.name: told_type(spec) for spec in model.signature.outputs}
    made = {name: types[output.removeprefix("other_")] for output, name in shape.outputs.items()}
    made[VERSION] = "string"
    if len(shape.outputs) > len(types):
        made[OTHER_VERSION] = "string"
    new = [{"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind in made.items()]
    return {"type": "struct", "fields": [*(fields[name] for name in shape.passed), *new]}


def _prepared(parsed: DataFrame, payload: Payload | None, shape: Shape, share_by: str | None) -> DataFrame:
    """What the workers get: the events, what was parsed of them, vectors as arrays, and each row's share."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as sf

    def column(name: str) -> Any:
        is_parsed = payload is not None and name not in parsed.columns
        return sf.col(f"{PARSED}.`{name}`") if is_parsed else sf.col(f"`{name}`")

    added = {ARRAY + name: vector_to_array(column(name)) for name in shape.vectors}
    if share_by is not None:
        added[SHARE] = sf.pmod(sf.xxhash64(column(share_by)), sf.lit(1_000_000)) / sf.lit(1_000_000.0)
    return parsed.select("*", *(made.alias(name) for name, made in added.items())) if added else parsed


def _started(spark: SparkSession, writer: Any, checkpoint: str) -> Any:
    """The query. Spark's default way of writing a local checkpoint starts a process a file: 25 ms, several times a batch
    (docs/streaming.md); the other one renames as well, and the checkpoint is locked."""
    if not isinstance(store.resolve(checkpoint)[0], fs.LocalFileSystem) or spark.conf.get(_FILE_MANAGER_CONF, None):
        return writer.start()
    spark.conf.set(_FILE_MANAGER_CONF, _file_manager(spark))
    try:
        return writer.start()
    finally:
        spark.conf.unset(_FILE_MANAGER_CONF)


def _file_manager(spark: SparkSession) -> str:
    return _FILE_MANAGERS[0] if tuple(map(int, spark.version.split(".")[:2])) >= (4, 1) else _FILE_MANAGERS[1]
