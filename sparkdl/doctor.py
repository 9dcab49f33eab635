"""`python -m sparkdl doctor`: is this machine ready, and if not, which command mends it.

One line a check, `ok`, `warn` or `fail`; exit status 1 when one fails. Nothing heavy is imported here:
what is to be checked may be missing or broken, so it is imported by a child process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from sparkdl import system

OK, WARN, FAIL = "ok", "warn", "fail"
RANKS = 2
BUILD = "python -m sparkdl build-horovod --install"


@dataclass(frozen=True)
class Check:
    """What one check found; `remedy` is the command that mends it."""

    name: str
    status: str
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Options:
    """What the checks are asked about."""

    master: str
    store: str
    env: Mapping[str, str]


def run_python(code: str, *, python: str = sys.executable, timeout: float = 120) -> str:
    """What a fresh interpreter prints for `code`.

    Raises:
        RuntimeError: it failed; the message is its last line, as a rule the exception.
    """
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=timeout, cwd="/")
    if done.returncode != 0:
        last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise RuntimeError(last)
    return done.stdout.strip()


def version_tuple(text: str) -> tuple[int, ...]:
    """(2, 15, 0) for "2.15.0+cu132"."""
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0])[:3])


def package(name: str, found: str, least: str, *, module: str) -> Check:
    """The verdict on a required package: `found` is its version."""
    if version_tuple(found) < version_tuple(least):
        return Check(name, FAIL, f"{found}, needs {least} or newer", f"pip install '{module}>={least}'")
    return Check(name, OK, found)


def required(name: str, module: str, least: str) -> Check:
    """Import a required package in a child process and judge its version."""
    try:
        found = run_python(f"import {module}; print({module}.__version__)")
    except RuntimeError as error:
        return Check(name, FAIL, str(error), f"pip install '{module}>={least}'")
    return package(name, found, least, module=module)


def python_version(options: Options) -> Check:
    """The driver's Python."""
    return judge_python(sys.version_info[:3])


def judge_python(version: tuple[int, ...]) -> Check:
    """The verdict on the driver's Python."""
    found = ".".join(map(str, version))
    if version < (3, 10):
        return Check("Python", FAIL, f"{found}, needs 3.10 or newer", "make PYTHON=python3.11 setup")
    return Check("Python", OK, f"{found} ({sys.executable})")


def java(options: Options) -> Check:
    """The Java that Spark would start."""
    try:
        path, version = system.check_java(options.env)
    except system.JavaProblem as problem:
        return Check("Java", FAIL, str(problem), system.remedy("java"))
    return Check("Java", OK, f"{version} ({path})")


def tests(options: Options) -> Check:
    """What `make test` needs beside Java's runtime: a compiler, and Maven, which fetches Kafka, PostgreSQL and Zeppelin."""
    if shutil.which("javac", path=system.java_path(options.env)) is None:
        return Check(
            "tests", WARN, "no `javac`: a Java without its compiler; needed by `make test` alone", system.remedy("java")
        )
    if shutil.which("mvn", path=options.env.get("PATH", os.defpath)) is None:
        return Check("tests", WARN, "no `mvn` on the PATH; needed by `make test` alone", system.remedy("maven"))
    return Check("tests", OK, "javac, Maven")


def spark(options: Options) -> Check:
    """pyspark."""
    return required("Spark", "pyspark", "3.5")


def pyarrow(options: Options) -> Check:
    """pyarrow."""
    return required("pyarrow", "pyarrow", "14")


def torch(options: Options) -> Check:
    """torch."""
    return required("torch", "torch", "2.12")


def horovod(options: Options) -> Check:
    """Whether Horovod's torch extension loads, and which torch it was built for."""
    # Without a working extension `import horovod.torch` only warns; `init` is then not there.
    code = (
        "import importlib.util as u, json, pathlib; spec = u.find_spec('horovod')\n"
        "if spec:\n"
        "    folder = pathlib.Path(spec.origin).parent\n"
        "    built = json.loads((folder / 'metadata.json').read_text()).get('pytorch')\n"
        "    import torch\n"
        "    try: from horovod.torch import init; why = ''\n"
        "    except Exception as error: why = str(error)\n"
        "    print(json.dumps([built, torch.__version__, why]))"
    )
    try:
        printed = run_python(code)
    except RuntimeError as error:
        return Check("Horovod", FAIL, str(error), BUILD)
    # Horovod prints to stdout when its extension does not load.
    return judge_horovod(json.loads(printed.splitlines()[-1]) if printed else None)


def judge_horovod(found: Sequence[str] | None) -> Check:
    """The verdict on `(torch it was built for, torch here, why it does not load)`."""
    if found is None:
        return Check("Horovod", WARN, "not installed; training uses torch.distributed instead", BUILD)
    built, here, why = found
    if built != here:
        return Check("Horovod", FAIL, f"built for torch {built}, here is torch {here}", BUILD)
    if why:
        return Check("Horovod", FAIL, f"built for torch {built}, but does not load: {why}", BUILD)
    return Check("Horovod", OK, f"built for torch {built}")


def cuda(options: Options) -> Check:
    """Whether torch and Horovod can use the GPU, where there is one."""
    if not shutil.which("nvidia-smi"):
        return Check("CUDA", OK, "no NVIDIA GPU; the CPU is used")
    try:
        usable = run_python("import torch; print(torch.cuda.is_available())")
        nccl = run_python("import horovod.torch as hvd; print(bool(hvd.nccl_built()))")
    except RuntimeError as error:
        return Check("CUDA", WARN, f"there is a GPU, but: {error}", BUILD)
    return judge_cuda(torch=usable.endswith("True"), nccl=nccl.endswith("True"))


def judge_cuda(*, torch: bool, nccl: bool) -> Check:
    """The verdict on a machine with a GPU."""
    if not torch:
        return Check("CUDA", WARN, "there is a GPU that torch cannot use", "nvidia-smi; pip install torch")
    if not nccl:
        return Check("CUDA", WARN, "torch uses the GPU; Horovod has no NCCL", f"install nvcc, then {BUILD}")
    return Check("CUDA", OK, "torch and Horovod (NCCL) use the GPU")


def petastorm(options: Options) -> Check:
    """Petastorm, an optional reader that knows pyarrow up to 14 only."""
    try:
        run_python("import petastorm")
    except RuntimeError as error:
        if "No module named 'petastorm'" in str(error):
            return Check("petastorm", WARN, "not installed (optional)", "pip install 'sparkdl[petastorm]'")
        return Check(
            "petastorm",
            WARN,
            f"does not import (optional, needs pyarrow 14): {error}",
            "make setup; .venv/spark35 has it",
        )
    return Check("petastorm", OK, "imports")


def worker_python(options: Options) -> Check:
    """Whether Spark's workers on this machine would run the driver's Python."""
    asked = options.env.get("PYSPARK_PYTHON")
    found = shutil.which(asked or "python3", path=options.env.get("PATH"))
    prefix = run_python("import sys; print(sys.prefix)", python=found) if found else None
    return judge_worker_python(asked, found, prefix, sys.prefix, sys.executable)


def judge_worker_python(
    asked: str | None, found: str | None, prefix: str | None, driver_prefix: str, driver: str
) -> Check:
    """The verdict on the workers' interpreter.

    `asked` is $PYSPARK_PYTHON, `found` the program that is, `prefix` its sys.prefix. Prefixes tell
    two venvs of one interpreter apart; their resolved paths do not.
    """
    what = f"PYSPARK_PYTHON={asked}" if asked else "PYSPARK_PYTHON is not set and `python3` on the PATH"
    name, remedy = "worker Python", f"export PYSPARK_PYTHON={shlex.quote(driver)}"
    if found is None:
        return Check(name, FAIL, f"{what} is no program", remedy)
    if prefix != driver_prefix:
        return Check(name, FAIL, f"{what} is {found}, the driver is {driver}", remedy)
    return Check(name, OK, f"{found}, as the driver")


def host_name(options: Options) -> Check:
    """Whether this host's name resolves: ranks find one another by it."""
    name = socket.gethostname()
    try:
        return Check("host name", OK, f"{name} is {socket.gethostbyname(name)}")
    except OSError as error:
        remedy = f"echo '127.0.0.1 {name}' | sudo tee -a /etc/hosts"
        return Check("host name", FAIL, f"{name} does not resolve: {error}", remedy)


def slots(options: Options) -> Check:
    """Whether a barrier stage of two ranks fits the master."""
    return judge_slots(options.master, system.slots_of_master(options.master, os.cpu_count() or 1))


def judge_slots(master: str, slots: int | None) -> Check:
    """The verdict on the slots of `master`."""
    if slots is None:
        return Check("slots", OK, f"{master}: known once a session runs (--launch)")
    if slots < RANKS:
        return Check("slots", FAIL, f"{master} has {slots} slot, {RANKS} ranks need {RANKS}", "--master 'local[2]'")
    return Check("slots", OK, f"{master} has {slots}")


def store(options: Options) -> Check:
    """Whether the store can be written."""
    try:
        from sparkdl.store import check_writable
    except ImportError as error:
        return Check("store", WARN, f"cannot be tried: {error}", "pip install 'pyarrow>=14'")
    try:
        check_writable(options.store)
    except OSError as error:
        return Check("store", FAIL, str(error), "--store URI that can be written (storePath in a conf)")
    return Check("store", OK, f"{options.store} can be written")


def launch(options: Options) -> Check:
    """Start two real ranks in a Spark session and hear from them."""
    from pyspark.sql import SparkSession

    from sparkdl.train.launcher import launch as launch_ranks

    quiet = {"spark.log.level": "ERROR", "spark.ui.showConsoleProgress": "false", "spark.ui.enabled": "false"}
    session = SparkSession.builder.master(options.master).appName("sparkdl doctor").config(map=quiet).getOrCreate()
    try:
        size, how = launch_ranks(session, lambda c: (c.world.size, type(c).__name__), size=RANKS)
    finally:
        session.stop()
    if size != RANKS:
        return Check("launch", FAIL, f"{RANKS} ranks asked for, rank 0 saw {size}", BUILD)
    return Check("launch", OK, f"{RANKS} ranks on {options.master}, {how}")


CHECKS: tuple[Callable[[Options], Check], ...] = (
    python_version, java, spark, pyarrow, torch, horovod, cuda, petastorm, worker_python, host_name, slots, store, tests,
)  # fmt: skip


def run_check(check: Callable[[Options], Check], options: Options) -> Check:
    """`check(options)`; one that blows up is itself a finding."""
    try:
        return check(options)
    except Exception as error:
        name = check.__name__.replace("_", " ")
        return Check(name, FAIL, f"{type(error).__name__}: {error}", "see the message")


def diagnose(options: Options, *, with_launch: bool = False) -> list[Check]:
    """All checks, in the order of CHECKS; the launch, last, only if what it stands on is there."""
    with ThreadPoolExecutor(4) as pool:  # each spends its time in a child process
        checks = list(pool.map(lambda check: run_check(check, options), CHECKS))
    if with_launch:
        broken = [check.name for check in checks if check.status == FAIL]
        if broken:
            checks.append(Check("launch", FAIL, f"not tried: {', '.join(broken)} failed", "mend these first"))
        else:
            checks.append(run_check(launch, options))
    return checks


def line(check: Check) -> str:
    """The check on one line."""
    text = f"{check.status:<4}  {check.name:<13}  {' '.join(check.detail.split())}"
    return f"{text}  →  {check.remedy}" if check.remedy else text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python -m sparkdl doctor`."""
    parser.add_argument("--json", action="store_true", help="print a JSON list of the checks")
    parser.add_argument("--launch", action="store_true", help="start two real ranks in a Spark session")
    parser.add_argument("--master", default="local[2]", help="Spark's master (default: local[2])")
    parser.add_argument("--store", default=tempfile.gettempdir(), metavar="URI", help="a store to try to write")


def run(args: argparse.Namespace) -> int:
    """Run the checks and print them; 1 if one failed."""
    options = Options(master=args.master, store=args.store, env=dict(os.environ))
    checks = diagnose(options, with_launch=args.launch)
    if args.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        print("\n".join(map(line, checks)))
    return int(any(check.status == FAIL for check in checks))
