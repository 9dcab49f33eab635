"""One micro-batch, on the driver: which version, one Spark job, what was written is written down, the sinks take it.

``docs/streaming.md`` draws it. Each step may be the last one of this process; the next process goes on from there.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkdl import session
from sparkdl.errors import DataError, SparkdlError, StreamError
from sparkdl.score import scan
from sparkdl.score.scorer import Scorer
from sparkdl.score.udf import scorer_of
from sparkdl.sinks.sink import Sink, Staged, StagedFile
from sparkdl.stream.records import BatchRecord, Records
from sparkdl.stream.reports import BatchReport
from sparkdl.stream.rows import Shape
from sparkdl.stream.stage import TOLD, Place, Stage, sample_rows
from sparkdl.stream.told import Told

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sparkdl.stream.versions import Models, Served

logger = logging.getLogger(__name__)
_SENT_MOST = 4  # bundles that are kept sent: those that serve, and those to come
_SAMPLE_EVERY = 100  # batches: fresh rows to prove a new version on


class Stopped(Exception):
    """The query is told to end, and this batch is not begun."""


@dataclass(frozen=True)
class Target:
    """A sink and the schema of its rows, Spark's as JSON values."""

    sink: Sink
    schema: Mapping[str, Any]

    def place(self, folder: str, spark: SparkSession) -> Place:
        """For the workers."""
        return Place(folder, self.schema, self.sink.layout, spark.version)


@dataclass
class MicroBatches:
    """What ``foreachBatch`` calls. told: hears of each batch. share: of the rows, that the challenger serves."""

    spark: SparkSession
    records: Records
    models: Models
    challengers: Models | None
    share: float
    shape: Shape
    rows: Target
    dead: Target | None
    told: Told

    def __post_init__(self) -> None:
        self.stopping = self.refused_to_begin = False
        self.error: SparkdlError | None = None
        self._shipping = ThreadPoolExecutor(1, thread_name_prefix="sparkdl-ship")
        self._shipping_lock = threading.Lock()
        self._shipped: dict[str, Future[Scorer]] = {}
        self._done = 0
        for models in filter(None, (self.models, self.challengers)):
            models.ship = lambda served: self._ship(served).result()

    def __call__(self, df: DataFrame, batch: int) -> None:
        """Do a micro-batch, or what is left to do of it."""
        if self.stopping:
            self.refused_to_begin = True
            raise Stopped
        try:
            self.told.batch(self._run(df, batch))
        except SparkdlError as error:
            self.error = error
            raise
        except Exception as error:  # Py4J's and PySpark's errors share no base
            self.error = _explained(error, batch, self.records)
            raise self.error from error
        self._done += 1

    def _run(self, df: DataFrame, batch: int) -> BatchReport:
        begun, started = time.time(), time.perf_counter()
        spark = df.sparkSession
        record = self.records.begun(batch)
        replayed = record is not None
        if record is None:
            self.records.sweep(batch)
            record = self._begin(batch)
            self.records.write(record)
        counts: Mapping[str, list[int]] = {}
        if record.rows is None:
            record, counts = self._staged(df, record, begun)
            self.records.write(record)
        else:  # the operators before us, stateful ones and watermarks, must see the batch all the same
            df.write.format("noop").mode("append").save()
        committing = time.perf_counter()
        self._commit(spark, record)
        ended = time.perf_counter()
        told = dict(record.told or {})
        seconds = told.pop("seconds") | {"sink": ended - committing, "total": ended - started}
        return BatchReport(
            self.records.query,
            batch,
            time.time(),
            **told,
            seconds=seconds,
            replayed=replayed,
            counts=counts,
            refused=self.models.refusals() | (self.challengers.refusals() if self.challengers else {}),
        )

    def _begin(self, batch: int) -> BatchRecord:
        """Which versions; resolved here, once."""
        other = self.challengers.now().version if self.challengers else None
        return BatchRecord(batch, self.models.now().version, other, self.records.offsets(batch))

    def _staged(self, df: DataFrame, record: BatchRecord, begun: float) -> tuple[BatchRecord, dict[str, list[int]]]:
        """The record, with the files into which the workers wrote the batch's rows; and the drift counts."""
        spark, records = df.sparkSession, self.records
        folder = self.rows.sink.staging(records.scratch, records.query, record.batch)
        dead = self.dead.sink.staging(records.scratch, records.query, record.batch) if self.dead else None
        champion = self.models.at(record.version)
        self.told.serves(champion)
        challenger = self.challengers.at(record.other) if self.challengers and record.other else None
        stage = Stage(
            records.query,
            record.batch,
            begun,
            self.shape,
            champion.version,
            self._ship(champion).result(),
            (challenger.version, self._ship(challenger).result()) if challenger else None,
            self.share,
            self.on_bad(champion),
            self.rows.place(folder, spark),
            self.dead.place(dead, spark) if self.dead and dead else None,
            self._ahead(),
            sample=self.models.canary is None or self._done % _SAMPLE_EVERY == 0,
        )
        tasks = [(json.loads(row.told), row.sample) for row in df.mapInArrow(stage, TOLD).collect()]
        told = [task for task, _ in tasks]
        sample = next((sample for _, sample in tasks if sample), None)
        if sample:
            self.models.canary = sample_rows(bytes(sample))
            if self.challengers:
                self.challengers.canary = self.models.canary
        if told:
            warmed = set.intersection(*(set(task["warmed"]) for task in told))
            for models in filter(None, (self.models, self.challengers)):
                models.warmed(warmed)
        rows = Staged(records.query, record.batch, folder, _files(told, "files"), self.rows.schema)
        letters = None
        if self.dead and dead:
            letters = Staged(records.query, record.batch, dead, _files(told, "dead_files"), self.dead.schema)
        return replace(record, rows=rows, dead=letters, told=_summed(told)), _counts(told)

    def _commit(self, spark: SparkSession, record: BatchRecord) -> None:
        for target, staged in ((self.rows, record.rows), (self.dead, record.dead)):
            if target is None or staged is None:
                continue
            target.sink.commit(spark, staged)
            if self._done == 0:  # what attempts of an earlier process left
                target.sink.swept(self.records.query, record.batch)
        if record.batch % 10 == 0:
            self.records.forget(record.batch)

    def on_bad(self, served: Served) -> str:
        """See ``Stage``."""
        return "dead" if self.dead else str(served.model.getOrDefault("handleInvalid"))

    def _ahead(self) -> Scorer | None:
        """The next model's, once it is on its way to the workers."""
        candidates = (models.candidate for models in (self.models, self.challengers) if models)
        ships = [self._ship(candidate) for candidate in candidates if candidate]
        return next((ship.result() for ship in ships if ship.done() and ship.exception() is None), None)

    def _ship(self, served: Served) -> Future[Scorer]:
        """Send the bundle to the workers, in a thread: a broadcast of a large one takes longer than a batch."""
        digest = served.digest
        with self._shipping_lock:  # a thread of the models' sends what it has proven
            sent = self._shipped.get(digest)
            if sent is None or (sent.done() and sent.exception() is not None):
                scoring = replace(served.model.scoring, invalid="error" if self.on_bad(served) == "error" else "keep")
                sent = self._shipped[digest] = self._shipping.submit(
                    scorer_of, self.spark, served.model.bundle, scoring
                )
            while len(self._shipped) > _SENT_MOST:
                self._shipped.pop(next(iter(self._shipped)))
            return sent

    def close(self) -> None:
        """End the thread."""
        self._shipping.shutdown(wait=False, cancel_futures=True)


def _files(told: list[dict[str, Any]], which: str) -> tuple[StagedFile, ...]:
    return tuple(StagedFile(*file) for task in told for file in task[which])


def _summed(told: list[dict[str, Any]]) -> dict[str, Any]:
    """What the tasks tell, together: fields of a BatchReport."""
    busy = [task["seconds"] for task in told if task["rows"]] or [
        dict.fromkeys(("queue", "decode", "model", "write"), 0.0)
    ]
    added = {
        name: dict(sum((Counter(task[name]) for task in told), Counter[str]()))
        for name in ("versions", "dead", "nulls", "compared")
    }
    compared, names = added.pop("compared"), {name.rsplit(".", 1)[0] for task in told for name in task["compared"]}
    files = [file for task in told for file in (*task["files"], *task["dead_files"])]
    return {
        **added,
        "rows": sum(task["rows"] for task in told),
        "skipped": sum(task["skipped"] for task in told),
        "seconds": {name: float(np.mean([seconds[name] for seconds in busy])) for name in busy[0]},
        "compared": {
            f"{name}.{what}": compared.get(f"{name}.{part}", 0) / rows
            for name in sorted(names)
            for what, part in (("agreement", "equal"), ("distance", "distance"))
            if (rows := compared.get(f"{name}.rows", 0))
        },
        "challenger_failed": next((task["challenger_failed"] for task in told if task.get("challenger_failed")), None),
        "files": len(files),
        "nbytes": sum(size for _, _, size in files),
    }


def _counts(told: list[dict[str, Any]]) -> dict[str, list[int]]:
    added: dict[str, np.ndarray] = {}
    for task in told:
        for name, counts in task["counts"].items():
            added[name] = added.get(name, 0) + np.asarray(counts)
    return {name: counts.tolist() for name, counts in added.items()}


def _explained(error: Exception, batch: int, records: Records) -> SparkdlError:
    """What broke a batch off, as an error of ours."""
    try:
        session.raise_if_worker_lacks(error)
    except SparkdlError as lacks:
        return lacks
    refused = scan.refused_row(error)
    if refused:
        return DataError(f"batch {batch}: {refused}", **dict.fromkeys(scan.UNKNOWN))
    ours = re.findall(r"^sparkdl\.errors\.(\w+: .+)$", str(error), re.MULTILINE)
    what = ours[-1] if ours else f"\n{scan.last_lines(error)}"
    record = records.begun(batch)
    remedy = ""
    if record is not None and record.rows is None:
        remedy = (
            f"\nIt was begun with version {record.version} of the model. If that is what is wrong: name another one "
            f"(move the alias) and remove {records.path(batch)!r}; nothing of the batch is in the sink"
        )
    return StreamError(
        f"batch {batch} failed, and will be done when the query starts again: {what}{remedy}",
        checkpoint=records.checkpoint,
    )
