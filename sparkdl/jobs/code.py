"""Whose code a conf may name: what was shipped with the job, and what the person who starts the job allows.

A conf is data: who may write it need not be who may run code here. So an import path in it is followed only into

- a module that came with the job: by ``--py-files``, or in an archive of ``--archives`` that is no Python environment;
- a package that ``--allow`` or Spark's conf ``spark.sparkdl.allow`` names; ``*`` is any, and pickles too.

Where a module lies is found without importing anything of it.
"""

from __future__ import annotations

import filecmp
import importlib.util
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sparkdl import program
from sparkdl.errors import InvalidParamError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkdl.jobs.run import Run

ANY = "*"
CONF = "spark.sparkdl.allow"  # packages, separated by commas
_OF_ENVIRONMENT = ("pyvenv.cfg", "conda-meta", "bin/python", "bin/activate")  # whose packages nobody wrote for this job


def allowed(run: Run) -> tuple[str, ...]:
    """The packages that ``--allow`` and Spark's conf name. Raises InvalidParamError for what is no package's name."""
    told = [*run.allowed, *(run.spark.conf.get(CONF, None) or "").split(",")]
    names = tuple(dict.fromkeys(name.strip() for name in told if name.strip()))
    for name in names:
        if name != ANY and not name.isidentifier():
            raise InvalidParamError(
                f"--allow and {CONF} take the names of packages, such as mycompany, or {ANY!r} (got {name!r})",
                param="allow",
                value=name,
            )
    return names


def trusted(run: Run) -> bool | tuple[str, ...]:
    """What ``Bundle.load`` may run: see its ``trusted``."""
    names = allowed(run)
    return ANY in names or names or False


def named(run: Run, path: str, key: str) -> Any:
    """The function or class that the conf's ``key`` names by its import path. Raises InvalidParamError, before anything is
    imported, if it is neither shipped nor allowed, or is at home elsewhere; SparkdlError if it is not there."""
    package = program.split_path(path)[0].partition(".")[0]
    names = allowed(run)
    if ANY in names:
        return program.import_object(path)
    if package not in names and not _is_shipped(run.spark, package):
        raise InvalidParamError(
            f"{key}: {path!r} is code of {package!r}, which neither came with this job nor is allowed; ship it with "
            f"--py-files, or say --allow {package} if you trust what is installed here under that name",
            param=key,
            value=path,
        )
    return program.import_of(path, (*names, package))


def _is_shipped(spark: SparkSession, package: str) -> bool:
    """True if this top-level package, or module, is found where what was shipped with the job lies."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # ValueError: a module without a spec, as __main__
        return False
    if spec is None:
        return False
    places = spec.submodule_search_locations or ([spec.origin] if spec.origin else [])
    shipped = list(_shipped(spark))
    return bool(places) and all(any(_is_of(place, one) for one in shipped) for place in places)


def _shipped(spark: SparkSession) -> Iterator[str]:
    """Files and folders that came with the job."""
    from pyspark import SparkFiles

    root = SparkFiles.getRootDirectory()
    files = [path for path in spark.conf.get("spark.submit.pyFiles", "").split(",") if path]
    yield from files
    yield from (os.path.join(root, os.path.basename(path)) for path in [*files, *spark.sparkContext._python_includes])
    for archive in filter(None, spark.conf.get("spark.archives", "").split(",")):
        path, _, name = archive.partition("#")
        yield from (os.path.join(base, name or os.path.basename(path)) for base in (root, os.getcwd()))


def _is_of(place: str, shipped: str) -> bool:
    """True if ``place``, a module's file or a package's folder, is what was shipped or lies in it."""
    place, shipped = os.path.realpath(place), os.path.realpath(shipped)
    if place == shipped:
        return True
    if shipped.endswith(".py"):  # spark-submit puts a copy on the path
        same_name = os.path.basename(place) == os.path.basename(shipped)
        return (
            same_name
            and os.path.isfile(place)
            and os.path.isfile(shipped)
            and filecmp.cmp(place, shipped, shallow=False)
        )
    is_environment = any(os.path.lexists(os.path.join(shipped, mark)) for mark in _OF_ENVIRONMENT)
    return place.startswith(shipped + os.sep) and not is_environment
