"""From a bundle to its graph: the model between its preprocessors and its decoder, compared with the bundle's own way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from sparkdl.columns import answers
from sparkdl.errors import BundleIntegrityError, InvalidParamError
from sparkdl.graph import after, before, exported, parity
from sparkdl.graph.graph import Graph, Input, Output, refused
from sparkdl.graph.nodes import Nodes, kind, sizes
from sparkdl.interop import onnx
from sparkdl.signature import Signature

if TYPE_CHECKING:
    from sparkdl.bundle import Bundle

TOLERANCE = 1e-4


def build(bundle: Bundle, tolerance: float = TOLERANCE) -> Graph:
    """The bundle as one ONNX model: nearly raw columns in, the columns of ``columns.answers`` out.

    tolerance: how far, relative and absolute, its answers may be from the bundle's own, for 1, 3 and 8 made-up rows.
    Raises GraphError naming a preprocessor or decoder that runs in Python only, BundleError if torch cannot export the
    model or the answers are farther than that, SparkdlError if onnx or onnxruntime is not installed.
    """
    if not (isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool) and 0 <= tolerance < math.inf):
        raise InvalidParamError(
            f"'tolerance' must be a number from 0 (got {tolerance!r})", param="tolerance", value=tolerance
        )
    signature = bundle.signature
    for spec in signature.inputs:
        before.check(spec)
    after.check(signature)
    nodes = Nodes(onnx.checked(exported.content(bundle, tolerance)))
    inputs = tuple(
        before.read(nodes, spec, own) for spec, own in zip(exported.named(signature), nodes.inputs, strict=True)
    )
    nodes.run_model()
    outputs = after.answered(nodes, bundle)
    graph = Graph(nodes.bytes(inputs, outputs), inputs, outputs, float(tolerance))
    parity.check(graph, bundle)
    return checked(graph, signature)


def checked(graph: Graph, signature: Signature) -> Graph:
    """The graph itself. Raises BundleIntegrityError if its ONNX model has other inputs or outputs than are told, or needs more
    than it holds; or if the columns are not those of the signature."""
    try:
        model = onnx.checked(graph.content)
    except BundleIntegrityError as error:
        raise refused(str(error)) from error
    given = {one.name for one in model.graph.initializer}
    _check_ends(graph.inputs, [one for one in model.graph.input if one.name not in given])
    _check_ends(graph.outputs, model.graph.output)
    read = {name for one in graph.inputs for name in one.columns}
    if read != set(signature.columns):
        raise refused(f"it reads the columns {sorted(read)}, and the signature has {sorted(signature.columns)}")
    shown = list(answers(signature))
    if [one.name for one in graph.outputs] != shown:
        raise refused(f"it gives the columns {[one.name for one in graph.outputs]}, and the signature says {shown}")
    return graph


def _check_ends(told: Sequence[Input | Output], found: Sequence[Any]) -> None:
    """Raise BundleIntegrityError if what is told of inputs or outputs is not what the ONNX model has."""
    expected = [(one.name, kind(one.dtype), sizes(one)) for one in told]
    got = [
        (one.name, one.type.tensor_type.elem_type, [_size(size) for size in one.type.tensor_type.shape.dim])
        for one in found
    ]
    for said, has in zip_longest(expected, got):
        if said != has:
            raise refused(f"its ONNX model has {has}, the description says {said}: name, type, sizes")


def _size(size: Any) -> str | int:
    return int(size.dim_value) if size.HasField("dim_value") else str(size.dim_param)
