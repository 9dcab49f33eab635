"""Dead letters, scored once more after a fix: a stream like any other, whose events are the dead letters' rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparkdl import store
from sparkdl.errors import SinkError, StreamError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sparkdl.sinks.sink import Sink

SUFFIX = ".replay"
_NEVER = "36500d"  # the file source forgets files much older than the newest it has seen


def replay_dead_letters(
    spark: SparkSession,
    *,
    deadLetter: str,
    model: Any,
    sink: Sink,
    checkpoint: str | None = None,
    **options: Any,
) -> dict[str, int]:
    """Score the rows of a table of dead letters again, as they once came; returns when all there now are done with.

    deadLetter: the URI of the table, of Parquet, that ``score_stream`` was given. model, sink: as for ``score_stream``;
        the sink may be the stream's own (tables take rows of several queries), while the stream goes on.
    checkpoint: which dead letters were replayed already; ``DEADLETTER.replay`` by default. Whoever fixes one thing
        after another keeps it, and each dead letter is taken once; a new checkpoint takes all of them again.
    options: others of ``score_stream``, as the stream had them: ``payload``, ``columns``, ``registry``, ``settings``, ….

    A row that fails again is a new dead letter in the same table: the next call takes it. A call that was killed is taken
    up by the next. The table keeps what was replayed: ``query`` and ``batch_id`` tell the batches of a replay from others.

    Returns ``rows`` replayed, ``scored`` and ``dead`` among them (again dead letters), ``batches``: all 0 if there is
    nothing new. Raises as ``score_stream`` does, and StreamError if the place is no table of dead letters.
    """
    from sparkdl.stream.start import score_stream

    for name in ("events", "trigger"):
        if name in options:
            raise TypeError(f"replay_dead_letters() takes no {name!r}: it is the dead letters once, all that are there")
    letters = opened(spark, deadLetter)
    if letters is None:
        return {"rows": 0, "scored": 0, "dead": 0, "batches": 0}
    query = score_stream(
        letters,
        model=model,
        sink=sink,
        checkpoint=checkpoint or deadLetter.rstrip("/") + SUFFIX,
        deadLetter=deadLetter,
        trigger="available now",
        **options,
    )
    try:
        query.awaitTermination()
    finally:
        query.stop()
    status = query.status()
    dead = sum(status.dead.values())
    return {"rows": status.rows, "scored": status.scored, "dead": dead, "batches": status.batches}


def opened(spark: SparkSession, uri: str) -> DataFrame | None:
    """The rows as a stream, as they once came; None if there are no dead letters."""
    from sparkdl.sinks.parquet import Parquet

    if store.exists(store.join(uri, "_delta_log")):
        raise SinkError(
            f"the dead letters at {uri!r} are a Delta table, which is not replayed: it would take a stream out of Delta, "
            "which the session may not have. Read it with Spark, and give score_stream the stream of its column row",
            sink=f"delta:{uri}",
        )
    table = Parquet(uri)
    try:
        schema = table.read(spark).schema
    except SinkError as error:
        if not any(not name.startswith((".", "_")) for name in store.names(uri)):
            return None
        raise _none(uri, "") from error
    if not {"kind", "reason", "row"} <= set(schema.names):
        raise _none(uri, f" (it has {schema.names})")
    if not table.files():
        return None
    reader = spark.readStream.schema(schema).option("maxFileAge", _NEVER)
    return reader.parquet(store.hadoop_uri(uri)).select("row.*")


def _none(uri: str, told: str) -> StreamError:
    return StreamError(
        f"{uri!r} is no table of dead letters: score_stream writes them, with the columns kind, reason and row{told}"
    )
