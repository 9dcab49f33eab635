"""The distributions of the environment that runs this: their files, what they need, and what of them executors can miss."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from importlib import metadata
from pathlib import Path

from sparkdl.errors import SparkdlError, did_you_mean

SPARK_ITSELF = ("jars", "bin", "sbin", "examples", "data", "licenses", "python")  # folders of pip's pyspark
CUDA = re.compile(r"nvidia-|cuda-|triton$")  # torch wants no Python of these without a GPU, and links to some libraries
_LOADED = "import sys; sys.modules.update(cuda=None, triton=None); import torch; print(open('/proc/self/maps').read())"


class PackError(SparkdlError, RuntimeError):
    """The environment could not be packed; the message says why and what to do."""


def installed() -> list[str]:
    """Distributions of this environment, in pip's canonical spelling."""
    return sorted({_canonical(found.metadata["Name"]) for found in metadata.distributions() if _is_ours(found)})


def _is_ours(found: metadata.Distribution) -> bool:
    return str(found.locate_file("")).startswith(sys.prefix)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def files_of(name: str) -> Iterator[str]:
    """The files of a distribution, from its own record."""
    found = metadata.distribution(name)
    return (os.path.normpath(str(found.locate_file(file))) for file in found.files or ())


def needed(packages: Iterable[str]) -> set[str]:
    """The distributions that these, as pip names them, need, and they themselves. Raises PackError if one is not here."""
    from packaging.requirements import InvalidRequirement, Requirement

    here, done, todo = set(installed()), set(), []
    for text in packages:
        try:
            asked = Requirement(text)
        except InvalidRequirement as error:
            raise PackError(f"--only takes packages as pip names them, 'sparkdl[image]' say (got {text!r})") from error
        if _canonical(asked.name) not in here:
            raise PackError(
                f"--only {text}: this environment has no package {asked.name!r}{did_you_mean(asked.name, here)}"
            )
        extras = metadata.metadata(asked.name).get_all("Provides-Extra") or []
        for extra in asked.extras:
            if extra not in extras:
                raise PackError(f"--only {text}: {asked.name} has no extra {extra!r}{did_you_mean(extra, extras)}")
        todo.append((_canonical(asked.name), frozenset(asked.extras)))
    while todo:
        name, wanted = todo.pop()
        if name not in here or (name, wanted) in done:
            continue  # not installed: an optional one, or of another platform
        done.add((name, wanted))
        for line in metadata.requires(name) or ():
            of = Requirement(line)
            if of.marker is None or any(of.marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                todo.append((_canonical(of.name), frozenset(of.extras)))
    return {name for name, _ in done}


def without(owners: dict[str, set[str]], keep: Collection[str]) -> set[str]:
    """Files of the distributions that are not to be kept; one that several have stays if any does."""
    kept = set().union(*(files for name, files in owners.items() if name in keep))
    return set().union(*(files for name, files in owners.items() if name not in keep)) - kept


def of_spark(files: Iterable[str]) -> set[str]:
    """Of the files of pip's pyspark, those of Spark itself."""
    package = os.path.join(sysconfig.get_path("purelib"), "pyspark")
    folders = tuple(os.path.join(package, name, "") for name in SPARK_ITSELF)
    return {file for file in files if file.startswith(folders)}


def cuda_unopened(owners: dict[str, set[str]]) -> set[str]:
    """What of CUDA a process that has imported torch does not have open."""
    done = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PackError(f"--cpu asks torch what it opens, and torch cannot be imported:\n{done.stderr[-2000:]}")
    opened = set(re.findall(r"(/\S+\.so\S*)$", done.stdout, re.MULTILINE))
    unneeded = without(owners, keep={name for name in owners if not CUDA.match(name)})
    return {file for file in unneeded if os.path.realpath(file) not in opened}


def edited(kept: Iterable[str]) -> Iterator[tuple[Path, Path]]:
    """The files of packages that are installed for editing: where they are, and where they would be otherwise."""
    for name in kept:
        found = metadata.distribution(name)
        if not json.loads(found.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable"):
            continue
        for package in (found.read_text("top_level.txt") or "").split():
            spec = importlib.util.find_spec(package)
            for folder in (spec and spec.submodule_search_locations) or ():
                for path in sorted(Path(folder).rglob("*")):
                    inside = Path(sysconfig.get_path("purelib"), package, path.relative_to(folder))
                    if path.is_file():
                        yield path, inside
