"""Rows into a Delta table, exactly once: a micro-batch is one commit that names its query and its number.

By the package deltalake (delta-rs), not by Spark's own Delta: see ``docs/decisions/0020-delta-by-delta-rs.md``.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from sparkdl import store
from sparkdl.errors import InvalidParamError, SinkError
from sparkdl.score.output import NULL_PARTITION, Layout
from sparkdl.sinks import delta_schema, schemas
from sparkdl.sinks import staged as files
from sparkdl.sinks.sink import Sink, Staged

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Each commit lists the log's folder, of a local table whole: its length is what a commit's time grows with.
_NEW_TABLE = {"delta.logRetentionDuration": "interval 1 hours"}
# pyarrow's options of S3 that delta-rs has too.
_PYARROW = {"region": "AWS_REGION", "endpoint_override": "AWS_ENDPOINT_URL"}
_CLEAN_EVERY = 100  # batches
_TRIES = 5  # of a commit that met another writer's, each with delta-rs's own 15


@dataclass(frozen=True, repr=False)
class Delta(Sink):
    """A Delta table at ``uri``, made by the first batch if there is none. Exactly once.

    The workers write Parquet files into the table's folder; a batch's files become the table's in one commit, which also
    holds the query's id and the batch's number (``txn`` with ``application``): a batch that is committed already is
    not committed again. Several queries, and other writers, may append to one table. Needs the package deltalake
    (``pip install 'sparkdl[delta]'``), no jar, on any Spark.

    uri: local, or what both pyarrow and delta-rs open (S3, GCS, ABFS, HDFS). partitionBy: columns of the table's folders.
    storageOptions: for delta-rs, as it names them; what is in there is neither shown nor written down. The workers write
    by pyarrow, which takes its credentials from the machine's own settings.

    A table that the sink makes keeps its log for an hour (``delta.logRetentionDuration``): no time travel and no stream of
    the table from before that. One that is there already keeps its own, and long ones make slow commits:
    ``docs/decisions/0020-delta-by-delta-rs.md``. Of a table's log what is too old goes every 100 batches, unless
    ``delta.enableExpiredLogCleanup`` is false.

    Files of attempts that failed go when their batch is committed; what a worker that was cut off writes later is
    VACUUM's to remove. A table's ``delta.setTransactionRetentionDuration`` must not be shorter than a query may be down.
    Raises InvalidParamError for arguments of another kind.
    """

    uri: str
    partitionBy: Sequence[str] = ()
    storageOptions: Mapping[str, str] | None = None
    layout: Layout = field(init=False, compare=False)
    _opened: list[Any] = field(init=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        options = self.storageOptions or {}
        if not all(isinstance(text, str) for pair in options.items() for text in pair):
            raise InvalidParamError(
                "'storageOptions' must be a dict of texts", param="storageOptions", value=sorted(map(str, options))
            )
        object.__setattr__(self, "uri", store.absolute(self.uri))
        object.__setattr__(self, "layout", Layout.checked(self.partitionBy, None, "snappy"))
        object.__setattr__(self, "partitionBy", self.layout.partition_by)

    def __repr__(self) -> str:
        return f"Delta({self.place!r})"

    @property
    def place(self) -> str:
        """See ``Sink``."""
        return store.shown(self.uri)

    @property
    def identity(self) -> dict[str, Any]:
        """Its kind, its place and its partition columns."""
        return {"kind": "delta", "uri": self.place, "partitionBy": list(self.partitionBy)}

    def check(self, spark: SparkSession, schema: Mapping[str, Any]) -> None:
        """Refuse what could not be committed: types that Delta has not, a table of another schema, no right to write."""
        _deltalake(self)
        self.layout.check_columns({told["name"]: told["type"] for told in schema["fields"]})
        refused = list(delta_schema.refused(schema, self.partitionBy))
        if refused:
            raise self._error(f"a Delta table cannot hold these rows: {'; '.join(refused)}")
        table = self._table()
        if table is not None:
            self._check_table(table, schema)
        elif strange := [name for name in store.names(self.uri) if not name.startswith(("sparkdl-", ".", "_"))]:
            raise self._error(
                f"there is no Delta table, but other files ({sorted(strange)[0]!r}, …): take another folder"
            )
        self._check_writable(self.uri)

    def staging(self, scratch: str, query: str, batch: int) -> str:
        """A folder inside the table's, of which the table's log knows nothing until the commit."""
        return store.join(self._batch_folder(query, batch), uuid.uuid4().hex[:16])

    def commit(self, spark: SparkSession, staged: Staged) -> None:
        """Add the files to the table in one commit, or nothing if the table holds the batch."""
        lake = _deltalake(self)
        application = self.application(staged.query, staged.schema)
        told = [lake.Transaction(application, staged.batch)]
        if staged.files:
            staged = replace(staged, folder=store.join(self.uri, self._inside(staged)))
        for left in reversed(range(_TRIES)):
            table = self._table()
            try:
                if table is None:
                    # Without tries of its own: delta-rs would make the table that another has just made once more.
                    self._create(
                        staged,
                        self._actions(staged),
                        lake.CommitProperties(max_commit_retries=0, app_transactions=told),
                    )
                else:
                    # Before it is asked what the table holds: another table's batch is not lost for this one's number.
                    self._check_table(table, staged.schema)
                    if _holds(table, application, staged.batch):
                        return  # nothing is swept: which attempt's files the table holds is not known here
                    table.create_write_transaction(
                        self._actions(staged),
                        "append",
                        table.schema(),
                        list(self.partitionBy),
                        commit_properties=lake.CommitProperties(app_transactions=told),
                        post_commithook_properties=lake.PostCommitHookProperties(cleanup_expired_logs=False),
                    )
                break
            except lake.exceptions.DeltaError as error:
                # Somebody else's commit came between: what it changed is looked at anew.
                raced = isinstance(error, lake.exceptions.CommitFailedError) or (table is None and self._table())
                if not raced or not left:
                    raise self._error(f"batch {staged.batch} was not committed: {error}") from self._cause(error)
        self._sweep(staged)
        if staged.batch % _CLEAN_EVERY == 0:
            self._clean()

    def application(self, query: str, schema: Mapping[str, Any]) -> str:
        """The ``appId`` of a query's transactions: rows of other columns are another application's."""
        names = json.dumps(sorted(told["name"] for told in schema["fields"]))
        return f"sparkdl-{query}-{hashlib.sha256(names.encode()).hexdigest()[:8]}"

    def _clean(self) -> None:
        """Remove the files of the log that are too old; by delta-rs itself it would be done, and cost, each commit."""
        from deltalake.exceptions import DeltaError

        table = self._table()
        if table is None or (table.metadata().configuration or {}).get("delta.enableExpiredLogCleanup") == "false":
            return
        try:
            table.cleanup_metadata()
        except (DeltaError, OSError) as error:
            raise self._error(f"old files of its log cannot be removed: {error}") from self._cause(error)

    def _create(self, staged: Staged, actions: list[Any], transaction: Any) -> None:
        from deltalake import Schema
        from deltalake.transaction import create_table_with_add_actions

        place, options = self._opens()
        create_table_with_add_actions(
            place,
            Schema.from_json(json.dumps(schemas.nullable(staged.schema))),
            actions,
            mode="error",
            partition_by=list(self.partitionBy),
            configuration=_NEW_TABLE,
            storage_options=options,
            commit_properties=transaction,
        )

    def _opens(self) -> tuple[str, dict[str, str] | None]:
        """The URI and the options that delta-rs takes: it reads none out of a URI, as pyarrow does."""
        if "://" not in self.uri:
            return self.uri, dict(self.storageOptions or {}) or None
        parts = urlsplit(self.uri)
        told = {_PYARROW[name]: value for name, value in parse_qsl(parts.query) if name in _PYARROW}
        if parts.scheme == "s3" and parts.password:
            told |= {"AWS_ACCESS_KEY_ID": unquote(parts.username or "")}
            told |= {"AWS_SECRET_ACCESS_KEY": unquote(parts.password)}
        host = parts.netloc.rpartition("@")[2] if parts.scheme == "s3" else parts.netloc
        place = urlunsplit((parts.scheme, host, parts.path, "", ""))
        return place, {**told, **(self.storageOptions or {})} or None

    def _table(self) -> Any:
        """The table as it is now, or None. It is kept: reading only what is new of its log takes a tenth of the time."""
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        try:
            if self._opened:
                self._opened[0].update_incremental()
            else:
                place, options = self._opens()
                self._opened.append(DeltaTable(place, storage_options=options))
        except TableNotFoundError:
            self._opened.clear()
            return None
        except (DeltaError, OSError) as error:
            self._opened.clear()
            raise self._error(f"the table cannot be read: {error}") from self._cause(error)
        return self._opened[0]

    def _check_table(self, table: Any, schema: Mapping[str, Any]) -> None:
        there = json.loads(table.schema().to_json())
        differ = list(schemas.differences(there, schema))
        folders, own = list(table.metadata().partition_columns), list(self.partitionBy)
        if folders != own:
            differ.append(f"its partition columns are {folders}, not {own}")
        if differ:
            raise self._error(f"the table there has another schema: {'; '.join(differ)}", table=there)
        needs = sorted(delta_schema.needs(there, table.metadata().configuration or {}))
        if needs:
            raise self._error(f"the table there needs of its writers what this sink does not do: {', '.join(needs)}")

    def _actions(self, staged: Staged) -> list[Any]:
        from deltalake.transaction import AddAction

        if not staged.files:
            return []
        inside = self._inside(staged)
        actions = []
        for file, info in zip(staged.files, files.checked(staged, f"Delta {self.place}"), strict=True):
            changed = int(info.mtime_ns // 1_000_000) if info.mtime_ns else 0
            stats = json.dumps({"numRecords": file.rows})
            path = store.join(inside, file.path)  # delta-rs encodes it as the protocol wants
            actions.append(AddAction(path, file.nbytes, self._partition(file.path), changed, True, stats))
        return actions

    def _inside(self, staged: Staged) -> str:
        """The path of the batch's folder in the table's, by what the file system calls both: URIs have options behind."""
        root, folder = (store.resolve(uri)[1].rstrip("/") for uri in (self.uri, staged.folder))
        if not folder.startswith(f"{root}/"):
            raise self._error(
                f"files in {store.shown(staged.folder)!r} cannot become the table's: they are not in its folder"
            )
        return folder[len(root) + 1 :]

    def _partition(self, path: str) -> dict[str, str | None]:
        folders = dict(folder.partition("=")[::2] for folder in path.split("/")[:-1])
        values = {unquote(name): unquote(value) for name, value in folders.items()}
        if set(values) != set(self.partitionBy):
            raise self._error(f"the file {path!r} does not lie in folders of {list(self.partitionBy)}")
        return {name: None if value == NULL_PARTITION else value for name, value in values.items()}

    def _batch_folder(self, query: str, batch: int) -> str:
        return store.join(self.uri, f"sparkdl-{query}", f"{batch:012d}")

    def _sweep(self, staged: Staged) -> None:
        """Remove what other attempts at the batch left, or the folder if it has no files."""
        parent = self._batch_folder(staged.query, staged.batch)
        if not staged.files:
            store.delete(parent)
            return
        for name in store.names(parent):
            if name != staged.folder.rpartition("/")[2]:
                store.delete(store.join(parent, name))

    def _error(self, what: str, **fields: Any) -> SinkError:
        what = store.hushed(what, self._secrets())
        return SinkError(f"the sink {self!r}: {what}", sink=f"Delta {self.place}", **fields)

    def _cause(self, error: Exception) -> Exception | None:
        """Of an error of ours; none where its text might hold a secret."""
        return None if self._secrets() else error

    def _secrets(self) -> list[str]:
        options = [value for name, value in (self.storageOptions or {}).items() if value and store.sounds_secret(name)]
        return [*store.secrets_of(self.uri), *options]


def _deltalake(sink: Delta) -> Any:
    try:
        import deltalake.exceptions
    except ModuleNotFoundError as error:
        raise sink._error("it takes the package deltalake: pip install 'sparkdl[delta]'") from error
    return deltalake


def _holds(table: Any, application: str, batch: int) -> bool:
    last = table.transaction_version(application)
    return last is not None and last >= batch
