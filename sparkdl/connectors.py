"""Parts of Spark that come as packages of their own: is one there, and what is it called?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


POSITION = ("topic", "partition", "offset")  # columns of Spark's Kafka source: where a record lies
ANSWER_S = 10  # for Kafka's brokers to answer before a query starts


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


@contextmanager
def kafka_admin(spark: SparkSession, servers: str, options: Mapping[str, str]) -> Iterator[Any]:
    """An AdminClient of Kafka, closed at the end. options: ``kafka.*``, as Spark's connector takes them. Raises
    Py4JJavaError."""
    jvm: Any = spark._jvm
    settings = jvm.java.util.Properties()
    for name, value in options.items():
        settings.setProperty(name.removeprefix("kafka."), value)
    settings.setProperty("bootstrap.servers", servers)
    settings.setProperty("request.timeout.ms", str(ANSWER_S * 500))
    settings.setProperty("default.api.timeout.ms", str(ANSWER_S * 1000))
    admin = jvm.org.apache.kafka.clients.admin.AdminClient.create(settings)
    try:
        yield admin
    finally:
        admin.close()
