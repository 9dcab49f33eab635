"""Whether a graph answers what its bundle does, of made-up rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparkdl import columns
from sparkdl.errors import BundleError
from sparkdl.graph import examples, rows
from sparkdl.graph.exported import ROWS
from sparkdl.graph.graph import Graph
from sparkdl.interop import onnx

if TYPE_CHECKING:
    from sparkdl.bundle import Bundle


def check(graph: Graph, bundle: Bundle) -> None:
    """Raise BundleError if the graph's answers, from raw columns, are farther from the bundle's than its tolerance."""
    session = onnx.module(graph.content)
    for count in ROWS:
        some = examples.of(bundle.signature, count)
        inputs = {spec.name: columns.read(some, spec) for spec in bundle.signature.inputs if spec.columns}
        expected = columns.answered(bundle.signature, bundle.predict(inputs), some)
        got = session.run(rows.tensors(graph, some))
        for name, column in expected.items():
            away = _away(got[name], np.asarray(column.to_pylist(), got[name].dtype), graph.tolerance)
            if away:
                raise BundleError(
                    f"column {name!r} of the graph is {away} from the bundle's for {count} rows, more than the tolerance "
                    f"of {graph.tolerance}; score by micro-batches, mode='microbatch', or allow a larger tolerance",
                    uri=None,
                )


def _away(got: np.ndarray, expected: np.ndarray, tolerance: float) -> str:
    """How far they are from each other; empty if not too far."""
    if got.shape != expected.shape:
        return f"of shape {got.shape}, which differs"
    if got.dtype.kind != "f":
        different = int((got != expected).sum())
        return f"{different} of {got.size} values away" if different else ""
    if np.allclose(got, expected, tolerance, tolerance, equal_nan=True):
        return ""
    return f"up to {np.nanmax(np.abs(got.astype(np.float64) - expected)):.3g}"
