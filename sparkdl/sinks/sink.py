"""What a sink is: it says where the workers write a micro-batch's files, and makes those files its own in one step.

A micro-batch's life (``sparkdl.stream.batch``): the workers score and write Parquet files into ``staging``; the driver
writes down, beside the checkpoint, which files these are (``Staged``); then ``commit``. A batch that was cut off after
that is not scored again: ``commit`` gets the same Staged once more. So ``commit`` must be idempotent, and a sink never
sees other content for a batch than it saw before.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sparkdl import store
from sparkdl.errors import SinkError, StoreError
from sparkdl.score.output import Layout

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class StagedFile:
    """path: under ``Staged.folder``, hive folders of ``partitionBy`` included. nbytes: its size."""

    path: str
    rows: int
    nbytes: int


@dataclass(frozen=True)
class Staged:
    """A micro-batch's rows, scored and written, not yet the sink's.

    query: the id of the query, the same after a restart, 32 hex digits. batch: Spark's number of the micro-batch, from 0.
    folder: what ``Sink.staging`` gave. schema: of the rows, Spark's as JSON values, partition columns included.
    """

    query: str
    batch: int
    folder: str
    files: tuple[StagedFile, ...]
    schema: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """Over all files."""
        return sum(file.rows for file in self.files)

    @property
    def uris(self) -> list[str]:
        """Of the files, where the workers wrote them."""
        return [store.join(self.folder, file.path) for file in self.files]

    def to_json(self) -> dict[str, Any]:
        """As JSON values, which are kept beside the checkpoint: without what is secret in the folder's URI."""
        return {**asdict(self), "folder": store.shown(self.folder), "files": [asdict(file) for file in self.files]}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Staged:
        """What ``to_json`` gave."""
        return cls(**{**told, "files": tuple(StagedFile(**file) for file in told["files"])})


class Sink(ABC):
    """A place that takes the rows of micro-batches. ``layout``: how the workers write the files."""

    layout: Layout = Layout()

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What it is and where, as JSON values without secrets, ``kind`` among them. A query that starts again on its
        checkpoint must have a sink of the same identity."""

    @property
    def place(self) -> str | None:
        """The URI of the folder that the sink writes, without secrets, or None if it writes none: no other folder of the
        query may lie in it, nor it in another (``store.overlap``)."""
        return None

    @abstractmethod
    def check(self, spark: SparkSession, schema: Mapping[str, Any]) -> None:
        """Before the query starts, on the driver: raise SinkError if rows of this schema (Spark's, as JSON values)
        cannot be taken: another schema there, no such place, no right to write, a package missing."""

    def _check_writable(self, uri: str) -> None:
        """Raise SinkError if no file can be made there."""
        try:
            store.check_writable(uri, "name a folder that the driver and every executor can write")
        except StoreError as error:
            raise SinkError(f"the sink {self!r} cannot be written: {error}", sink=repr(self)) from error

    def staging(self, scratch: str, query: str, batch: int) -> str:
        """The URI of a folder of its own for the files of this attempt at a batch; made by whoever writes there.

        scratch: a folder beside the checkpoint, for sinks whose rows do not stay in these files; it is swept.
        """
        return store.join(scratch, f"{batch}-{uuid.uuid4().hex}")

    @abstractmethod
    def commit(self, spark: SparkSession, staged: Staged) -> None:
        """Make the batch's rows the sink's: all, or on an error none that a reader of committed rows would see. Called
        again for a batch that may have been committed. ``staged.files`` may be empty. Raises SinkError."""

    def swept(self, query: str, batch: int) -> None:  # noqa: B027  # most have nothing to do
        """All batches up to this one are done with: remove what attempts that failed left."""
