"""A module as something that can be stored and run elsewhere: exported, imported, or (trusted only) pickled.

An exported program is stored without its weights, which a bundle keeps once, as safetensors; so it is a few
kilobytes, and made before training already: whether a model can be saved is known before the night's work.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import logging
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cloudpickle
import torch
from torch import Tensor, nn

from sparkdl import pt2
from sparkdl.errors import BundleIntegrityError, ModelNotPicklableError, SparkdlError, UntrustedBundleError

Weights = Mapping[str, Tensor]
_EXPORTER = threading.Lock()  # torch.export keeps its modes for the whole process; a CrossValidator fits in threads
EXPORTED = "program.pt2"


@dataclass(frozen=True)
class Program:
    """How to get the module back.

    kind: ``export`` (content: a .pt2), ``import`` (factory ``package.module:name`` and JSON kwargs) or ``pickle``
    (content: cloudpickle). ``reason`` says why it is not an export.
    """

    kind: str
    content: bytes = b""
    factory: str = ""
    kwargs: Mapping[str, Any] | None = None
    reason: str = ""

    def load(self, weights: Weights, *, trusted: bool = False) -> nn.Module:
        """The module with ``weights``, in evaluation mode.

        Raises UntrustedBundleError if that runs code of the bundle's choosing and ``trusted`` is not True.
        """
        if self.kind == "export":
            return self._load_exported(weights)
        if not trusted:
            raise UntrustedBundleError(
                f"this bundle's program is a {self.kind} ({self.factory or 'cloudpickle'}), and loading it runs its "
                f"code; it was not exported because {self.reason or 'of an unknown reason'}. "
                "If you trust where it comes from, say trusted=True",
                uri=None,
            )
        if self.kind == "import":
            module: nn.Module = import_object(self.factory)(**(self.kwargs or {}))
        elif self.kind == "pickle":
            module = cloudpickle.loads(self.content)
        else:
            raise BundleIntegrityError(f"unknown kind of program {self.kind!r}", uri=None, file="manifest.json")
        module.load_state_dict(dict(weights), strict=True)
        return module.eval()

    def _load_exported(self, weights: Weights) -> nn.Module:
        try:
            with _EXPORTER:
                program = torch.export.load(io.BytesIO(pt2.checked(self.content)))
                module: nn.Module = program.module(check_guards=False)  # guards would be code; the signature has shapes
            module.load_state_dict(dict(weights), strict=True, assign=True)
        except Exception as error:  # torch raises whatever it trips over
            raise BundleIntegrityError(
                f"the bundle's program cannot be loaded by torch {torch.__version__}: {error}", uri=None, file=EXPORTED
            ) from error
        return module


def build(module: nn.Module, example: Sequence[Tensor], *, factory: Callable[[], nn.Module] | None = None) -> Program:
    """The safest program that gives ``module``'s outputs for any number of rows.

    module: in any mode; exported in evaluation mode and left as it was.
    example: its arguments for two or more rows, each of shape ``(B, ...)``.
    factory: what made the module; stored by import path if it has one and the module cannot be exported.
    """
    training = module.training
    module.eval()
    try:
        with _EXPORTER:
            return Program("export", content=_export(module, example))
    except Exception as error:  # torch.export raises whatever the model's own code trips over: any is a reason
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    finally:
        module.train(training)
    found = factory and _importable(factory)
    if found:
        return Program("import", factory=found[0], kwargs=found[1], reason=reason)
    return Program("pickle", content=pickle(module, "model"), reason=reason)


def _export(module: nn.Module, example: Sequence[Tensor]) -> bytes:
    rows = {0: torch.export.Dim.DYNAMIC}
    arguments = inspect.signature(module.forward).bind(*example).arguments
    batch = {
        name: tuple(rows for _ in value) if isinstance(value, tuple) else rows for name, value in arguments.items()
    }
    logger = logging.getLogger("torch.export")
    level = logger.level
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            program = torch.export.export(module, tuple(example), dynamic_shapes=batch)
        finally:
            logger.setLevel(level)
        _check_same(module, program.module(), example)
        program._state_dict = {key: _hollow(value) for key, value in program.state_dict.items()}
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    return pt2.checked(buffer.getvalue())


def _hollow(value: Tensor) -> Tensor:
    """A stand-in of the same dtype and shape that takes one element of storage."""
    hollow = torch.zeros((), dtype=value.dtype).expand(value.shape)
    return nn.Parameter(hollow, requires_grad=False) if isinstance(value, nn.Parameter) else hollow


def _check_same(module: nn.Module, exported: nn.Module, example: Sequence[Tensor]) -> None:
    """Raise if the exported program does not give the module's outputs for one row and for several."""
    from sparkdl.tasks import named

    for rows in (1, len(example[0])):
        arguments = [tensor[:rows] for tensor in example]
        expected, got = named(module(*arguments)), named(exported(*arguments))
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, equal_nan=True, msg=f"output {name!r} differs once exported")


def _importable(factory: Callable[[], nn.Module]) -> tuple[str, dict[str, Any]] | None:
    """``("package.module:name", kwargs)`` if importing that gives the factory and the kwargs are JSON."""
    kwargs: dict[str, Any] = {}
    if isinstance(factory, partial) and not factory.args:
        kwargs = dict(factory.keywords)
        factory = factory.func
    path = f"{getattr(factory, '__module__', '')}:{getattr(factory, '__qualname__', '')}"
    try:
        json.dumps(kwargs)
        found = not path.startswith("__main__") and import_object(path) is factory
    except (SparkdlError, TypeError, ValueError):
        return None
    return (path, kwargs) if found else None


def import_object(path: str) -> Any:
    """The object named ``package.module:name``. Raises SparkdlError naming what is missing."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise SparkdlError(f"an import path must be written 'package.module:name' (got {path!r})")
    try:
        found: Any = importlib.import_module(module_name)
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
