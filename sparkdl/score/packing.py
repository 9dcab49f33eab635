"""Linear layers and convolutions of an exported program in the form in which they run best on a CPU.

``pack`` lays weights out once for oneDNN's kernels, folds batch normalisation into the convolution before it, and
computes an activation together with its layer; the numbers stay those of float32, but for rounding. ``pack_int8`` keeps
the weights of linear layers in 8 bits. What is rewritten depends on the processor and the program, never on a timing: a
task that runs again gives the same result. Figures in ``docs/decisions/0015-packed-weights.md``.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

aten, mkldnn, quantized = torch.ops.aten, torch.ops.mkldnn, torch.ops.quantized

LEAST_OUTPUTS = 8  # of a linear layer; for fewer MKL is as fast
_ACTIVATIONS = {
    aten.relu.default: "relu",
    aten.relu_.default: "relu",
    aten.sigmoid.default: "sigmoid",
    aten.tanh.default: "tanh",
    aten.silu.default: "swish",
    aten.silu_.default: "swish",
    aten.gelu.default: "gelu",
}
_VIEWS = {aten.view.default: aten.reshape.default, aten.view_as.default: aten.reshape_as.default}
_STRIDED = {aten.as_strided.default, aten.as_strided_.default, aten.sym_stride.int, aten.view.dtype}


def pack(program: fx.GraphModule) -> None:
    """Rewrite the program in place: its linear layers where MKL is slow, its 2-D convolutions everywhere.

    A layer whose weight is anything but a float32 parameter on the CPU stays as it is.
    """
    if not torch.backends.mkldnn.is_available():
        return
    for node in _calls(program, aten.linear.default) if is_mkl_slow() else ():
        _pack_linear(program, node)
    if not any(_sees_strides(node) for node in program.graph.nodes):
        convolutions = [_pack_convolution(program, node) for node in _calls(program, aten.conv2d.default)]
        if any(convolutions):  # they give channels-last tensors, which a view that was exported may not take
            for node in program.graph.nodes:
                node.target = _VIEWS.get(node.target, node.target)
    _clean(program)


def pack_int8(program: fx.GraphModule) -> int:
    """Rewrite the program's linear layers in place: weights in 8 bits, one scale an output; inputs are brought to 8
    bits as they come, one scale a batch. Returns how many layers there were."""
    packed = 0
    for node in _calls(program, aten.linear.default):
        x, weight, bias = _arguments(node)
        w, b = _parameter(program, weight), _parameter(program, bias)
        if w is None or (bias is not None and b is None):
            continue
        scales = (w.abs().amax(dim=1).double() / 127).clamp_min(torch.finfo(torch.float32).tiny)
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.quantize_per|Attempted to insert a get_attr Node")
            weights = quantized.linear_prepack(torch.quantize_per_channel(w, scales, zeros, 0, torch.qint8), b)
            _replace(program, node, node, quantized.linear_dynamic.default, (x, weights, True))
        packed += 1
    _clean(program)
    return packed


@cache
def is_mkl_slow() -> bool:
    """True on an AMD processor with AVX-512, for which MKL takes its AVX2 code and oneDNN does not."""
    cpus = Path("/proc/cpuinfo")
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and cpus.exists() and "AuthenticAMD" in cpus.read_text()


def _pack_linear(program: fx.GraphModule, node: fx.Node) -> None:
    x, weight, bias = _arguments(node)
    w = _parameter(program, weight)
    if w is None or len(w) < LEAST_OUTPUTS:
        return
    last, activation = _activation(node)
    packed = mkldnn._reorder_linear_weight(w, None)
    _replace(program, node, last, mkldnn._linear_pointwise.default, (x, packed, bias, *activation))


def _pack_convolution(program: fx.GraphModule, node: fx.Node) -> bool:
    x, weight, bias, *sizes, groups = _arguments(node)
    w, b = _parameter(program, weight), _parameter(program, bias)
    rows = x.meta.get("val")  # a convolution also takes an image alone
    if w is None or (bias is not None and b is None) or rows is None or rows.ndim != 4:
        return False
    stride, padding, dilation = ([*size] * (2 // len(size)) for size in sizes)
    last = node
    normalised = _only_user(node)
    if normalised is not None and normalised.target is aten.batch_norm.default:
        folded = _folded(program, w, b, normalised)
        if folded:
            (w, b), last = folded, normalised
    last, activation = _activation(last)
    w = mkldnn._reorder_convolution_weight(w, padding, stride, dilation, groups, None)
    args = (x, w, b, padding, stride, dilation, groups, *activation)
    _replace(program, node, last, mkldnn._convolution_pointwise.default, args)
    return True


def _folded(program: fx.GraphModule, w: Tensor, b: Tensor | None, norm: fx.Node) -> tuple[Tensor, Tensor] | None:
    """Weight and bias of the convolution that does what this one with ``w`` and ``b`` and then ``norm`` do."""
    _, *nodes, training, _, eps, _ = _arguments(norm)
    gamma, beta, mean, variance = values = [_parameter(program, node) for node in nodes]
    unknown = any(value is None for value, node in zip(values, nodes, strict=True) if node is not None)
    if training or unknown or mean is None or variance is None:
        return None
    factor = (variance.double() + eps).rsqrt() * (1 if gamma is None else gamma)
    shift = ((0 if b is None else b) - mean) * factor + (0 if beta is None else beta)
    return (w * factor[:, None, None, None]).float(), shift.float()


def _sees_strides(node: fx.Node) -> bool:
    """True for what means another thing once a tensor lies otherwise in memory; writing through a view is such."""
    if node.target in _VIEWS:
        return any(user.op == "call_function" and is_inplace(user) for user in node.users)
    return node.target in _STRIDED


def is_inplace(node: fx.Node) -> bool:
    """True if the node's operator writes to one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _activation(node: fx.Node) -> tuple[fx.Node, tuple[str, list[Any], str]]:
    """The activation that alone uses what ``node`` gives, or ``node`` itself; and oneDNN's words for it."""
    user = _only_user(node)
    if user is None or user.target not in _ACTIVATIONS:
        return node, ("none", [], "")
    name = _ACTIVATIONS[user.target]
    return user, (name, [], _arguments(user)[1] if name == "gelu" else "")


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _calls(program: fx.GraphModule, target: Any) -> list[fx.Node]:
    return [node for node in program.graph.nodes if node.target is target]


def _arguments(node: fx.Node) -> list[Any]:
    """All arguments in the order of the operator's schema, defaults included."""
    declared = node.target._schema.arguments  # type: ignore[union-attr]
    given = dict(zip((argument.name for argument in declared), node.args, strict=False)) | node.kwargs
    return [given.get(argument.name, argument.default_value) for argument in declared]


def _parameter(program: fx.GraphModule, node: Any) -> Tensor | None:
    """The float32 parameter (or statistic of a normalisation) on the CPU that ``node`` stands for; else None."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    owner, _, leaf = str(node.target).rpartition(".")
    found = getattr(program.get_submodule(owner), leaf)
    plain = type(found) in (Tensor, torch.nn.Parameter) and found.dtype == torch.float32 and found.device.type == "cpu"
    return found.detach() if plain and found.layout == torch.strided and found.numel() else None


def _replace(program: fx.GraphModule, first: fx.Node, last: fx.Node, target: Any, args: tuple[Any, ...]) -> None:
    """Call ``target`` in the place of the chain of nodes from ``first`` to ``last``, each the first argument of the next.

    Tensors and packed weights among ``args`` become attributes of the program.
    """
    with program.graph.inserting_before(first):
        new = program.graph.call_function(
            target, tuple(_constant(program, first.name, i, arg) for i, arg in enumerate(args))
        )
    new.meta.update(last.meta)
    last.replace_all_uses_with(new)
    while last is not first:
        last, gone = last.args[0], last  # type: ignore[assignment]
        program.graph.erase_node(gone)
    program.graph.erase_node(first)


def _constant(program: fx.GraphModule, layer: str, place: int, value: Any) -> Any:
    if not isinstance(value, (Tensor, torch.ScriptObject)):
        return value
    name = f"_packed_{layer}_{place}"
    if isinstance(value, Tensor):
        program.register_buffer(name, value, persistent=False)
    else:
        setattr(program, name, value)
    return program.graph.get_attr(name)


def _clean(program: fx.GraphModule) -> None:
    """Make the graph the module's code, and let go of the parameters that it does not use any more."""
    for node in program.graph.nodes:
        if node.op == "get_attr" and not node.users:
            program.graph.erase_node(node)
    used = {str(node.target) for node in program.graph.nodes}
    for name, _ in list(program.named_parameters(remove_duplicate=False)):
        owner, _, leaf = name.rpartition(".")
        if name not in used:
            delattr(program.get_submodule(owner), leaf)
    program.recompile()
