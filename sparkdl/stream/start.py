"""``score_stream``: all that can be wrong is found before anything runs; then the query starts."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pyarrow import fs

from sparkdl import session, store
from sparkdl.errors import (
    ColumnNotFoundError,
    GraphError,
    InvalidParamError,
    RealtimeError,
    SignatureError,
    SinkOverlapError,
    did_you_mean,
)
from sparkdl.realtime import start as realtime
from sparkdl.sinks.parquet import Parquet
from sparkdl.sinks.sink import Sink
from sparkdl.stream import letters, records
from sparkdl.stream.batch import MicroBatches, Target
from sparkdl.stream.query import ScoreQuery
from sparkdl.stream.rate import Bound, seconds_of
from sparkdl.stream.shape import check_types, flat_events, for_workers, parsed_events, row_schema, shape_of
from sparkdl.stream.told import Told
from sparkdl.stream.versions import Models

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming import StreamingQuery

    from sparkdl.model import TorchModel
    from sparkdl.payloads import Payload
    from sparkdl.realtime.query import RealtimeQuery
    from sparkdl.registry.registry import Registry
    from sparkdl.stream.monitor import Monitor

MODES = ("microbatch", "realtime", "auto")
_AVAILABLE_NOW = "available now"
_FILE_MANAGERS = tuple(  # of checkpoints; where Spark 4.1 and later have it, and before
    f"org.apache.spark.sql.execution.streaming.{place}FileSystemBasedCheckpointFileManager"
    for place in ("checkpointing.", "")
)
_FILE_MANAGER_CONF = "spark.sql.streaming.checkpointFileManagerClass"
logger = logging.getLogger(__name__)


def score_stream(
    events: DataFrame | Callable[[int], DataFrame],
    *,
    model: Any,
    sink: Sink,
    checkpoint: str,
    deadLetter: str | Sink | None = None,
    mode: str = "microbatch",
    trigger: str | None = None,
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
) -> ScoreQuery | RealtimeQuery:
    """Score every row of a stream once, by a model that may be swapped while the query runs.

    events: a streaming DataFrame, with whatever is before it: watermarks, joins with tables, stateful operators. Or a
        function of a number of rows that gives one, whose batches have about so many: ``lambda rows:
        spark.readStream.format("kafka").option("maxOffsetsPerTrigger", rows)…``. The number is chosen by how fast the
        batches are, so that one takes some 5 s at most, and kept beside the checkpoint.
    model: ``registry://fraud@champion``: the alias is looked up at the start of each micro-batch, a new version is loaded
        beside the running one and taken between two batches; or the URI of a bundle, a Bundle, a TorchModel.
    sink: ``sparkdl.sinks.Parquet``, ``Delta``, ``Kafka`` or ``foreach``; ``docs/streaming.md`` has what each promises.
    checkpoint: the URI of a folder: what the query has done. It belongs to this query alone.
    deadLetter: a Parquet table (its URI) or sink that takes the rows which cannot be parsed, decoded or scored, whole, with
        the reason, instead of the model's ``handleInvalid``. Without one a row that cannot be parsed ends the query,
        or is left out with ``handleInvalid`` ``skip``.
    mode: ``microbatch``; ``realtime``: each record by itself, in milliseconds, at least once, by Spark 4.3's real-time mode,
        from Kafka to Kafka, without Python (``docs/realtime.md``); or ``auto``: what the query on this checkpoint was
        before; of a new one real time if it can be, else micro-batches, with a warning that says why. The query's ``mode`` is what it became.
    trigger: ``1 second`` (the default), ``0 seconds`` for batch after batch, or ``available now``: what is there now, then
        end. In real time: after how long offsets are committed, 5 minutes by default.
    payload: ``sparkdl.payloads.JSON``, ``Avro`` or ``Protobuf``: the model reads its fields.
    columns: of the events, or of the payload, that the sink keeps; all but the payload itself by default.
    registry: that of ``registry://`` names; by default that of ``spark.sparkdl.registry`` or ``SPARKDL_REGISTRY``.
    challenger: a second model, of the same signature, that scores every row too: its outputs are columns ``other_…``.
    share: of the rows, 0 to 1, that the challenger serves, by the hash of column ``shareBy``: then ``other_…`` are the
        champion's. Column ``model_version`` says which version served a row, ``other_version`` which the other was.
    settings: Params of TorchModel. trusted: as for ``Bundle.load``. outputMode: ``append`` or ``update``.
    name: of the query. monitor: where events, metrics and alerts go.

    Rows of the sink: ``columns``, the model's outputs, ``model_version``.

    Raises InvalidParamError, ColumnNotFoundError, SignatureError, BundleError, RegistryError, SinkError; RealtimeError,
    GraphError if ``mode`` is ``realtime`` and that cannot be; StreamError if the
    checkpoint is another query's, in use, or damaged. What ends the query later, ``awaitTermination`` raises.
    """
    _check_mode(mode)
    checkpoint = _checkpoint(checkpoint)
    sink, dead_sink = _sinks(sink, deadLetter)
    loading: dict[str, Any] = {"registry": registry, "trusted": trusted, "settings": settings}
    if mode != "microbatch":
        if not callable(events):
            _check_stream(events, outputMode)
        mode = mode if mode == "realtime" else records.mode(checkpoint) or mode
    if mode != "microbatch":
        try:
            return realtime.start(
                events, model, loading, sink=sink, dead=dead_sink, checkpoint=checkpoint, payload=payload,
                columns=columns, trigger=trigger, name=name,
                plain={"challenger": challenger, "share": share, "shareBy": shareBy, "monitor": monitor},
            )  # fmt: skip
        except (RealtimeError, GraphError) as error:
            if mode == "realtime" or getattr(error, "passing", False):
                raise
            logger.warning("the stream is scored by micro-batches: %s", error)
    kind = _trigger("1 second" if trigger is None else trigger)
    bounded, bound = (events, Bound(checkpoint, _seconds(kind))) if callable(events) else (None, None)
    first: Any = bounded(bound.rows) if bounded and bound else events
    _check_stream(first, outputMode)
    check_apart(sink, dead_sink, checkpoint)
    _check_share(share, shareBy, challenger)
    check_types(first)
    spark = first.sparkSession
    models = Models(model, spark=spark, **loading)
    before = records.last_versions(checkpoint)
    served = models.first(before[0]).model
    challengers = None
    if challenger is not None:
        challengers = Models(challenger, spark=spark, **loading)
        _check_alike(served, challengers.first(before[1]).model)
    parsed = parsed_events(first, payload)
    flat = flat_events(parsed, payload)
    shape = shape_of(first, flat, payload, served, columns, both=challenger is not None)
    if shareBy is not None and shareBy not in flat.columns:
        raise ColumnNotFoundError(shareBy, flat.columns, role="shareBy")
    rows = Target(sink, row_schema(flat, shape, served))
    sink.check(spark, rows.schema)
    dead = Target(dead_sink, letters.schema(first.schema.jsonValue())) if dead_sink else None
    if dead:
        dead.sink.check(spark, dead.schema)
    held = ExitStack()
    try:
        held.enter_context(records.locked(checkpoint))
        identity = {
            "model": models.identity,
            "challenger": challengers.identity if challengers else None,
            "sink": sink.identity,
            "deadLetter": dead_sink.identity if dead_sink else None,
        }
        record = records.opened(checkpoint, identity)
        told = Told(record.query, name, _seconds(kind), monitor, bound)
        batches = MicroBatches(spark, record, models, challengers, share, shape, rows, dead, told)

        def launch(rows: int | None) -> StreamingQuery:
            taken = bounded(rows) if bounded and rows is not None else first
            prepared = for_workers(parsed_events(taken, payload), payload, shape, shareBy if share else None)
            writer = prepared.writeStream.foreachBatch(batches).outputMode(outputMode).trigger(**kind)
            writer = writer.option("checkpointLocation", store.hadoop_uri(checkpoint))
            return _started(spark, writer.queryName(name) if name else writer, checkpoint)

        try:
            return ScoreQuery(launch, batches, told, bound, held)
        except BaseException as error:
            told.ended(error)
            raise
    except BaseException:
        held.close()
        raise


def _check_mode(mode: Any) -> None:
    if mode not in MODES:
        raise InvalidParamError(
            f"'mode' must be one of {list(MODES)}{did_you_mean(str(mode), MODES)} (got {mode!r})",
            param="mode",
            value=mode,
        )


def _checkpoint(checkpoint: Any) -> str:
    if not isinstance(checkpoint, (str, os.PathLike)) or not os.fspath(checkpoint):
        raise InvalidParamError(
            f"'checkpoint' must be the URI of a folder (got {checkpoint!r})", param="checkpoint", value=checkpoint
        )
    return store.absolute(os.fspath(checkpoint)).rstrip("/")


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
    return sink, dead


def check_apart(sink: Sink, dead: Sink | None, checkpoint: str) -> None:
    """Raise SinkOverlapError if two of the query's folders lie in one another: a reader of one would find the other's files."""
    places = {"sink": sink.place, "deadLetter": dead.place if dead else None, "checkpoint": checkpoint}
    for (what, place), (other, where) in itertools.combinations(places.items(), 2):
        if place is not None and where is not None and store.overlap(place, where):
            raise SinkOverlapError(
                f"{what!r}, {place!r}, and {other!r}, {where!r}, lie in one another; choose another place for one of them",
                sink=repr(sink),
            )


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


def _started(spark: SparkSession, writer: Any, checkpoint: str) -> Any:
    """The query. Spark's default way of writing a local checkpoint takes some 25 ms a file longer
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
