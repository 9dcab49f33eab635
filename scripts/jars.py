"""Fetch the jars that tests need: a Kafka broker, PostgreSQL, Zeppelin's interpreters, ONNX Runtime, Spark's connectors and
its own Delta.

    python3 scripts/jars.py [latest] [spark35]

Standard library and Maven (`mvn`), whose own settings say where from. locks/jars/SET.txt names each jar of a set with its
version and SHA-256; nothing else comes along. A set is made in a folder aside and renamed to .venv/jars/SET when it is
whole, under a lock: killed, or called by two at a time, it leaves a whole set or none.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks/jars"
JARS = ROOT / ".venv/jars"
SETS = {  # by lane
    "latest": ("kafka", "postgres", "zeppelin", "onnx", "latest"),
    "spark35": ("kafka", "postgres", "zeppelin", "onnx", "spark35", "spark35-delta"),
}
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
SECONDS = 600  # that Maven may take
STAMP = "sha256-of-the-lock"


class JarsError(Exception):
    """The jars are not to be had; the message holds the reason."""


@dataclass(frozen=True)
class Jar:
    """A line of a lock. sha256: of the file, in hex."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """Its name."""
        return f"{self.artifact}-{self.version}.jar"

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"


def read_lock(path: Path) -> list[Jar]:
    """The jars that a lock names. Raises JarsError naming a line that is none."""
    jars = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        parts = words[0].split(":")
        if len(words) != 2 or len(parts) != 3 or len(words[1]) != 64:
            raise JarsError(f"{path}, line {number}: not `group:artifact:version sha256`: {line!r}")
        jars.append(Jar(*parts, words[1]))
    return jars


def pom(jars: Sequence[Jar]) -> str:
    """A Maven project that depends on these jars and on nothing that they depend on."""
    nothing_else = "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
    dependencies = "".join(
        f"<dependency><groupId>{escape(jar.group)}</groupId><artifactId>{escape(jar.artifact)}</artifactId>"
        f"<version>{escape(jar.version)}</version>{nothing_else}</dependency>\n"
        for jar in jars
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>sparkdl</groupId>'
        f"<artifactId>jars</artifactId><version>1</version><dependencies>\n{dependencies}</dependencies></project>\n"
    )


def is_whole(folder: Path, lock: Path) -> bool:
    """True when the set was made from this lock and all its files are there."""
    stamp = folder / STAMP
    return (
        stamp.exists()
        and stamp.read_text() == _sha256(lock)
        and all((folder / jar.file).exists() for jar in read_lock(lock))
    )


def fetch(name: str, *, root: Path = JARS, lock: Path | None = None, maven: str = "mvn") -> Path:
    """The folder of a set's jars, fetched if they are not there. Raises JarsError: no Maven, no network, another file."""
    lock = lock or LOCKS / f"{name}.txt"
    folder = root / name
    if is_whole(folder, lock):
        return folder
    with _locked(root / ".lock") as held:
        if is_whole(folder, lock):  # by whoever had the lock
            return folder
        jars = read_lock(lock)
        for left in root.glob(f".{name}-*"):
            shutil.rmtree(left)  # of one that was killed: nobody else is at work
        made = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
        try:
            _download(jars, made, maven, held)
            for jar in jars:
                check(made / jar.file, jar)
            (made / STAMP).write_text(_sha256(lock))
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    return folder


def check(path: Path, jar: Jar) -> None:
    """Raise JarsError unless the file is the one that the lock names."""
    found = _sha256(path) if path.exists() else "no such file"
    if found != jar.sha256:
        raise JarsError(f"{jar}: the lock says sha256 {jar.sha256}, Maven gave {found}")


def _download(jars: Sequence[Jar], folder: Path, maven: str, lock: int) -> None:
    (folder / "pom.xml").write_text(pom(jars))
    command = [maven, "-q", "-B", f"{PLUGIN}:copy-dependencies", "-DoutputDirectory=."]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            pass_fds=(lock,),  # what a killed run left working holds the lock
        )
    except FileNotFoundError:
        raise JarsError(f"Maven fetches the jars, and there is no {maven!r} on the PATH") from None
    except subprocess.TimeoutExpired:
        raise JarsError(f"Maven did not end within {SECONDS} s") from None
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if "ERROR" in line]
        told = lines[0].partition("[ERROR]")[2].strip() if lines else done.stdout.strip()[-300:]
        raise JarsError(f"Maven failed (exit status {done.returncode}): {told}")
    (folder / "pom.xml").unlink()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch the sets of the lanes named (all by default); 0 when they are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("lanes", nargs="*", choices=[[], *SETS], metavar="lane", default=[])
    lanes = parser.parse_args(argv).lanes or list(SETS)
    try:
        for name in dict.fromkeys(name for lane in lanes for name in SETS[lane]):
            print(os.path.relpath(fetch(name)))
    except JarsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
