"""sparkdl's jar for the tests: built when it is not there (scripts/build_jvm.py)."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys

import kafka
import pytest


@functools.cache
def load_build():
    """The module scripts/build_jvm.py."""
    kafka.load_jars()
    spec = importlib.util.spec_from_file_location("build_jvm", kafka.ROOT / "scripts/build_jvm.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_jvm"] = module
    spec.loader.exec_module(module)
    return module


@functools.cache
def _built():
    build = load_build()
    try:
        build.build()
    except (build.BuildError, build.jars.JarsError) as error:
        return str(error)
    return ""


def require():
    """Skip the test where the jar or ONNX Runtime's cannot be had, or fail it where CI=true."""
    kafka.require_jars("onnx")
    if reason := _built():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no sparkdl-jvm.jar: {reason}")
