"""Horovod for *this* torch: its sdist, checked and patched, built once and cached as a wheel.

    python -m sparkdl build-horovod --install

Horovod 0.28.1, the newest release, asks for C++14; torch needs C++20 since 2.14. The patch beside
this file is all that is changed. A wheel fits one torch, one Python and one platform, so the cache
is keyed by them:

    $XDG_CACHE_HOME/sparkdl/          (~/.cache/sparkdl)
      sdist/horovod-0.28.1.tar.gz
      wheels/KEY/horovod-….whl        renamed into place when whole, so it is there or it is not
      wheels/KEY.lock  logs/KEY.log  build/KEY-…/
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from sparkdl.horovod_source import PATCH, fetch_sdist, unpack
from sparkdl.horovod_target import (
    BuildError,
    CompilerMissing,
    build_env,
    check_tools,
    find_target,
    link_nccl,
    wheel_key,
    with_scripts,
)

NO_COMPILER_EXIT = 3  # scripts/bootstrap.py goes on without Horovod on this status, and on no other


class CompileFailed(BuildError):
    """The compiler or CMake stopped. `log` is the whole output, `first_error` where it began."""

    first_error: str
    log: Path

    def __init__(self, first_error: str, log: Path):
        super().__init__(
            f"Horovod did not build. The first error:\n{first_error}\nThe whole log: {log}",
            first_error=first_error,
            log=log,
        )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; the system lets go of it when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another build holds {path}; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cache_dir(env: Mapping[str, str]) -> Path:
    """$XDG_CACHE_HOME/sparkdl, by default ~/.cache/sparkdl."""
    root = env.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "sparkdl"


def whole_wheel(folder: Path) -> Path | None:
    """The whole wheel in `folder`, if there is one."""
    return next((wheel for wheel in folder.glob("horovod-*.whl") if is_whole(wheel)), None)


def is_whole(wheel: Path) -> bool:
    """Whether the torch extension is in the wheel: Horovod's setup.py succeeds without it."""
    if not zipfile.is_zipfile(wheel):
        return False
    names = zipfile.ZipFile(wheel).namelist()
    return any(re.fullmatch(r"horovod/torch/mpi_lib_v2\.[^/]*so", name) for name in names)


def build(env: Mapping[str, str]) -> Path:
    """The wheel for the running interpreter's torch: from the cache, or built now.

    Raises:
        CompilerMissing: no C++ compiler or no Python.h.
        CompileFailed: with the first error and the log.
        BuildError: anything else; the message holds the remedy.
    """
    cache = cache_dir(env)
    target, why = find_target(env)
    key = wheel_key(target, PATCH.read_bytes())
    folder = cache / "wheels" / key
    with locked(cache / "wheels" / f"{key}.lock"):
        if wheel := whole_wheel(folder):
            return wheel
        check_tools(env)
        print(f"building {key} ({why}), once; a few minutes", file=sys.stderr, flush=True)
        builds = cache / "build"
        for left in builds.glob(f"{key}-*"):  # of a build that was killed
            shutil.rmtree(left, ignore_errors=True)
        builds.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{key}-", dir=builds) as tmp:
            work = Path(tmp)
            tree = unpack(fetch_sdist(cache), target, work)
            full_env = build_env(
                target,
                with_scripts(env),
                cores=os.cpu_count() or 1,
                nccl_lib=link_nccl(target, work),
            )
            wheel = compile_wheel(tree, full_env, cache / "logs" / f"{key}.log")
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(wheel.parent, folder)
    return folder / wheel.name


# Ends the command when this process ends, be it by kill -9: then the pipe on stdin closes. SIGTERM, for
# ninja hands it on to its compilers, which it keeps in process groups of their own.
_LEASH = 'exec 3<&0; { read -r _ <&3; kill -TERM 0; } & exec "$@" 3<&- </dev/null'


def compile_wheel(tree: Path, env: Mapping[str, str], log: Path) -> Path:
    """Run Horovod's setup.py, its output in `log`, a line of progress on the terminal."""
    dist = tree.parent / "dist"
    # --quiet: setup.py would else hand VERBOSE=1, a Makefile word, to ninja.
    command = [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", str(dist)]
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with (
        log.open("w") as out,
        subprocess.Popen(
            ["sh", "-c", _LEASH, "leash", *command],
            cwd=tree,
            env=env,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        _show_progress(process, log)
    wheel = whole_wheel(dist)
    if process.returncode != 0 or wheel is None:
        raise CompileFailed(first_error(log.read_text(errors="replace")), log)
    return wheel


def _show_progress(process: subprocess.Popen[bytes], log: Path) -> None:
    start, shown, step = time.monotonic(), -30.0, "configuring"
    tty = sys.stderr.isatty()
    while process.poll() is None:
        time.sleep(0.5)
        seconds = time.monotonic() - start
        step = ninja_step(tail(log)) or step
        if tty or seconds - shown >= 30:
            shown = seconds
            line = f"building Horovod: {step}, {seconds:.0f} s"
            print(
                f"\r\033[K{line}" if tty else line,
                end="" if tty else "\n",
                file=sys.stderr,
                flush=True,
            )
    if tty:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def tail(path: Path, size: int = 4096) -> str:
    """The last `size` bytes of a file, as text."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode(errors="replace")


def ninja_step(text: str) -> str | None:
    """The last `[12/230]` in `text`, as "12 of 230"."""
    steps = re.findall(r"\[(\d+)/(\d+)\]", text)
    return f"{steps[-1][0]} of {steps[-1][1]}" if steps else None


def first_error(log: str, lines: int = 6) -> str:
    """The first error in a build log and the lines that explain it; else the log's end."""
    rows = log.splitlines()
    pattern = re.compile(r"(\b(fatal )?error: |\berror:|^CMake Error|: undefined reference)", re.I)
    at = next((i for i, row in enumerate(rows) if pattern.search(row)), max(0, len(rows) - lines))
    return "\n".join(row[:400] for row in rows[at : at + lines])


def install(wheel: Path) -> None:
    """Put `wheel` into the running interpreter, with uv or pip, and import it once."""
    if uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--reinstall"]
    elif importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--force-reinstall"]
    else:
        raise BuildError(f"neither uv nor pip here to install {wheel}: python -m ensurepip")
    for step in (
        [*command, "--no-deps", "--no-index", str(wheel)],
        [sys.executable, "-c", "from horovod.torch import init"],
    ):
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode != 0:
            raise BuildError(f"{' '.join(step)}\nfailed:\n{done.stderr[-2000:]}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python -m sparkdl build-horovod`."""
    parser.add_argument("--install", action="store_true", help="install the wheel into this interpreter")


def run(args: argparse.Namespace) -> int:
    """Build, install if asked, print the wheel's path; the exit status."""
    try:
        wheel = build(os.environ)
        if args.install:
            install(wheel)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return NO_COMPILER_EXIT if isinstance(error, CompilerMissing) else 1
    print(wheel)
    return 0
