"""`python -m sparkdl pack --output environment.tar.gz`: this virtual environment as an archive for a cluster's executors.

venv-pack writes the archive; here is what goes into it. Spark's own jars never do, for the executors have Spark; packages
that are installed for editing are put in as the files they are now. `--only` packs what some packages need and nothing
else, `--cpu` leaves out what of CUDA a process with torch does not have open when there is no GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparkdl.distributions import PackError, cuda_unopened, edited, files_of, installed, needed, of_spark, without

if TYPE_CHECKING:
    from venv_pack import File

# By the system's tar; Spark's own reader of .tar takes no link to a Python outside, that of .zip keeps neither links nor times,
# and bytecode is void without these.
ENDINGS = (".tar.gz", ".tgz")
ALWAYS = ("sparkdl", "horovod")  # with --only


@dataclass(frozen=True)
class Packed:
    """What was made. size: bytes of the archive; content: bytes of the files in it."""

    path: Path
    python: str  # the executors' interpreter, which the archive links to
    files: int
    content: int
    size: int
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python -m sparkdl pack`."""
    parser.add_argument("--output", metavar="FILE", required=True, help=f"the archive: {', '.join(ENDINGS)}")
    parser.add_argument(
        "--only",
        action="append",
        metavar="PACKAGE",
        help="pack this package, as 'timm' or 'sparkdl[image]', and what it needs, and sparkdl and Horovod, and no other; "
        "may be repeated (default: all that is installed)",
    )
    parser.add_argument(
        "--cpu", action="store_true", help="for executors without GPUs: without the CUDA libraries that torch can miss"
    )
    parser.add_argument(
        "--python-prefix",
        metavar="FOLDER",
        help="where the executors have this version of Python: /usr if it is /usr/bin/python3.X (default: as here)",
    )
    parser.add_argument(
        "--compress-level",
        type=int,
        choices=range(10),
        default=1,
        metavar="0-9",
        help="of gzip; 0: not at all (default: 1)",
    )


def run(args: argparse.Namespace) -> int:
    """Pack; say how large it is and how to submit with it. 1 if it could not be done."""
    try:
        packed = pack(
            args.output,
            only=args.only,
            cpu=args.cpu,
            python_prefix=args.python_prefix,
            compress_level=args.compress_level,
        )
    except PackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(told(packed))
    return 0


def told(packed: Packed) -> str:
    """What was packed and how to submit with it."""
    return (
        f"{packed.path}: {packed.size / 2**20:,.0f} MiB, {packed.files:,} files of {packed.content / 2**20:,.0f} MiB, "
        f"in {packed.seconds:.0f} s\n"
        f"The executors need {packed.python}, Java and Spark. Submit with it:\n"
        f"  PYSPARK_DRIVER_PYTHON={sys.executable} PYSPARK_PYTHON=./environment/bin/python \\\n"
        f"  spark-submit --archives {packed.path}#environment …"
    )


def pack(
    output: str | os.PathLike[str],
    *,
    only: Sequence[str] | None = None,
    cpu: bool = False,
    python_prefix: str | None = None,
    compress_level: int = 1,
) -> Packed:
    """Write the virtual environment that runs this to the archive ``output``, whole or not at all.

    only: packages, as pip names them, to pack with what they need; all if None.
    cpu: leave out what of CUDA ``import torch`` does not open.
    python_prefix: the executors' Python is at ``PREFIX/bin/pythonX.Y``; that of this environment if None.

    Raises PackError: not a virtual environment, no venv-pack, a package that is not installed or cannot be packed, a name
    that says no format, a place that cannot be written.
    """
    began = time.monotonic()
    path, prefix = Path(output), Path(sys.prefix)
    _check(path, python_prefix)
    owners = {name: set(files_of(name)) for name in installed()}
    kept = set(owners) if only is None else needed([*only, *(name for name in ALWAYS if name in owners)])
    left_out = without(owners, kept) | of_spark(owners.get("pyspark", set()))
    if cpu:
        left_out |= cuda_unopened(owners)
    python = f"{python_prefix or Path(sys.base_prefix)}/bin/python{sysconfig.get_python_version()}"
    try:
        folder = tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:
        raise PackError(f"{str(path)!r} cannot be written: {error.strerror}") from error
    try:
        files = _relinked(_content(prefix, left_out, kept), python, Path(folder))
        content = sum(os.path.getsize(file.source) for file in files if not os.path.islink(file.source))
        os.replace(_written(prefix, files, Path(folder), path, python_prefix, compress_level), path)
    finally:
        shutil.rmtree(folder)
    return Packed(path, python, len(files), content, path.stat().st_size, time.monotonic() - began)


def _check(path: Path, python_prefix: str | None) -> None:
    if not path.name.endswith(ENDINGS):
        raise PackError(f"--output must end with one of {', '.join(ENDINGS)} (got {str(path)!r})")
    if not path.parent.is_dir():
        raise PackError(f"there is no folder {str(path.parent)!r} to write {path.name!r} to")
    if python_prefix is not None and not os.path.isabs(python_prefix):
        raise PackError(f"--python-prefix must be an absolute path, of a folder with bin/ (got {python_prefix!r})")
    if not Path(sys.prefix, "pyvenv.cfg").exists():
        raise PackError(
            f"{sys.prefix} is not a virtual environment; make one (python -m venv) and install sparkdl there, or pack a "
            "conda environment with conda-pack"
        )
    if importlib.util.find_spec("venv_pack") is None:
        raise PackError("packing needs venv-pack, which this Python does not have: pip install 'sparkdl[pack]'")


def _content(prefix: Path, left_out: Collection[str], kept: Iterable[str]) -> Iterator[File]:
    """The environment's files, without those left out and their bytecode; packages of distributions that are kept and were
    installed for editing as if they lay among the others, in the place of links to them."""
    from venv_pack import Env, File, VenvPackException

    try:
        env = Env(str(prefix))
    except VenvPackException as error:
        raise PackError(f"{error}\nInstall them without -e, or ship them with --py-files") from error
    for file in env.files:
        source = _source_of(file.source)
        if source not in left_out and not os.path.basename(source).startswith("__editable__"):
            yield file
    for path, inside in edited(kept):
        yield File(str(path), str(inside.relative_to(prefix)))


def _source_of(path: str) -> str:
    """The source of a file of bytecode, any other file itself: no record names bytecode that was made later."""
    folder, name = os.path.split(path)
    if os.path.basename(folder) != "__pycache__":
        return path
    return os.path.join(os.path.dirname(folder), name.split(".")[0] + ".py")


def _relinked(files: Iterable[File], python: str, folder: Path) -> list[File]:
    """The files, the environment's own links to a Python led to that one: venv-pack knows no link to pythonX.Y."""
    link = folder / "python"
    link.symlink_to(python)
    return [
        file._replace(source=str(link))
        if file.target.startswith("bin/python") and os.path.isabs(_led_to(file.source))
        else file
        for file in files
    ]


def _led_to(path: str) -> str:
    """Where a link leads; nowhere if it is none."""
    return os.readlink(path) if os.path.islink(path) else ""


def _written(
    prefix: Path, files: list[File], folder: Path, path: Path, python_prefix: str | None, compress_level: int
) -> Path:
    """The archive of these files, in ``folder``."""
    from venv_pack import Env

    made = folder / path.name
    env = Env(str(prefix))
    env.files = files
    before, tempfile.tempdir = tempfile.tempdir, str(folder)  # where venv-pack writes: the output's disk, not /tmp
    try:
        env.pack(str(made), python_prefix=python_prefix, compress_level=compress_level)
        made.chmod(0o666 & ~_umask())
    except OSError as error:
        raise PackError(f"{str(path)!r} cannot be written: {error.strerror}") from error
    finally:
        tempfile.tempdir = before
    return made


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now
