"""Parts of Spark that come as packages of their own: is one there, and what is it called?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


POSITION = ("topic", "partition", "offset")  # columns of Spark's Kafka source: where a record lies


def lacking(spark: SparkSession, holds: str, artifact: str) -> str | None:
    """None if the session has the class ``holds`` (``org/…/Name``); else the conf that brings it.

    artifact: the package's name without its Scala version, of group ``org.apache.spark``. Over Spark Connect nothing can
    be told, so None.
    """
    jvm = getattr(spark, "_jvm", None)
    if jvm is None:
        return None
    if jvm.java.lang.Thread.currentThread().getContextClassLoader().getResource(f"{holds}.class") is not None:
        return None
    scala = jvm.scala.util.Properties.versionNumberString().rpartition(".")[0]
    return f"spark.jars.packages=org.apache.spark:{artifact}_{scala}:{spark.version}"


def in_one_line(error: Any) -> str:
    """What an exception of Spark's says, one of the JVM's by its innermost cause."""
    java = getattr(error, "java_exception", None)
    while java is not None and java.getCause() is not None:
        java = java.getCause()
    return (str(java.toString() if java is not None else error).strip().splitlines() or [""])[0]
