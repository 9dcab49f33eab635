"""Mutated bundles, loaded and run under guard: a child process of test_fuzz_bundle.py.

``python fuzzing.py FIRST COUNT`` takes the seeds FIRST, FIRST + 1, … and prints a line for each: the seed, what was
changed, and what came of it: ``works``, the name of an error, or ``WRONG`` with what must not be. A seed always gives
the same bundle.

The guard is an audit hook: no file may be opened to write, none to read but those of Python and its packages; no
process, socket, shared library, unpickling; no code may be compiled but what torch generates from a graph (checked here
to be calls of operators and nothing else) and arithmetic on sizes. Libraries that open files behind Python's back find
no descriptor free. A limit on memory holds too.
"""

import ast
import json
import logging
import os
import re
import resource
import sys
import sysconfig
import warnings
from pathlib import Path

import torch
from mutations import INPUTS, ORIGINALS, mutated

from sparkdl.bundle import Bundle
from sparkdl.errors import BundleError, SignatureError

MEMORY = 3 << 30  # bytes of address space beyond what the libraries take


ROOTS = tuple({os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, sysconfig.get_path("purelib"),
                                             Path(__file__).parent.parent.parent / "sparkdl", __file__)})  # fmt: skip


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
        self.on = self.busy = self.learning = False
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
        for name, files in ORIGINALS.items():
            with guard(learning=True):
                ends = ends_in(files, INPUTS[name])
            if ends != "works":
                raise SystemExit(f"{name} itself: {ends}")
    guard.known = {why for why in guard.known if why.startswith("compiles")}
    for seed in range(-60, 0):  # what the libraries import and open for errors only, they have now
        which, _, files = mutated(seed)
        ends_in(files, INPUTS[which])
    used = int(re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    for seed in range(first, first + count):
        print(json.dumps([seed, "begins", ""]), flush=True)
        what, ends = outcome(guard, seed)
        print(json.dumps([seed, what, ends[:600]]), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
