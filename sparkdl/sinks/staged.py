"""The files of a micro-batch, before a sink takes them: are they what was written? And their rows, to Spark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyarrow import fs

from sparkdl import store
from sparkdl.errors import SinkError
from sparkdl.sinks.sink import Staged

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def checked(staged: Staged, sink: str) -> list[fs.FileInfo]:
    """Of each file, once it has the size that was written down: one that lost its end in a crash of the machine would
    otherwise be fewer rows, for Spark passes over an empty file. Raises SinkError naming the first that has not."""
    if not staged.files:
        return []
    filesystem, _ = store.resolve(staged.folder)
    infos = filesystem.get_file_info([store.resolve(uri)[1] for uri in staged.uris])
    for file, info in zip(staged.files, infos, strict=True):
        there = info.type == fs.FileType.File
        if not there or info.size != file.nbytes:
            found = f"has {info.size} bytes, not {file.nbytes}" if there else "is missing"
            raise SinkError(
                f"the sink {sink}: a file of batch {staged.batch} {found}: {file.path!r} in {store.shown(staged.folder)!r}; without it the "
                "batch cannot be finished: put back a copy of the checkpoint's folder, or start over with a new one",
                sink=sink,
                batch=staged.batch,
            )
    return list(infos)


def rows(spark: SparkSession, staged: Staged) -> DataFrame:
    """The files as a DataFrame; no job runs for it. Only without partition columns."""
    from pyspark.sql.types import StructType

    schema = StructType.fromJson(dict(staged.schema))
    if not staged.files:
        return spark.createDataFrame([], schema)
    # Whatever the session says: a file that is lost is an error, not fewer rows.
    reader = spark.read.schema(schema).option("ignoreMissingFiles", "false").option("ignoreCorruptFiles", "false")
    return reader.parquet(*(store.hadoop_uri(uri) for uri in staged.uris))
