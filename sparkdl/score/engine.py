"""A module made ready to run: where, in which precision, compiled or not."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from sparkdl.errors import InvalidParamError, SparkdlError
from sparkdl.score import packing
from sparkdl.score.scoring import DEVICE, PRECISIONS
from sparkdl.score.sizing import Sizes

_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def device_of(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` (GPU 0) or ``cuda:N`` means in this process.

    Raises InvalidParamError for any other name, SparkdlError if there is no such GPU here.
    """
    if not re.fullmatch(DEVICE, name):
        raise InvalidParamError(
            f"'device' must be one of ['auto', 'cpu', 'cuda', 'cuda:N'] (got {name!r})", param="device", value=name
        )
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not gpus):
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if index >= gpus:
        raise SparkdlError(
            f"device {name!r} was asked for, and this process sees {gpus} GPUs; say device='auto' to take one where there "
            "is one, or give the executors theirs (spark.executor.resource.gpu.amount, and a torch built for CUDA)"
        )
    return torch.device("cuda", index)


class Forward:
    """A module made ready: a function of its arguments, on its device, to its outputs there; without gradients."""

    def __init__(
        self, module: nn.Module, run: Callable[..., Any], device: torch.device, half: torch.dtype | None
    ) -> None:
        self.module, self.run, self.device, self.half = module, run, device, half

    def __call__(self, *arguments: Any) -> Any:
        """The module's raw outputs."""
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            return self.run(*arguments)

    def largest_tensor(self, *arguments: Any) -> int:
        """Bytes of the largest tensor that these arguments make the model compute, themselves included, among those that
        there are fewer of with half the rows: not weights, which autocast brings to another dtype.

        What a program of another kind than torch's computes within is not seen.
        """
        as_it_is = Forward(self.module, self.module, self.device, self.half)  # a compiled one would hide its tensors
        with Sizes() as half:
            as_it_is(*(argument[: len(argument) // 2].clone() for argument in arguments))
        with Sizes() as whole:
            as_it_is(*(argument.clone() for argument in arguments))
        return max([*(whole.nbytes - half.nbytes), *(argument.nbytes for argument in arguments)])


def prepared(module: nn.Module, device: torch.device, precision: str, compile: bool) -> Forward:
    """The module ready to run. It is taken over: it is moved, and an exported one is rewritten for the CPU (``packing``).

    Raises InvalidParamError if it cannot run in that precision, or cannot be compiled here.
    """
    module = module.to(device)
    programs = [part for part in module.modules() if isinstance(part, fx.GraphModule)]
    if precision not in PRECISIONS:
        raise InvalidParamError(
            f"'precision' must be one of {list(PRECISIONS)} (got {precision!r})", param="precision", value=precision
        )
    if precision == "int8":
        _to_int8(programs, device, compile)
    elif precision == "float32" and device.type == "cpu" and not compile:
        for program in programs:
            packing.pack(program)
    run: Callable[..., Any] = _compiled(module, device) if compile else module
    if run in programs:
        run = module.forward  # not its hooks, which check what the signature has checked, for 50 µs a forward pass
    return Forward(module, run, device, _AUTOCAST.get(precision))


def may_write_inputs(module: nn.Module, kind: str) -> bool:
    """False if it is known that a program of this kind leaves its inputs as they are: one of ONNX, or an exported one
    without an operator that works in place. Which tensor such an operator writes to is not followed: a copy is cheap."""
    if kind in ("onnx", "export"):
        programs = [part for part in module.modules() if isinstance(part, fx.GraphModule)]
        return any(packing.is_inplace(node) for program in programs for node in program.graph.nodes)
    return True


def set_threads(count: int) -> None:
    """Let torch compute with ``count`` threads, the cores of a Spark task: two tasks with all threads each take turns
    at the cores, and are slower than two with one."""
    torch.set_num_threads(max(1, count))


def is_out_of_memory(error: BaseException) -> bool:
    """True when the device, or the machine, had no memory left for a tensor."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def _to_int8(programs: list[fx.GraphModule], device: torch.device, compile: bool) -> None:
    if device.type != "cpu" or compile:
        what = "compiled" if compile else f"on {device}"
        raise InvalidParamError(
            f"'precision' int8 runs on the CPU only, and not compiled (it was asked for {what}); say bfloat16 there",
            param="precision",
            value="int8",
        )
    if not sum([packing.pack_int8(program) for program in programs]):
        raise InvalidParamError(
            "'precision' int8 keeps the weights of Linear layers in 8 bits, and this bundle's program has none that are "
            "float32 parameters of an exported program; say float32 or bfloat16",
            param="precision",
            value="int8",
        )


def _compiled(module: nn.Module, device: torch.device) -> Callable[..., Any]:
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise InvalidParamError(
            f"torch.compile needs a C++ compiler where the model runs, and {compiler!r} is not there; install one, or "
            "say compile=False",
            param="compile",
            value=True,
        )
    return torch.compile(module, dynamic=True)
