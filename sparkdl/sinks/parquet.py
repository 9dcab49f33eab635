"""A Parquet table that grows by whole micro-batches: each is a folder of its own, renamed into place in one step."""

from __future__ import annotations

import json
import posixpath
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pyarrow import fs

from sparkdl import store
from sparkdl.errors import SinkError
from sparkdl.score.output import Layout
from sparkdl.sinks import schemas
from sparkdl.sinks import staged as files
from sparkdl.sinks.sink import Sink, Staged

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

BATCH = "batch"  # the partition column
_ABOUT = "_sparkdl.json"  # what the table is; Spark and pyarrow pass over names that begin with _
_STAGING, _READY = ".staging", "ready"
_FORMAT = 1


class Parquet(Sink):
    """A Parquet table on a local or HDFS path, each row exactly once.

    A micro-batch is the folder ``batch=q<query>-<number>``, which gets this name by one rename, so ``spark.read.parquet``,
    pandas and pyarrow see whole batches only; ``batch`` is a column to them. Several queries may write one table.

    uri: of the table's folder. partitionBy: columns that become folders within a batch. compression: as for
    ``score_table``. Raises InvalidParamError.
    """

    def __init__(self, uri: str, partitionBy: Sequence[str] = (), compression: str = "snappy") -> None:
        self.uri = store.absolute(uri).rstrip("/")
        self.layout = Layout.checked(partitionBy, None, compression)

    def __repr__(self) -> str:
        return f"Parquet({store.shown(self.uri)!r})"

    @property
    def identity(self) -> dict[str, Any]:
        """See ``Sink``."""
        return {"kind": "parquet", "uri": store.shown(self.uri), "partitionBy": list(self.layout.partition_by)}

    @property
    def place(self) -> str:
        """See ``Sink``."""
        return store.shown(self.uri)

    def check(self, spark: SparkSession, schema: Mapping[str, Any]) -> None:
        """See ``Sink``: also refused are a store that cannot rename a folder, and a folder that holds something else."""
        if not store.renames_folders(self.uri):
            raise self._error("is in a store that cannot rename a folder in one step; use sinks.Delta there")
        types = {field["name"]: field["type"] for field in schema["fields"]}
        self.layout.check_columns(types)
        if BATCH in (name.lower() for name in types):
            raise self._error(f"has a column {BATCH!r} of its own; rename that of the rows, or leave it out (columns)")
        refused = list(schemas.refused(schema, self.layout.partition_by))
        if refused:
            raise self._error(f"cannot hold these rows: {'; '.join(refused)}")
        there = self._about()
        if there is None:
            others = [name for name in store.names(self.uri) if not name.startswith((".", "_"))]
            if others:
                raise self._error(f"holds something else, {others[0]!r}; name a new folder")
            self._check_writable(self.uri)
            told = {"format": _FORMAT, "schema": schemas.nullable(schema), "partitionBy": self.layout.partition_by}
            store.write_new(store.join(self.uri, _ABOUT), json.dumps(told, indent=1).encode())
            there = self._about() or told  # maybe another query's, which began at the same time
        differ = list(schemas.differences(there["schema"], schemas.nullable(schema)))
        if list(there["partitionBy"]) != list(self.layout.partition_by):
            differ.append(f"its partition columns are {there['partitionBy']}, not {list(self.layout.partition_by)}")
        if differ:
            raise self._error(
                f"holds rows of another schema: {'; '.join(differ)}. Name another table, or choose the columns that it has "
                "(columns)"
            )
        self._check_writable(self.uri)

    def _about(self) -> dict[str, Any] | None:
        """What the table is; None if nobody has said it yet."""
        try:
            told = json.loads(store.read_bytes(store.join(self.uri, _ABOUT)))
            if told["format"] != _FORMAT:
                raise ValueError(f"it has format {told['format']!r}, not {_FORMAT}: upgrade sparkdl")
            list(schemas.differences(told["schema"], told["schema"]))
            list(map(str.lower, told["partitionBy"]))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._error(
                f"cannot be understood: {_ABOUT} is not what sparkdl writes ({error!r}); put back a copy, or name a new folder"
            ) from error
        return dict(told)

    def staging(self, scratch: str, query: str, batch: int) -> str:
        """See ``Sink``."""
        return store.join(self.uri, f"{_STAGING}-{_name(query, batch)}-{uuid.uuid4().hex}")

    def commit(self, spark: SparkSession, staged: Staged) -> None:
        """See ``Sink``."""
        target = store.join(self.uri, f"{BATCH}={_name(staged.query, staged.batch)}")
        if staged.files and not store.exists(target):
            ready = store.join(staged.folder, _READY)  # an attempt that was given up may still write beside it
            moved = {file for file in staged.files if store.exists(store.join(ready, file.path))}
            files.checked(replace(staged, files=tuple(moved), folder=ready), repr(self))
            left = tuple(file for file in staged.files if file not in moved)
            files.checked(replace(staged, files=left), repr(self))
            for file in left:
                filesystem, parent = store.resolve(posixpath.dirname(store.join(ready, file.path)))
                filesystem.create_dir(parent, recursive=True)
                store.move(store.join(staged.folder, file.path), store.join(ready, file.path))
            store.move(ready, target)
        store.delete(staged.folder)

    def swept(self, query: str, batch: int) -> None:
        """See ``Sink``."""
        for name in store.names(self.uri):
            found = re.fullmatch(rf"\{_STAGING}-q{query[:8]}-(\d+)-[0-9a-f]{{32}}", name)
            if found and int(found[1]) <= batch:
                store.delete(store.join(self.uri, name))

    def files(self) -> list[str]:
        """URIs of the files of all committed batches, in the order of queries and batches."""
        filesystem, path = store.resolve(self.uri)
        found = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
        below = [posixpath.relpath(info.path, path) for info in found if info.is_file]
        return [store.join(self.uri, name) for name in sorted(below) if name.startswith(f"{BATCH}=")]

    def read(self, spark: SparkSession) -> DataFrame:
        """The rows of all committed batches; the same as ``spark.read.parquet``, and without rows before there are any."""
        from pyspark.sql.types import StructType

        about = self._about()
        if about is None:
            raise self._error(f"is none: there is no {_ABOUT}; start the query that writes it")
        fields = [*about["schema"]["fields"], {"name": BATCH, "type": "string", "nullable": True, "metadata": {}}]
        schema = StructType.fromJson({"type": "struct", "fields": fields})
        return spark.read.schema(schema).parquet(store.hadoop_uri(self.uri))

    def _error(self, what: str) -> SinkError:
        return SinkError(f"the table {store.shown(self.uri)!r} {what}", sink=repr(self))


def _name(query: str, batch: int) -> str:
    return f"q{query[:8]}-{batch:012d}"
