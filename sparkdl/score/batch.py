"""Whole tables: ``score_table`` reads, scores and writes in the workers, and commits in one step.

There are two ways, which give the same rows. By ``scan`` a task reads its row groups with pyarrow and writes with pyarrow,
and no row passes through the JVM. By ``dataframe`` it is ``model.transform`` and Spark's writer.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparkdl import session, store
from sparkdl.columns import KINDS
from sparkdl.errors import InvalidParamError, SparkdlError
from sparkdl.score import job as jobs
from sparkdl.score import scan, sources, staging, written
from sparkdl.score.job import Job
from sparkdl.score.output import Layout
from sparkdl.score.parquet import NotScannable
from sparkdl.score.result import ScoredTable
from sparkdl.score.staging import Staging
from sparkdl.score.udf import PROBLEM
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)


def score_table(
    source: Any,
    model: Any,
    sink: str | None,
    *,
    columns: Sequence[str] | None = None,
    partitionBy: Sequence[str] = (),
    rowGroupSize: int | None = None,
    compression: str = "snappy",
    overwrite: bool = False,
    verbose: bool = True,
    spark: SparkSession | None = None,
) -> ScoredTable:
    """Score a whole table and write it, with the predictions, as a Parquet table.

    source: the URI of a Parquet file or folder, or of a Delta table (its current version, by the package deltalake), or
        a DataFrame. Parquet that Spark would read as it lies is read by pyarrow in the tasks; the rest by Spark.
    model: a TorchModel, whose Params hold here as in ``transform``; a Bundle; or the URI of a bundle,
        also ``registry://name@alias``.
    sink: the URI of a folder to make, on a local or HDFS path; or None: score and count, write nothing.
    columns: those of the source that the table keeps; all by default. The model's follow.
    partitionBy: columns that become folders, as Spark's writer makes them. rowGroupSize: in rows; by bytes if None.
    compression: ``snappy``, ``zstd``, ``gzip``, ``lz4`` or ``none``.
    overwrite: replace a Parquet table that is there. On a local path of Linux the two folders take each other's name in
        one step; elsewhere the old one is renamed first, and a reader may find none for a moment.
    verbose: show a bar, where someone looks. spark: the session; that of the DataFrame, or the active one, by default.

    A reader sees all of the table or nothing. Rows keep their order within a file. A call that failed or was killed is
    taken up by the same call: what its tasks had finished is not scored again. A table that is there already, of the
    same files, model and settings, is returned as it is. A DataFrame whose rows may change is scored anew each time.

    Raises before anything runs: InvalidParamError, BundleError, ColumnNotFoundError and SignatureError as ``transform``
    does, StoreError if there is no source, or if the sink is there, cannot be written, is part of the source, or is in
    a store that cannot rename a folder (S3, GCS). Later DataError for a bad row with ``handleInvalid`` ``error``, or for
    a file that cannot be read, naming the file; ScoringError if the Spark job failed.
    """
    layout = Layout.checked(partitionBy, rowGroupSize, compression)
    job = jobs.checked(sources.opened(spark, source), jobs.model_of(model), sink, columns, layout, overwrite=overwrite)
    return made(job, verbose=verbose)


def made(job: Job, *, verbose: bool = True) -> ScoredTable:
    """Score the checked job's table, unless it is there, in a staging folder without a lease. Raises as ``score_table``."""
    started = time.monotonic()
    if job.sink is None:
        done = scored(job, None, verbose=verbose)
    else:
        place = Staging(job.sink, job.key)
        staging.recover(job.sink)
        found = written.committed(job.sink, place.key, overwrite=job.overwrite)
        if found is not None:
            return ScoredTable.from_json(found, uri=job.sink, seconds=time.monotonic() - started, already=True)
        place.claim()
        try:
            done = scored(job, place, verbose=verbose)
        except BaseException:
            place.leave()
            raise
    return replace(done, seconds=time.monotonic() - started)


def scored(job: Job, place: Staging | None, *, verbose: bool) -> ScoredTable:
    """Score the checked job's table into the place, which is this call's alone, and commit it. Raises as ``score_table``."""
    try:
        return scan.score(job, place, verbose=verbose)
    except NotScannable as why:
        if job.source.is_delta:
            raise sources.delta_refused(str(why)) from None
        logger.info("Spark reads the source of this table and writes it, not pyarrow: %s", why)
        return _by_dataframe(job, place, str(why))


def _by_dataframe(job: Job, place: Staging | None, why: str) -> ScoredTable:
    """``model.transform`` and Spark's writer, into the staging folder."""
    from pyspark.sql import Observation
    from pyspark.sql import functions as sf

    options = _writer_options(job.layout, job.source.df.sparkSession.version)
    model = job.model
    if job.invalid != "error":  # the reasons are counted, also of rows that are left out
        model = model.copy({model.handleInvalid: "keep", model.errorCol: PROBLEM})
    scored = model.transform(job.source.df.select(*map(quoted, job.needed)))
    problem = sf.col(PROBLEM) if job.invalid != "error" else sf.lit(None).cast("string")
    counts = [sf.count(sf.when(sf.substring_index(problem, ":", 1) == kind, 1)).alias(kind) for kind in KINDS]
    seen = Observation()
    table = scored.observe(seen, sf.count(sf.lit(1)).alias("rows"), *counts)
    if job.invalid == "skip":
        table = table.where(problem.isNull())
    passed = job.passed if place else ()
    kept: list[Any] = [quoted(name) for name in (*passed, *job.outputs.values())]
    if job.error_column:
        kept.append(problem.alias(job.error_column))
    try:
        writer = table.select(*kept).write.mode("overwrite")
        if place is None:
            save = writer.format("noop").save
        else:
            path = store.hadoop_uri(place.table)
            save = functools.partial(writer.options(**options).partitionBy(*job.layout.partition_by).parquet, path)
        session.stoppable(job.source.df.sparkSession, save, job.guard)
    except SparkdlError:  # of the guard
        raise
    except Exception as error:  # Py4J's, PySpark's and gRPC's errors share no base
        scan.raise_explained(error, place)
    told = seen.get
    invalid = {kind: int(told[kind]) for kind in KINDS if told[kind]}
    rows = int(told["rows"])
    left_out = sum(invalid.values()) if job.invalid == "skip" else 0
    written = rows - left_out if place else 0
    done = ScoredTable(job.sink, rows, written, invalid, 0.0, "dataframe", why)
    if place:
        job.source.check_unchanged()
        job.guard()
        place.commit(done.to_json(), files=None, overwrite=job.overwrite, about=job.about)
    return done


def _writer_options(layout: Layout, version: str) -> dict[str, Any]:
    """Of Spark's writer. Raises InvalidParamError for row groups by rows, which it has from 4.0 on."""
    lz4 = {"lz4": "lz4_raw"}  # Spark's lz4 is Hadoop's own framing
    options: dict[str, Any] = {"compression": lz4.get(layout.compression, layout.compression)}
    if layout.row_group_size is not None:
        if version < "4":
            raise InvalidParamError(
                f"'rowGroupSize' must be None (got {layout.row_group_size}) where Spark {version} writes the table",
                param="rowGroupSize",
                value=layout.row_group_size,
            )
        options["parquet.block.row.count.limit"] = layout.row_group_size
    return options
