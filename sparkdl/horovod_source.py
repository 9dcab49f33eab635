"""Horovod's source: the sdist that pip fetches, checked by its sha256 and patched."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

from sparkdl import system
from sparkdl.horovod_target import HOROVOD, BuildError, Target

SDIST_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
PATCH = Path(__file__).with_name(f"horovod-{HOROVOD}.patch")
_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@")


class PatchRefused(BuildError, ValueError):
    """The patch does not fit the tree; nothing was changed."""


def fetch_sdist(cache: Path) -> Path:
    """The checked sdist: from the cache, or through pip from whatever index pip is set up with."""
    sdist = cache / "sdist" / f"horovod-{HOROVOD}.tar.gz"
    if not sdist.exists():
        sdist.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=sdist.parent) as tmp:
            command = [*find_pip(Path(tmp)), "download", "--quiet", "--no-deps"]
            command += ["--no-binary", "horovod", "--dest", tmp, f"horovod=={HOROVOD}"]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
            found = Path(tmp) / sdist.name
            if done.returncode != 0 or not found.exists():
                raise BuildError(f"pip could not fetch horovod=={HOROVOD}:\n{done.stderr[-2000:]}")
            check_sha256(found)
            os.replace(found, sdist)
    check_sha256(sdist)
    return sdist


def find_pip(tmp: Path) -> list[str]:
    """This interpreter's pip, or, in a venv made by uv, one in a throwaway venv under `tmp`."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    try:
        venv.create(tmp / "venv", with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise BuildError(
            f"no pip, and no venv with one can be made ({error}): {system.remedy('venv', python=python)}"
        ) from error
    return [str(tmp / "venv" / "bin" / "python"), "-m", "pip"]


def check_sha256(sdist: Path, expected: str = SDIST_SHA256) -> None:
    """Raise when `sdist` is not the file this patch was made for."""
    got = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if got != expected:
        raise BuildError(
            f"{sdist} is not the sdist of Horovod {HOROVOD}: sha256 {got}, expected {expected}. "
            "Delete it; if it comes back, the package index is serving something else"
        )


def unpack(sdist: Path, target: Target, into: Path) -> Path:
    """The sdist's patched source tree under `into`."""
    with tarfile.open(sdist) as tar:
        tar.extractall(into, filter="data")
    tree = into / f"horovod-{HOROVOD}"
    apply_patch(PATCH.read_text(), tree)
    if target.variant == "cuda":
        # A copy from CMake 3.17's days that does not know CUDA 13; CMake's own module does.
        (tree / "cmake/upstream/FindCUDAToolkit.cmake").unlink()
    return tree


def apply_patch(patch: str, root: Path) -> list[Path]:
    """Apply `patch` (paths with one leading folder, as `patch -p1`) under `root`: the files changed.

    Strict: the lines are where the diff says and read as it says, or nothing is written. Not left
    to git or patch: slim images have neither, and `git apply` inside somebody's repository silently
    skips the files outside it.

    Raises:
        PatchRefused: with the file, the line, what the patch expects and what is there.
    """
    changed: dict[Path, str] = {}
    for section in re.split(r"^--- ", patch, flags=re.MULTILINE)[1:]:
        _, name, *body = section.splitlines()
        path = root / name.removeprefix("+++ ").split("/", 1)[1]
        try:
            lines = path.read_text().splitlines()
        except OSError as error:
            raise PatchRefused(f"{path}: the patch changes it, but {error.strerror}") from error
        changed[path] = "\n".join(_apply_hunks(lines, body, path)) + "\n"
    if not changed:
        raise PatchRefused("the patch names no file")
    for path, text in changed.items():
        path.write_text(text)
    return list(changed)


def _apply_hunks(lines: list[str], body: list[str], path: Path) -> list[str]:
    out: list[str] = []
    at = 0  # lines[:at] are in `out`
    for row in body:
        if hunk := _HUNK.match(row):
            start = int(hunk[1]) - 1
            out += lines[at:start]
            at = start
        elif row[:1] == "+":
            out.append(row[1:])
        else:  # context, or a removed line; a blank context line may have lost its space
            there = lines[at] if at < len(lines) else "the end of the file"
            if there != row[1:]:
                raise PatchRefused(f"{path}:{at + 1}: the patch expects {row[1:]!r}, here is {there!r}")
            if row[:1] != "-":
                out.append(there)
            at += 1
    return out + lines[at:]
