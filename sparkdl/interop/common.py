"""What several interops need: the error for a package that is not there, the column behind a tensor."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

from sparkdl import store
from sparkdl.errors import SparkdlError, StoreError
from sparkdl.signature import DTYPE_OF_SPARK

_SPARK = {dtype: kind for kind, dtype in DTYPE_OF_SPARK.items() if kind not in ("decimal", "binary", "string")}
_SPARK |= {"uint8": "short", "float16": "float"}  # which Spark has no column of


def needed(package: str, extra: str) -> Any:
    """The module ``package``. Raises SparkdlError telling which extra of sparkdl brings it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise
        raise SparkdlError(f"{package} is not installed: pip install 'sparkdl[{extra}]'") from error


def spark_kind(dtype: str, shape: Sequence[int]) -> str:
    """The kind of column that holds a tensor of this dtype and shape, nested as deep: ``array<array<float>>``."""
    return "array<" * len(shape) + _SPARK[dtype] + ">" * len(shape)


def content(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file by its path or URI. Raises StoreError if it cannot be read."""
    uri = os.fspath(path)
    try:
        return store.read_bytes(uri)
    except OSError as error:
        raise StoreError(f"cannot read {uri!r}: {error}", uri=uri) from error
