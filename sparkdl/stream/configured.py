"""What a job's conf, ``filled``, says, made: events, sinks, a query."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from sparkdl import store
from sparkdl.errors import SourceNotFoundError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sparkdl.conf.stream import MonitorConf, PayloadConf, ReplayConf, ScoreStreamConf, SinkConf, SourceConf
    from sparkdl.model import TorchModel
    from sparkdl.payloads import Payload
    from sparkdl.realtime.query import RealtimeQuery
    from sparkdl.sinks.sink import Sink
    from sparkdl.stream.monitor import Monitor
    from sparkdl.stream.query import ScoreQuery

_LOOK_EVERY_S = 0.2


def events(spark: SparkSession, conf: SourceConf) -> DataFrame:
    """The streaming DataFrame. Raises SourceNotFoundError if there is no folder at its path."""
    path = conf.path
    if path and not any(mark in path for mark in "*?[{") and not store.exists(path):
        raise SourceNotFoundError(
            f"there is nothing at {store.shown(path)!r}, where events should arrive", uri=store.shown(path)
        )
    reader = spark.readStream.format(conf.format).options(**conf.options)
    if conf.columns:
        reader = reader.schema(conf.columns)
    return reader.load(path) if path else reader.load()


def sink(conf: SinkConf) -> Sink:
    """The sink of this kind."""
    from sparkdl import sinks

    made = {"parquet": sinks.Parquet, "delta": sinks.Delta, "kafka": sinks.Kafka}[conf.kind]
    return made(**conf.told)  # type: ignore[no-any-return]


def payload(conf: PayloadConf) -> Payload:
    """How the events' column is read. Raises as ``sparkdl.payloads``."""
    from sparkdl import payloads

    told: dict[str, Any] = {"column": conf.column, "options": conf.options}
    if conf.format == "protobuf":
        return payloads.Protobuf(str(conf.message), str(conf.descriptor), **told)
    return (payloads.JSON if conf.format == "json" else payloads.Avro)(str(conf.schema_), **told)


def monitor(conf: MonitorConf | None, **about: Any) -> Monitor | None:
    """What watches the query; ``about`` is in each of its events. Raises InvalidParamError."""
    from sparkdl.stream.monitor import Monitor

    return Monitor(about=about, **conf.model_dump(exclude_none=True)) if conf else None


def start(
    spark: SparkSession, conf: ScoreStreamConf, trusted: Any, monitor: Monitor | None = None
) -> ScoreQuery | RealtimeQuery:
    """The query, started. trusted: as for ``Bundle.load``. Raises as ``score_stream`` does, and SourceNotFoundError as
    ``events``."""
    from sparkdl.stream.start import score_stream

    return score_stream(
        events(spark, conf.source),
        checkpoint=conf.checkpoint,
        deadLetter=sink(conf.deadLetter) if conf.deadLetter else None,
        mode=conf.mode,
        trigger=conf.trigger,
        challenger=conf.challenger,
        share=conf.share,
        shareBy=conf.shareBy,
        trusted=trusted,
        monitor=monitor,
        **_shared(conf),
    )


def replay(spark: SparkSession, conf: ReplayConf, trusted: Any, monitor: Monitor | None = None) -> dict[str, int]:
    """The counts of ``replay_dead_letters``, run to its end."""
    from sparkdl.stream.replay import replay_dead_letters

    told = {"checkpoint": conf.checkpoint, "monitor": monitor, "trusted": trusted, **_shared(conf)}
    return replay_dead_letters(spark, deadLetter=conf.deadLetter, **told)


def _shared(conf: ScoreStreamConf | ReplayConf) -> dict[str, Any]:
    from sparkdl.registry.registry import Registry

    return {
        "model": conf.model,
        "registry": Registry(conf.registry) if conf.registry else None,
        "sink": sink(conf.sink),
        "settings": dict(conf.settings),
        "payload": payload(conf.payload) if conf.payload else None,
        "columns": conf.columns,
        "name": conf.name,
    }


def check(events: DataFrame, conf: ScoreStreamConf | ReplayConf, model: TorchModel) -> dict[str, Any]:
    """The schema of the rows that the sink would get, as JSON values: events, payload and model fit each other, and the
    sink, if it is there already, takes such rows; and what real time takes. Raises SignatureError, ColumnNotFoundError,
    SinkError, and for ``mode: realtime`` RealtimeError, GraphError."""
    from sparkdl.stream import shape

    told = payload(conf.payload) if conf.payload else None
    shape.check_types(events)
    is_realtime = getattr(conf, "mode", None) == "realtime"
    if is_realtime:
        check_realtime(events, conf, model)
    flat = shape.flat_events(shape.parsed_events(events, told), told, shadowing=is_realtime)
    both = getattr(conf, "challenger", None) is not None
    rows = shape.row_schema(flat, shape.shape_of(events, flat, told, model, conf.columns, both=both), model)
    for told_of in (conf.sink, getattr(conf, "deadLetter", None) if is_realtime else None):
        made = sink(told_of) if told_of else None
        if made and (
            made.place is None or store.exists(made.place)
        ):  # to check a table that is not there is to begin it
            made.check(events.sparkSession, rows)
    return rows


def check_realtime(events: DataFrame, conf: Any, model: TorchModel) -> None:
    """conf: a ScoreStreamConf. Raises RealtimeError, GraphError for what real time does not take."""
    from sparkdl.realtime import checks

    names = ("challenger", "share", "shareBy", "monitor")
    options = checks.check_query(events, conf.trigger, {name: getattr(conf, name) for name in names})
    dead = sink(conf.deadLetter) if conf.deadLetter else None
    checks.check_places(events.sparkSession, options, sink(conf.sink), dead, model)


def run_to_end(query: ScoreQuery | RealtimeQuery, told_to_end: threading.Event) -> None:
    """Wait until the query ends, or until it is told to: then it ends the micro-batch that runs, and no other begins.
    Raises what the query failed with.
    """
    try:
        while query.isActive and not told_to_end.wait(_LOOK_EVERY_S):
            pass
    except KeyboardInterrupt:  # of a notebook, where a job takes no signals
        query.stop()
        raise
    if query.isActive:
        query.stop()
    else:
        query.awaitTermination()
