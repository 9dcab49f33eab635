"""What stands before the model in a graph: raw columns in, the model's tensors out, as the preprocessors make them."""

from __future__ import annotations

from functools import singledispatch

from sparkdl.errors import GraphError
from sparkdl.graph.graph import Input, Text
from sparkdl.graph.nodes import ML, Nodes
from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.categories import Categories
from sparkdl.preprocess.numbers import Numbers
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
    if spec.preprocess is None:
        return
    if _made.dispatch(type(spec.preprocess)) is _none:
        raise _ineligible(spec, "runs in Python only")
    if isinstance(spec.preprocess, Categories) and spec.preprocess.unknown == "error":
        raise _ineligible(
            spec,
            "with unknown='error' refuses rows by their values, which a graph cannot",
            "learn it with unknown='keep', or ",
        )


def _ineligible(spec: TensorSpec, why: str, remedy: str = "") -> GraphError:
    step = type(spec.preprocess).__name__
    return GraphError(
        f"this bundle cannot be one ONNX graph: {step}, which reads column {spec.columns[0]!r}, {why}; {remedy}"
        "score it by micro-batches, mode='microbatch'",
        uri=None,
        step=step,
        column=spec.columns[0],
    )


@singledispatch
def _made(preprocess: Preprocessor, nodes: Nodes, spec: TensorSpec) -> tuple[Input, str]:
    """The graph's input, and the preprocessor's tensor."""
    raise _ineligible(spec, "runs in Python only")


_none = _made.dispatch(object)


@_made.register
def _(preprocess: Numbers, nodes: Nodes, spec: TensorSpec) -> tuple[Input, str]:
    """As ``Numbers.read`` does it: in float64, then rounded."""

    def learnt(values: tuple[float, ...]) -> str:
        return nodes.constant(values, "float64")

    fills_in = preprocess.impute != "error"
    refuses = (*(() if fills_in else ("nan",)), *(("inf",) if preprocess.infinite == "error" else ()))
    given = Input(
        spec.name,
        "float64",
        (len(spec.columns),),
        spec.columns,
        spec.types,
        missing="nan" if fills_in else None,
        refuses=refuses,  # type: ignore[arg-type]
    )
    values = _log_scaled(nodes, spec.name) if preprocess.log else spec.name
    if preprocess.clip is not None or preprocess.infinite == "clip":
        values = nodes.add("Min", nodes.add("Max", values, learnt(preprocess.lows)), learnt(preprocess.highs))
    missing = nodes.add("IsNaN", spec.name) if fills_in else ""
    values = nodes.add("Where", missing, learnt(preprocess.fills), values) if fills_in else values
    scaled = nodes.add("Div", nodes.add("Sub", values, learnt(preprocess.shifts)), learnt(preprocess.scales))
    made = nodes.cast(scaled, "float32")
    if not preprocess.indicator:
        return given, made
    marks = nodes.cast(missing or nodes.add("IsNaN", spec.name), "float32")
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
def _(preprocess: Categories, nodes: Nodes, spec: TensorSpec) -> tuple[Input, str]:
    null = "null"
    while any(null in known for known in preprocess.vocabularies):
        null += "?"
    given = Input(spec.name, "string", (len(spec.columns),), spec.columns, spec.types, missing=Text(null))
    ids = []
    for place, known in enumerate(preprocess.vocabularies):
        column = nodes.add("Gather", spec.name, nodes.constant([place], "int64"), axis=1)
        numbers = list(range(1, len(known) + 1)) or [0]
        keys = list(known) or [null]
        ids.append(
            nodes.add("LabelEncoder", column, domain=ML, keys_strings=keys, values_int64s=numbers, default_int64=0)
        )
    return given, nodes.add("Concat", *ids, axis=1)
