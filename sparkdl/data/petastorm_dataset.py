"""A dataset that Petastorm wrote, as training data, and where Petastorm's converter keeps its own. No Spark, no Horovod."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparkdl import store
from sparkdl.data.petastorm_compat import file_system, import_petastorm
from sparkdl.errors import (
    ColumnNotFoundError,
    DataError,
    EmptyDatasetError,
    InvalidParamError,
    SignatureError,
    StoreError,
)
from sparkdl.signature import DTYPES, Signature, TensorSpec, stack_scalars

SPARK_OF_NUMPY = {
    "bool": "boolean", "uint8": "short", "int8": "byte", "int16": "short", "int32": "integer", "int64": "long",
    "float16": "float", "float32": "float", "float64": "double",
}  # fmt: skip


@dataclass(frozen=True)
class PetastormDataset:
    """Training data that Petastorm wrote: Parquet with a Unischema, whose codecs its reader undoes.

    row_groups: the rows of each row group, in Petastorm's order.
    """

    uri: str
    row_groups: tuple[int, ...]
    signature: Signature
    label: TensorSpec
    weight: TensorSpec | None = None

    @property
    def rows(self) -> int:
        """Rows of all row groups."""
        return sum(self.row_groups)

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The inputs, the label and, if there is one, the weight."""
        return (*self.signature.inputs, self.label, *([] if self.weight is None else [self.weight]))

    def cast(self, float_dtype: str | None, label_dtype: str) -> PetastormDataset:
        """The same files, read with floating inputs as ``float_dtype`` (None: as they are), labels as ``label_dtype``."""
        weight = self.weight
        if weight is not None and float_dtype in ("float32", "float64"):
            weight = replace(weight, dtype=float_dtype)
        signature = self.signature.with_float_dtype(float_dtype)
        return replace(self, signature=signature, label=replace(self.label, dtype=label_dtype), weight=weight)

    def stacked(self, name: str) -> PetastormDataset:
        """The same files, all inputs read as one vector of that name. Raises SignatureError if one is no scalar."""
        return replace(self, signature=Signature((stack_scalars(name, self.signature.inputs),)))

    @classmethod
    def open(
        cls, uri: str, *, inputCols: Sequence[str], labelCol: str, weightCol: str | None = None, trusted: bool
    ) -> PetastormDataset:
        """Read the schema and the footers of the dataset at ``uri``, any that ``pyarrow.fs`` opens.

        The Unischema is a pickle in the dataset's ``_common_metadata``, so it is read only when ``trusted``.

        The inputs' specs say what a model trained on them can score later: an array field of dtype uint8 a column of
        ``binary``, the raw bytes in C order (an image decoded to height x width x channels); one of another dtype a
        column of arrays, nested as deep as the field's shape; a scalar field a column of its Spark type.

        Raises InvalidParamError unless trusted; StoreError if there is no Petastorm dataset; ColumnNotFoundError;
        SignatureError for a field whose shape is not fixed, that may be null, or that is not a number or an array of
        numbers; EmptyDatasetError; DataError for a row group without rows.
        """
        if trusted is not True:
            raise InvalidParamError(
                f"the schema of the Petastorm dataset {uri!r} is a pickle, and reading it runs whatever code its "
                "writer put there; say trusted=True if you know where it comes from",
                param="trusted",
                value=trusted,
            )
        schema, row_groups = _opened(uri)
        fields = schema.fields
        weights = [] if weightCol is None else [weightCol]
        for name in (*inputCols, labelCol, *weights):
            if name not in fields:
                raise ColumnNotFoundError(name, fields, role="field")
        if not sum(row_groups):
            raise EmptyDatasetError()
        if 0 in row_groups:
            told = f"row group {row_groups.index(0)} (they count from 0) has no rows"
            raise DataError(
                f"{told} in {uri!r}, and Petastorm's reader divides by their number; write the dataset anew, with Spark",
                column=None,
                row=None,
                file=None,
                expected="row groups with rows",
                got=told,
            )
        inputs = Signature(tuple(_spec(fields[name]) for name in inputCols))
        weight = None
        if weightCol is not None:
            weight = _weight_spec(fields[weightCol])
        return cls(str(uri), row_groups, inputs, _spec(fields[labelCol]), weight)


@dataclass(frozen=True)
class ConverterSource:
    """The cache that Petastorm's ``make_spark_converter`` wrote: plain Parquet.

    uri: of the folder. rows: how many.
    """

    uri: str
    rows: int


def converter_source(value: object) -> ConverterSource | None:
    """Where the data of a ``SparkDatasetConverter`` lies; None if ``value`` is none. Does not import Petastorm."""
    for cls in type(value).__mro__:
        if cls.__name__ == "SparkDatasetConverter" and cls.__module__.split(".")[0] == "petastorm":
            return ConverterSource(value.cache_dir_url, int(value.dataset_size))  # type: ignore[attr-defined]
    return None


def place(uri: str) -> tuple[Any, str, str]:
    """The file system of ``uri`` for Petastorm, the path in it, and a URL that Petastorm takes for that path."""
    filesystem, path = store.resolve(uri)
    if "#" in path or "?" in path:
        raise StoreError(f"Petastorm cannot read {uri!r}: it takes URLs, which end at # and ?; rename it", uri=str(uri))
    # Petastorm cuts the scheme off, and the bucket too but for those that it knows, s3 among them.
    url = f"file://{path}" if path.startswith("/") else f"s3://{path}"
    return file_system(filesystem), path, url


def _opened(uri: str) -> tuple[Any, tuple[int, ...]]:
    """The Unischema of the dataset, and the rows of each row group in Petastorm's order."""
    metadata = import_petastorm("petastorm.etl.dataset_metadata")
    filesystem, path, _ = place(uri)
    try:
        files = metadata.pq.ParquetDataset(path, filesystem=filesystem, validate_schema=False)
        schema = metadata.get_schema(files)
        pieces = metadata.load_row_groups(files)
        footers = {piece.path: _footer(filesystem, piece.path) for piece in pieces}
    except (OSError, pa.ArrowException, metadata.PetastormMetadataError, StopIteration, KeyError) as error:
        raise StoreError(f"there is no (finished) Petastorm dataset at {uri!r}: {error!r}", uri=str(uri)) from error
    return schema, tuple(footers[piece.path].row_group(piece.row_group).num_rows for piece in pieces)


def _footer(filesystem: Any, path: str) -> pq.FileMetaData:
    with filesystem.open(path, "rb") as source:
        return pq.read_metadata(source)


def _spec(field: Any) -> TensorSpec:
    dtype = "none" if field.numpy_dtype is None else np.dtype(field.numpy_dtype).name
    shape = tuple(field.shape or ())
    problem = None
    if dtype not in DTYPES:
        problem = f"its dtype is {dtype}, which no tensor can hold; write it as one of {list(DTYPES)}"
    elif None in shape:
        problem = f"its shape {shape} is not fixed; write it cut or padded to one shape"
    elif field.nullable:
        problem = "it may be null; write it as not nullable"
    if problem:
        raise SignatureError(
            f"field {field.name!r} of the Petastorm dataset cannot be trained on: {problem}",
            column=field.name,
            expected="numbers of a fixed shape",
            got=f"{dtype}{list(shape)}",
        )
    if not shape:
        kind = _scalar_type(field, dtype)
    else:
        kind = "binary" if dtype == "uint8" else "array<" * len(shape) + SPARK_OF_NUMPY[dtype] + ">" * len(shape)
    return TensorSpec(field.name, dtype, shape, columns=(field.name,), types=(kind,))


def _weight_spec(field: Any) -> TensorSpec:
    spec = _spec(field)
    if spec.shape:
        raise SignatureError(
            f"weight field {spec.name!r} has shape {spec.shape}; a weight is one number a row",
            column=spec.name,
            expected=(),
            got=spec.shape,
        )
    return replace(spec, dtype="float64" if spec.dtype == "float64" else "float32")


def _scalar_type(field: Any, dtype: str) -> str:
    """The Spark type that the field's codec names, if it is a number's."""
    spark_dtype = getattr(field.codec, "spark_dtype", None)
    told = str(spark_dtype().jsonValue()).split("(")[0] if spark_dtype else ""
    return told if told in {*SPARK_OF_NUMPY.values(), "decimal"} else SPARK_OF_NUMPY[dtype]
