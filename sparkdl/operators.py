"""The operators of torch that a bundle's program may call: by list, for torch has many that trust their caller.

Each of these checks its arguments before it reads or writes, so that a program made to harm gets an error and not the
process's memory; for three that do not, ``guard`` does. Left out, though in torch's core set: those that give memory as
they find it (``empty``), place tensors where they are told (``as_strided``, ``resize_``, ``set_``), or are the inner
part of an operator of which only the outer one checks (``native_…``, ``_…``, ``…_backward``). A name stands for the one
with ``_`` behind too, which works in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

_POINTWISE = """
    abs absolute acos acosh add addcdiv addcmul angle asin asinh atan atan2 atanh bitwise_and bitwise_left_shift
    bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil celu clamp clamp_max clamp_min clip complex
    conj conj_physical copysign cos cosh deg2rad digamma div divide elu eq erf erfc erfinv exp exp2 expm1 float_power
    floor floor_divide fmax fmin fmod frac ge gelu glu greater greater_equal gt hardshrink hardsigmoid hardswish hardtanh
    heaviside hypot i0 imag isclose isfinite isinf isnan isneginf isposinf isreal ldexp le leaky_relu lerp less
    less_equal lgamma log log10 log1p log2 log_sigmoid log_softmax logaddexp logaddexp2 logical_and logical_not
    logical_or logical_xor logit lt masked_fill maximum minimum mish mul multiply nan_to_num ne neg negative not_equal
    polar positive pow prelu rad2deg real reciprocal relu relu6 remainder round rrelu rsqrt rsub selu sgn sigmoid sign
    signbit silu sin sinc sinh softmax softplus softshrink special_erf special_erfc special_expit special_expm1
    special_log1p special_log_softmax special_logit special_softmax sqrt square sub subtract tan tanh threshold
    true_divide trunc where xlogy _log_softmax _softmax __and__ __or__ __xor__ __lshift__ __rshift__ __iand__ __ior__
    __ixor__ __ilshift__ __irshift__
"""
_REDUCING = """
    all amax amin aminmax any argmax argmin argsort count_nonzero cummax cummin cumprod cumsum diff kthvalue
    linalg_matrix_norm linalg_norm linalg_vector_norm logcumsumexp logsumexp max mean median min mode msort nanmean
    nanmedian nansum nanquantile norm prod quantile sort std std_mean sum topk trace var var_mean frobenius_norm
"""
_SHAPES = """
    alias atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors broadcast_to cat channel_shuffle chunk clone
    column_stack concat concatenate constant_pad_nd contiguous copy detach diag diag_embed diagonal diagonal_scatter dsplit
    dstack expand expand_as flatten flip fliplr flipud hsplit hstack im2col col2im lift_fresh lift_fresh_copy mH mT
    meshgrid moveaxis movedim narrow numpy_T pad permute pixel_shuffle pixel_unshuffle ravel reflection_pad1d
    reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d
    reshape reshape_as resolve_conj resolve_neg roll rot90 row_stack select select_scatter slice slice_scatter split
    split_with_sizes squeeze stack swapaxes swapdims t tensor_split tile to transpose tril triu type_as unbind
    unflatten unfold unsqueeze view view_as view_as_complex view_as_real vsplit vstack _to_copy
"""
_INDEXED = """
    argwhere bincount bucketize embedding embedding_bag gather index index_add index_copy index_fill index_put
    index_reduce index_select isin masked_scatter masked_select nonzero one_hot put scatter scatter_add scatter_reduce
    searchsorted take take_along_dim
"""
_MADE = """
    arange bernoulli eye fill full full_like linspace logspace new_full new_ones new_zeros ones ones_like rand rand_like
    randint randint_like randn randn_like randperm scalar_tensor tril_indices triu_indices zero zeros zeros_like
"""
_LAYERS = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d affine_grid_generator alpha_dropout avg_pool1d avg_pool2d avg_pool3d batch_norm bilinear conv1d
    conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution dropout feature_alpha_dropout
    feature_dropout grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru gru_cell instance_norm layer_norm linear
    lstm lstm_cell max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices native_dropout rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell
    scaled_dot_product_attention upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d upsample_trilinear3d _adaptive_avg_pool2d _adaptive_avg_pool3d
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d _weight_norm
"""
_ALGEBRA = """
    addbmm addmm addmv addr baddbmm bmm cdist cosine_similarity cross dist dot einsum fft_fft fft_fft2 fft_fftfreq
    fft_fftn fft_fftshift fft_hfft fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_irfft fft_irfft2 fft_irfftn
    fft_rfft fft_rfft2 fft_rfftfreq fft_rfftn hann_window hamming_window inner inverse istft kron linalg_cholesky
    linalg_cross linalg_det linalg_eigh linalg_inv linalg_matmul linalg_qr linalg_slogdet linalg_solve linalg_svd
    linalg_vecdot matmul mm mv norm_except_dim outer pairwise_distance pdist stft tensordot vdot
"""
_TOLD = """
    is_nonzero item sym_constrain_range sym_constrain_range_for_size sym_is_contiguous sym_numel sym_size sym_stride
    sym_storage_offset _assert_async _assert_scalar _assert_tensor_metadata _local_scalar_dense
"""

ATEN = frozenset(
    name
    for group in (_POINTWISE, _REDUCING, _SHAPES, _INDEXED, _MADE, _LAYERS, _ALGEBRA, _TOLD)
    for name in group.split()
)
TORCHVISION = frozenset({"nms", "roi_align"})


def is_allowed(namespace: str, name: str, overload: str) -> bool:
    """Whether a program may call ``torch.ops.<namespace>.<name>.<overload>``: a listed one, in no form that writes to
    an ``out`` it is given, or that takes packed rows (``data``) without looking at how they are packed."""
    if namespace == "torchvision":
        return name in TORCHVISION
    if namespace != "aten" or not {name, name.removesuffix("_")} & ATEN or overload == "data":
        return False
    operator = getattr(getattr(torch.ops.aten, name, None), overload, None)
    return isinstance(operator, torch._ops.OpOverload) and not any(a.is_out for a in operator._schema.arguments)


def guard(module: nn.Module) -> None:
    """Put a check before each call of the operators that read past the end of tensors which do not fit together."""
    for part in module.modules():
        if isinstance(part, fx.GraphModule):
            for node in list(part.graph.nodes):
                if node.op == "call_function" and node.target in _CHECKS:
                    with part.graph.inserting_before(node):
                        part.graph.call_function(_CHECKS[node.target], node.args, node.kwargs)
            part.recompile()


@fx.node.has_side_effect
def check_lstm(
    input: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> None:
    """Raise ValueError if the weights of an LSTM do not fit its input and state."""
    hidden, cell = hx
    sizes, shown = cell.size(-1), hidden.size(-1)
    runs = num_layers * (2 if bidirectional else 1)
    expected: list[tuple[int, ...]] = []
    for run in range(runs):
        first = run < runs // num_layers
        width = input.size(-1) if first else shown * (runs // num_layers)
        expected += [(4 * sizes, width), (4 * sizes, shown)] + [(4 * sizes,)] * (2 if has_biases else 0)
        expected += [(shown, sizes)] if shown != sizes else []
    rows = input.size(0 if batch_first else 1)
    states = [tuple(state.shape) for state in hx] == [(runs, rows, shown), (runs, rows, sizes)]
    if not states or [tuple(param.shape) for param in params] != expected:
        raise ValueError("the weights of an LSTM do not fit its input and state")


@fx.node.has_side_effect
def check_attention(query: Tensor, key: Tensor, value: Tensor, *others: Any, **options: Any) -> None:
    """Raise ValueError if there is not one value a key."""
    if key.size(-2) != value.size(-2):
        raise ValueError(f"attention to {key.size(-2)} keys takes as many values (got {value.size(-2)})")


@fx.node.has_side_effect
def check_weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> None:
    """Raise ValueError if there is not one norm a slice."""
    expected = [size if place == dim else 1 for place, size in enumerate(v.shape)]
    if dim in (0, v.ndim - 1) and list(g.shape) != expected:
        raise ValueError(f"the norms of a weight must have shape {expected} (got {list(g.shape)})")


_CHECKS: dict[Any, Callable[..., None]] = {
    torch.ops.aten.lstm.input: check_lstm,
    torch.ops.aten.scaled_dot_product_attention.default: check_attention,
    torch.ops.aten._weight_norm.default: check_weight_norm,
}
