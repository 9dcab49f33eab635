"""From a module to the program that is stored: torch.export for any number of rows and, where it varies, any length."""

from __future__ import annotations

import inspect
import io
import json
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.export._patches import register_gru_while_loop_decomposition, register_lstm_while_loop_decomposition

from sparkdl import program as programs
from sparkdl import pt2, tasks
from sparkdl.errors import SparkdlError
from sparkdl.probe import evaluating, shortened
from sparkdl.program import Program


def build(
    module: nn.Module,
    example: Sequence[Tensor],
    *,
    ragged: Collection[int] = (),
    factory: Callable[[], nn.Module] | None = None,
) -> Program:
    """The safest program that gives ``module``'s outputs for any number of rows.

    module: in any mode; exported in evaluation mode and left as it was.
    example: its arguments for two or more rows, each of shape ``(B, ...)``.
    ragged: which arguments have shape ``(B, L, ...)`` with an L that varies.
    factory: what made the module; stored by import path if it has one and the module cannot be exported.
    """
    try:
        with programs.EXPORTER, evaluating(module):
            return Program("export", content=_export(module, example, ragged))
    except Exception as error:  # torch.export raises whatever the model's own code trips over: any is a reason
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    found = factory and _importable(factory)
    if found:
        return Program("import", factory=found[0], kwargs=found[1], reason=reason)
    return Program("pickle", content=programs.pickle(module, "model"), reason=reason)


def exported(module: nn.Module, example: Sequence[Tensor], ragged: Collection[int]) -> torch.export.ExportedProgram:
    """The module, in evaluation mode, by torch.export. Raises whatever that does."""
    with quiet("torch.export"), _recurrent_layers_whole(), torch.no_grad():
        return torch.export.export(module, tuple(example), dynamic_shapes=dynamic_shapes(module, example, ragged))


def dynamic_shapes(module: nn.Module, example: Sequence[Tensor], ragged: Collection[int]) -> dict[str, Any]:
    """Which sizes vary, by the names of ``forward``'s arguments: the rows of each, the length of ragged ones."""
    vary = torch.export.Dim.DYNAMIC
    sizes = [{0: vary, 1: vary} if i in ragged else {0: vary} for i in range(len(example))]
    return dict(inspect.signature(module.forward).bind(*sizes).arguments)


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Without the warnings that an export by torch gives about things the caller cannot change."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in loggers:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextmanager
def _recurrent_layers_whole() -> Iterator[None]:
    """torch traces an LSTM or GRU step by step, which fixes the length; as a loop the length stays free. What is
    stored is the layer's own operator either way."""
    with register_lstm_while_loop_decomposition(), register_gru_while_loop_decomposition():
        yield


def _export(module: nn.Module, example: Sequence[Tensor], ragged: Collection[int]) -> bytes:
    program = exported(module, example, ragged)
    with quiet("torch.export"), torch.no_grad():
        _check_same(module, program.module(check_guards=False), example, ragged)
        program._state_dict = {key: _hollow(value) for key, value in program.state_dict.items()}
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    return pt2.checked(buffer.getvalue())


def _hollow(value: Tensor) -> Tensor:
    """A stand-in of the same dtype and shape that takes one element of storage."""
    hollow = torch.zeros((), dtype=value.dtype).expand(value.shape)
    return nn.Parameter(hollow, requires_grad=False) if isinstance(value, nn.Parameter) else hollow


def _check_same(module: nn.Module, exported: nn.Module, example: Sequence[Tensor], ragged: Collection[int]) -> None:
    """Raise if the exported program does not give the module's outputs for one row and for several, at two lengths."""
    for some in (example, shortened(example, ragged)):
        for rows in (1, len(example[0])):
            expected, got = (
                tasks.named(each(*(tensor[:rows].clone() for tensor in some)))  # it may work in place
                for each in (module, exported)
            )
            for name, value in expected.items():
                torch.testing.assert_close(
                    got[name], value, equal_nan=True, msg=f"output {name!r} differs once exported"
                )


def _importable(factory: Callable[[], nn.Module]) -> tuple[str, dict[str, Any]] | None:
    """``("package.module:name", kwargs)`` if importing that gives the factory and the kwargs are JSON."""
    kwargs: dict[str, Any] = {}
    if isinstance(factory, partial) and not factory.args:
        kwargs = dict(factory.keywords)
        factory = factory.func
    path = f"{getattr(factory, '__module__', '')}:{getattr(factory, '__qualname__', '')}"
    try:
        json.dumps(kwargs)
        found = not path.startswith("__main__") and programs.import_object(path) is factory
    except (SparkdlError, TypeError, ValueError):
        return None
    return (path, kwargs) if found else None
