"""Watching any query that scores, by Spark's own means: ``df.observe`` and a StreamingQueryListener.

For queries that are not a ``score_stream``, on classic Spark and over Spark Connect::

    scored = observed(model.transform(events), model)
    listener = watch(spark, Monitor(jsonl="events.jsonl"))
    scored.writeStream…
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sparkdl.columns import KINDS, answers
from sparkdl.errors import ColumnNotFoundError, InvalidParamError, StreamError
from sparkdl.signature import quoted
from sparkdl.stream.reports import BatchReport

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.streaming.listener import StreamingQueryListener

    from sparkdl.model import TorchModel
    from sparkdl.stream.monitor import Monitor

logger = logging.getLogger(__name__)
NAME = "sparkdl:"  # of an observation; the model's version follows
QUANTILES = (0.05, 0.5, 0.95)
CLASSES_MOST = 10
_STAGES = {"latestOffset": "source", "getBatch": "source", "queryPlanning": "plan", "addBatch": "model",
           "walCommit": "log", "commitOffsets": "log"}  # fmt: skip


def observed(df: DataFrame, model: TorchModel) -> DataFrame:
    """``df``, what ``model.transform`` gave, with Spark counting as its rows go by; they are not changed, and not read twice.

    Per micro-batch: rows; nulls in each column that the model reads; if ``handleInvalid`` is ``keep`` with an
    ``errorCol``, bad rows by kind; of outputs that are one number a row mean, least, greatest, and the 5 %, 50 % and
    95 % quantiles (approximate, as Spark's ``percentile_approx``); of up to ten probabilities the means. They are in each
    progress of the query as ``observedMetrics``, under ``sparkdl:`` and the model's version (12 digits of its digest).

    Raises ColumnNotFoundError if ``df`` has no such columns.
    """
    from pyspark.sql import functions as sf

    names = {field["name"]: field["type"] for field in df.schema.jsonValue()["fields"]}
    made = [sf.count(sf.lit(1)).alias("rows")]
    for name in model.signature.columns:
        if name in names:  # the query may have dropped it
            made.append(_count(sf.col(quoted(name)).isNull()).alias(f"nulls.{name}"))
    why = model.getOrDefault("errorCol") if model.getOrDefault("handleInvalid") == "keep" else ""
    if why:
        if why not in names:
            raise ColumnNotFoundError(why, names, role="errorCol")
        kind = sf.substring_index(sf.col(quoted(why)), ":", 1)
        made += [_count(kind == one).alias(f"bad.{one}") for one in KINDS]
    there = 0
    for output, name in _outputs(model).items():
        if name in names:
            there += 1
            made += _distribution(output, name, names[name], model)
    if not there:
        raise ColumnNotFoundError(next(iter(_outputs(model).values())), names, role="output")
    return df.observe(f"{NAME}{model.bundle.digest[:12]}", *made)


def watch(spark: SparkSession, monitor: Monitor) -> StreamingQueryListener:
    """Tell ``monitor`` of every query of the session from now on, until ``unwatch``; returns the listener.

    A query that is ``observed`` has its rows, nulls and bad rows in the monitor's status, events and alerts, any other
    its rows and durations. An alert whose action is ``stop`` stops the query.
    Raises StoreError and StreamError, if the monitor's file or port cannot be had; nothing watches then.
    """
    from pyspark.sql.streaming.listener import StreamingQueryListener

    if not hasattr(monitor, "batch"):
        raise InvalidParamError(
            f"watch takes a sparkdl.stream.monitor.Monitor (got {type(monitor).__name__})",
            param="monitor",
            value=monitor,
        )

    class Listener(StreamingQueryListener):
        """Hands what Spark tells on to a monitor."""

        def onQueryStarted(self, event: Any) -> None:
            """See pyspark."""
            monitor.started(
                {"query": str(event.id), "name": event.name, "run": str(event.runId)},
                stop=lambda: _stop(spark, str(event.id)),
            )

        def onQueryProgress(self, event: Any) -> None:
            """See pyspark."""
            progress = json.loads(event.progress.json)
            report = report_of_progress(progress)
            if report is not None:
                monitor.batch(report)
            monitor.progress(progress)

        def onQueryIdle(self, event: Any) -> None:
            """See pyspark."""

        def onQueryTerminated(self, event: Any) -> None:
            """See pyspark."""
            error = event.exception
            monitor.ended(
                StreamError(str(error).splitlines()[0], checkpoint="") if error else None, query=str(event.id)
            )

    monitor.open()
    listener = Listener()
    listener.sparkdl_monitor = monitor
    spark.streams.addListener(listener)
    return listener


def unwatch(spark: SparkSession, listener: StreamingQueryListener) -> None:
    """Take back what ``watch`` did; the monitor writes what it has and closes, unless it watches more."""
    spark.streams.removeListener(listener)
    listener.sparkdl_monitor.close()


def report_of_progress(progress: Mapping[str, Any]) -> BatchReport | None:
    """A micro-batch as Spark saw it, as a ``score_stream`` would tell it; None for a progress without a new batch.

    Its seconds: ``source`` (looking for rows), ``plan``, ``model`` (the job: reading, scoring and writing), ``log`` (Spark's
    own), ``total``.
    """
    durations = progress.get("durationMs") or {}
    if "addBatch" not in durations:
        return None
    version, told = _observed(progress)
    rows = int(told.get("rows", progress.get("numInputRows", 0)))
    bad = {name.removeprefix("bad."): int(count) for name, count in told.items() if name.startswith("bad.") and count}
    seconds: dict[str, float] = {}
    for name, took in durations.items():
        if name in _STAGES:
            seconds[_STAGES[name]] = seconds.get(_STAGES[name], 0.0) + took / 1000
    started = datetime.fromisoformat(str(progress["timestamp"]).replace("Z", "+00:00")).timestamp()
    total = durations.get("triggerExecution", 0) / 1000
    return BatchReport(
        query=str(progress["id"]).replace("-", ""),
        batch=int(progress["batchId"]),
        time=started + total,
        rows=rows,
        versions={version: rows - sum(bad.values())} if version else {},
        dead=bad,
        nulls={name.removeprefix("nulls."): int(count) for name, count in told.items() if name.startswith("nulls.")},
        seconds={**seconds, "total": total},
    )


def _observed(progress: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The model's version, and what was observed; nothing of a query that is not ``observed``."""
    for name, told in (progress.get("observedMetrics") or {}).items():
        if name.startswith(NAME):
            return name.removeprefix(NAME), {key: value for key, value in told.items() if value is not None}
    return None, {}


def _outputs(model: TorchModel) -> dict[str, str]:
    renamed = {"prediction": model.getOrDefault("predictionCol"), "probability": model.getOrDefault("probabilityCol")}
    return {one: name for one in answers(model.signature) if (name := renamed.get(one, one))}


def _distribution(output: str, name: str, kind: Any, model: TorchModel) -> list[Column]:
    from pyspark.sql import functions as sf

    spec = next((one for one in model.signature.outputs if one.name == output), None)
    if spec is None:  # the decoder's own
        return []
    column = sf.col(quoted(name))
    if not spec.shape and isinstance(kind, str):
        value = column.cast("double")
        return [
            sf.mean(value).alias(f"{output}.mean"),
            sf.min(value).alias(f"{output}.min"),
            sf.max(value).alias(f"{output}.max"),
            sf.percentile_approx(value, list(QUANTILES), 1000).alias(f"{output}.quantiles"),
        ]
    if (
        len(spec.shape) == 1
        and spec.shape[0] <= CLASSES_MOST
        and isinstance(kind, dict)
        and kind.get("type") == "array"
    ):
        return [sf.mean(column[i]).alias(f"{output}.{i}.mean") for i in range(spec.shape[0])]
    return []


def _count(condition: Column) -> Column:
    from pyspark.sql import functions as sf

    return sf.count(sf.when(condition, 1))


def _stop(spark: SparkSession, query: str) -> None:
    running = spark.streams.get(query)
    if running is not None:
        logger.warning("an alert asks for it: query %s is stopped", query)
        running.stop()
