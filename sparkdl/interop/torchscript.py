"""TorchScript: a program that is code, kept as it is and loaded only when trusted."""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import replace

import torch

from sparkdl.bundle import Bundle
from sparkdl.errors import BundleError
from sparkdl.interop import common
from sparkdl.probe import describe_outputs, example_inputs, float_dtype
from sparkdl.program import Program
from sparkdl.signature import Signature

REASON = "it is TorchScript"


def bundle(
    script: str | os.PathLike[str] | torch.jit.ScriptModule, signature: Signature, task: str | None, trusted: bool
) -> Bundle:
    """See ``Bundle.from_torchscript``."""
    content = _saved(script) if isinstance(script, torch.jit.ScriptModule) else common.content(script)
    program = Program("torchscript", content, reason=REASON)
    try:
        module = program.load({}, trusted=trusted)
    except RuntimeError as error:
        raise BundleError(f"{script!r} is not a TorchScript module: {error}", uri=None) from error
    signature = signature.with_float_dtype(float_dtype(module))
    outputs = describe_outputs(module, signature, example_inputs(signature), task)
    return Bundle(program, {}, replace(signature, outputs=outputs), task, trusted=trusted)


def _saved(script: torch.jit.ScriptModule) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        torch.jit.save(script, buffer)
    return buffer.getvalue()
