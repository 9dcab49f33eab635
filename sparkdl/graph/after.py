"""What stands behind the model in a graph: its outputs in, the columns that scoring adds out, as the decoder makes them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import TYPE_CHECKING

import pyarrow as pa

from sparkdl.columns import answers
from sparkdl.decode.base import Decoder
from sparkdl.decode.labels import LabelDecoder
from sparkdl.decode.sequences import AnomalyDecoder, ForecastDecoder
from sparkdl.graph import before, texts
from sparkdl.graph.graph import Output
from sparkdl.graph.nodes import Nodes
from sparkdl.signature import FLOATS, Signature

if TYPE_CHECKING:
    from sparkdl.bundle import Bundle

Values = dict[str, str]  # names of the graph's values, by those of outputs
_DTYPES = {pa.string(): "string", pa.bool_(): "bool", pa.float32(): "float32", pa.float64(): "float64"}


def answered(nodes: Nodes, bundle: Bundle) -> tuple[Output, ...]:
    """The graph's outputs, which are added: one for each of ``columns.answers``, of the same dtype."""
    signature = bundle.signature
    shapes = {spec.name: spec.shape for spec in signature.outputs}
    made = nodes.outputs if bundle.program.kind != "onnx" else _predicted(nodes, bundle.task, shapes)
    if signature.decoder is not None:
        made = _decoded(signature.decoder, nodes, made)
    found = []
    for name, kind in answers(signature).items():
        depth, leaf = 0, kind
        while pa.types.is_list(leaf):
            depth, leaf = depth + 1, leaf.value_type
        dtype = _DTYPES.get(leaf, str(leaf))
        found.append(Output(name, dtype, shapes.get(name, ())[:depth]))  # type: ignore[arg-type]
        nodes.answer(made[name], found[-1])
    return tuple(found)


def _predicted(nodes: Nodes, task: str | None, shapes: Mapping[str, tuple[int, ...]]) -> Values:
    """``tasks.predictions``, of a model that is ONNX and whose outputs no task has been applied to."""
    others = dict(nodes.outputs)
    if task is None:
        return others
    main = others.pop("prediction" if "prediction" in others else next(iter(others)))
    if task == "multiclass":
        probability = nodes.add("Softmax", nodes.cast(main, "float32"), axis=1)
        return {
            "prediction": nodes.add("ArgMax", probability, axis=1, keepdims=0),
            "probability": probability,
            **others,
        }
    if task == "binary":
        logits = nodes.add("Reshape", nodes.cast(main, "float32"), nodes.constant([-1, 1], "int64"))
        positive = nodes.add("Sigmoid", logits)
        negative = nodes.add("Sub", nodes.constant(1.0, "float32"), positive)
        above = nodes.add("Greater", positive, nodes.constant(0.5, "float32"))
        decided = nodes.add("Reshape", above, nodes.constant([-1], "int64"))
        return {"prediction": decided, "probability": nodes.add("Concat", negative, positive, axis=1), **others}
    is_scalar = shapes["prediction"] == ()
    return {"prediction": nodes.add("Reshape", main, nodes.constant([-1], "int64")) if is_scalar else main, **others}


def check(signature: Signature) -> None:
    """Raise GraphError if the decoder cannot be a part of a graph, or if no answer could tell that a row is bad."""
    decoder = signature.decoder
    if decoder is not None and _decoded.dispatch(type(decoder)) is _none:
        raise before.ineligible(decoder, (*decoder.reads, *signature.columns)[0], "runs in Python only")
    has_floats = any(spec.dtype in FLOATS for spec in signature.outputs)
    for spec in signature.inputs:
        if spec.preprocess is not None and before.refuses_values(spec.preprocess) and not has_floats:
            why = "refuses rows by their values, which only a floating output can tell"
            raise before.ineligible(spec.preprocess, spec.columns[0], why)


@singledispatch
def _decoded(decoder: Decoder, nodes: Nodes, outputs: Values) -> Values:
    """The values of the decoder's columns."""
    raise TypeError(type(decoder).__name__)


_none = _decoded.dispatch(object)


@_decoded.register
def _(decoder: LabelDecoder, nodes: Nodes, outputs: Values) -> Values:
    dtype = {str: "string", bool: "bool", int: "int64"}[type(decoder.values[0])]
    odd = [label for label in decoder.values if isinstance(label, str) and len(texts.as_given(label)) > 1]
    if odd:
        raise before.ineligible(decoder, "prediction", f"has the label {odd[0]!r}, which ONNX Runtime garbles for Java")
    labels = nodes.constant(list(decoder.values), dtype)
    return outputs | {"prediction": nodes.add("Gather", labels, nodes.cast(outputs["prediction"], "int64"))}


@_decoded.register
def _(decoder: ForecastDecoder, nodes: Nodes, outputs: Values) -> Values:
    (standard,) = outputs.values()
    steps = nodes.add("Gather", standard, nodes.constant(0, "int64"), axis=2)
    scaled = nodes.add("Mul", nodes.cast(steps, "float32"), nodes.constant(decoder.deviation, "float32"))
    return {"prediction": nodes.add("Add", scaled, nodes.constant(decoder.mean, "float32"))}


@_decoded.register
def _(decoder: AnomalyDecoder, nodes: Nodes, outputs: Values) -> Values:
    (output,) = outputs.values()
    score = nodes.cast(output, "float64")
    return {"prediction": nodes.add("Greater", score, nodes.constant(decoder.threshold, "float64")), "score": score}
