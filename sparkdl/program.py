"""A model as something that can be stored and run elsewhere: exported, as ONNX, or (trusted only) as code.

An exported program is stored without its weights, which a bundle keeps once, as safetensors; so it is a few
kilobytes, and made before training already: whether a model can be saved is known before the night's work.
"""

from __future__ import annotations

import importlib
import inspect
import io
import threading
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import cloudpickle
import torch
from torch import Tensor, nn

from sparkdl import operators, pt2
from sparkdl.errors import (
    BundleIntegrityError,
    InvalidParamError,
    ModelNotPicklableError,
    SparkdlError,
    UntrustedBundleError,
)

Weights = Mapping[str, Tensor]
Trust = bool | tuple[str, ...]
EXPORTER = threading.Lock()  # torch.export keeps its modes for the whole process; a CrossValidator fits in threads
FILES = {"export": "program.pt2", "onnx": "program.onnx", "torchscript": "program.pt", "pickle": "program.pkl"}
KINDS = (*FILES, "import")
_SAFE = ("export", "onnx")


@dataclass(frozen=True)
class Program:
    """How to get the module back.

    kind: ``export`` (content: a .pt2), ``onnx`` (content: the model, weights and all), ``import`` (factory
    ``package.module:name`` and JSON kwargs), ``torchscript`` or ``pickle`` (content: what torch.jit or cloudpickle
    wrote). ``reason`` says why it is not an export.
    """

    kind: str
    content: bytes = b""
    factory: str = ""
    kwargs: Mapping[str, Any] | None = None
    reason: str = ""

    def check_trust(self, trusted: bool | Collection[str]) -> None:
        """Raise UntrustedBundleError if ``load`` would run code that ``trusted`` does not allow."""
        trusted = checked_trust(trusted)
        package = self.factory.partition(":")[0].partition(".")[0]
        if trusted is True or self.kind in _SAFE or (self.kind == "import" and trusted and package in trusted):
            return
        allowed = f", or trusted=[{package!r}] for what that package holds" if self.kind == "import" else ""
        raise UntrustedBundleError(
            f"this bundle's program is of kind {self.kind} ({self.factory or FILES.get(self.kind)}), and loading it "
            f"runs its code; it was not exported because {self.reason or 'of an unknown reason'}. "
            f"If you trust where it comes from, say trusted=True{allowed}",
            uri=None,
        )

    def load(self, weights: Weights, *, trusted: bool | Collection[str] = False) -> nn.Module:
        """The module with ``weights``, in evaluation mode.

        trusted: True allows any code; names of packages allow functions and classes of theirs, by import path.
        Raises UntrustedBundleError if it takes more than that.
        """
        self.check_trust(trusted)
        if self.kind == "export":
            return self._load_exported(weights)
        if self.kind == "onnx":
            from sparkdl.interop import onnx

            return onnx.module(self.content)
        if self.kind == "torchscript":
            return _load_torchscript(self.content)
        if self.kind == "import":
            module: nn.Module = _factory(self.factory, checked_trust(trusted))(**(self.kwargs or {}))
        elif self.kind == "pickle":
            module = cloudpickle.loads(self.content)
        else:
            raise BundleIntegrityError(f"unknown kind of program {self.kind!r}", uri=None, file="manifest.json")
        module.load_state_dict(dict(weights), strict=True)
        return module.eval()

    def _load_exported(self, weights: Weights) -> nn.Module:
        try:
            with EXPORTER:
                program = torch.export.load(io.BytesIO(pt2.checked(self.content)))
                module: nn.Module = program.module(check_guards=False)  # guards would be code; the signature has shapes
            module.load_state_dict(dict(weights), strict=True, assign=True)
            operators.guard(module)
        except Exception as error:  # torch raises whatever it trips over
            raise BundleIntegrityError(
                f"the bundle's program cannot be loaded by torch {torch.__version__}: {error}",
                uri=None,
                file=FILES["export"],
            ) from error
        return module


def _load_torchscript(content: bytes) -> nn.Module:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # who has such a model knows
        module: nn.Module = torch.jit.load(io.BytesIO(content), map_location="cpu")
    return module.eval()


def checked_trust(trusted: bool | Collection[str]) -> Trust:
    """What is trusted as a plain value: True, False, or a sorted tuple of package names.

    Raises InvalidParamError for anything else, a single text too: its letters would be the names.
    """
    if isinstance(trusted, bool):
        return trusted
    names = tuple(trusted) if isinstance(trusted, Collection) and not isinstance(trusted, (str, bytes)) else None
    if not names or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise InvalidParamError(
            f"'trusted' must be True, False, or names of packages such as ['mycompany'] (got {trusted!r})",
            param="trusted",
            value=trusted,
        )
    return tuple(sorted(set(names)))


def _factory(path: str, trusted: Trust) -> Any:
    """The factory at ``path``; with a list of packages only if it is itself of one."""
    if trusted is True:
        return import_object(path)
    try:
        return import_of(path, trusted or ())
    except InvalidParamError as error:
        raise UntrustedBundleError(
            f"{error}; if you trust where the bundle comes from, say trusted=True", uri=None
        ) from error


def import_of(path: str, packages: Collection[str]) -> Any:
    """The function or class named ``package.module:name``, if it is at home in one of ``packages``: ``package:os.system``
    is not. Raises as ``import_object``, and InvalidParamError for what is at home elsewhere."""
    found = import_object(path)
    home = getattr(found, "__module__", None)
    own = isinstance(home, str) and home.partition(".")[0] in packages
    if not own or not (inspect.isfunction(found) or inspect.isclass(found)):
        raise InvalidParamError(
            f"{path!r} is not a function or class of the trusted packages {list(packages)} (it is a {type(found).__name__}"
            f"{f' of {home}' if isinstance(home, str) else ''})",
            param="model",
            value=path,
        )
    return found


def split_path(path: str) -> tuple[str, str]:
    """Module and name of ``package.module:name``. Raises InvalidParamError if it is not of that form."""
    module, _, name = path.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
        raise InvalidParamError(
            f"an import path must be written 'package.module:name' (got {path!r})", param="model", value=path
        )
    return module, name


def import_object(path: str) -> Any:
    """The object named ``package.module:name``. Raises InvalidParamError for a path of another form, SparkdlError naming
    what is missing."""
    module, name = split_path(path)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise SparkdlError(
            f"cannot import {path!r}: {error}; is its package installed, or sent by --py-files?"
        ) from error
    return found


def pickle(value: Any, what: str) -> bytes:
    """``value`` by cloudpickle. Raises ModelNotPicklableError naming the attribute that cannot be pickled."""
    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:  # pickling runs the object's own code: any error means the same
        culprit = _culprit(value, what)
        raise ModelNotPicklableError(
            f"{culprit} cannot be sent to the executors: {error}. Create it inside forward(), or pass a function "
            "that makes the model instead of the model",
            what=culprit,
        ) from error


def _culprit(value: Any, path: str, depth: int = 0) -> str:
    """The path of the innermost attribute that does not pickle."""
    parts = dict(getattr(value, "__dict__", {}))
    parts.update(parts.pop("_modules", None) or {})
    for name, part in parts.items():
        try:
            cloudpickle.dumps(part)
        except Exception:  # as above
            return _culprit(part, f"{path}.{name}", depth + 1) if depth < 8 else f"{path}.{name}"
    return f"{path} ({type(value).__name__})"
