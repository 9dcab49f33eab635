"""Petastorm 0.12 on a pyarrow of today: ``import_petastorm``.

Petastorm's modules import ``pyarrow.filesystem`` and ``pyarrow.hdfs``, and use the ``ParquetDataset`` with ``pieces``
that pyarrow dropped after 14; with numpy 2 they also miss ``np.unicode_`` and ``np.string_``. From pyarrow 15 on,
``import_petastorm``

- lets Petastorm's modules find stand-ins for the missing modules, and takes these away when they are imported;
- rebinds the names ``pq``, ``pyarrow``, ``pa`` and ``np`` *inside Petastorm's modules* to stand-ins that add what is
  missing and pass all else on.

pyarrow and numpy themselves are as they were, for everybody else. On pyarrow 14 nothing is done but the import.
Not to be had from pyarrow 15 on: ``filters=`` of ``make_reader``, and Petastorm's own HDFS driver (give ``filesystem=``).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import posixpath
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from sparkdl.errors import StoreError

_LOCK = threading.RLock()


def import_petastorm(module: str = "petastorm") -> ModuleType:
    """Import Petastorm, or the one of its modules that is named (``"petastorm.spark"``), fit for this pyarrow.

    Raises ModuleNotFoundError with the remedy if Petastorm is not installed.
    """
    with _LOCK, _missing_modules() if _needed() else contextlib.nullcontext():
        try:
            imported = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != "petastorm":
                raise
            raise ModuleNotFoundError("Petastorm is not installed: pip install 'sparkdl[petastorm]'", name=error.name) \
                from error  # fmt: skip
        if _needed():
            _rebind()
    return imported


def with_petastorm(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` in a form that a Spark worker can unpickle though it refers to Petastorm's objects.

    Spark unpickles a function's globals before any code of ours runs, and Petastorm cannot be imported then. So
    ``rows.map(with_petastorm(lambda row: dict_to_spark_row(schema, row)))``.
    """
    return _Shipped(function)


class _Shipped:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        import cloudpickle

        return _unship, (cloudpickle.dumps(self.function),)


def _unship(content: bytes) -> _Shipped:
    import cloudpickle

    import_petastorm()
    return _Shipped(cloudpickle.loads(content))


def file_system(filesystem: fs.FileSystem) -> Any:
    """``filesystem`` as Petastorm's ``filesystem=`` wants it: fsspec's kind, or, before pyarrow 15, the legacy kind."""
    from fsspec.implementations.arrow import ArrowFSWrapper  # type: ignore[import-untyped]

    wrapped = ArrowFSWrapper(filesystem)
    if _needed():
        return wrapped
    from pyarrow.filesystem import DaskFileSystem

    class Legacy(DaskFileSystem):  # type: ignore[misc]
        """Those of its methods that it leaves out."""

        def __init__(self) -> None:
            self.fs = wrapped  # and none of its warning, which is for who could choose

        def isdir(self, path: str) -> bool:
            return bool(wrapped.isdir(path))

        def isfile(self, path: str) -> bool:
            return bool(wrapped.isfile(path))

    return Legacy()


def _needed() -> bool:
    return int(pa.__version__.split(".")[0]) >= 15


@contextlib.contextmanager
def _missing_modules() -> Iterator[None]:
    """What pyarrow lacks, importable for the time of the block and found through sys.modules alone."""
    filesystem, hdfs = ModuleType("pyarrow.filesystem"), ModuleType("pyarrow.hdfs")
    filesystem.LocalFileSystem = _local_file_system()  # type: ignore[attr-defined]
    hdfs.HadoopFileSystem = type("HadoopFileSystem", (), {})  # type: ignore[attr-defined]
    # The last is for `from pyarrow import LocalFileSystem`: where the attribute is missing, Python looks here.
    missing: dict[str, Any] = {
        "pyarrow.filesystem": filesystem,
        "pyarrow.hdfs": hdfs,
        "pyarrow.LocalFileSystem": filesystem.LocalFileSystem,
    }
    added = [name for name in missing if name not in sys.modules]
    sys.modules.update({name: missing[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def _rebind() -> None:
    """Put the stand-ins in place of pyarrow, its parquet and numpy in Petastorm's modules, and nowhere else."""
    real = {"parquet": pq, "pyarrow": pa} | ({} if hasattr(np, "unicode_") else {"numpy": np})
    by_id = {id(module): name for name, module in real.items()}
    for name, module in list(sys.modules.items()):
        if name == "petastorm" or name.startswith("petastorm."):
            for attribute, value in list(vars(module).items()):
                if id(value) in by_id:
                    setattr(module, attribute, _stand_in(by_id[id(value)]))
    converter = getattr(sys.modules.get("petastorm.spark.spark_dataset_converter"), "SparkDatasetConverter", None)
    if converter is not None:
        converter.__reduce__ = _reduce_converter


def _reduce_converter(converter: Any) -> tuple[Any, ...]:
    return _converter, (type(converter).__name__, dict(vars(converter)))


def _converter(name: str, state: dict[str, Any]) -> Any:
    cls = getattr(import_petastorm("petastorm.spark.spark_dataset_converter"), name)
    converter = cls.__new__(cls)
    converter.__dict__.update(state)
    return converter


class _StandIn:
    """A module with some names added. Pickled by its name, as Spark's workers get it in Petastorm's closures."""

    def __init__(self, name: str, module: ModuleType, added: dict[str, Any]) -> None:
        self.__dict__.update(added)
        self._name = name
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name == "_module":  # not set yet
            raise AttributeError(name)
        return getattr(self._module, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _stand_in, (self._name,)


_STAND_INS: dict[str, _StandIn] = {}


def _stand_in(name: str) -> _StandIn:
    """The stand-in for ``parquet``, ``pyarrow`` or ``numpy``; there is one of each."""
    with _LOCK:
        if name not in _STAND_INS:
            if name == "parquet":
                added: dict[str, Any] = {"ParquetDataset": _Dataset, "ParquetDatasetPiece": _Piece}
            elif name == "pyarrow":
                added = {"localfs": _local_file_system()(), "parquet": _stand_in("parquet")}
            else:
                added = {"unicode_": np.str_, "string_": np.bytes_}
            _STAND_INS[name] = _StandIn(name, {"parquet": pq, "pyarrow": pa, "numpy": np}[name], added)
    return _STAND_INS[name]


def _local_file_system() -> Any:
    """fsspec's, which has all that Petastorm asks of the one that pyarrow had. Comes with Petastorm."""
    from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

    return LocalFileSystem


@dataclass
class _Level:
    """One level of ``name=value`` folders; ``keys`` in the order in which they were met."""

    name: str
    keys: list[str] = field(default_factory=list)

    @property
    def dictionary(self) -> pa.Array:
        """The keys as numbers if all are whole numbers, else as text."""
        try:
            return pa.array([int(key) for key in self.keys], pa.int64())
        except ValueError:
            return pa.array(self.keys)


class _Partitions(list[_Level]):
    """The levels of a partitioned dataset; empty, and so false, for one that is not."""

    @property
    def levels(self) -> list[_Level]:
        return self

    @property
    def partition_names(self) -> set[str]:
        return {level.name for level in self}

    def keys_of(self, folders: Sequence[str]) -> list[tuple[str, int]]:
        """(name, number of its value) of each folder, as a piece's ``partition_keys``."""
        keys = []
        for depth, folder in enumerate(folders):
            name, equals, value = folder.partition("=")
            if not equals or (depth < len(self) and self[depth].name != name):
                raise StoreError(f"folder {folder!r} of a Petastorm dataset is no partition, name=value", uri=folder)
            if depth == len(self):
                self.append(_Level(name))
            known = self[depth].keys
            if value not in known:
                known.append(value)
            keys.append((name, known.index(value)))
        return keys


class _Piece:
    """A file of a dataset, or one of its row groups. What Petastorm uses of pyarrow 14's ``ParquetDatasetPiece``."""

    def __init__(
        self,
        path: str,
        open_file_func: Any = None,
        file_options: Any = None,
        row_group: int | None = None,
        partition_keys: Sequence[tuple[str, int]] | None = None,
    ) -> None:
        self.path = path
        self.open_file_func = open_file_func or _open_local
        self.row_group = row_group
        self.partition_keys = list(partition_keys or [])

    def get_metadata(self) -> pq.FileMetaData:
        with self.open_file_func(self.path) as source:
            return pq.read_metadata(source)

    def read(self, columns: Any = None, use_threads: bool = True, partitions: _Partitions | None = None) -> pa.Table:
        names = None if columns is None else list(columns)
        with self.open_file_func(self.path) as source:
            file = pq.ParquetFile(source)
            if self.row_group is None:
                table = file.read(columns=names, use_threads=use_threads)
            else:
                table = file.read_row_group(self.row_group, columns=names, use_threads=use_threads)
        for level, (name, index) in zip(partitions or [], self.partition_keys, strict=False):
            table = table.append_column(name, pa.repeat(level.dictionary[index], len(table)))
        return table


def _open_local(path: str) -> Any:
    return open(path, "rb")


class _Dataset:
    """The files of a dataset. What Petastorm uses of pyarrow 14's ``ParquetDataset``."""

    def __init__(
        self,
        path_or_paths: Any,
        filesystem: Any = None,
        validate_schema: bool = False,
        metadata_nthreads: int = 1,
        filters: Any = None,
    ) -> None:
        if filters is not None:
            raise NotImplementedError(f"filters= needs pyarrow 14 or older (this is {pa.__version__})")
        self.fs = _local_file_system()() if filesystem is None else filesystem
        self.partitions = _Partitions()
        self.metadata_path: str | None = None
        self.common_metadata_path: str | None = None
        self.paths: Any
        if isinstance(path_or_paths, list):
            self.paths = list(path_or_paths)
            self.pieces = [_Piece(path, self.fs.open) for path in self.paths]
        else:
            self.paths = self.fs._strip_protocol(os.fspath(path_or_paths)).rstrip("/")
            self.pieces = self._listed()
        # As pyarrow had it: where there is only the one, it serves for both.
        self.common_metadata_path = self.common_metadata_path or self.metadata_path
        self.metadata = self._read(self.metadata_path)
        self.common_metadata = self._read(self.common_metadata_path)

    def _read(self, path: str | None) -> pq.FileMetaData | None:
        if path is None:
            return None
        with self.fs.open(path, "rb") as source:
            return pq.read_metadata(source)

    def _listed(self) -> list[_Piece]:
        if self.fs.isfile(self.paths):
            return [_Piece(self.paths, self.fs.open)]
        pieces = []
        for path in sorted(self.fs.find(self.paths)):
            *folders, name = posixpath.relpath(path, self.paths).split("/")
            if any(_is_private(folder) for folder in folders):
                continue
            if name == "_common_metadata" and not folders:
                self.common_metadata_path = path
            elif name == "_metadata" and not folders:
                self.metadata_path = path
            elif not _is_private(name) and not name.endswith((".crc", "_$folder$")):
                pieces.append(_Piece(path, self.fs.open, partition_keys=self.partitions.keys_of(folders)))
        return pieces


def _is_private(name: str) -> bool:
    return name.startswith(("_", ".")) and "=" not in name
