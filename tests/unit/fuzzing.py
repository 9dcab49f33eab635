"""Mutated bundles, loaded and run under guard: a child process of test_fuzz_bundle.py.

``python fuzzing.py FIRST COUNT`` takes the seeds FIRST, FIRST + 1, … and prints a line for each: the seed, what was
changed, and what came of it: ``works``, the name of an error, or ``WRONG`` with what must not be. A seed always gives
the same bundle.

The guard is an audit hook: no file may be opened to write, none to read but those of Python and its packages; no
process, socket, shared library, unpickling; no code may be compiled but what torch generates from a graph (checked here
to be calls of operators and nothing else) and arithmetic on sizes. Libraries that open files behind Python's back find
no descriptor free.
"""

import ast
import hashlib
import io
import json
import logging
import os
import random
import re
import resource
import sys
import sysconfig
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from sparkdl.bundle import Bundle
from sparkdl.columns import Ragged
from sparkdl.errors import BundleError, SignatureError

GOLDEN = Path(__file__).parent.parent / "golden"
NAMES = ("bundle-v1", "bundle-v2", "bundle-v2-onnx")
MEMORY = 3 << 30  # bytes of address space beyond what the libraries take
EVIL = "__import__('os').mkdir('touched')"
VALUES = [None, True, False, 0, 1, -1, 3, 2**31, 2**63, 2**70, 1.5, float("inf"), float("nan"), "", "x", "../x",
          "/etc/passwd", EVIL, f"Symbol('{EVIL}')", "torch.ops.aten.from_file.default", "os.system", "models:mlp",
          [], {}, ["a"], {"a": 1}, [[[]]]]  # fmt: skip


def inputs_of(name):
    """The answer file's inputs, as ``Bundle.predict`` takes them."""
    told = json.loads((GOLDEN / f"{name}-answer.json").read_bytes())["inputs"]
    return {key: Ragged.of(v, "int64", (-1,)) if key == "tokens" else np.array(v, np.float32 if key == "x" else None)
            for key, v in told.items()}  # fmt: skip


ORIGINALS = {name: {file.name: file.read_bytes() for file in (GOLDEN / name).iterdir()} for name in NAMES}
INPUTS = {name: inputs_of(name) for name in NAMES}


# --- mutations


def of_bytes(chance, content, others=()):
    """Flipped, cut, filled, said twice, or grown together with another file."""
    content = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at, span = chance.randrange(len(content) or 1), chance.choice([1, 4, 16, 200, 2000])
        match chance.randrange(7):
            case 0 | 1 if content:
                content[at] ^= 1 << chance.randrange(8)
            case 2:
                del content[at : at + span]
            case 3:
                content[at:at] = chance.randbytes(min(span, 50))
            case 4:
                content[at:at] = content[at : at + span]
            case 5 if others:
                content[at : at + span] = chance.choice(others)[at : at + span]
            case _:
                content[at : at + span] = bytes([chance.choice([0, 255, 65])]) * min(span, len(content) - at)
    return bytes(content)


def of_json(chance, content):
    """A field of it somewhere gone, of another value, or with a neighbour's."""
    root = json.loads(content)
    for _ in range(chance.randint(1, 2)):
        place, above = root, None
        for _ in range(chance.randint(0, 14)):
            inner = [key for key in keys(place) if isinstance(place[key], (dict, list)) and place[key]]
            if not inner:
                break
            above, place = place, place[chance.choice(inner)]
        if not keys(place):
            continue
        key = chance.choice(keys(place))
        how = chance.random()
        if how < 0.2:
            del place[key]
        elif how < 0.4:
            place[key] = place[chance.choice(keys(place))]
        elif how < 0.5 and isinstance(place, list):
            place.insert(0, place[key])
        elif how < 0.6 and isinstance(place[key], str):
            place[key] = place[key] + chance.choice(["\n", "'", '"', " ", ".x", "0", "_", EVIL])
        elif how < 0.7 and above is not None:
            place[key] = above
            if len(json_or_none(root) or "") > 10**7:
                place[key] = None
        else:
            place[key] = chance.choice(VALUES)
    return (json_or_none(root) or "{}").encode()


def json_or_none(value):
    try:
        return json.dumps(value)
    except (ValueError, RecursionError):  # it holds itself
        return None


def keys(place):
    return list(place) if isinstance(place, dict) else list(range(len(place)))


def of_archive(chance, content):
    """program.pt2: a file within changed, gone, there twice, under another name, compressed, swapped with another."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = [(name, archive.read(name)) for name in archive.namelist()]
    at = chance.randrange(len(files))
    if chance.random() < 0.6:
        at = next(i for i, (name, _) in enumerate(files) if name.endswith("model.json"))
    name, data = files[at]
    compression = zipfile.ZIP_STORED
    match chance.choice(["json", "json", "json", "json", "bytes", "gone", "twice", "name", "compressed", "swapped"]):
        case "json" if data.lstrip()[:1] in (b"{", b"["):
            data = of_json(chance, data)
        case "gone":
            files.pop(at)
            files.append(("archive/x", b""))
            at, name, data = -1, "archive/.data/version", b"3"
        case "twice":
            files.append((name, data))
        case "name":
            name = chance.choice(["../touched", "/tmp/touched", "archive/data/weights/model.pt", name.upper(), "x"])
        case "compressed":
            compression = zipfile.ZIP_DEFLATED
        case "swapped":
            data = chance.choice(files)[1]
        case _:
            data = of_bytes(chance, data)
    files[at] = (name, data)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for entry in files:
            archive.writestr(*entry)
    return out.getvalue()


def of_weights(chance, content):
    """weights.safetensors: a field of its header."""
    length = int.from_bytes(content[:8], "little")
    header = of_json(chance, content[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def of_onnx(chance, content):
    """program.onnx: a field of a message somewhere within gone, there twice, or of another value."""
    import onnx

    model = onnx.load_model_from_string(content)
    for _ in range(chance.randint(1, 3)):
        message = model
        for _ in range(chance.randint(0, 6)):
            inner = [value for told, value in message.ListFields() if told.type == told.TYPE_MESSAGE]
            inner = [m for value in inner for m in ([value] if hasattr(value, "ListFields") else value)]
            if not inner:
                break
            message = chance.choice(inner)
        fields = (
            list(message.DESCRIPTOR.fields) if chance.random() < 0.3 else [told for told, _ in message.ListFields()]
        )
        if fields:
            changed_field(chance, message, chance.choice(fields))
    return model.SerializeToString()


def changed_field(chance, message, told):
    value = getattr(message, told.name)
    repeated = hasattr(value, "extend")
    if chance.random() < 0.2:
        message.ClearField(told.name)
    elif told.type == told.TYPE_MESSAGE:
        if repeated and len(value):
            value.add().CopyFrom(chance.choice(list(value)))
    else:
        texts = ["", "x", "../touched", "Loop", "Identity", "com.microsoft", "twice", "external_data"]
        numbers = [0, 1, -1, 2, 7, 16, 2**31 - 1, 2**20]
        new = {
            told.TYPE_STRING: chance.choice(texts),
            told.TYPE_BYTES: chance.choice(texts).encode() * chance.randint(1, 9),
            told.TYPE_FLOAT: chance.choice([0.0, -1.0, 1e30, float("nan")]),
            told.TYPE_DOUBLE: chance.choice([0.0, -1.0, 1e300, float("nan")]),
        }.get(told.type, chance.choice([v for v in numbers if told.type != told.TYPE_ENUM or 0 <= v < 17] or [0]))
        try:
            if repeated:
                value.append(new) if chance.random() < 0.5 or not len(value) else value.__setitem__(0, new)
            else:
                setattr(message, told.name, new)
        except (ValueError, TypeError):  # no such number in that field
            message.ClearField(told.name)


def mutated(seed):
    """``(which bundle, what was done, its files)``."""
    chance = random.Random(seed)
    which = chance.choice(NAMES)
    files = dict(ORIGINALS[which])
    program = next(name for name in files if name.startswith("program"))
    name = chance.choice([*files, program, program])
    deep = {
        "manifest.json": of_json,
        "program.pt2": of_archive,
        "program.onnx": of_onnx,
        "weights.safetensors": of_weights,
    }
    how = chance.choice(["bytes", "fields", "fields", "fields", "cut", "splice", "swap", "gone"])
    if how == "bytes":
        files[name] = of_bytes(chance, files[name])
    elif how == "fields":
        files[name] = deep[name](chance, files[name])
    elif how == "cut":
        files[name] = files[name][: chance.randrange(len(files[name]))]
    elif how == "splice":
        files[name] = of_bytes(
            chance, files[name], [content for kind in ORIGINALS.values() for content in kind.values()]
        )
    elif how == "swap":
        files[name] = chance.choice([content for kind in ORIGINALS.values() for content in kind.values()])
    else:
        del files[name]
    repaired = chance.random() < 0.8
    if repaired:
        files["manifest.json"] = with_digests(files)
    return which, f"{how} of {name}{', digests repaired' if repaired else ''}", files


def with_digests(files):
    """The manifest with the digests of the files as they are, if it still lists any."""
    try:
        manifest = json.loads(files["manifest.json"])
        for name, told in manifest["files"].items():
            told.update(sha256=hashlib.sha256(files[name]).hexdigest(), bytes=len(files[name]))
        return json.dumps(manifest).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return files.get("manifest.json", b"")


# --- the guard


ROOTS = tuple({os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, sysconfig.get_path("purelib"),
                                             Path(__file__).parent.parent.parent / "sparkdl")})  # fmt: skip


def is_ours(path):
    """Within Python, its packages, or sparkdl."""
    return os.path.realpath(path).startswith((*ROOTS, "/dev/null", "/proc/self/", "/sys/devices/system/cpu"))


class Guard:
    """An audit hook that notes what must not be. Python has no way to take one off, so it is switched."""

    FORBIDDEN = re.compile(
        r"os\.(system|exec|fork|forkpty|posix_spawn|spawn|startfile|mkdir|rmdir|remove|rename|link|symlink|truncate|chmod"
        r"|chown|utime|kill|killpg|putenv|unsetenv|mkfifo)|subprocess\..*|socket\..*|ctypes\..*|shutil\..*|tempfile\..*"
        r"|pickle\.find_class|urllib\..*|http\..*|ftplib\..*|winreg\..*|pty\.spawn|webbrowser\.open|signal\..*"
        r"|sys\.(addaudithook|setprofile|settrace)"
    )

    def __init__(self):
        self.on = self.busy = False
        self.found = []
        self.files, self.most = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.known = set()  # source that the libraries compile whatever the bundle: seen with the originals
        sys.addaudithook(self.hook)

    def hook(self, event, arguments):
        if not self.on or self.busy:
            return
        self.busy = True
        try:
            why = self.wrong(event, arguments)
            if why and self.learning:
                self.known.add(why)
            elif why and why not in self.known:
                self.found.append(why)
        finally:
            self.busy = False

    def __call__(self, *, learning=False):
        self.learning = learning
        return self

    def __enter__(self):
        self.found = []
        if not self.learning:
            free = os.dup(0)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, self.most))
        self.on = True
        return self

    def __exit__(self, *_):
        self.on = False
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.files, self.most))

    def wrong(self, event, arguments):
        """Why this event must not be, or None."""
        if event == "open":
            return self.wrong_open(*arguments)
        if event == "compile":
            return wrong_source(*arguments)
        if event == "exec":
            file = arguments[0].co_filename
            fine = file.startswith(("<eval_with_key>", "<string>", "<frozen ", "<lambda")) or is_ours(file)
            return None if fine else f"executes code of {file!r}"
        return f"{event} {arguments!r}"[:300] if self.FORBIDDEN.fullmatch(event) else None

    def wrong_open(self, path, mode, flags):
        writes = any(letter in (mode or "") for letter in "wax+") or (flags or 0) & (
            os.O_WRONLY | os.O_RDWR | os.O_CREAT
        )
        if isinstance(path, int):
            return None
        if writes and path != os.devnull:
            return f"opens {path!r} to write"
        return None if is_ours(os.fsdecode(path)) else f"opens {path!r}"


GENERATED = (
    ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.AnnAssign, ast.Return, ast.Expr, ast.Name,
    ast.Attribute, ast.Call, ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.Subscript, ast.Slice, ast.Starred,
    ast.keyword, ast.Load, ast.Store, ast.BinOp, ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
CALLED = re.compile(
    r"torch\.ops\.(aten|prims|torchvision|higher_order)\.[A-Za-z_]\w*(\.\w+)?|torch\.sym_\w+|(torch\.)?(device|Size)"
    r"|_operator\.\w+|operator\.\w+|math\.\w+|fx_pytree\.tree_flatten_spec|pytree\.tree_unflatten|self\.[\w.]+|getattr"
    r"|torch\._C\._set_grad_enabled|torch\.autograd\.[\w.]+"
)  # fmt: skip
ROOT_NAMES = {
    "torch",
    "self",
    "fx_pytree",
    "pytree",
    "operator",
    "_operator",
    "math",
    "device",
    "inf",
    "nan",
    "getattr",
}


def wrong_source(source, file):
    """Why this source must not be compiled, or None."""
    if source is None or isinstance(source, ast.AST):
        return f"compiles a syntax tree as {file!r}" if source is not None else None
    text = source.decode() if isinstance(source, bytes) else str(source)
    file = os.fsdecode(file) if file else ""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # nothing of it will run
    if file.startswith("<eval_with_key>"):
        return wrong_generated(tree, text)
    if file == "<string>" and only_sizes(tree):
        return None
    if os.path.exists(file) and is_ours(file):
        return None  # the source of a module, to show a traceback or import it
    return f"compiles {text[:200]!r} as {file!r}"


def wrong_generated(tree, text):
    local = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    local |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        fine = isinstance(node, GENERATED)
        if isinstance(node, ast.Name):
            fine = node.id in local | ROOT_NAMES
        elif isinstance(node, ast.Call):
            fine = CALLED.fullmatch(ast.unparse(node.func)) is not None
            if ast.unparse(node.func) == "getattr":
                fine = ast.unparse(node.args[0]).startswith("self") and isinstance(node.args[1], ast.Constant)
        elif isinstance(node, ast.Attribute):
            fine = (
                not node.attr.startswith("__") or re.fullmatch(r"__i?(and|or|xor|[lr]shift)__", node.attr) is not None
            )
        if not fine:
            return f"generates {ast.unparse(node)[:100]!r} in {text[:300]!r}"
    return None


def only_sizes(tree):
    """Arithmetic by names that begin with a capital letter, as sympy writes it."""
    kinds = (ast.Module, ast.Expr, ast.Expression, ast.Call, ast.keyword, ast.Constant, ast.Load, ast.Name, ast.BinOp,
             ast.UnaryOp, ast.operator, ast.unaryop, ast.Compare, ast.cmpop, ast.BoolOp, ast.boolop)  # fmt: skip
    return all(
        isinstance(node, kinds)
        and not (
            isinstance(node, ast.Name) and not re.fullmatch(r"[A-Z]\w*|true|false|oo|floor|ceiling|[suz]f?\d+", node.id)
        )
        for node in ast.walk(tree)
    )


# --- a seed's outcome


def outcome(guard, seed):
    which, what, files = mutated(seed)
    with guard(learning=False):
        ends = ends_in(files, INPUTS[which])
    if guard.found:
        ends = f"WRONG {guard.found[0]}"
    return f"{which}: {what}", ends


def ends_in(files, inputs):
    try:
        bundle = Bundle.from_files(files)
        bundle.module()
        bundle.predict(inputs)
    except (BundleError, SignatureError) as error:
        return type(error).__name__
    except Exception as error:
        return f"WRONG {type(error).__name__}: {error}"
    return "works"


def main(first, count):
    warnings.simplefilter("ignore")
    logging.disable()
    torch.set_num_threads(1)
    guard = Guard()
    sys.dont_write_bytecode = True
    for _ in range(2):
        with guard(learning=True):
            for name in NAMES:
                ends = ends_in(ORIGINALS[name], INPUTS[name])
                if ends != "works":
                    raise SystemExit(f"{name} itself: {ends}")
    for seed in range(-60, 0):  # what only errors import
        with guard(learning=True) as learnt:
            ends_in(mutated(seed)[2], INPUTS[mutated(seed)[0]])
    guard.known = {why for why in learnt.known if why.startswith("compiles")}
    used = int(re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    for seed in range(first, first + count):
        print(json.dumps([seed, "begins", ""]), flush=True)
        what, ends = outcome(guard, seed)
        print(json.dumps([seed, what, ends[:600]]), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
