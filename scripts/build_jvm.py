"""Build sparkdl/jvm/sparkdl-jvm.jar from the Java in sparkdl/jvm/java, against the jars of the lane `latest` and ONNX Runtime's.

    python3 scripts/build_jvm.py

Standard library, a JDK (`javac`, found as Spark finds Java), and Maven where ONNX Runtime's jar is not there yet
(scripts/jars.py). One jar serves Spark 3.5 and 4. The same sources, javac and jars give the same bytes; nothing is done where
these and the version are those of the jar that is there.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "scripts"))
import jars  # noqa: E402

from sparkdl import system  # noqa: E402

SOURCES = ROOT / "sparkdl/jvm/java"
JAR = ROOT / "sparkdl/jvm/sparkdl-jvm.jar"
SECONDS = 300  # that javac may take
STAMP = "META-INF/sources.sha256"
UNIX = 3  # the system that a zip file says it was made on
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can tell


class BuildError(Exception):
    """The jar cannot be built; the message says what is missing."""


def version(root: Path = ROOT) -> str:
    """sparkdl's own."""
    found = re.search(r'^__version__ = "(.+)"$', (root / "sparkdl/__init__.py").read_text(), re.MULTILINE)
    if found is None:
        raise BuildError(f"{root / 'sparkdl/__init__.py'} tells no __version__")
    return found[1]


def tools() -> list[str]:
    """What else the bytes hang on: javac's version, pyspark's, the jars of ONNX Runtime."""
    told = subprocess.check_output([javac(), "-version"], stderr=subprocess.STDOUT, text=True, timeout=SECONDS)
    spark = sorted(path.name for path in ROOT.glob(".venv/latest/lib/python3*/site-packages/pyspark-*.dist-info"))
    return [told.strip(), *spark, (ROOT / "locks/jars/onnx.txt").read_text()]


def digest(sources: Path, told: str) -> str:
    """Of the sources, their names, and what else is told."""
    found = hashlib.sha256(told.encode())
    for path in sorted(sources.rglob("*.java")):
        found.update(path.relative_to(sources).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def is_current(jar: Path, stamp: str) -> bool:
    """True when the jar was made of the sources that the stamp tells of."""
    if not jar.exists():
        return False
    try:
        with zipfile.ZipFile(jar) as archive:
            return archive.read(STAMP).decode() == stamp
    except (zipfile.BadZipFile, KeyError):
        return False


def build(jar: Path = JAR, sources: Path = SOURCES, *, told: str | None = None) -> bool:
    """Make the jar; False if it was there. Raises BuildError, or JarsError, where something is missing."""
    told = told or version()
    stamp = digest(sources, "\0".join((told, *tools())))
    if is_current(jar, stamp):
        return False
    with tempfile.TemporaryDirectory(prefix=".jvm-", dir=jar.parent) as folder:
        classes = Path(folder, "classes")
        compile_all(sorted(sources.rglob("*.java")), class_path(), classes)
        contents = {path.relative_to(classes).as_posix(): path.read_bytes() for path in classes.rglob("*.class")}
        contents["sparkdl/jvm/version"] = told.encode()
        contents[STAMP] = stamp.encode()
        made = Path(folder, jar.name)
        pack(made, contents)
        os.replace(made, jar)
    return True


def class_path() -> list[Path]:
    """The jars to compile against."""
    spark = sorted(ROOT.glob(".venv/latest/lib/python3*/site-packages/pyspark/jars/*.jar"))
    if not spark:
        raise BuildError("Spark's jars come with pyspark, and .venv/latest has none: run `make setup` first")
    return [*spark, *sorted(jars.fetch("onnx").glob("*.jar"))]


def javac() -> str:
    """Its path. Raises BuildError where there is none."""
    found = shutil.which("javac", path=system.java_path(os.environ))
    if found is None:
        raise BuildError(f"there is no `javac` beside Spark's Java or on the PATH: {system.remedy('java')}")
    return found


def compile_all(sources: Sequence[Path], path: Sequence[Path], classes: Path) -> None:
    """javac of the sources, for Java 17 and later."""
    command = [javac(), "--release", str(system.MIN_JAVA), "-nowarn", "-proc:none", "-encoding", "UTF-8"]
    command += ["-cp", os.pathsep.join(map(str, path)), "-d", str(classes), *map(str, sources)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS)
    if done.returncode != 0:
        raise BuildError(f"javac failed:\n{done.stdout}")


def pack(jar: Path, contents: dict[str, bytes]) -> None:
    """A jar of these files by their names, the manifest first: the same contents give the same bytes, on any machine."""
    manifest = {"META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\r\nCreated-By: sparkdl\r\n\r\n"}
    with zipfile.ZipFile(jar, "w") as archive:
        for name, content in (manifest | dict(sorted(contents.items()))).items():
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.create_system = UNIX
            entry.compress_type = zipfile.ZIP_STORED  # what zlib makes hangs on its version
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)


def main() -> int:
    """Build the jar if it is not there; 0 when it is."""
    try:
        made = build()
    except (BuildError, jars.JarsError, OSError, subprocess.TimeoutExpired) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{os.path.relpath(JAR)}: {'built' if made else 'up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
