"""Set up a lane: a locked venv under .venv/, sparkdl in it, and Horovod built for its torch.

    python3 scripts/bootstrap.py [latest] [spark35]

Standard library only; any Python from 3.10. What makes it safe to interrupt, and quick when there is
nothing to do, is one file: .venv/LANE/sparkdl-stamp.json is deleted before a lane is touched and
written when it is whole. It holds a hash of everything the lane is made from. No stamp: the lane is
made anew (from uv's cache, so in seconds). A stamp of something else: the lane is brought up to date.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sparkdl import system  # noqa: E402  standard library only, so it can be had this early

LANES = ("latest", "spark35")
# pyspark 4.3 and torch 2.15 start at Python 3.11, numpy 1.26 and pyarrow 14 have no wheels past 3.12.
LANE_PYTHONS = ((3, 11), (3, 12))
NO_COMPILER_EXIT = 3  # sparkdl.build_horovod.NO_COMPILER_EXIT
# What a lane is made from, beside its lock. A change in any of them brings the lane up to date.
SOURCES = (
    "setup.cfg",
    "setup.py",
    "sparkdl/horovod-0.28.1.patch",
    "sparkdl/build_horovod.py",
    "sparkdl/horovod_source.py",
    "sparkdl/horovod_target.py",
)


class SetupError(Exception):
    """Set-up cannot go on; the message holds the remedy."""


@dataclass(frozen=True)
class Stamp:
    """What a whole lane was made from, with which interpreter, and whether it has Horovod."""

    key: str
    python: str  # resolved: a link that now leads to another version is another interpreter
    horovod: bool


def lane_key(root: Path, lane: str, *, flavour: str) -> str:
    """The hash of everything lane `lane` is made from.

    `flavour` is $SPARKDL_HOROVOD and nvcc's place. The root is in it because a venv that moved is broken.
    """
    digest = hashlib.sha256(f"{root}|{lane}|{flavour}".encode())
    for name in (f"locks/{lane}.txt", *SOURCES):
        digest.update(hashlib.sha256((root / name).read_bytes()).digest())
    return digest.hexdigest()


def interpreter(venv: Path) -> str | None:
    """The program that the venv's `python` leads to; None when it leads nowhere."""
    python = venv / "bin" / "python"
    return str(python.resolve()) if python.exists() else None


def read_stamp(venv: Path) -> Stamp | None:
    """The lane's stamp; None when there is none, or one that a crash of the machine cut short."""
    try:
        return Stamp(**json.loads((venv / "sparkdl-stamp.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_stamp(venv: Path, stamp: Stamp) -> None:
    """Write the stamp so that it is there whole or not at all."""
    part = venv / "sparkdl-stamp.json.part"
    part.write_text(json.dumps(stamp.__dict__))
    part.replace(venv / "sparkdl-stamp.json")


def to_do(stamp: Stamp | None, key: str, *, python: str | None, compiler: bool) -> str:
    """`"nothing"`, `"update"` (sync what changed) or `"anew"` (the venv cannot be trusted)."""
    if stamp is None or stamp.python != python:
        return "anew"
    if stamp.key != key:
        return "update"
    # A compiler that came since: now Horovod can be built.
    return "nothing" if stamp.horovod or not compiler else "update"


def python_requests(version: tuple[int, int], executable: str, *, headers: bool) -> list[list[str]]:
    """uv's arguments for a lane's interpreter, best first.

    The one that runs this, if it fits and has Python.h (Horovod's build needs it; Linux
    distributions ship it apart); else one that uv manages; else whichever fits.
    """
    span = f">={'.'.join(map(str, LANE_PYTHONS[0]))},<3.{LANE_PYTHONS[-1][1] + 1}"
    requests = [["--managed-python", "--python", span], ["--python", span]]
    if version in LANE_PYTHONS and headers:
        requests.insert(0, ["--python", executable])
    return requests


def check_machine() -> None:
    """Raise unless this machine can run Spark at all."""
    if sys.version_info < (3, 10):
        have = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SetupError(f"this is Python {have}, sparkdl needs 3.10 or newer: make PYTHON=python3.11 …")
    try:
        system.check_java(os.environ)
    except system.JavaProblem as problem:
        raise SetupError(f"{problem}. Install it with:\n    {system.remedy('java')}") from None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold the lock file; yields its descriptor.

    Children inherit it, so what a killed run left working still holds the lock and nobody
    deletes a venv under it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is at work here; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def say(text: str) -> None:
    """One line on stderr: stdout belongs to what runs after the set-up."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Runner:
    """Runs the steps of one set-up: in the project's root, under its lock, timed."""

    lock: int

    def __call__(
        self, what: str, command: Sequence[str | Path], *, allowed: tuple[int, ...] = (0,), silent: bool = False
    ) -> int:
        """Run one step, its output shown unless `silent`; its exit status, if that is one of `allowed`."""
        start = time.monotonic()
        done = subprocess.run(
            [str(word) for word in command],
            cwd=ROOT,
            env=step_env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if silent else sys.stderr,
            stderr=subprocess.DEVNULL if silent else None,
            pass_fds=(self.lock,),
        )
        if done.returncode not in allowed:
            raise SetupError(
                f"{what} failed (exit status {done.returncode}, see above). "
                "Run the same command again to go on from here"
            )
        if done.returncode == 0 or not silent:
            say(f"  {what}: {time.monotonic() - start:.1f} s")
        return done.returncode


def step_env() -> dict[str, str]:
    """The environment of the steps: uv on the PATH and set up as pip is, no foreign venv."""
    env = dict(os.environ)
    env["PATH"] = os.pathsep.join([str(ROOT / ".venv/tools/bin"), env.get("PATH", os.defpath)])
    env.setdefault("UV_HTTP_TIMEOUT", "300")  # torch's wheels are large
    if "PIP_INDEX_URL" in env:
        env.setdefault("UV_DEFAULT_INDEX", env["PIP_INDEX_URL"])
    for name in ("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH"):
        env.pop(name, None)
    return env


def set_up_tools(run: Runner) -> Path:
    """`.venv/tools` with the pinned uv; uv's path."""
    venv, lock = ROOT / ".venv/tools", ROOT / "locks/tools.txt"
    key = hashlib.sha256(f"{ROOT}|{lock.read_text()}".encode()).hexdigest()
    uv = venv / "bin" / "uv"
    whole = read_stamp(venv)
    if whole and whole.key == key and whole.python == interpreter(venv) and uv.exists():
        return uv
    shutil.rmtree(venv, ignore_errors=True)
    try:
        import ensurepip  # noqa: F401  Debian ships it apart
        import venv as _  # noqa: F401
    except ImportError as error:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SetupError(
            f"this Python cannot make a venv ({error}):\n    {system.remedy('venv', python=python)}"
        ) from error
    run("tools: venv", [sys.executable, "-m", "venv", venv])
    pip = [venv / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run("tools: uv", [*pip, "--require-hashes", "--only-binary", ":all:", "-r", lock])
    write_stamp(venv, Stamp(key, interpreter(venv) or "", horovod=False))
    return uv


def make_venv(run: Runner, uv: Path, venv: Path) -> None:
    """An empty venv with an interpreter that fits the lane."""
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    requests = python_requests(sys.version_info[:2], sys.executable, headers=headers)
    for i, request in enumerate(requests):
        last = i == len(requests) - 1
        command = [uv, "venv", "--quiet", "--no-project", "--clear", *request, venv]
        if run("venv", command, allowed=(0,) if last else (0, 1, 2), silent=not last) == 0:
            return


def set_up_lane(run: Runner, lane: str) -> Stamp:
    """Bring one lane to where its lock says; quick when it is there."""
    venv = ROOT / ".venv" / lane
    python = venv / "bin" / "python"
    flavour = f"{os.environ.get('SPARKDL_HOROVOD', '')}|{shutil.which('nvcc') or ''}"
    key = lane_key(ROOT, lane, flavour=flavour)
    compiler = system.find_compiler(os.environ) is not None
    stamp = read_stamp(venv)
    task = to_do(stamp, key, python=interpreter(venv), compiler=compiler)
    if stamp and task == "nothing":
        return stamp
    say(f"setting up .venv/{lane}")
    (venv / "sparkdl-stamp.json").unlink(missing_ok=True)
    uv = set_up_tools(run)
    if task == "anew":
        shutil.rmtree(venv, ignore_errors=True)
        make_venv(run, uv, venv)
    pip = [uv, "pip"]
    # Bytecode now: where it is not written at run time, every Python worker of Spark's would compile torch anew.
    sync = [*pip, "sync", "--python", python, "--compile-bytecode", "--require-hashes", f"locks/{lane}.txt"]
    # The cache alone first: a venv can be mended without a network, and sooner with one.
    if run("packages from the cache", [*sync, "--offline"], allowed=(0, 1, 2), silent=True) != 0:
        run("packages", sync)
    # After the sync, which removes what the lock does not name.
    editable = ["install", "--quiet", "--python", python, "--no-deps", "--no-build-isolation"]
    run("sparkdl", [*pip, *editable, "--editable", "."])
    build = [python, "-m", "sparkdl", "build-horovod", "--install"]
    status = run("Horovod", build, allowed=(0, NO_COMPILER_EXIT))
    stamp = Stamp(key, interpreter(venv) or "", horovod=status == 0)
    write_stamp(venv, stamp)
    return stamp


def main(argv: Sequence[str] | None = None) -> int:
    """Set up the lanes named (all by default)."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("lanes", nargs="*", choices=[[], *LANES], metavar="lane", default=[])
    lanes = parser.parse_args(argv).lanes or LANES
    try:
        check_machine()
        with locked(ROOT / ".venv" / ".lock") as lock:
            stamps = [set_up_lane(Runner(lock), lane) for lane in lanes]
    except SetupError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; run the same command again to go on from here")
        return 130
    if not all(stamp.horovod for stamp in stamps):
        lacks = "cxx" if system.find_compiler(os.environ) is None else "python-headers"
        say(
            "NOTE: Horovod is not built, for want of a C++ compiler or Python.h; training uses "
            f"torch.distributed instead. To have it, run this again after\n    {system.remedy(lacks)}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
