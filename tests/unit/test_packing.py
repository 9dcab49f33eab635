"""A packed program gives what the module gives, but for rounding, whatever surrounds its layers."""

from functools import cache

import models
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from sparkdl import export
from sparkdl.score import packing

aten, mkldnn = torch.ops.aten, torch.ops.mkldnn
pytestmark = [
    pytest.mark.lane("spark35"),
    pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"),
]


@pytest.fixture(autouse=True)
def slow_mkl(monkeypatch):
    """So that linear layers are packed on every machine that runs this."""
    monkeypatch.setattr(packing, "is_mkl_slow", lambda: True)


def program(module, *example):
    """The module as a bundle keeps it, with statistics that are not those of a new one."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and part.track_running_stats:
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 1.5)
    built = export.build(module.eval(), example)
    assert built.kind == "export", built.reason
    return built.load(module.state_dict())


def packed(module, *example):
    made = program(module, *example)
    packing.pack(made)
    return made


def targets(made):
    return [node.target for node in made.graph.nodes if node.op == "call_function"]


def assert_same(module, made, *arguments, **tolerance):
    tolerance = tolerance or {"rtol": 1e-5, "atol": 2e-6}
    with torch.inference_mode():
        torch.testing.assert_close(made(*arguments), module(*arguments), **tolerance)


@pytest.mark.parametrize(
    ("width", "out", "bias"),
    [(1, 8, True), (3, 9, False), (50, 256, True), (64, 64, False), (7, 129, True), (1000, 17, True)],
)
def test_a_linear_layer_of_any_size(width, out, bias):
    module = nn.Linear(width, out, bias=bias)
    made = packed(module, torch.randn(3, width))
    assert targets(made) == [mkldnn._linear_pointwise.default]
    for rows in (0, 1, 2, 33):
        assert_same(module, made, torch.randn(rows, width))


def test_few_outputs_are_left_to_mkl():
    made = packed(nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 7)), torch.randn(3, 8))
    assert targets(made) == [mkldnn._linear_pointwise.default, aten.linear.default]


@given(st.lists(st.integers(0, 4), max_size=3), st.randoms(use_true_random=False))
def test_inputs_of_any_rank_size_and_strides(sizes, random):
    module, made = linear()
    x = torch.randn(*sizes, 6)
    order = list(range(len(sizes)))
    random.shuffle(order)
    for given_x in (x.permute(*order, len(sizes)), x[..., :1].expand(*sizes, 6)):
        with torch.inference_mode():
            torch.testing.assert_close(made.forward(given_x), module(given_x), rtol=1e-5, atol=2e-6)


@cache
def linear():
    module = nn.Linear(6, 12)
    return module, packed(module, torch.randn(3, 6))


ACTIVATIONS = {
    "relu": torch.relu,
    "relu_": torch.relu_,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
}


class Between(nn.Module):
    """A layer, a function, a layer."""

    def __init__(self, function, convolution):
        super().__init__()
        self.function = function
        self.first = nn.Conv2d(3, 8, 3) if convolution else nn.Linear(16, 32)
        self.second = nn.Conv2d(8, 8, 1) if convolution else nn.Linear(32, 16)

    def forward(self, x):
        return self.second(self.function(self.first(x)))


@pytest.mark.parametrize("convolution", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_computed_with_its_layer(name, convolution):
    module = Between(ACTIVATIONS[name], convolution)
    x = 4 * torch.randn(5, *((3, 9, 9) if convolution else (16,)))
    made = packed(module, x)
    layer = mkldnn._convolution_pointwise.default if convolution else mkldnn._linear_pointwise.default
    assert targets(made) == [layer, layer]
    assert_same(module, made, x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.relu(x) + x,
        lambda x: x.relu() * x.tanh(),
        lambda x: F.leaky_relu(x),
        lambda x: (x.relu_(), x)[1],
    ],
)
def test_an_activation_stays_where_others_use_what_it_takes(function):
    module = Between(function, False)
    x = torch.randn(5, 16)
    assert_same(module, packed(module, x), x)


class Touched(nn.Module):
    """Its input is overwritten between the layer and the activation."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        h = x * 2
        y = self.linear(h)
        h.add_(100)
        return torch.relu(y) + h


def test_an_input_that_is_overwritten_later_is_read_before():
    module = Touched()
    x = torch.randn(4, 8)
    made = packed(module, x)
    assert mkldnn._linear_pointwise.default in targets(made)
    assert_same(module, made, x, rtol=1e-5, atol=1e-4)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 16, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(self.one(x)) @ self.one.weight


def test_tied_weights_used_elsewhere_too():
    module = Tied()
    x = torch.randn(4, 16)
    made = packed(module, x)
    assert targets(made).count(mkldnn._linear_pointwise.default) == 2
    assert_same(module, made, x)


class Computed(nn.Module):
    """Its weights are a buffer, and made by a formula."""

    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.randn(9, 8))
        self.scale = nn.Parameter(torch.randn(16, 9))

    def forward(self, x):
        return F.linear(F.linear(x, self.kept * 2), self.scale.tanh())


def test_weights_that_are_no_parameters_are_left_alone():
    module = Computed()
    x = torch.randn(4, 8)
    made = packed(module, x)
    assert targets(made).count(aten.linear.default) == 2
    assert_same(module, made, x)


def test_other_dtypes_are_left_alone():
    module = nn.Linear(8, 16).double()
    x = torch.randn(4, 8, dtype=torch.float64)
    made = packed(module, x)
    assert targets(made) == [aten.linear.default]
    assert_same(module, made, x, rtol=0, atol=0)


def test_what_is_packed_is_not_kept_twice():
    made = packed(nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2)), torch.randn(2, 8))
    assert {name for name, _ in made.named_parameters()} == {"0.bias", "2.weight", "2.bias"}


class Pictures(nn.Module):
    """Every kind of convolution, and views that are sensitive to how tensors lie in memory."""

    def __init__(self):
        super().__init__()
        self.same = nn.Conv2d(3, 8, 3, padding="same", bias=False)
        self.grouped = nn.Conv2d(8, 12, 3, stride=2, padding=(1, 0), groups=4)
        self.norm = nn.BatchNorm2d(12)
        self.dilated = nn.Conv2d(12, 8, 3, dilation=2, padding=2, bias=False)
        self.plain = nn.BatchNorm2d(8, affine=False)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.alone = nn.BatchNorm2d(8)
        self.back = nn.ConvTranspose2d(8, 4, 2)
        self.head = nn.Linear(4 * 9 * 8, 10)

    def forward(self, x):
        h = self.norm(self.grouped(self.same(x))).relu_()
        h = F.gelu(self.plain(self.dilated(h)))
        h = self.alone(F.hardswish(self.depthwise(h)) + h)
        h = self.back(h)
        return self.head(h.view(x.shape[0], -1)), h.transpose(1, 2).contiguous().view(-1, 9 * 4 * 8)


def test_convolutions_with_what_follows_them():
    module = Pictures()
    x = torch.randn(3, 3, 16, 16)
    module(x)
    made = packed(module, x)
    assert targets(made).count(mkldnn._convolution_pointwise.default) == 3
    assert targets(made).count(aten.batch_norm.default) == 1
    for rows in (1, 2, 3):
        assert_same(module, made, x[:rows], rtol=1e-4, atol=1e-5)


class OfItsOwn(nn.Module):
    """Normalisations that are no constants: by the batch's statistics, with a computed weight, after a shared output."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.by_batch = nn.BatchNorm2d(3, track_running_stats=False)
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("mean", torch.randn(3))
        self.register_buffer("variance", torch.rand(3) + 0.5)
        self.gamma = nn.Parameter(torch.rand(3))

    def forward(self, x):
        h = self.by_batch(self.one(x))
        h = F.batch_norm(self.two(h), self.mean, self.variance, weight=self.gamma * 2)
        y = self.three(h)
        return self.norm(y) + y


def test_normalisations_that_are_no_constants_are_not_folded():
    module = OfItsOwn()
    x = torch.randn(3, 3, 4, 4)
    made = packed(module, x)
    assert targets(made).count(aten.batch_norm.default) == 3
    assert targets(made).count(mkldnn._convolution_pointwise.default) == 3
    assert_same(module, made, x)


class Written(nn.Module):
    """Writes through a view, which must stay one."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        h = self.convolution(x)
        h.view(x.shape[0], -1).mul_(2)
        return h


def test_a_program_that_writes_through_views_keeps_its_convolutions():
    module = Written()
    x = torch.randn(3, 3, 8, 8)
    made = packed(module, x)
    assert aten.conv2d.default in targets(made)
    assert_same(module, made, x)


@pytest.mark.parametrize(
    "name", ["Named", "Several", "Recurrent", "Transformer", "Tied", "cnn", "mlp", "double", "Rows"]
)
def test_small_models_of_all_kinds(name):
    module = getattr(models, name)()
    example = {
        "Several": (torch.randn(3, 4), torch.tensor([1, 2, 3])),
        "Recurrent": (torch.randn(3, 5, 4),),
        "Transformer": (torch.randint(0, 10, (3, 5)),),
        "cnn": (torch.randn(3, 1, 8, 8),),
        "double": (torch.randn(3, 4).double(),),
    }.get(name, (torch.randn(3, 4),))
    assert_same(module, packed(module, *example), *example)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_8_bits_are_close(rows, seed):
    """An input is at most half a step of 1/127 (127 of 255 steps are used) of the batch's largest away, a weight half a
    step of 1/127 of its row's largest: the error of a sum of 32 products is below the sum of both."""
    module, made = int8()
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, 32)).astype(np.float32))
    with torch.inference_mode():
        error = (made(x) - module(x)).abs()
    largest, weight = x.abs().max(), module.weight
    steps = (2 * largest / 127) / 2 * weight.abs().sum(1) + weight.abs().amax(1) / 127 / 2 * 1.1 * x.abs().sum(
        1, keepdim=True
    )
    assert (error <= steps + 1e-5).all()


@cache
def int8():
    module = nn.Linear(32, 12)
    made = program(module, torch.randn(3, 32))
    assert packing.pack_int8(made) == 1
    return module, made


def test_8_bits_hold_outputs_without_weight_and_biasless_and_other_layers():
    module = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Tanh(), nn.Linear(16, 4))
    with torch.no_grad():
        module[0].weight[3] = 0
    made = program(module, torch.randn(3, 8))
    assert packing.pack_int8(made) == 2
    x = torch.randn(20, 8)
    with torch.inference_mode():
        assert (made(x) - module(x)).abs().max() < 0.05
    assert packing.pack_int8(program(nn.Conv2d(1, 1, 1), torch.randn(2, 1, 2, 2))) == 0


def test_what_is_packed_depends_on_the_processor(monkeypatch):
    monkeypatch.setattr(packing, "is_mkl_slow", lambda: False)
    made = packed(nn.Linear(8, 16), torch.randn(3, 8))
    assert targets(made) == [aten.linear.default]
