"""Ranks as processes of this machine, without Spark: for debugging. Run as a module, it is one such rank."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

import cloudpickle

from sparkdl import program
from sparkdl.train import failure as failures
from sparkdl.train import pulse
from sparkdl.train.collective import horovod_variables, rendezvous
from sparkdl.train.failure import Failure
from sparkdl.train.world import World

_HOST = "127.0.0.1"
_GRACE_S = 5.0


def run_here(main: Callable[..., Any], kwargs: dict[str, Any], size: int) -> Any:
    """Call ``main(**kwargs)`` in ``size`` new processes; returns what rank 0 returned.

    All they print is shown here, other ranks' lines behind their number. Raises RankFailedError for the first rank
    that failed, after ending the others.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sparkdl-"))
        meeting = (_HOST, stack.enter_context(rendezvous()))
        with open(os.path.join(folder, "job"), "wb") as file:
            file.write(program.pickle((main, kwargs), "the training function"))
        processes = []
        for rank in range(size):
            process = _start(folder, World(rank, size, rank, size, 0, 1), meeting)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        threads = stack.enter_context(ThreadPoolExecutor(size))
        ended = [threads.submit(_attend, folder, rank, process) for rank, process in enumerate(processes)]
        wait(ended, return_when=FIRST_EXCEPTION)
        if any(future.done() and future.exception() for future in ended):
            wait(ended, timeout=_GRACE_S)  # so that the rank that caused it has time to say so
        failure = failures.first(error.args[0] for future in ended if future.done() and (error := future.exception()))
        if failure:
            raise failure.exception()
        return _answer(folder, 0)


def _start(folder: str, world: World, meeting: tuple[str, int]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", __name__, folder, str(world.rank), str(os.getpid())],
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
             **horovod_variables(world, _HOST, meeting)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip


_print_lock = threading.Lock()


class _Failed(Exception):
    """Carries a Failure out of a thread."""


def _attend(folder: str, rank: int, process: subprocess.Popen[str]) -> None:
    """Show what the rank prints until it ends. Raises _Failed if it did not end well."""
    assert process.stdout is not None
    for line in process.stdout:
        with _print_lock:
            print(f"[{rank}] {line}" if rank else line, end="", flush=True)
    status = process.wait()
    if status:
        text = f"its process ended with status {status}\n"
        raise _Failed(Failure(rank, _HOST, time.time(), echo=False, traceback=text, error=None))
    answer = _answer(folder, rank)
    if isinstance(answer, Failure):
        raise _Failed(answer)


def _answer(folder: str, rank: int) -> Any:
    with open(os.path.join(folder, f"answer-{rank}"), "rb") as file:
        return cloudpickle.load(file)


def _be_rank(folder: str, rank: str, parent: str) -> None:
    with pulse.beating(int(rank), _HOST, parent=int(parent)):
        _run(folder, rank)


def _run(folder: str, rank: str) -> None:
    import horovod.torch as hvd

    with open(os.path.join(folder, "job"), "rb") as file:
        main, kwargs = cloudpickle.load(file)
    try:
        answer = main(**kwargs)
        if hvd.is_initialized():
            hvd.barrier()
    except Exception as error:  # whatever main raised belongs to the caller
        answer = Failure.of(error, int(rank), _HOST)
    hvd.shutdown()
    with open(os.path.join(folder, f"answer-{rank}"), "wb") as file:
        cloudpickle.dump(answer, file)


if __name__ == "__main__":
    _be_rank(*sys.argv[1:])
