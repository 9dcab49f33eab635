"""A Parquet table that grows by whole micro-batches: each is a folder of its own, renamed into place in one step."""

from __future__ import annotations

import json
import posixpath
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyarrow import fs

from sparkdl import store
from sparkdl.errors import SinkError
from sparkdl.score.output import Layout
from sparkdl.sinks.sink import Sink, Staged, StagedFile

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
        return f"Parquet({self.uri!r})"

    @property
    def identity(self) -> dict[str, Any]:
        """See ``Sink``."""
        return {"kind": "parquet", "uri": self.uri, "partitionBy": list(self.layout.partition_by)}

    def check(self, spark: SparkSession, schema: Mapping[str, Any]) -> None:
        """See ``Sink``: also refused are a store that cannot rename a folder, and a folder that holds something else."""
        if not store.renames_folders(self.uri):
            raise self._error("is in a store that cannot rename a folder in one step; use sinks.Delta there")
        types = {field["name"]: field["type"] for field in schema["fields"]}
        self.layout.check_columns(types)
        if BATCH in (name.lower() for name in types):
            raise self._error(f"has a column {BATCH!r} of its own; rename that of the rows, or leave it out (columns)")
        told: dict[str, Any] = {
            "format": _FORMAT,
            "schema": _comparable(schema),
            "partitionBy": list(self.layout.partition_by),
        }
        try:
            there = json.loads(store.read_bytes(store.join(self.uri, _ABOUT)))
        except FileNotFoundError:
            others = [name for name in store.names(self.uri) if not name.startswith((".", "_"))]
            if others:
                raise self._error(f"holds something else, {others[0]!r}; name a new folder") from None
            store.write_bytes(store.join(self.uri, _ABOUT), json.dumps(told, indent=1).encode())
            return
        except ValueError as error:
            raise self._error(f"cannot be understood: {_ABOUT} is no JSON ({error})") from error
        if there != told:
            raise self._error(
                f"holds rows of another schema. {differences(there['schema'], told['schema'])}. Name another table, or "
                "choose the columns that it has (columns)"
            )
        store.check_writable(self.uri)

    def staging(self, scratch: str, query: str, batch: int) -> str:
        """See ``Sink``."""
        return store.join(self.uri, f"{_STAGING}-{_name(query, batch)}-{uuid.uuid4().hex}")

    def commit(self, spark: SparkSession, staged: Staged) -> None:
        """See ``Sink``."""
        target = store.join(self.uri, f"{BATCH}={_name(staged.query, staged.batch)}")
        if staged.files and not store.exists(target):
            ready = store.join(staged.folder, _READY)  # an attempt that was given up may still write beside it
            for file in staged.files:
                self._make_ready(staged, file, ready)
            store.move(ready, target)
        store.delete(staged.folder)

    def _make_ready(self, staged: Staged, file: StagedFile, ready: str) -> None:
        source, target = store.join(staged.folder, file.path), store.join(ready, file.path)
        if store.exists(target):
            return
        if not store.exists(source) or store.size(source) != file.nbytes:
            raise self._error(
                f"lacks a file of batch {staged.batch} as it was written: {source!r}, {file.nbytes} bytes"
            )
        filesystem, parent = store.resolve(posixpath.dirname(target))
        filesystem.create_dir(parent, recursive=True)
        store.move(source, target)

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

        about = json.loads(store.read_bytes(store.join(self.uri, _ABOUT)))
        fields = [*about["schema"]["fields"], {"name": BATCH, "type": "string", "nullable": True, "metadata": {}}]
        schema = StructType.fromJson({"type": "struct", "fields": fields})
        return spark.read.schema(schema).parquet(store.hadoop_uri(self.uri))

    def _error(self, what: str) -> SinkError:
        return SinkError(f"the table {self.uri!r} {what}", sink=repr(self))


def _name(query: str, batch: int) -> str:
    return f"q{query[:8]}-{batch:012d}"


def _comparable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Names and types; that a column may be null, or what else is said of it, does not make it another one."""
    fields = [
        {"name": field["name"], "type": _type(field["type"]), "nullable": True, "metadata": {}}
        for field in schema["fields"]
    ]
    return {"type": "struct", "fields": fields}


def _type(kind: Any) -> Any:
    if not isinstance(kind, Mapping):
        return kind
    if kind["type"] == "struct":
        return _comparable(kind)
    if kind["type"] == "array":
        return {**kind, "elementType": _type(kind["elementType"]), "containsNull": True}
    if kind["type"] == "map":
        return {**kind, "valueType": _type(kind["valueType"]), "valueContainsNull": True}
    return kind


def differences(there: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """How the schema of a table and that of rows differ, in words."""
    old, now = ({field["name"]: field["type"] for field in schema["fields"]} for schema in (there, new))
    told = [
        *(f"it has {name!r}, the rows have not" for name in old if name not in now),
        *(f"the rows have {name!r}, it has not" for name in now if name not in old),
        *(
            f"{name!r} is {old[name]!r} there and {now[name]!r} here"
            for name in old
            if name in now and old[name] != now[name]
        ),
    ]
    return "; ".join(told) or f"its columns are {list(old)}, in this order"
