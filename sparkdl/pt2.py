"""An exported program's archive (``.pt2``), checked before torch reads it, and rid of what it need not hold.

``torch.export.load`` trusts its input: it unpickles what does not load otherwise, evaluates sizes as Python
expressions, imports what tree specs name, takes operators from anywhere in torch, and writes names into generated
code. So an archive reaches it only rebuilt from the parts named here: no pickles at all, and a graph that holds plain
names, arithmetic on sizes, and the operators listed in ``operators``. The same check runs when a program is
saved; it also drops the sample rows, which are the user's data, and the traces with the paths of the user's machine.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from typing import Any

from sparkdl.operators import is_allowed

_FILES = re.compile(
    r"(archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
    r"|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json))"
)
_GRAPH = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_PAYLOADS = {"data/weights/model_weights_config.json": "weight", "data/constants/model_constants_config.json": "tensor"}

_WORD = re.compile(r"[\w.@+/-]*", re.ASCII)  # of weights, devices, versions: never more than a quoted text to Python
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_HIGHER_ORDER = "cond|while_loop|scan|map|map_impl|associative_scan|wrap_with_set_grad_enabled|wrap_with_autocast"
_OPERATORS = (
    "add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|inv|lshift|rshift|getitem"
)
_TARGET = re.compile(
    r"torch\.ops\.(?P<namespace>\w+)\.(?P<name>\w+)\.(?P<overload>(?!_)\w+)"
    rf"|torch\.ops\.higher_order\.({_HIGHER_ORDER})|_operator\.({_OPERATORS})|math\.(?!_)\w+|torch\.sym_\w+",
    re.ASCII,
)
_DROPPED = {"metadata", "guards_code"}  # traces of the user's source; Python that checks what a signature checks too
_CODE = ("as_operator", "as_custom_obj", "as_opaque")
_TREES = ("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict", "collections.namedtuple", None)
_TEXTS = {"Symbol": _IDENTIFIER, "Float": re.compile(r"-?[\d.]+(e[+-]?\d+)?", re.ASCII)}
_FUNCTIONS = re.compile(
    r"Symbol|Integer|Float|Rational|Add|Mul|Pow|Mod|Max|Min|Abs|floor|ceiling|true|false|oo"
    r"|Equality|Unequality|LessThan|GreaterThan|StrictLessThan|StrictGreaterThan|Eq|Ne|Le|Ge|Lt|Gt|And|Or|Not"
    r"|FloorDiv|CleanDiv|CeilDiv|PythonMod|ModularIndexing|Where|LShift|RShift|PowByNatural|FloatPow|FloatTrueDiv"
    r"|IntTrueDiv|CeilToInt|FloorToInt|RoundToInt|RoundDecimal|TruncToInt|TruncToFloat|ToFloat|Identity"
    r"|BooleanTrue|BooleanFalse|NegativeOne|Zero|One|Half|[suz]f?\d+",
    re.ASCII,
)
_ARITHMETIC = (
    *(ast.Expression, ast.Call, ast.keyword, ast.Constant, ast.Load, ast.operator, ast.unaryop),
    *(ast.BinOp, ast.UnaryOp, ast.Compare, ast.cmpop, ast.BoolOp, ast.boolop),
)


def checked(content: bytes) -> bytes:
    """The archive rebuilt from its checked parts. Raises ValueError telling what is refused."""
    files = _unpacked(content)
    for name, kind in _PAYLOADS.items():
        _check_payloads(_json(files, name), kind)
    graph = _json(files, _GRAPH)
    _check_graph(graph)
    files[_GRAPH] = json.dumps(graph).encode()
    files[_SAMPLES] = b""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)
    return packed.getvalue()


def _unpacked(content: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                name = entry.filename.partition("/")[2]
                if not _FILES.fullmatch(name) or name in files or entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"it holds {entry.filename!r}")
                files[name] = archive.read(entry)
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError) as error:
        raise ValueError(f"it is no archive: {error}") from error
    return files


def _json(files: dict[str, bytes], name: str) -> Any:
    if name not in files:
        raise ValueError(f"it has no {name}")
    try:
        return json.loads(files[name])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {name} is not JSON") from error


def _check_payloads(value: Any, kind: str) -> None:
    """Each tensor lies as plain numbers in a file of its own."""
    payloads = value.get("config") if isinstance(value, dict) else None
    if not isinstance(payloads, dict):
        raise ValueError(f"its list of {kind}s is none")
    for payload in payloads.values():
        plain = isinstance(payload, dict) and payload.get("use_pickle") is False
        if not plain or not re.fullmatch(rf"{kind}_\d+", str(payload.get("path_name"))):
            raise ValueError(f"a {kind} in it is not plain numbers")
    _check_graph(payloads)


def _check_graph(value: Any, key: str = "") -> None:
    """Raise ValueError for what torch would run; drop what it can do without."""
    if isinstance(value, dict):
        for name in _DROPPED & value.keys():
            value[name] = type(value[name])()
        for name, inner in value.items():
            if not _WORD.fullmatch(name):
                raise ValueError(f"a name in it is {name!r}")
            if name in _CODE and inner is not None:
                raise ValueError(f"it holds an object ({name})")
            _check_graph(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check_graph(inner, key)
    elif isinstance(value, str):
        _check_text(value, key)


def _check_text(text: str, key: str) -> None:
    if key == "as_string":  # an operator's argument: the equation of an einsum, say
        return
    if key == "target":
        called = _TARGET.fullmatch(text)
        if not called or (called["name"] and not is_allowed(*called.group("namespace", "name", "overload"))):
            raise ValueError(f"it calls {text!r}")
    elif key == "expr_str":
        _check_expression(text)
    elif key in ("in_spec", "out_spec"):
        _check_trees(text)
    elif key in ("name", "as_name", "forward_arg_names"):
        if text and not _IDENTIFIER.fullmatch(text):
            raise ValueError(f"a name in it is {text!r}")
    elif not _WORD.fullmatch(text):
        raise ValueError(f"its {key} is {text!r}")


def _check_expression(text: str) -> None:
    """A size, as sympy writes it: ``Symbol('s3', positive=True)``, sums and the like."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"a size in it is {text[:80]!r}") from error
    texts = {
        id(node.args[0]): _TEXTS[node.func.id]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _TEXTS and node.args
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):  # elsewhere sympy would evaluate the text
            fine = id(node) in texts and texts[id(node)].fullmatch(node.value) is not None
        elif isinstance(node, ast.Name):
            fine = _FUNCTIONS.fullmatch(node.id) is not None
        else:
            fine = isinstance(node, _ARITHMETIC)
        if not fine:
            raise ValueError(f"a size in it is {text[:80]!r}")


def _check_trees(text: str) -> None:
    """How inputs or outputs nest: tuples, lists, and dictionaries of texts."""
    try:
        _, spec = json.loads(text)
        waiting = [spec]
        while waiting:
            spec = waiting.pop()
            keys = json.loads(spec["context"]) if spec["context"] is not None else None
            texts = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
            if spec["type"] not in _TREES or not (keys is None or isinstance(keys, str) or texts):
                raise ValueError(spec["type"])
            waiting += spec["children_spec"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"the structure of its inputs or outputs is {text[:80]!r}") from error
