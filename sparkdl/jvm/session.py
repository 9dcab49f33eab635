"""Makes sparkdl's jar known to a running Spark session."""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING, Any

from sparkdl import __version__, session
from sparkdl.errors import SparkdlError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LEAST_RUNTIME = (1, 23)  # of ONNX Runtime, whose Java API the jar is made for
ONNX_RUNTIME = "com.microsoft.onnxruntime:onnxruntime:1.23.0"
JAR = "sparkdl-jvm.jar"
_RUNTIME_CLASS = "ai.onnxruntime.OrtEnvironment"


def load(spark: SparkSession) -> Any:
    """The Java package ``sparkdl.jvm`` of this session; its jar goes to the driver and the executors on the first call.

    Raises SparkdlError over Spark Connect, without ONNX Runtime's jar on the session's class path or with one that is too
    old or does not run on this machine, without sparkdl's own jar, and if the one that is there is another version's.
    """
    if session.is_connect(spark):
        raise SparkdlError(
            "the engine 'onnx-jvm' runs inside Spark's JVM, which a Spark Connect session cannot reach; use a classic "
            "session, or the engine 'python'"
        )
    jvm = spark.sparkContext._jvm
    if not _has(jvm, _RUNTIME_CLASS):
        raise SparkdlError(
            "the engine 'onnx-jvm' needs ONNX Runtime in Spark's JVM, and it is not on this session's class path; start "
            f"the session with spark.jars.packages={ONNX_RUNTIME}, or without a network with spark.jars=PATH of its jar"
        )
    _check_runtime(jvm)
    path = jar()
    if not _has(jvm, "sparkdl.jvm.Scorer"):
        loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
        if not hasattr(loader, "addURL"):
            raise SparkdlError(f"this session's JVM takes no further jar; start the session with spark.jars={path}")
        loader.addURL(jvm.java.io.File(path).toURI().toURL())
    package = jvm.sparkdl.jvm
    found = package.Version.here()
    if found != __version__:
        raise SparkdlError(
            f"{JAR} is of sparkdl {found}, and Python has {__version__}: build it anew with `make jvm`, or take the other "
            "one from spark.jars and start the session again"
        )
    context = spark.sparkContext._jsc
    if JAR not in str(context.sc().listJars().mkString(" ")):
        context.addJar(path)
    return package


def _check_runtime(jvm: Any) -> None:
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped,import-not-found]

    try:
        found = str(jvm.ai.onnxruntime.OrtEnvironment.getEnvironment().getVersion())
    except Py4JJavaError as error:  # LinkageErrors too: no native library for this machine
        raise SparkdlError(
            f"ONNX Runtime does not start in Spark's JVM ({error.java_exception}); {ONNX_RUNTIME} is built for Linux, "
            "macOS and Windows on x86-64 or ARM64 with glibc; put it on the class path, or set engine='python'"
        ) from error
    if tuple(int(part) for part in found.split(".")[:2]) < LEAST_RUNTIME:
        raise SparkdlError(
            f"ONNX Runtime in Spark's JVM is {found}, and the engine 'onnx-jvm' needs "
            f"{'.'.join(map(str, LEAST_RUNTIME))} or newer; start the session with spark.jars.packages={ONNX_RUNTIME}"
        )


def jar() -> str:
    """The jar's path. Raises SparkdlError if this installation has none."""
    path = importlib.resources.files("sparkdl.jvm").joinpath(JAR)
    if not path.is_file():
        raise SparkdlError(
            f"this installation of sparkdl has no {JAR}, which the engine 'onnx-jvm' needs; in a checkout build it with "
            "`make jvm`"
        )
    return str(path)


def _has(jvm: Any, name: str) -> bool:
    from py4j.java_gateway import JavaClass  # type: ignore[import-untyped,import-not-found]

    package, _, simple = name.rpartition(".")
    for part in package.split("."):
        jvm = getattr(jvm, part)
    return isinstance(getattr(jvm, simple), JavaClass)
