"""Rows into a Delta table, exactly once: a micro-batch is one commit that names its query and its number.

By the package deltalake (delta-rs), not by Spark's own Delta: see ``docs/decisions/0020-delta-by-delta-rs.md``.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sparkdl import store
from sparkdl.errors import InvalidParamError, SinkError, StoreError
from sparkdl.score.output import NULL_PARTITION, Layout
from sparkdl.sinks import delta_schema
from sparkdl.sinks import staged as files
from sparkdl.sinks.sink import Sink, Staged

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_TRIES = 5  # of a commit that met another writer's, each with delta-rs's own 15


@dataclass(frozen=True)
class Delta(Sink):
    """A Delta table at ``uri``, made by the first batch if there is none. Exactly once.

    The workers write Parquet files into the table's folder; a batch's files become the table's in one commit, which also
    holds the query's id and the batch's number (``txn`` with ``sparkdl-<query id>``): a batch that is committed already is
    not committed again. Several queries, and other writers, may append to one table. Needs the package deltalake
    (``pip install 'sparkdl[delta]'``), no jar, on any Spark.

    uri: local, or what both pyarrow and delta-rs open (S3, GCS, ABFS, HDFS). partitionBy: columns of the table's folders.
    storageOptions: for delta-rs, as it names them; what is in there is neither shown nor written down. The workers write
    by pyarrow, which takes its credentials from the machine's own settings.

    Files of attempts that failed go when their batch is committed; what a worker that was cut off writes later is
    VACUUM's to remove. A table's ``delta.setTransactionRetentionDuration`` must not be shorter than a query may be down.
    Raises InvalidParamError for arguments of another kind.
    """

    uri: str
    partitionBy: Sequence[str] = ()
    storageOptions: Mapping[str, str] | None = field(default=None, repr=False)
    layout: Layout = field(init=False, repr=False, compare=False)
    _opened: list[Any] = field(init=False, repr=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        options = self.storageOptions or {}
        if not all(isinstance(text, str) for pair in options.items() for text in pair):
            raise InvalidParamError(
                "'storageOptions' must be a dict of texts", param="storageOptions", value=sorted(map(str, options))
            )
        object.__setattr__(self, "uri", store.absolute(self.uri))
        object.__setattr__(self, "layout", Layout.checked(self.partitionBy, None, "snappy"))
        object.__setattr__(self, "partitionBy", self.layout.partition_by)

    @property
    def identity(self) -> dict[str, Any]:
        """Its kind, its place and its partition columns."""
        return {"kind": "delta", "uri": self.uri, "partitionBy": list(self.partitionBy)}

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
        probe = store.join(self.uri, f".sparkdl-probe-{uuid.uuid4().hex}")
        try:
            store.write_bytes(probe, b"")
            store.delete(probe)
        except StoreError as error:
            raise self._error(f"it cannot be written: {error}") from error

    def staging(self, scratch: str, query: str, batch: int) -> str:
        """A folder inside the table's, of which the table's log knows nothing until the commit."""
        return store.join(self._batch_folder(query, batch), uuid.uuid4().hex[:16])

    def commit(self, spark: SparkSession, staged: Staged) -> None:
        """Add the files to the table in one commit, or nothing if the table holds the batch."""
        lake = _deltalake(self)
        application = f"sparkdl-{staged.query}"
        told = [lake.Transaction(application, staged.batch)]
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
                elif _holds(table, application, staged.batch):
                    return  # nothing is swept: which attempt's files the table holds is not known here
                else:
                    self._check_table(table, staged.schema)
                    table.create_write_transaction(
                        self._actions(staged),
                        "append",
                        table.schema(),
                        list(self.partitionBy),
                        commit_properties=lake.CommitProperties(app_transactions=told),
                    )
                break
            except lake.exceptions.DeltaError as error:
                # Somebody else's commit came between: what it changed is looked at anew.
                raced = isinstance(error, lake.exceptions.CommitFailedError) or (table is None and self._table())
                if not raced or not left:
                    raise self._error(f"batch {staged.batch} was not committed: {error}") from error
        self._sweep(staged)

    def _create(self, staged: Staged, actions: list[Any], transaction: Any) -> None:
        from deltalake import Schema
        from deltalake.transaction import create_table_with_add_actions

        create_table_with_add_actions(
            self.uri,
            Schema.from_json(json.dumps(delta_schema.nullable(staged.schema))),
            actions,
            mode="error",
            partition_by=list(self.partitionBy),
            storage_options=dict(self.storageOptions or {}) or None,
            commit_properties=transaction,
        )

    def _table(self) -> Any:
        """The table as it is now, or None. It is kept: reading only what is new of its log takes a tenth of the time."""
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        try:
            if self._opened:
                self._opened[0].update_incremental()
            else:
                self._opened.append(DeltaTable(self.uri, storage_options=dict(self.storageOptions or {}) or None))
        except TableNotFoundError:
            self._opened.clear()
            return None
        except (DeltaError, OSError) as error:
            self._opened.clear()
            raise self._error(f"the table cannot be read: {error}") from error
        return self._opened[0]

    def _check_table(self, table: Any, schema: Mapping[str, Any]) -> None:
        there = json.loads(table.schema().to_json())
        differ = list(delta_schema.differences(there, schema))
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
        if not staged.folder.startswith(f"{self.uri.rstrip('/')}/"):
            raise self._error(f"files in {staged.folder!r} cannot become the table's: they are not in its folder")
        inside = staged.folder[len(self.uri.rstrip("/")) + 1 :]
        actions = []
        for file, info in zip(staged.files, files.checked(staged, f"Delta {self.uri}"), strict=True):
            changed = int(info.mtime_ns // 1_000_000) if info.mtime_ns else 0
            stats = json.dumps({"numRecords": file.rows})
            path = store.join(inside, file.path)  # delta-rs encodes it as the protocol wants
            actions.append(AddAction(path, file.nbytes, self._partition(file.path), changed, True, stats))
        return actions

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
        return SinkError(f"the sink Delta({self.uri!r}): {what}", sink=f"Delta {self.uri}", **fields)


def _deltalake(sink: Delta) -> Any:
    try:
        import deltalake.exceptions
    except ModuleNotFoundError as error:
        raise sink._error("it takes the package deltalake: pip install 'sparkdl[delta]'") from error
    return deltalake


def _holds(table: Any, application: str, batch: int) -> bool:
    last = table.transaction_version(application)
    return last is not None and last >= batch
