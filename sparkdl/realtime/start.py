"""``score_stream(..., mode="realtime")``: what cannot be is refused; then the query starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from sparkdl import store
from sparkdl.errors import SparkdlError
from sparkdl.jvm import scorer, session
from sparkdl.realtime import checks, projection, publish
from sparkdl.realtime.query import RealtimeQuery
from sparkdl.realtime.slots import Slots
from sparkdl.realtime.tail import Tail
from sparkdl.stream import records
from sparkdl.stream.shape import check_types, flat_events, parsed_events, row_schema, shape_of
from sparkdl.stream.versions import Models

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.streaming import StreamingQuery

    from sparkdl.payloads import Payload
    from sparkdl.sinks.sink import Sink

BATCH = "5 minutes"  # Spark's own default: after so long offsets are committed, and a batch begins anew
WARM_UP = 100  # made-up rows through a version before it takes over
SENDING = {  # a record waits for no other, and what a topic takes is sent
    "kafka.linger.ms": "0",
    "kafka.max.request.size": str(checks.REQUEST_BYTES),
}


def start(
    events: DataFrame,
    model: Any,
    loading: Mapping[str, Any],
    *,
    sink: Sink,
    dead: Sink | None,
    checkpoint: str,
    payload: Payload | None,
    columns: Sequence[str] | None,
    trigger: str | None,
    name: str | None,
    plain: Mapping[str, Any],
) -> RealtimeQuery:
    """The query, running. loading: how the model is loaded, for Models. plain: arguments of ``score_stream`` that must not be
    given here; the others as there. Raises as it does."""
    options = checks.check_query(events, trigger, plain)
    spark = events.sparkSession
    try:
        session.load(spark)
    except SparkdlError as error:
        raise checks.refused(str(error)) from None
    check_types(events)
    models = Models(model, spark=spark, **loading)
    held = ExitStack()
    try:
        held.enter_context(records.locked(checkpoint))
        trial = scorer.Settings()
        publisher = publish.Publisher(models, checkpoint, lambda one: scorer.of_bundle(spark, one.model.bundle, trial))
        served = models.first(publish.last_version(checkpoint))
        scores = served.model
        sink, dead, needed = checks.check_places(spark, options, sink, dead, scores)
        parsed = parsed_events(events, payload)
        flat = flat_events(parsed, payload, shadowing=True)
        shape = shape_of(events, flat, payload, scores, columns, both=False)
        rows = row_schema(flat, shape, scores)
        for one in filter(None, (sink, dead)):
            one.check(spark, rows)
        kinds = {field["name"]: field["type"] for field in rows["fields"]}
        keeps = scores.getOrDefault("handleInvalid") == "keep"
        longest = checks.longest(spark, sink, dead)
        route = projection.Route(sink, str(kinds.get(sink.key or "")), dead, keeps, longest)
        settings = scorer.Settings(
            model_version=served.version, invalid="keep", warmup=WARM_UP, record=True,
            follow=scorer.Following(store.hadoop_uri(publisher.folder)),
        )  # fmt: skip
        scored = scorer.of_bundle(spark, scores.bundle, settings)
        sent = partial(projection.records, shape=shape, scored=scored, route=route)
        sent(parsed, query="")  # what Spark cannot plan ends here, and the checkpoint is nobody's
        identity = {"mode": "realtime", "model": models.identity, "sink": sink.identity}
        record = records.opened(checkpoint, {**identity, "deadLetter": dead.identity if dead else None})
        publisher.begin(served)
        slots = held.enter_context(Slots(spark, needed))
        sent = partial(sent, query=record.query)

        def launch() -> StreamingQuery:
            writer = sent(parsed).writeStream.format("kafka").outputMode("update").trigger(realTime=trigger or BATCH)
            writer = writer.options(**{**SENDING, **(sink.options or {}), "includeHeaders": "true"})
            writer = writer.option("kafka.bootstrap.servers", sink.servers)
            writer = writer.option("checkpointLocation", store.hadoop_uri(checkpoint))
            return (writer.queryName(name) if name else writer).start()

        return RealtimeQuery(launch, publisher, slots, Tail(spark, sink), record.query, checkpoint, held)
    except BaseException:
        held.close()
        raise
