"""One ONNX model, put together out of operators and of another model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparkdl.graph.graph import Input, Output
from sparkdl.interop.common import needed

ML = "ai.onnx.ml"
_ML_OPSET = 2  # the first whose LabelEncoder maps any key to any value
_MODEL = "model/"


class Nodes:
    """Operators and constants of a graph, in the order in which they run. A value is its name.

    They are of opset 13 and of later ones alike; the model that is put between them says which it is.
    """

    def __init__(self, model: Any) -> None:
        self._onnx = needed("onnx", "onnx")
        self._model = self._onnx.compose.add_prefix(model, _MODEL)
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._refused: list[str] = []  # (B, 1) each, above 0 in bad rows
        given = {one.name for one in self._model.graph.initializer}
        self.inputs = [one.name for one in self._model.graph.input if one.name not in given]
        self.outputs = {one.name.removeprefix(_MODEL): one.name for one in self._model.graph.output}

    def add(self, operator: str, *values: str, name: str = "", domain: str = "", **attributes: Any) -> str:
        """The value that the operator makes, named ``name`` if that is said."""
        name = name or f"value/{len(self._nodes)}"
        made = self._onnx.helper.make_node(operator, list(values), [name], domain=domain, **attributes)
        self._nodes.append(made)
        return name

    def cast(self, value: str, dtype: str, name: str = "") -> str:
        """The value as another dtype, named ``name`` if that is said."""
        return self.add("Cast", value, name=name, to=kind(dtype))

    def constant(self, values: Any, dtype: str) -> str:
        """A value that is always the same."""
        name = f"constant/{len(self._constants)}"
        array = np.asarray(values, dtype=object if dtype == "string" else dtype)
        made = self._onnx.helper.make_tensor(name, kind(dtype), array.shape, array.reshape(-1).tolist())
        self._constants.append(made)
        return name

    def columns(self, one: Input) -> str:
        """The input's scalar columns, ``(B, n)``."""
        return one.name if one.shape else self.add("Reshape", one.name, self.constant([-1, 1], "int64"))

    def refuse(self, marks: str, width: int) -> None:
        """Rows with a mark in ``(B, width)`` are bad: all their floating answers will be NaN, which scorers refuse."""
        ones = self.constant(np.ones((width, 1)), "float32")
        self._refused.append(self.add("MatMul", self.cast(marks, "float32"), ones))

    def answer(self, value: str, one: Output) -> None:
        """The value is this output of the graph."""
        made = self.cast(value, one.dtype)
        if self._refused and one.dtype.startswith("float"):
            count = self._refused[0] if len(self._refused) == 1 else self.add("Sum", *self._refused)
            is_bad = self.add("Greater", count, self.constant(0.0, "float32"))
            shaped = self.add("Reshape", is_bad, self.constant([-1, *(1 for _ in one.shape)], "int64"))
            made = self.add("Where", shaped, self.constant(float("nan"), one.dtype), made)
        self.add("Identity", made, name=one.name)

    def run_model(self) -> None:
        """The model's own operators come here."""
        self._nodes.extend(self._model.graph.node)

    def bytes(self, inputs: Sequence[Input], outputs: Sequence[Output]) -> bytes:
        """All of it as one model."""
        helper = self._onnx.helper
        ends = [
            [helper.make_tensor_value_info(one.name, kind(one.dtype), sizes(one)) for one in some]
            for some in (inputs, outputs)
        ]
        constants = [*self._constants, *self._model.graph.initializer]
        graph = helper.make_graph(
            self._nodes, "bundle", *ends, constants, sparse_initializer=self._model.graph.sparse_initializer
        )
        opsets = {one.domain: one.version for one in self._model.opset_import}
        if any(node.domain == ML for node in self._nodes):
            opsets.setdefault(ML, _ML_OPSET)
        made = helper.make_model(
            graph,
            ir_version=self._model.ir_version,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
            producer_name="sparkdl",
        )
        return bytes(made.SerializeToString(deterministic=True))


def kind(dtype: str) -> int:
    """The number by which ONNX knows a dtype."""
    onnx = needed("onnx", "onnx")
    if dtype == "string":
        return int(onnx.TensorProto.STRING)
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def sizes(one: Input | Output) -> list[str | int]:
    """Of a batch, as the ONNX model tells them: those that vary have a name."""
    length = f"length of {(isinstance(one, Input) and one.mask_of) or one.name}"
    return ["rows", *(length if size == -1 else size for size in one.shape)]
