"""An exported program is rebuilt from its checked parts before torch reads it: no code of whoever made it runs.

Each attack is first seen to work on torch.export.load itself where it does, so that the check is known to matter.
"""

import io
import json
import os
import pickle
import re
import warnings
import zipfile

import models
import pytest
import torch
from torch import nn

from sparkdl import export, pt2
from sparkdl.errors import BundleIntegrityError
from sparkdl.program import Program

GRAPH, SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"


@pytest.fixture(scope="module")
def weights():
    return models.Rows().state_dict()


@pytest.fixture(scope="module")
def content():
    return export.build(models.Rows(), [torch.randn(3, 6)]).content


def rebuilt(content, changes, compression=zipfile.ZIP_STORED, also=()):
    """The archive with some files' bytes passed through a function, and further files."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, changes.get(name.partition("/")[2], bytes)(old.read(name)))
        for name, data in also:
            new.writestr(name, data)
    return out.getvalue()


def graph(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(f"archive/{GRAPH}").decode()


def replaced(pattern, text):
    """A function that puts ``text`` in place of the first match, which must be there."""

    def change(data):
        new, count = re.subn(pattern, lambda match: text, data.decode(), count=1)
        assert count == 1
        return new.encode()

    return change


class Evil:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (self.place,)


def attacks(place):
    """What torch.export.load, or running what it gives, would do for whoever made the archive."""
    call = f"__import__('os').mkdir('{place}')"
    return {
        "sample rows pickled": {SAMPLES: lambda _: pickle.dumps(Evil(place))},
        "a size that is code": {GRAPH: replaced(r'(?<="expr_str": )"[^"]*"', json.dumps(call))},
        "a size with code in a symbol's name": {GRAPH: replaced(r"(?<=Symbol\(')\w+", call.replace("'", "\\\\'"))},
        "a size with code in a text": {GRAPH: replaced(r'(?<="expr_str": )"[^"]*"', json.dumps(f'Add("{call}", 1)'))},
        "an argument's name that is code": {GRAPH: replaced(r'(?<="name": )"x"', json.dumps(f"x={call}"))},
        "an operator from elsewhere in torch": {
            GRAPH: replaced(r"torch\.ops\.aten\.reshape\.default", "torch.serialization.os.mkdir")
        },
        "a weight pickled": {WEIGHTS: lambda _: payload("weight_0", use_pickle=True)},
        "a constant pickled": {CONSTANTS: lambda _: payload("tensor_0", use_pickle=True)},
        "an object": {CONSTANTS: lambda _: payload("custom_obj_0")},
        "an object that torch does not know": {CONSTANTS: lambda _: payload("opaque_obj_0")},
        "a tree that imports": {
            GRAPH: replaced(r'(?<="out_spec": )"(?:[^"\\]|\\.)*"', json.dumps(json.dumps([1, {
                "type": "builtins.dict", "context": '[{"__enum__": true, "fqn": "antigravity:x", "name": "y"}]',
                "children_spec": [],
            }])))
        },
        "a tree of a type that imports": {
            GRAPH: replaced(r'(?<="out_spec": )"(?:[^"\\]|\\.)*"', json.dumps(json.dumps([1, {
                "type": "collections.defaultdict", "context": "{}", "children_spec": [],
            }])))
        },
    }  # fmt: skip


def payload(path, use_pickle=False):
    return json.dumps({"config": {"w": {"path_name": path, "is_param": True, "use_pickle": use_pickle}}}).encode()


@pytest.mark.parametrize("name", attacks("x"))
def test_no_code_runs(content, weights, tmp_path, name):
    place = tmp_path / "ran"
    evil = rebuilt(content, attacks(str(place))[name])
    if name == "sample rows pickled":  # not refused: nobody needs them, so they are not even read
        Program("export", evil).load(weights)
    else:
        with pytest.raises(BundleIntegrityError, match="cannot be loaded by torch"):
            Program("export", evil).load(weights)
        with pytest.raises(ValueError, match=r"^(it|its|a|the) "):  # refused by us, not by what torch trips over
            pt2.checked(evil)
    assert not place.exists()


@pytest.mark.parametrize("name", ["sample rows pickled", "a size that is code"])
def test_torch_itself_would_run_it(content, tmp_path, name):
    evil = rebuilt(content, attacks(str(tmp_path / "ran"))[name])
    warnings.simplefilter("ignore")
    with pytest.raises(Exception):  # noqa: B017, PT011  what it raises after that is no matter
        torch.export.load(io.BytesIO(evil)).module()
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("target", "fine"),
    [
        ("torch.ops.aten.add.Tensor", True),
        ("torch.ops.aten._softmax.default", True),
        ("torch.ops.aten.__and__.Tensor", True),
        ("torch.ops.aten.__getattribute__.Tensor", False),
        ("torch.ops.torchvision.nms.default", True),
        ("torch.ops.higher_order.cond", True),
        ("_operator.mul", True),
        ("math.sqrt", True),
        ("torch.sym_max", True),
        ("torch.ops.aten.relu_.default", True),
        ("torch.ops.aten.to.dtype_layout", True),
        ("torch.ops.aten.from_file.default", False),  # makes the file
        ("torch.ops.aten.segment_reduce.default", False),  # reads memory that is not its tensors', as the next ones
        ("torch.ops.aten._sparse_csr_tensor_unsafe.default", False),
        ("torch.ops.aten._unsafe_index.Tensor", False),
        ("torch.ops.aten._native_batch_norm_legit_no_training.default", False),
        ("torch.ops.aten.empty.memory_format", False),
        ("torch.ops.aten.resize_.default", False),
        ("torch.ops.aten.set_.source_Storage", False),
        ("torch.ops.aten.as_strided.default", False),
        ("torch.ops.aten.lstm.data", False),
        ("torch.ops.aten.add.out", False),
        ("torch.ops.aten.topk.values", False),
        ("torch.ops.aten.add.nothing", False),
        ("torch.ops.prims.as_strided.default", False),
        ("torch.ops.load_library", False),
        ("torch.ops.import_module", False),
        ("torch.ops.aten.__class__.x", False),
        ("torch.ops.aten.add.__globals__", False),
        ("torch.ops.higher_order.aoti_call_delegate", False),
        ("torch.ops.inductor.add.default", False),
        ("torch.load", False),
        ("torch.hub.load", False),
        ("torch.symbolic_trace", False),
        ("_operator.attrgetter", False),
        ("_operator.methodcaller", False),
        ("_operator.setitem", False),
        ("math.__loader__", False),
        ("#torchbind", False),
        ("os.system", False),
        ("torch.ops.aten.add.Tensor\n", False),
        ("", False),
    ],
)
def test_operators_are_known_ones(content, target, fine):
    changed = rebuilt(content, {GRAPH: replaced(r"torch\.ops\.aten\.reshape\.default", json.dumps(target)[1:-1])})
    if fine:
        assert target in graph(pt2.checked(changed))
    else:
        with pytest.raises(ValueError, match="it calls"):
            pt2.checked(changed)


@pytest.mark.parametrize(
    ("size", "fine"),
    [
        ("Symbol('s31', positive=True, integer=True)", True),
        ("Mul(Integer(144), Symbol('s10', positive=True, integer=True))", True),
        ("FloatPow(ToFloat(Symbol('s10', positive=True, integer=True)), Float('0.5', precision=53))", True),
        ("Max(1, s0 // 2 + 3)", True),
        ("FloorDiv(Add(Symbol('u0', integer=True), Integer(-1)), Integer(2))", True),
        ("Symbol('s31').__class__", False),
        ("().__class__.__bases__", False),
        ("open('x')", False),
        ("Add('open(1)', 1)", False),
        ("[c for c in (1,)]", False),
        ("lambda: 1", False),
        ('Symbol("a b")', False),
        ("Float('__import__')", False),
        ("f'{1}'", False),
        ("x := 1", False),
        ("1 +", False),
        ("(" * 5000, False),
        ("\0", False),
    ],
)
def test_sizes_are_arithmetic(content, size, fine):
    changed = rebuilt(content, {GRAPH: replaced(r'(?<="expr_str": )"[^"]*"', json.dumps(size))})
    if fine:
        assert json.dumps(size) in graph(pt2.checked(changed))
    else:
        with pytest.raises(ValueError, match="a size in it is"):
            pt2.checked(changed)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("archive/extra/x", b""),
        ("archive/data/aotinductor/model/x.so", b""),
        ("archive/data/weights/model.pt", b""),
        ("archive/data/constants/model.pt", b""),
        ("archive/data/constants/custom_obj_0", b""),
        ("archive/models/other.json", b"{}"),
        ("archive/../x", b""),
        ("/etc/passwd", b""),
        ("other/models/model.json", b"{}"),  # a second one
    ],
)
def test_files_of_other_names_are_refused(content, name, data):
    with pytest.raises(ValueError, match="it holds"):
        pt2.checked(rebuilt(content, {}, also=[(name, data)]))


def test_compressed_files_are_refused(content):
    with pytest.raises(ValueError, match="it holds"):
        pt2.checked(rebuilt(content, {}, compression=zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("broken", [b"", b"PK", b"text" * 100, b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_archive_is_refused(broken):
    with pytest.raises(ValueError, match=r"it is no archive|it has no"):
        pt2.checked(broken)


def test_what_was_checked_is_checked_again_to_the_same_bytes(content):
    assert pt2.checked(content) == content


def test_neither_the_user_s_rows_nor_paths_are_kept():
    secret = torch.full((3, 6), 12345.678)
    content = export.build(models.Rows(), [secret]).content
    assert secret.numpy().tobytes()[:4] not in content
    assert os.path.dirname(models.__file__).encode() not in content
    assert b"stack_trace" not in content


def test_neither_are_the_weights():
    wide = nn.Linear(500, 500)
    assert len(export.build(wide, [torch.randn(3, 500)]).content) < 20_000


class Segments(nn.Module):
    def forward(self, x):
        return torch.segment_reduce(x.flatten(), "max", lengths=torch.tensor([3]), unsafe=True).expand(x.shape[0])


def test_an_operator_that_is_not_allowed_is_named_when_a_model_is_stored():
    made = export.build(Segments(), [torch.randn(3, 6)])
    assert made.kind != "export"
    assert "torch.ops.aten.segment_reduce.default" in made.reason


class Calls(nn.Module):
    """A module that makes one call with its parameters."""

    def __init__(self, call, *tensors):
        super().__init__()
        self.call, self.tensors = call, nn.ParameterList(tensors)

    def forward(self, x):
        return self.call(x, *self.tensors)


def _lstm(x, state, *params):
    states = [state.repeat(1, x.shape[0], 1), state.repeat(1, x.shape[0], 1)]
    return torch.ops.aten.lstm.input(x, states, params, True, 1, 0.0, False, False, True)[0]


def _attention(x, value):
    return nn.functional.scaled_dot_product_attention(x, x, value.repeat(x.shape[0], 1, 1))


LSTM = (torch.zeros(3), torch.ones(12, 4), torch.ones(12, 3), torch.ones(12), torch.ones(12))


@pytest.mark.parametrize(
    ("call", "fitting", "harmful"),
    [
        (_lstm, LSTM, (*LSTM[:3], torch.ones(1), torch.ones(1))),
        (_lstm, LSTM, (LSTM[0], torch.ones(2, 1), *LSTM[2:])),
        (_attention, (torch.ones(5, 4),), (torch.ones(1, 4),)),
        (lambda x, v, g: x @ torch._weight_norm(v, g, 0), (torch.ones(4, 2), torch.ones(4, 1)), (torch.ones(4, 2), torch.ones(1, 1))),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_together_are_refused_before_torch_reads_past_them(call, fitting, harmful):
    x = torch.randn(3, 5, 4)
    module = Calls(call, *fitting)
    made = export.build(module, [x])
    assert made.kind == "export", made.reason
    torch.testing.assert_close(made.load(module.state_dict())(x), module(x))
    shapes = Calls(call, *harmful).state_dict()
    loaded = made.load(module.state_dict())
    for name, value in shapes.items():  # as an archive that states these shapes would have it
        owner, _, attribute = name.rpartition(".")
        setattr(loaded.get_submodule(owner), attribute, nn.Parameter(value))
    loaded.graph.eliminate_dead_code()  # as compiling and packing do
    loaded.recompile()
    with pytest.raises(ValueError, match=r"do not fit|as many values|norms of a weight"):
        loaded(x)


@pytest.mark.parametrize("name", models.MODELS)
def test_ordinary_models_pass(name):
    make, inputs = models.MODELS[name]
    example = [
        torch.zeros(3, *shape, dtype=torch.int64)
        if dtype == "int64"
        else torch.randn(3, *shape).to(getattr(torch, dtype))
        for dtype, shape in inputs.values()
    ]
    made = export.build(make(), example)
    assert (made.kind, made.reason) == ("export", "")
