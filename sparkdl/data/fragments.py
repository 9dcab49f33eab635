"""A piece of a row group as arrays, without a copy of what Arrow decoded. No Spark, no Horovod."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparkdl import store
from sparkdl.data.manifest import PAGE_CHECKSUMS, Dataset
from sparkdl.data.shard import Fragment
from sparkdl.errors import DataError
from sparkdl.signature import TensorSpec

_CHECKED: dict[str, Any] = {"page_checksum_verification": True} if PAGE_CHECKSUMS else {}
Footers = dict[str, pq.FileMetaData]


def read_fragment(dataset: Dataset, fragment: Fragment, footers: Footers | None = None) -> list[np.ndarray]:
    """The fragment's rows, in the order of ``dataset.tensors``, each ``(rows, *shape)``, in the dtype on disk.

    footers: of the files read before, by path; the next reads of a file do without reading its footer again.
    Raises DataError naming the file and the row group if it cannot be read, or is not what the manifest says.
    """
    filesystem, path = store.resolve(store.join(dataset.uri, fragment.path))
    footers = {} if footers is None else footers
    try:
        with filesystem.open_input_file(path) as source:
            file = pq.ParquetFile(source, metadata=footers.get(path), **_CHECKED)
            footers[path] = file.metadata
            table = file.read_row_group(fragment.row_group, columns=_on_disk(dataset), use_threads=False)
        if len(table) < fragment.stop:
            raise ValueError(f"it has {len(table)} rows, and rows up to {fragment.stop} are wanted")
        rows = table.slice(fragment.start, fragment.rows)
        return [_array(rows, spec) for spec in dataset.tensors]
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise DataError(
            f"row group {fragment.row_group} of {path} cannot be read: {error}",
            column=None,
            row=None,
            file=path,
            expected="a readable Parquet row group",
            got=str(error),
        ) from error


def _on_disk(dataset: Dataset) -> list[str]:
    """The columns behind the tensors; what is not in the file is not missed."""
    stacked = (column for spec in dataset.tensors if spec.is_stacked for column in spec.columns)
    return [*(spec.name for spec in dataset.tensors), *stacked]


def _array(rows: pa.Table, spec: TensorSpec) -> np.ndarray:
    """One tensor as it lies on disk (see ``columns.flat``), or stacked from scalars that each lie in their own column."""
    if spec.is_stacked and spec.name not in rows.column_names:
        return np.stack([_values(rows.column(name)).astype(spec.dtype) for name in spec.columns], axis=1)
    return _values(rows.column(spec.name)).reshape(len(rows), *spec.shape)


def _values(column: pa.ChunkedArray) -> np.ndarray:
    """All values of a column, one after the other."""
    array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    values = array.flatten() if pa.types.is_list(array.type) else array
    if values.null_count:
        raise ValueError(f"it has {values.null_count} nulls")
    return np.asarray(values.to_numpy(zero_copy_only=False))
