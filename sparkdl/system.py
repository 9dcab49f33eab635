"""What this machine has (Java, a C++ compiler, task slots), and the one command that installs what it lacks.

Standard library only: `scripts/bootstrap.py` reads it before anything is installed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

MIN_JAVA = 17

# package manager -> thing -> command; the order is the order in which managers are looked for.
_INSTALL = {
    "apt-get": {
        "java": "apt-get update && apt-get install -y openjdk-17-jdk-headless",
        "maven": "apt-get update && apt-get install -y maven",
        "cxx": "apt-get update && apt-get install -y g++",
        "python-headers": "apt-get update && apt-get install -y python{python}-dev",
        "venv": "apt-get update && apt-get install -y python{python}-venv",
    },
    "dnf": {
        "java": "dnf install -y java-17-openjdk-devel",
        "maven": "dnf install -y maven",
        "cxx": "dnf install -y gcc-c++",
        "python-headers": "dnf install -y python{python}-devel",
        "venv": "dnf install -y python{python}",
    },
    "apk": {
        "java": "apk add openjdk17-jdk",
        "maven": "apk add maven",
        "cxx": "apk add g++",
        "python-headers": "apk add python3-dev",
        "venv": "apk add python3",
    },
    "brew": {
        "java": "brew install openjdk@17",
        "maven": "brew install maven",
        "cxx": "xcode-select --install",
        "python-headers": "brew install python@{python}",
        "venv": "brew install python@{python}",
    },
}
_IN_WORDS = {
    "java": "install a JDK, 17 or 21, and put its `java` on the PATH (or set JAVA_HOME)",
    "maven": "install Maven, and put its `mvn` on the PATH",
    "cxx": "install a C++20 compiler (g++ 11 or newer, or clang++ 14 or newer)",
    "python-headers": "install the development headers (Python.h) of Python {python}",
    "venv": "install the `venv` module of Python {python}",
}


class JavaProblem(Exception):
    """Spark cannot run on this machine's Java."""


Which = Callable[[str], "str | None"]


def package_manager(which: Which = shutil.which) -> str | None:
    """The first package manager found here: `apt-get`, `dnf`, `apk`, `brew`, or None."""
    return next((name for name in _INSTALL if which(name)), None)


def install_command(what: str, manager: str | None, *, python: str = "3", root: bool | None = None) -> str:
    """The one command that installs `what` (`java`, `maven`, `cxx`, `python-headers`, `venv`) here.

    Without a known package manager it is an instruction in words.
    """
    if manager is None:
        return _IN_WORDS[what].format(python=python)
    command = _INSTALL[manager][what].format(python=python)
    if root is None:
        root = hasattr(os, "geteuid") and os.geteuid() == 0
    if root or manager == "brew":
        return command
    return " && ".join("sudo " + part for part in command.split(" && "))


def remedy(what: str, *, python: str = "3") -> str:
    """`install_command` for this machine."""
    return install_command(what, package_manager(), python=python)


def which_in(env: Mapping[str, str]) -> Which:
    """`shutil.which` on the PATH of `env`."""
    return lambda name: shutil.which(name, path=env.get("PATH", os.defpath))


def find_java(env: Mapping[str, str]) -> str | None:
    """The `java` Spark would start: `$JAVA_HOME/bin/java` if JAVA_HOME is set, else the PATH's."""
    if home := env.get("JAVA_HOME"):
        java = Path(home) / "bin" / "java"
        return str(java) if os.access(java, os.X_OK) else None
    return which_in(env)("java")


def java_path(env: Mapping[str, str]) -> str:
    """Where to look for the programs of a JDK (`javac`, `keytool`): beside JAVA_HOME's `java`, then on the PATH."""
    home = env.get("JAVA_HOME")
    return os.pathsep.join([f"{home}/bin"] * bool(home) + [env.get("PATH", os.defpath)])


def parse_java_version(text: str) -> int | None:
    """The major version in what `java -version` prints: 8 for "1.8.0_392", 17 for "17.0.9"."""
    match = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(match.group(1)) if match else None


def check_java(env: Mapping[str, str]) -> tuple[str, int]:
    """The Java that Spark would start and its version, if Spark 4 can run on it.

    Raises:
        JavaProblem: there is none, it does not run, or it is too old.
    """
    java = find_java(env)
    if java is None:
        home = env.get("JAVA_HOME")
        raise JavaProblem(
            f"JAVA_HOME={home} has no bin/java (correct it or unset it)" if home else "no `java` on the PATH"
        )
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JavaProblem(f"{java} does not run: {error}") from error
    printed = done.stderr + done.stdout
    version = parse_java_version(printed)
    if done.returncode != 0 or version is None:
        # macOS has a stub /usr/bin/java that only says where to get one.
        raise JavaProblem(f"{java} does not run: {printed.strip()[:200]}")
    if version < MIN_JAVA:
        raise JavaProblem(f"{java} is Java {version}, Spark 4 needs {MIN_JAVA} or newer")
    return java, version


def find_compiler(env: Mapping[str, str], which: Which | None = None) -> str | None:
    """The C++ compiler that CMake would take: the first word of $CXX, if that is a program, else g++ or clang++."""
    which = which or which_in(env)
    if cxx := env.get("CXX"):
        return which(shlex.split(cxx)[0])
    return next((found for name in ("c++", "g++", "clang++") if (found := which(name))), None)


def slots_of_master(master: str, cores: int) -> int | None:
    """Task slots of a local master on a machine of `cores` cores; None for a cluster, which only a session knows."""
    if master == "local":
        return 1
    if match := re.fullmatch(r"local\[(\*|\d+)(?:\s*,\s*\d+)?\]", master):
        return cores if match[1] == "*" else int(match[1])
    if match := re.fullmatch(r"local-cluster\[\s*(\d+)\s*,\s*(\d+)\s*,\s*\d+\s*\]", master):
        return int(match[1]) * int(match[2])
    return None
