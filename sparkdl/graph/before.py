"""What stands before the model in a graph: raw columns in, the model's tensors out, as the preprocessors make them."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from sparkdl.errors import GraphError
from sparkdl.graph import dates, texts
from sparkdl.graph.graph import Buckets, Input, Text
from sparkdl.graph.nodes import ML, Nodes
from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.categories import Categories
from sparkdl.preprocess.dates import DateParts
from sparkdl.preprocess.hashed import Hashed
from sparkdl.preprocess.numbers import Numbers
from sparkdl.settings import Settings
from sparkdl.signature import TensorSpec


def read(nodes: Nodes, spec: TensorSpec, tensor: str) -> Input:
    """The graph's input for this tensor; what makes of it the model's own, ``tensor``, is added."""
    if spec.preprocess is None:
        nodes.add("Identity", spec.name, name=tensor)
        return Input(spec.name, spec.dtype, spec.shape, spec.columns, spec.types, spec.mask_of)  # type: ignore[arg-type]
    given, made = _made(spec.preprocess, nodes, spec)
    nodes.cast(made, spec.dtype, name=tensor)
    return given


def check(spec: TensorSpec) -> None:
    """Raise GraphError if the tensor's preprocessor cannot be a part of a graph."""
    if spec.preprocess is not None and _made.dispatch(type(spec.preprocess)) is _none:
        raise ineligible(spec.preprocess, spec.columns[0], "runs in Python only")


def refuses_values(preprocess: Preprocessor) -> bool:
    """Whether a row can be bad by a value that only the graph can tell: all its floating answers are NaN then."""
    if isinstance(preprocess, Numbers):  # one too large for float32; those that were seen are not
        return preprocess.clip is None and preprocess.infinite == "error"
    told = preprocess.model_dump()
    return "error" in (told.get("unknown"), told.get("outside"))


def ineligible(step: Settings, column: str, why: str) -> GraphError:
    """The error for a preprocessor or decoder that cannot be a part of a graph."""
    name = type(step).__name__
    return GraphError(
        f"this bundle cannot be one ONNX graph: {name}, which reads column {column!r}, {why}; score it by micro-batches, "
        "mode='microbatch'",
        uri=None,
        step=name,
        column=column,
    )


def stacked(spec: TensorSpec, dtype: str, missing: Any, refuses: tuple[str, ...] = ()) -> Input:
    """The spec's columns as a preprocessor reads them: one as it is, several as a vector."""
    shape = (len(spec.columns),) if len(spec.columns) > 1 else ()
    return Input(spec.name, dtype, shape, spec.columns, spec.types, missing=missing, refuses=refuses)  # type: ignore[arg-type]


@singledispatch
def _made(preprocess: Preprocessor, nodes: Nodes, spec: TensorSpec) -> tuple[Input, str]:
    """The graph's input, and the preprocessor's tensor."""
    raise TypeError(type(preprocess).__name__)


_none = _made.dispatch(object)


@_made.register
def _(preprocess: Numbers, nodes: Nodes, spec: TensorSpec) -> tuple[Input, str]:
    """As ``Numbers.read`` does it: in float64, then rounded."""

    def learnt(values: tuple[float, ...]) -> str:
        return nodes.constant(values, "float64")

    fills_in = preprocess.impute != "error"
    refuses = (*(() if fills_in else ("nan",)), *(("inf",) if preprocess.infinite == "error" else ()))
    given = stacked(spec, "float64", "nan" if fills_in else None, refuses)
    raw = nodes.columns(given)
    values = _log_scaled(nodes, raw) if preprocess.log else raw
    if preprocess.clip is not None or preprocess.infinite == "clip":
        values = nodes.add("Min", nodes.add("Max", values, learnt(preprocess.lows)), learnt(preprocess.highs))
    missing = nodes.add("IsNaN", raw) if fills_in else ""
    values = nodes.add("Where", missing, learnt(preprocess.fills), values) if fills_in else values
    scaled = nodes.add("Div", nodes.add("Sub", values, learnt(preprocess.shifts)), learnt(preprocess.scales))
    made = nodes.cast(scaled, "float32")
    if refuses_values(preprocess):
        nodes.refuse(nodes.add("IsInf", made), len(spec.columns))
    if not preprocess.indicator:
        return given, made
    marks = nodes.cast(missing or nodes.add("IsNaN", raw), "float32")
    return given, nodes.add("Concat", made, marks, axis=1)


def _log_scaled(nodes: Nodes, values: str) -> str:
    """sign(x) · ln(1 + |x|), as exact as log1p near 0: with u = 1 + x, rounded, it is ln(u) · x / (u - 1), or x where u is
    1 or infinite (W. Kahan, as D. Goldberg tells it in What every computer scientist should know about floating-point arithmetic,
    1991, theorem 4)."""
    one = nodes.constant(1.0, "float64")
    size = nodes.add("Abs", values)
    rounded = nodes.add("Add", size, one)
    above = nodes.add("Sub", rounded, one)
    is_small = nodes.add("Equal", above, nodes.constant(0.0, "float64"))
    is_itself = nodes.add("Or", is_small, nodes.add("IsInf", size))
    quotient = nodes.add("Div", size, nodes.add("Where", is_small, one, above))
    corrected = nodes.add("Mul", nodes.add("Log", rounded), quotient)
    return nodes.add("Mul", nodes.add("Sign", values), nodes.add("Where", is_itself, size, corrected))


@_made.register
def _(preprocess: Hashed, nodes: Nodes, spec: TensorSpec) -> tuple[Input, str]:
    """ONNX sees no bytes of a text: whoever reads the row hashes."""
    hashed = Buckets(preprocess.buckets, preprocess.seed)
    return Input(spec.name, "int64", (), spec.columns, spec.types, hashed=hashed), spec.name


@_made.register
def _(preprocess: Categories, nodes: Nodes, spec: TensorSpec) -> tuple[Input, str]:
    null = "null"
    while any(null in known for known in preprocess.vocabularies):
        null += "?"
    given = stacked(spec, "string", Text(null))
    raw = nodes.columns(given)
    ids = []
    for place, known in enumerate(preprocess.vocabularies):
        column = nodes.add("Gather", raw, nodes.constant([place], "int64"), axis=1)
        found = {key: number for number, text in enumerate(known, 1) for key in texts.as_given(text)} or {null: 0}
        keys, numbers = list(found), list(found.values())
        ids.append(
            nodes.add("LabelEncoder", column, domain=ML, keys_strings=keys, values_int64s=numbers, default_int64=0)
        )
    made = nodes.add("Concat", *ids, axis=1)
    if refuses_values(preprocess):
        nodes.refuse(nodes.add("Equal", made, nodes.constant(0, "int64")), len(ids))
    return given, made


@_made.register
def _(preprocess: DateParts, nodes: Nodes, spec: TensorSpec) -> tuple[Input, str]:
    given = stacked(spec, "float64", "nan" if preprocess.missing == "zero" else None)
    return given, dates.parts(preprocess, nodes, nodes.columns(given), is_day=spec.types == ("date",))
