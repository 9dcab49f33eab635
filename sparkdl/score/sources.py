"""What a table to score is made of: the Parquet files behind a URI, a Delta table or a DataFrame, and its schema."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa

from sparkdl import session, store
from sparkdl.errors import InvalidParamError, SignatureError, SourceNotFoundError, SparkdlError, StoreError
from sparkdl.score.output import NULL_PARTITION
from sparkdl.score.parquet import NotScannable, constant, footer
from sparkdl.score.pieces import Constants, SourceFile

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FOOTER_THREADS = 16
_DELTA_FEATURES = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}  # that change nothing in what a file holds
_OF_SPARK_ALONE = {  # settings with which Spark reads Parquet otherwise than pyarrow
    "spark.sql.caseSensitive": "true",
    "spark.sql.files.ignoreCorruptFiles": "true",
    "spark.sql.parquet.datetimeRebaseModeInRead": "LEGACY",
    "spark.sql.parquet.fieldId.read.enabled": "true",
    "spark.sql.parquet.int96RebaseModeInRead": "LEGACY",
    "spark.sql.parquet.int96TimestampConversion": "true",
}
_SCAN, _OF_FILES = "LogicalRelation", "HadoopFsRelation"  # in a plan of Spark
Files = tuple[tuple[str, Constants], ...]


@dataclass(frozen=True)
class Source:
    """A table to score.

    df: has its schema, and unless ``is_delta`` its rows. files: its Parquet files and what their folders say, or None, and
    then ``why`` Spark must read it. identity: what is another when its content is, as JSON values; None: not known.
    places: the folders or files in which it lies, as far as that is known.
    """

    df: DataFrame
    files: Files | None
    why: str | None
    identity: Any
    places: tuple[str, ...] = ()
    is_delta: bool = False

    def check_scannable(self) -> Files:
        """Its files. Raises NotScannable if Spark must read them."""
        if self.files is None:
            raise NotScannable(self.why)
        for name, value in _OF_SPARK_ALONE.items():
            if str(self.df.sparkSession.conf.get(name)).upper() == value.upper():
                raise NotScannable(f"{name} is {value}")
        return self.files

    def check_unchanged(self) -> None:
        """Raise StoreError if a file is not as it was when this was opened: which rows were scored, nobody knows."""
        if self.files is None or self.is_delta:  # whose files do not change
            return
        for before, now in zip(self.identity, _identity([path for path, _ in self.files]), strict=True):
            if before != now:
                raise StoreError(
                    f"{now[0]!r} was changed or removed while the table was scored; call again", uri=now[0]
                )

    def row_groups(self, wanted: pa.Schema) -> list[SourceFile]:
        """The files with their row groups, out of their footers. Raises NotScannable, DataError."""
        files = self.check_scannable()
        for _, constants in files:
            for name, value in constants:
                if name in wanted.names:
                    constant(value, wanted.field(name).type)
        with ThreadPoolExecutor(FOOTER_THREADS, thread_name_prefix="sparkdl-footer") as threads:
            found = threads.map(lambda path: footer(path, wanted), [path for path, _ in files])
            return [SourceFile(path, told, groups) for (path, told), groups in zip(files, found, strict=True)]


def opened(spark: SparkSession | None, source: Any) -> Source:
    """A URI of a Parquet file or folder or of a Delta table, or a DataFrame.

    Raises InvalidParamError for something else, SourceNotFoundError if there is nothing to read, SignatureError for a stream.
    """
    if isinstance(source, (str, bytes)) or hasattr(source, "__fspath__"):
        uri = store.absolute(source)
        spark = spark or session.current()
        if not store.exists(uri):
            raise SourceNotFoundError(
                f"there is nothing at {store.shown(uri)!r}; 'source' is a Parquet file or folder, or a Delta table",
                uri=store.shown(uri),
            )
        return _delta(spark, uri) if store.exists(store.join(uri, "_delta_log")) else _parquet(spark, uri)
    if not hasattr(source, "sparkSession"):
        raise InvalidParamError(
            f"'source' must be a DataFrame, or the URI of a Parquet or Delta table (got {source!r})",
            param="source",
            value=source,
        )
    if source.isStreaming:
        raise SignatureError(
            "a stream has no end to be scored to; use model.transform(df).writeStream",
            column=None,
            expected="a batch DataFrame",
            got="a stream",
        )
    return _dataframe(source)


def _parquet(spark: SparkSession, uri: str) -> Source:
    try:
        df = spark.read.parquet(store.hadoop_uri(uri))
        paths = df.inputFiles()
        _ = df.schema
    except Exception as error:  # Py4J's, PySpark's and gRPC's errors share no base
        first = str(error).splitlines()[0] if str(error) else repr(error)
        first, shown = store.hushed(first, store.secrets_of(uri)), store.shown(uri)
        cause = None if store.secrets_of(uri) else error
        raise SourceNotFoundError(f"there is no Parquet table at {shown!r}: {first}", uri=shown) from cause
    return _of_files(df, paths, (uri,), _folder(uri))


def _dataframe(df: DataFrame) -> Source:
    """A DataFrame that is nothing but a scan of Parquet files as they are is taken for its files."""
    files = tuple(df.inputFiles())
    if session.is_connect(df.sparkSession):
        why = "Spark Connect does not tell the plan of a DataFrame; give the table's URI"
        return Source(df, None, why, None, _places((), files))
    plan = df._jdf.queryExecution().optimizedPlan()
    is_scan = plan.getClass().getSimpleName() == _SCAN
    relation = plan.relation() if is_scan else None
    roots = _roots(plan)
    places = _places(roots, files)
    if relation is None or relation.getClass().getSimpleName() != _OF_FILES:
        return Source(df, None, "the DataFrame is more than the rows of Parquet files", None, places)
    kinds = [part.getClass().getSimpleName() for part in (relation.fileFormat(), relation.location())]
    told = relation.options()
    if kinds != ["ParquetFileFormat", "InMemoryFileIndex"] or told.size() > int(told.contains("path")):
        return Source(df, None, "the DataFrame is not of Parquet files read with the default options", None, places)
    if _overlap(roots):
        return Source(df, None, "its paths repeat or lie in one another, and so do its rows", None, places)
    return _of_files(df, files, places, "", list(relation.partitionSchema().fieldNames()))


def _roots(plan: Any) -> tuple[str, ...]:
    """The URIs that were given to Spark for the files that a plan reads, as far as it tells."""
    leaves = plan.collectLeaves()
    scans = [leaf for leaf in map(leaves.apply, range(leaves.size())) if leaf.getClass().getSimpleName() == _SCAN]
    relations = [scan.relation() for scan in scans]
    roots = [found.location().rootPaths() for found in relations if found.getClass().getSimpleName() == _OF_FILES]
    return tuple(paths.apply(i).toUri().toString() for paths in roots for i in range(paths.size()))


def _places(roots: Sequence[str], files: Sequence[str]) -> tuple[str, ...]:
    """The roots, and the folders of files that are in none of them."""
    known = {store.canonical(root) for root in roots}
    folders = {posixpath.dirname(file) for file in files}
    others = {folder for folder in folders if not _lies_in(store.canonical(folder), known)}
    loose = (file for file in files if posixpath.dirname(file) in others and store.canonical(file) not in known)
    return (*roots, *dict.fromkeys(posixpath.dirname(file) for file in loose))


def _overlap(uris: Sequence[str]) -> bool:
    """True when one comes twice, or lies in another."""
    known = {store.canonical(uri) for uri in uris}
    return len(known) < len(uris) or any(_lies_in(posixpath.dirname(uri), known) for uri in known)


def _lies_in(place: str, places: set[str]) -> bool:
    while place and place not in places:
        place = posixpath.dirname(place)
    return place in places


def _folder(uri: str) -> str:
    _, path = store.resolve(uri)
    return path.rstrip("/")


def _of_files(
    df: DataFrame, uris: Iterable[str], places: tuple[str, ...], under: str, partitions: Sequence[str] | None = None
) -> Source:
    """under: the folder below which folders tell columns, ``partitions`` if these are known."""
    try:
        paths = sorted((_folder(uri) if uri.startswith("file:") else uri) for uri in uris)
        files = tuple((path, _constants(_folder(path), under, df.columns, partitions)) for path in paths)
        return Source(df, files, None, _identity(paths), places)
    except (NotScannable, StoreError) as error:  # a store that Spark reads and pyarrow does not
        return Source(df, None, str(error), None, places)


def _constants(path: str, under: str, columns: Sequence[str], partitions: Sequence[str] | None) -> Constants:
    """The partition columns that the folders of a file tell, by Spark's rules."""
    folders = posixpath.dirname(path).removeprefix(under).split("/") if path != under else []
    pairs = [tuple(_unescaped(text) for text in name.split("=", 1)) for name in folders if "=" in name]
    if partitions is None:
        strange = [name for name, _ in pairs if name not in columns]
        if strange:
            raise NotScannable(f"the folders of {path} tell {strange[0]!r}, which is no column")
    told = {name: value for name, value in pairs if partitions is None or name in partitions}
    return tuple((name, None if value == NULL_PARTITION else value) for name, value in told.items())


def _unescaped(text: str) -> str:
    """As ExternalCatalogUtils.unescapePathName in Spark."""
    return re.sub("%([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), text)


def _identity(paths: Sequence[str]) -> list[list[Any]]:
    """Name, size and time of change of each file."""
    filesystem = store.resolve(paths[0])[0] if paths else None
    infos = filesystem.get_file_info([store.resolve(path)[1] for path in paths]) if filesystem else []
    return [[path, info.size, info.mtime_ns] for path, info in zip(paths, infos, strict=True)]


def _delta(spark: SparkSession, uri: str) -> Source:
    """The current version of a Delta table."""
    try:
        from deltalake import DeltaTable
    except ModuleNotFoundError as error:
        raise SparkdlError(
            f"{store.shown(uri)!r} is a Delta table, which takes the package deltalake to list: pip install 'sparkdl[delta]'; or "
            'pass spark.read.format("delta").load(…)'
        ) from error
    from pyspark.sql.types import StructType

    table = DeltaTable(uri)
    _check_delta(table, uri)
    actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    files = [(_delta_path(uri, action["path"]), _delta_constants(action)) for action in actions]
    schema = StructType.fromJson(json.loads(table.schema().to_json()))
    identity = {"delta": uri, "version": table.version(), "id": str(table.metadata().id)}
    return Source(spark.createDataFrame([], schema), tuple(sorted(files)), None, identity, (uri,), is_delta=True)


def delta_refused(why: str, uri: Any = None) -> StoreError:
    """The error for a Delta table that pyarrow alone cannot read."""
    return StoreError(
        f"this Delta table cannot be scanned without Spark's Delta Lake: {why}; pass "
        'spark.read.format("delta").load(…) instead of its URI',
        uri=uri,
    )


def _check_delta(table: Any, uri: str) -> None:
    protocol, metadata = table.protocol(), table.metadata()
    strange = sorted(set(protocol.reader_features or ()) - _DELTA_FEATURES)
    mapping = metadata.configuration.get("delta.columnMapping.mode", "none")
    if mapping != "none":
        raise delta_refused("it has column mapping", uri)
    if strange:
        raise delta_refused(f"it uses {', '.join(strange)}", uri)


def _delta_path(uri: str, path: str) -> str:
    path = unquote(path)
    return path if "://" in path or path.startswith("/") else store.join(uri, path)


def _delta_constants(action: dict[str, Any]) -> Constants:
    told = {name.removeprefix("partition."): value for name, value in action.items() if name.startswith("partition.")}
    return tuple((name, _told(value)) for name, value in told.items())


def _told(value: Any) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)
