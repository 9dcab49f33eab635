"""What models, bundles and scored tables say of themselves at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparkdl.showing import values
from sparkdl.showing.page import page
from sparkdl.showing.pieces import Facts

if TYPE_CHECKING:
    from sparkdl.bundle import Bundle
    from sparkdl.model import TorchModel
    from sparkdl.score.result import ScoredTable
    from sparkdl.signature import TensorSpec

_PROGRAMS = {
    "export": "exported by torch.export",
    "onnx": "an ONNX graph, run by onnxruntime",
}  # fmt: skip
_MOST = 12  # inputs, outputs or metrics


def of_bundle(bundle: Bundle) -> Facts:
    """Task, signature, metrics, program, size and digest."""
    tensors = {tensor.data_ptr(): tensor.numel() for tensor in bundle.weights.values()}
    size = sum(map(len, bundle.files.values()))
    lines = [("task", bundle.task or "none: outputs as they are")]
    lines += _listed("input", [(_spec(spec)) for spec in bundle.signature.inputs])
    lines += _listed("output", [str(spec) for spec in bundle.signature.outputs])
    if bundle.signature.decoder is not None:
        lines.append(("decoder", str(bundle.signature.decoder)))
    lines += _listed("metric", [f"{name} {_figure(value)}" for name, value in bundle.metrics.items()])
    lines += [
        ("program", _PROGRAMS.get(bundle.program.kind, f"{bundle.program.kind}: code, to be trusted")),
        ("size", f"{sum(tensors.values()):,} weights, {values.nbytes(size)}"),
        ("digest", bundle.digest[:12]),
    ]
    return Facts(tuple(lines))


def of_model(model: TorchModel) -> Facts:
    """The bundle's, how it was trained, and the Params that were set."""
    told = [("model", model.uid), *of_bundle(model.bundle).lines]
    if model.history:
        told.append(("training", repr(model.summary).split("\n")[0]))
    chosen = [f"{param.name} {values.cell(value)}" for param, value in model._paramMap.items()]
    return Facts((*told, *_listed("Param", sorted(chosen))))


def of_table(table: ScoredTable) -> Facts:
    """Where it is, its rows, and how it was made."""
    lines = [("table", table.uri or "not written")]
    rows = f"{table.rows:,} read" if table.uri is None else f"{table.written:,} of {table.rows:,} written"
    lines.append(("rows", rows))
    if table.invalid:
        lines.append(("bad rows", ", ".join(f"{kind} {count:,}" for kind, count in sorted(table.invalid.items()))))
    if table.already:
        return Facts((*lines, ("seconds", "none: the table was there already")))
    speed = table.rows / max(table.seconds, 1e-9)
    lines.append(("seconds", f"{table.seconds:,.1f}, {speed:,.0f} rows/s"))
    lines.append(("way", table.way + (f": {table.why}" if table.why else "")))
    if table.resumed:
        lines.append(("resumed", f"{table.resumed:,} of {values.count(table.pieces, 'piece')} were finished before"))
    return Facts(tuple(lines))


def html(facts: Facts) -> str:
    """For a ``_repr_html_``."""
    return page([facts])


def _listed(what: str, told: list[str]) -> list[tuple[str, str]]:
    out = len(told) - _MOST
    lines = [(what if not i else "", text) for i, text in enumerate(told[:_MOST])]
    return [*lines, ("", f"… {out:,} more")] if out > 0 else lines


def _spec(spec: TensorSpec) -> str:
    if spec.mask_of:
        return f"{spec}, the mask of {spec.mask_of}"
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(spec.columns[:4], spec.types[:4], strict=True))
    more = f", … {len(spec.columns)} in all" if len(spec.columns) > 4 else ""
    return f"{spec} from {columns}{more}" + (f", by {spec.preprocess}" if spec.preprocess else "")


def _figure(value: Any) -> str:
    return (
        values.number(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else str(values.cell(value))
    )
