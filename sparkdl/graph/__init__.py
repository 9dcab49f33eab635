"""A bundle without Python: one ONNX model whose inputs are nearly raw columns, and what is to be told of it."""

from sparkdl.graph.graph import Graph, Input, Output, Text

__all__ = ["Graph", "Input", "Output", "Text"]
