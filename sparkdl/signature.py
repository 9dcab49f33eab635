"""What goes into a model and what comes out: columns <-> tensors, by name, dtype and shape.

A signature is derived from a DataFrame's schema where that says enough, and from declarations or one sample row
where it does not. It is plain data: no Spark, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkdl.errors import ColumnNotFoundError, EmptyDatasetError, SignatureError, did_you_mean

if TYPE_CHECKING:
    from sparkdl.decode.base import Decoder
    from sparkdl.preprocess.base import Preprocessor

DTYPE_OF_SPARK = {
    "boolean": "bool",
    "byte": "int8",
    "short": "int16",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "decimal": "float64",
    "binary": "uint8",
    "string": "uint8",
}
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
FLOATS = ("float16", "float32", "float64")
_MAY_LACK = ("mask_of", "preprocess")
_OTHERS = ("string", "binary", "date", "timestamp", "timestamp_ntz", "struct")  # kinds that are no numbers


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model and the columns behind it.

    name: the model's name for it (a key of ``Bundle.predict``'s dictionaries).
    dtype: a numpy name out of ``bool uint8 int8 int16 int32 int64 float16 float32 float64``.
    shape: of one row; a batch of B rows has shape ``(B, *shape)``.
        A first size of -1 varies from row to row, as the number of tokens of a text does: the column's array is as
        long as it is, and a batch is padded at the end with zeros to a common length ``(B, L, *shape[1:])``.
    columns: one column, or several scalar columns stacked in this order into a vector. Empty for outputs, and for
        a mask.
    types: each column's Spark type: a scalar's name, ``array<...>``, ``vector``, ``binary`` (the raw
        little-endian bytes of the tensor) or ``string`` (UTF-8 bytes, zero padded to the shape ``(length,)``).
    mask_of: the name of an input whose first size varies; this one, of shape ``(-1,)``, is 1 where it has a value and
        0 where it is padded.
    preprocess: what makes the tensor out of the columns, if it is not the columns as they are.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    mask_of: str = ""
    preprocess: Preprocessor | None = None

    def __post_init__(self) -> None:
        for what, value in (("columns", self.columns), ("types", self.types)):
            if isinstance(value, str) or not all(isinstance(text, str) for text in value):
                raise SignatureError(
                    f"{what} of {self.name!r} must be a sequence of texts (got {value!r})",
                    column=None,
                    expected="a sequence of texts",
                    got=value,
                )
        if not isinstance(self.name, str):
            raise SignatureError(f"a tensor's name must be text (got {self.name!r})", column=None, got=self.name)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "types", tuple(self.types))
        if self.dtype not in DTYPES:
            raise SignatureError(
                f"dtype of {self.name!r} must be one of {list(DTYPES)} (got {self.dtype!r})",
                column=self.name,
                expected=DTYPES,
                got=self.dtype,
            )
        if len(self.types) != len(self.columns):
            raise SignatureError(
                f"{self.name!r} must tell the type of each of its columns {self.columns} (got {self.types})",
                column=self.name,
                expected=len(self.columns),
                got=self.types,
            )
        if any(n < 0 for n in self.shape[1:]) or any(n < -1 for n in self.shape[:1]):
            raise SignatureError(
                f"shape of {self.name!r} must not have negative sizes; only the first may be -1, for one that varies (got {self.shape})",
                column=self.name,
                expected="sizes >= 0",
                got=self.shape,
            )
        if self.mask_of and (self.columns or self.shape != (-1,)):
            raise SignatureError(
                f"the mask {self.name!r} of {self.mask_of!r} has shape (-1,) and no columns (got {self})",
                column=self.name,
                expected="shape (-1,), no columns",
                got=str(self),
            )
        if self.preprocess is not None:
            self._check_preprocess(self.preprocess)

    def _check_preprocess(self, preprocess: Preprocessor) -> None:
        title = type(preprocess).__name__
        if preprocess.count is not None and preprocess.count != len(self.columns):
            raise SignatureError(
                f"{title} was learnt for {preprocess.count} columns (got {list(self.columns)}); learn another for these",
                column=self.name,
                expected=preprocess.count,
                got=self.columns,
            )
        converts = self.dtype in (*FLOATS, preprocess.dtype)  # whole numbers are given to some losses as floats
        if preprocess.shape != self.shape or not converts:
            raise SignatureError(
                f"{self} cannot be what {title} makes: {preprocess.dtype}{list(preprocess.shape)}",
                column=self.name,
                expected=(preprocess.dtype, preprocess.shape),
                got=(self.dtype, self.shape),
            )

    @property
    def is_stacked(self) -> bool:
        """True when several scalar columns, as they are, make up this tensor."""
        return len(self.columns) > 1 and self.preprocess is None

    @property
    def is_ragged(self) -> bool:
        """True when the first size varies from row to row."""
        return -1 in self.shape

    @property
    def size(self) -> int:
        """Elements of one row; of a ragged one, of one of its steps."""
        return math.prod(n for n in self.shape if n >= 0)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; what is not used is not told, as before it was known."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        if self.preprocess is not None:
            told["preprocess"] = self.preprocess.to_json()
        return {name: value for name, value in told.items() if value or name not in _MAY_LACK}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> TensorSpec:
        """The spec that ``to_json`` told of."""
        from sparkdl.preprocess.base import from_json

        made = dict(told)
        if made.get("preprocess") is not None:
            made["preprocess"] = from_json(made["preprocess"])
        if decode := made.pop("decode", ""):  # as bundles of format 2 tell of image files
            from sparkdl.preprocess.images import Image

            made["preprocess"] = Image.of_format_2(decode, made["shape"])
        return cls(**made)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join('L' if n == -1 else str(n) for n in ('B', *self.shape))}]"


@dataclass(frozen=True)
class Signature:
    """The tensors a model takes, in the order of its arguments, and those it returns.

    decoder: what makes the columns that scoring adds out of the outputs; None: each output is one.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = field(default=())
    decoder: Decoder | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "outputs", tuple(self.outputs))
        if not self.inputs:
            raise SignatureError("a signature needs at least one input", column=None, expected="inputs", got=())
        for specs in (self.inputs, self.outputs):
            names = [spec.name for spec in specs]
            if len(set(names)) != len(names):
                raise SignatureError(f"tensor names must be unique (got {names})", column=None, got=names)
        for name in self.decoder.reads if self.decoder is not None else ():
            if name not in self.columns:
                raise SignatureError(
                    f"the decoder reads the column {name!r}, which is no input column{did_you_mean(name, self.columns)}; "
                    f"these are {list(self.columns)}",
                    column=name,
                    expected=self.columns,
                    got=name,
                )
        ragged = [spec.name for spec in self.inputs if spec.is_ragged and not spec.mask_of]
        for spec in self.inputs:
            if spec.mask_of and spec.mask_of not in ragged:
                raise SignatureError(
                    f"{spec.name!r} is the mask of {spec.mask_of!r}, which is no input whose length varies"
                    f"{did_you_mean(spec.mask_of, ragged)}",
                    column=spec.name,
                    expected=ragged,
                    got=spec.mask_of,
                )

    @property
    def is_ragged(self) -> bool:
        """True when the length of an input varies from row to row."""
        return any(spec.is_ragged for spec in self.inputs)

    @property
    def columns(self) -> tuple[str, ...]:
        """The input columns, in order, each once."""
        return tuple(self.kinds)

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each of these (see ``TensorSpec.types``)."""
        return {c: kind for spec in self.inputs for c, kind in zip(spec.columns, spec.types, strict=True)}

    @classmethod
    def from_dataframe(
        cls,
        df: Any,
        columns: Sequence[str] | None = None,
        *,
        shapes: Mapping[str, Sequence[int]] | None = None,
        dtypes: Mapping[str, str] | None = None,
        preprocess: Mapping[str, Preprocessor] | None = None,
        stack: str | None = None,
    ) -> Signature:
        """Derive the inputs from the schema of ``df``; dtypes are kept (``long`` is int64, ``double`` float64).

        columns: which ones, in the order of the model's arguments; all by default.
        shapes: shape of one row for columns whose type does not tell it. An ``array`` or ``vector`` column that is
            not declared takes its shape from the first row that is not null (a batch DataFrame only); ``binary`` and
            ``string`` columns must be declared. A first size of -1 varies from row to row.
        dtypes: overrides, by column.
        preprocess: what makes a tensor of a column, by column; it knows what it must know, dtype and shape too.
        stack: a name; all columns, which must then be scalars, become one vector of that name.

        Raises ColumnNotFoundError, SignatureError for a type that no tensor can hold, EmptyDatasetError if a shape is
        to be found in a row and there is none.
        """
        shapes, dtypes, preprocess = dict(shapes or {}), dict(dtypes or {}), dict(preprocess or {})
        types = {f["name"]: f["type"] for f in df.schema.jsonValue()["fields"]}
        names = list(types) if columns is None else list(columns)
        for name in [*names, *shapes, *dtypes, *preprocess]:
            if name not in types:
                raise ColumnNotFoundError(name, types)
        for name in preprocess:
            if name in shapes or name in dtypes:
                raise SignatureError(
                    f"the shape and the dtype of column {name!r} are its preprocessor's; leave it out of shapes and dtypes",
                    column=name,
                    expected=(preprocess[name].dtype, preprocess[name].shape),
                    got=(dtypes.get(name), shapes.get(name)),
                )
        leaves = {name: _leaf(name, types[name]) for name in names if name not in preprocess}
        unknown = [n for n in leaves if leaves[n].depth and n not in shapes]
        shapes.update(_sampled_shapes(df, unknown))
        specs = [
            preprocessed(df, name, [name], preprocess[name])
            if name in preprocess
            else TensorSpec(
                name=name,
                dtype=dtypes.get(name, DTYPE_OF_SPARK[leaves[name].scalar]),
                shape=_declared_shape(name, leaves[name], shapes),
                columns=(name,),
                types=(leaves[name].text,),
            )
            for name in names
        ]
        if stack is None:
            return cls(tuple(specs))
        return cls((stack_scalars(stack, specs),))

    def with_float_dtype(self, dtype: str | None) -> Signature:
        """The signature with every floating input as ``dtype``: what a module with parameters of it computes in."""
        if dtype is None:
            return self
        return replace(self, inputs=tuple(replace(s, dtype=dtype) if s.dtype in FLOATS else s for s in self.inputs))

    def check_columns(self, available: Iterable[str]) -> None:
        """Raise ColumnNotFoundError if an input column is not in ``available``."""
        available = list(available)
        for column in self.columns:
            if column not in available:
                raise ColumnNotFoundError(column, available, role="input column")

    def to_json(self) -> dict[str, Any]:
        """As JSON values; ``from_json`` takes them back."""
        told = {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [{"name": s.name, "dtype": s.dtype, "shape": s.shape} for s in self.outputs],
        }
        return told if self.decoder is None else {**told, "decoder": self.decoder.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Signature:
        """The signature that ``to_json`` wrote. Raises SignatureError if it is not one."""
        from sparkdl.decode.base import from_json

        try:
            decoder = value.get("decoder")
            return cls(
                tuple(TensorSpec.from_json(spec) for spec in value["inputs"]),
                tuple(TensorSpec(**spec) for spec in value["outputs"]),
                None if decoder is None else from_json(decoder),
            )
        except (
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
            OverflowError,
        ) as error:  # OverflowError: a size that is infinite
            raise SignatureError(f"not a signature: {error}", column=None, got=value) from error

    def __str__(self) -> str:
        inputs, outputs = (", ".join(map(str, specs)) for specs in (self.inputs, self.outputs))
        return f"({inputs}) -> ({outputs})"


def quoted(name: str) -> str:
    """A column's name as SQL takes it, whatever is in it."""
    return "`" + name.replace("`", "``") + "`"


def label_spec(df: Any, name: str, shapes: Mapping[str, Sequence[int]] | None = None) -> TensorSpec:
    """The label's tensor, from the schema of ``df`` as in ``Signature.from_dataframe``.

    shapes: by column; only the label's is looked at. Raises SignatureError for a string or binary column.
    """
    kinds = {field["name"]: field["type"] for field in df.schema.jsonValue()["fields"]}
    if kinds.get(name) in ("string", "binary"):
        raise SignatureError(
            f"label column {name!r} is {kinds[name]}; let sparkdl learn its labels, "
            f"preprocess={{{name!r}: sparkdl.preprocess.Labels()}}, or turn it into numbers first, by pyspark.ml's "
            "StringIndexer",
            column=name,
            expected="numbers",
            got=kinds[name],
        )
    own = {key: shape for key, shape in (shapes or {}).items() if key == name}
    return Signature.from_dataframe(df, [name], shapes=own).inputs[0]


def weight_spec(df: Any, name: str, dtype: str = "float32") -> TensorSpec:
    """The weight's tensor, one number a row. Raises SignatureError for a column that is no number."""
    kind = column_kinds(df, [name])[name]
    if kind not in DTYPE_OF_SPARK or kind in ("string", "binary", "boolean"):
        raise SignatureError(
            f"weight column {name!r} is {kind}; a weight is one number a row",
            column=name,
            expected="a number",
            got=kind,
        )
    return TensorSpec(name, dtype, (), (name,), (kind,))


def check_indicator(df: Any, name: str) -> None:
    """Raise SignatureError if the column that tells validation rows is not boolean, ColumnNotFoundError if not there."""
    types = {f["name"]: f["type"] for f in df.schema.jsonValue()["fields"]}
    if name not in types:
        raise ColumnNotFoundError(name, types)
    if types[name] != "boolean":
        got = types[name] if isinstance(types[name], str) else types[name].get("type")
        raise SignatureError(
            f"validation column {name!r} must be boolean (got {got}): true in the rows to validate with; "
            f"make it so by a comparison, {name} = 1 say",
            column=name,
            expected="boolean",
            got=got,
        )


def column_kinds(df: Any, columns: Iterable[str]) -> dict[str, str]:
    """The kind of each column (see ``TensorSpec.types``) as it is in ``df``. Raises ColumnNotFoundError, SignatureError
    for a type that no tensor can hold."""
    types = {f["name"]: f["type"] for f in df.schema.jsonValue()["fields"]}
    columns = list(columns)
    for name in columns:
        if name not in types:
            raise ColumnNotFoundError(name, types)
    return {name: _kind(name, types[name]) for name in columns}


def preprocessed(df: Any, name: str, columns: Sequence[str], preprocess: Preprocessor) -> TensorSpec:
    """The spec of a tensor that ``preprocess`` makes of these columns of ``df``. Raises ColumnNotFoundError,
    SignatureError for columns that it does not take."""
    kinds = column_kinds(df, columns)
    if preprocess.most is not None and len(columns) > preprocess.most:
        raise SignatureError(
            f"{type(preprocess).__name__} takes {preprocess.most} column{'s' if preprocess.most > 1 else ''} "
            f"(got {list(columns)})",
            column=columns[0],
            expected=preprocess.most,
            got=list(columns),
        )
    forms = {form(kind) for kind in preprocess.takes}
    for column, kind in kinds.items():
        if form(kind) not in forms:
            raise SignatureError(
                f"column {column!r} is {kind}; {type(preprocess).__name__} takes {' or '.join(preprocess.takes)}",
                column=column,
                expected=preprocess.takes,
                got=kind,
            )
    types = tuple(kinds[column] for column in columns)
    return TensorSpec(name, preprocess.dtype, preprocess.shape, tuple(columns), types, preprocess=preprocess)


def stack_scalars(name: str, specs: Sequence[TensorSpec]) -> TensorSpec:
    """One vector out of scalar columns, in the common dtype of all. Raises SignatureError if one is no scalar, or is
    what a preprocessor makes."""
    for spec in specs:
        if spec.preprocess is not None:
            raise SignatureError(
                f"{spec.name!r} is what {type(spec.preprocess).__name__} makes and cannot be stacked with others into "
                f"{name!r}; let one preprocessor read all these columns, or give the model an argument for each",
                column=spec.name,
                expected="columns as they are",
                got=str(spec.preprocess),
            )
        if spec.shape:
            raise SignatureError(
                f"column {spec.name!r} has shape {spec.shape} and cannot be stacked with others into {name!r}; "
                "only scalar columns can",
                column=spec.name,
                expected=(),
                got=spec.shape,
            )
    return TensorSpec(
        name=name,
        dtype=str(np.result_type(*(np.dtype(spec.dtype) for spec in specs))),
        shape=(len(specs),),
        columns=tuple(spec.columns[0] for spec in specs),
        types=tuple(spec.types[0] for spec in specs),
    )


def _kind(column: str, spark_type: Any) -> str:
    """As ``TensorSpec.types`` tells it, of columns that only a preprocessor reads too."""
    name = spark_type if isinstance(spark_type, str) else spark_type.get("type")
    if name in ("date", "timestamp", "timestamp_ntz", "struct"):
        return str(name)
    if name == "array":
        return f"array<{_kind(column, spark_type['elementType'])}>"
    return _leaf(column, spark_type).text


@dataclass(frozen=True)
class _Leaf:
    scalar: str  # key of DTYPE_OF_SPARK
    depth: int  # how many arrays around it
    text: str  # the type as a TensorSpec tells it


def _leaf(column: str, spark_type: Any) -> _Leaf:
    if isinstance(spark_type, str):
        scalar = spark_type.split("(")[0]
        if scalar in DTYPE_OF_SPARK:
            return _Leaf(scalar, 0, scalar)
    elif spark_type.get("type") == "array":
        inner = _leaf(column, spark_type["elementType"])
        if inner.scalar not in ("binary", "string") and inner.text != "vector":
            return _Leaf(inner.scalar, inner.depth + 1, f"array<{inner.text}>")
    elif str(spark_type.get("pyClass", spark_type.get("class", ""))).endswith("VectorUDT"):
        return _Leaf("double", 1, "vector")
    got = spark_type if isinstance(spark_type, str) else spark_type.get("type")
    raise SignatureError(
        f"column {column!r} has type {got}, which no tensor can hold; cast it to a number, an array of numbers, "
        "a vector, binary or string, or leave it out",
        column=column,
        expected=list(DTYPE_OF_SPARK),
        got=got,
    )


def _declared_shape(column: str, leaf: _Leaf, shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    shape = tuple(shapes.get(column, ()))
    if leaf.scalar in ("binary", "string") and not leaf.depth:
        if not shape or (leaf.scalar == "string" and len(shape) != 1):
            form = "(length,)" if leaf.scalar == "string" else "(height, width, channels), say"
            raise SignatureError(
                f"column {column!r} is {leaf.scalar}: declare the shape of its tensor, "
                f"shapes={{{column!r}: {form}}} (got {shape or None})",
                column=column,
                expected="a declared shape",
                got=shape or None,
            )
    elif not leaf.depth and shape:
        raise SignatureError(
            f"column {column!r} is a scalar ({leaf.scalar}) and cannot take shape {shape}",
            column=column,
            expected=(),
            got=shape,
        )
    elif leaf.depth > 1 and len(shape) != leaf.depth:  # one list may hold any shape, nested ones have their own
        raise SignatureError(
            f"column {column!r} is {leaf.text} and cannot take shape {shape}: it needs {leaf.depth} sizes",
            column=column,
            expected=leaf.depth,
            got=shape,
        )
    return shape


def _sampled_shapes(df: Any, columns: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of array and vector columns, from the first row where each is not null."""
    if columns and df.isStreaming:
        raise SignatureError(
            f"the shape of {columns} cannot be sampled from a stream; declare it: shapes={{{columns[0]!r}: (…)}}",
            column=columns[0],
            expected="declared shapes",
            got=None,
        )
    found: dict[str, tuple[int, ...]] = {}
    for column in columns:
        name = quoted(column)
        rows = df.select(name).where(f"{name} IS NOT NULL").head(1)
        if not rows and not df.select(name).head(1):
            raise EmptyDatasetError(column)
        if not rows:
            raise SignatureError(
                f"the shape of column {column!r} cannot be told: no row has a value; "
                f"declare it: shapes={{{column!r}: (…)}}",
                column=column,
                expected="a row that is not null",
                got="none",
            )
        found[column] = np.shape(_dense(rows[0][0]))
    return found


def _dense(value: Any) -> Any:
    return value.toArray() if hasattr(value, "toArray") else value


def form(kind: str) -> tuple[str, int]:
    """What kinds of columns must share to be read alike, and the depth of arrays: numbers convert, a vector is an array."""
    leaf = kind.replace("array<", "").rstrip(">")
    return (leaf if leaf in _OTHERS else "number", kind.count("array<") + (kind == "vector"))
