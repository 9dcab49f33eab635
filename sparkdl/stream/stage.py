"""What a worker does with its share of a micro-batch: score it, write the rows to where they go, tell how many.

Scored rows and dead letters are written as Parquet files of the sinks' staging folders; no row goes back to the JVM.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sparkdl import store
from sparkdl.payloads import UNPARSABLE
from sparkdl.score import worker
from sparkdl.score.failing import MOST_CHARACTERS
from sparkdl.score.output import Layout, PieceWriter, file_schema
from sparkdl.score.scorer import Scored, Scorer, Seconds
from sparkdl.stream.letters import dead_letters
from sparkdl.stream.rows import ROW, SHARE, Shape, compared, masked, refuse

logger = logging.getLogger(__name__)
if TYPE_CHECKING:
    from sparkdl.drift import Counter as DriftCounter

TOLD = "told string, sample binary"
Columns = dict[str, pa.Array]
SAMPLE_TASKS, SAMPLE_ROWS, SAMPLE_BYTES = 4, 64, 256 << 10  # that prove a new version; the driver gets 1 MiB at most


@dataclass(frozen=True)
class Place:
    """Where a worker's rows go. schema: of them, Spark's as JSON values; layout: how the files lie in the folder."""

    folder: str
    schema: Mapping[str, Any]
    layout: Layout
    spark_version: str


class _Writer:
    """A task's files at a Place, which no other attempt writes. seconds: that it took."""

    def __init__(self, place: Place, partition: int) -> None:
        self.place = place
        self.name = f"part-{partition:05d}-{uuid.uuid4().hex}.parquet"
        self.writer: PieceWriter | None = None
        self.seconds = 0.0

    def add(self, rows: pa.RecordBatch) -> None:
        """Take rows. Raises StoreError."""
        started = time.perf_counter()
        if self.writer is None:
            place = self.place
            schema = file_schema(rows.schema, place.schema, place.spark_version, place.layout)
            self.writer = PieceWriter(place.folder, self.name, schema, place.layout)
        self.writer.add(rows)
        self.seconds += time.perf_counter() - started

    def close(self) -> list[tuple[str, int, int]]:
        """Path, rows and bytes of the files. Raises StoreError."""
        if self.writer is None:
            return []
        started = time.perf_counter()
        paths = self.writer.close()
        sizes = [store.size(store.join(self.place.folder, path)) for path in paths]
        self.seconds += time.perf_counter() - started
        return [(path, self.writer.rows[path], size) for path, size in zip(paths, sizes, strict=True)]

    def abort(self) -> None:
        """Let go of the files."""
        if self.writer is not None:
            self.writer.abort()


@dataclass(frozen=True)
class Stage:
    """A micro-batch's work. begun: when the driver began with it, in seconds since 1970.

    model, challenger: versions, and what scores with them. share: of the rows, by their key, that the challenger serves.
    on_bad: a bad row is a ``dead`` letter, left out (``skip``), kept with nulls (``keep``) or ends the query (``error``).
    ahead: the next model, for the workers to load; sample: give some rows back.
    """

    query: str
    batch: int
    begun: float
    shape: Shape
    version: str
    scorer: Scorer
    challenger: tuple[str, Scorer] | None
    share: float
    on_bad: str
    rows: Place
    dead: Place | None
    ahead: Scorer | None
    sample: bool

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows in; out one row, of ``TOLD``."""
        told = _Work(self).do(batches)
        sample = told.pop("sample")
        yield pa.RecordBatch.from_arrays(
            [pa.array([json.dumps(told)]), pa.array([sample], pa.binary())], names=["told", "sample"]
        )
        worker.tidy(self.ahead)


class _Work:
    """A task's run of a Stage."""

    def __init__(self, stage: Stage) -> None:
        from pyspark import TaskContext

        context = TaskContext.get()
        self.stage = stage
        self.started = time.time()
        partition = context.partitionId() if context else 0
        self.samples = stage.sample and partition < SAMPLE_TASKS
        self.seconds = Seconds()
        self.rows = self.skipped = 0
        self.versions: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.nulls: Counter[str] = Counter()
        self.compared: Counter[str] = Counter()  # of floats too
        self.challenger_failed: str | None = None  # by what
        self.unparsable: list[pa.RecordBatch] = []
        self.sample: bytes | None = None
        self.kept = _Writer(stage.rows, partition)
        self.dead = _Writer(stage.dead, partition) if stage.dead else None

    @cached_property
    def counter(self) -> DriftCounter | None:
        """Of values between the edges of the model's drift reference, or None."""
        return worker.counter(self.stage.scorer)

    def do(self, batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
        """Score and write all rows; what is told of them."""
        stage = self.stage
        worker.keep(
            stage.query, [s.digest for s in (stage.scorer, stage.challenger and stage.challenger[1], stage.ahead) if s]
        )
        try:
            for batch, scored in stage.scorer.score(self._readable(batches), self.seconds):
                self._drain()
                self._take(batch, scored)
            self._drain()
            files = self.kept.close()
            dead_files = self.dead.close() if self.dead else []
        except BaseException:
            self.kept.abort()
            if self.dead:
                self.dead.abort()
            raise
        return {
            "rows": self.rows,
            "versions": self.versions,
            "dead": self.kinds,
            "skipped": self.skipped,
            "nulls": self.nulls,
            "seconds": {
                "queue": max(0.0, self.started - stage.begun),
                "decode": self.seconds.decode,
                "model": self.seconds.model,
                "write": self.kept.seconds + (self.dead.seconds if self.dead else 0.0),
            },
            "files": files,
            "dead_files": dead_files,
            "counts": self.counter.counts if self.rows and self.counter else {},
            "compared": self.compared,
            "challenger_failed": self.challenger_failed,
            "warmed": worker.loaded(),
            "sample": self.sample,
        }

    def _readable(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """What could be parsed, as the sink and the model know it; runs in the scorer's thread."""
        for batch in batches:
            batch = self.stage.shape.named(batch)
            self.rows += len(batch)
            if UNPARSABLE in batch.schema.names:
                reasons = batch.column(batch.schema.get_field_index(UNPARSABLE))
                if reasons.null_count < len(batch):
                    self.unparsable.append(batch.filter(reasons.is_valid()))
                    batch = batch.filter(reasons.is_null())
            if len(batch):
                yield self.stage.shape.flat(batch)

    def _drain(self) -> None:
        """The rows that could not be parsed so far."""
        while self.unparsable:
            batch = self.unparsable.pop(0)
            reasons = batch.column(batch.schema.get_field_index(UNPARSABLE)).to_pylist()
            self._leave_out(self.stage.shape.rows(batch), reasons, [""] * len(batch))

    def _take(self, batch: pa.RecordBatch, scored: Scored) -> None:
        stage = self.stage
        for name in stage.scorer.signature.columns:
            nulls = batch.column(batch.schema.get_field_index(name)).null_count
            if nulls:
                self.nulls[name] += nulls
        outputs, others, problems, served = self._served(batch, scored)
        if self.samples and self.sample is None and len(batch) > len(problems):
            good = np.setdiff1d(np.arange(len(batch)), list(problems))
            self.sample = sampled(batch.select(list(stage.scorer.signature.columns)), good)
        if self.counter:
            self.counter.add(batch, outputs)
        bad = sorted(problems)
        if bad and stage.on_bad in ("dead", "skip"):
            versions = [stage.challenger[0] if stage.challenger and served[row] else stage.version for row in bad]
            row = batch.column(batch.schema.get_field_index(ROW)).take(pa.array(bad))
            self._leave_out(row, [problems[row] for row in bad], versions)
            good = pa.array(np.delete(np.arange(len(batch)), bad))
            batch, served = batch.take(good), served[good.to_numpy()]
            outputs, others = ({name: made[name].take(good) for name in made} for made in (outputs, others))
        self._count(served)
        if len(batch):
            self.kept.add(stage.shape.table(batch, outputs, others, self._versions(served)))

    def _served(self, batch: pa.RecordBatch, scored: Scored) -> tuple[Columns, Columns, dict[int, str], np.ndarray]:
        """Outputs; the other model's; problems; which rows the challenger serves."""
        stage = self.stage
        served = np.zeros(len(batch), bool)
        if stage.challenger is None:
            return scored.outputs, {}, scored.problems, served
        other = self._challenged(batch, stage.challenger)
        if other is None:
            nothing = {name: pa.nulls(len(batch), column.type) for name, column in scored.outputs.items()}
            return scored.outputs, nothing, scored.problems, served
        if stage.share:
            share = batch.column(batch.schema.get_field_index(SHARE)).to_numpy(zero_copy_only=False)
            served = share < stage.share
            served[list(other.problems)] = False  # what the challenger cannot score the champion serves
        problems = {row: why for row, why in scored.problems.items() if not served[row]}
        outputs, others = {}, {}
        for name, column in scored.outputs.items():
            outputs[name] = masked(served, other.outputs[name], column)
            others[name] = masked(served, column, other.outputs[name])
            self.compared.update({f"{name}.{what}": n for what, n in compared(column, other.outputs[name]).items()})
        return outputs, others, problems, served

    def _challenged(self, batch: pa.RecordBatch, challenger: tuple[str, Scorer]) -> Scored | None:
        """What the challenger makes of the rows; None if it raised: then the champion alone serves them."""
        version, scorer = challenger
        try:
            return next(iter(scorer.score([batch], self.seconds)))[1]
        except Exception as error:  # whatever loading it or its operators raise: it must not end the champion's stream
            logger.warning("the challenger %s failed on %d rows", version, len(batch), exc_info=True)
            self.challenger_failed = f"{type(error).__name__}: {error}".splitlines()[0][:MOST_CHARACTERS]
            return None

    def _versions(self, served: np.ndarray) -> list[pa.Array]:
        """The columns ``Shape.versions``."""
        stage = self.stage
        if stage.challenger is None:
            return [pa.array([stage.version]).take(pa.array(np.zeros(len(served), np.int64)))]
        names = pa.array([stage.version, stage.challenger[0]])
        return [names.take(pa.array(which.astype(np.int64))) for which in (served, ~served)]

    def _count(self, served: np.ndarray) -> None:
        stage, by_challenger = self.stage, int(served.sum())
        if len(served) > by_challenger:
            self.versions[stage.version] += len(served) - by_challenger
        if stage.challenger and by_challenger:
            self.versions[stage.challenger[0]] += by_challenger

    def _leave_out(self, rows: pa.StructArray, reasons: list[str], versions: list[str]) -> None:
        """Write dead letters, or count what is skipped; rows: as they came. Raises DataError if there is no place for them."""
        stage = self.stage
        if self.dead is not None:
            self.kinds.update(reason.split(":", 1)[0] for reason in reasons)
            self.dead.add(dead_letters(rows, reasons, versions, query=stage.query, batch=stage.batch))
        elif stage.on_bad == "skip":
            self.skipped += len(reasons)
        else:  # what could not be parsed cannot be kept with nulls either
            refuse(reasons[0])


def sampled(batch: pa.RecordBatch, good: np.ndarray) -> bytes:
    """Some of these rows for the driver: ``SAMPLE_ROWS``, or fewer that are ``SAMPLE_BYTES`` at most, but one at least."""
    rows, count = batch.take(pa.array(good[:1])), 2
    while count <= SAMPLE_ROWS and len(rows) < len(good):
        more = batch.take(pa.array(good[:count]))
        if more.nbytes > SAMPLE_BYTES:
            break
        rows, count = more, 2 * count
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_batch(rows)
    return sink.getvalue().to_pybytes()


def sample_rows(content: bytes) -> pa.RecordBatch:
    """What ``Stage.sample`` gave back."""
    return next(iter(pa.ipc.open_stream(content)))
