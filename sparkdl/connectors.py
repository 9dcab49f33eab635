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


class NoClientError(Exception):
    """Kafka's client refuses its settings. The words are Kafka's own, unless they may quote an option: that may be a secret."""

    def __init__(self, error: Any, options: Mapping[str, str]) -> None:
        hushed = f"{error.java_exception.getClass().getSimpleName()}; see the options {sorted(options)}"
        super().__init__(f"there is no client of these settings: {hushed if options else in_one_line(error)}")


def kafka_settings(spark: SparkSession, servers: str, options: Mapping[str, str]) -> Any:
    """Java's Properties for a client of Kafka. options: ``kafka.*``, as Spark's connector takes them."""
    jvm: Any = spark._jvm
    settings = jvm.java.util.Properties()
    for name, value in options.items():
        settings.setProperty(name.removeprefix("kafka."), value)
    settings.setProperty("bootstrap.servers", servers)
    return settings


@contextmanager
def kafka_admin(spark: SparkSession, servers: str, options: Mapping[str, str]) -> Iterator[Any]:
    """An AdminClient of Kafka, closed at the end. options: ``kafka.*``, as Spark's connector takes them. Raises
    NoClientError, and of what is done with it Py4JJavaError."""
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped,import-not-found]

    jvm: Any = spark._jvm
    settings = kafka_settings(spark, servers, options)
    settings.setProperty("request.timeout.ms", str(ANSWER_S * 500))
    settings.setProperty("default.api.timeout.ms", str(ANSWER_S * 1000))
    try:
        admin = jvm.org.apache.kafka.clients.admin.AdminClient.create(settings)
    except Py4JJavaError as error:
        raise NoClientError(error, options) from None
    try:
        yield admin
    finally:
        admin.close()


def kafka_config(spark: SparkSession, admin: Any, kind: str, name: str) -> Any:
    """The settings of a ``BROKER`` or ``TOPIC``, as Kafka's Config. Raises Py4JJavaError."""
    jvm: Any = spark._jvm
    kinds = getattr(jvm, "org.apache.kafka.common.config.ConfigResource$Type")
    resource = jvm.org.apache.kafka.common.config.ConfigResource(getattr(kinds, kind), name)
    asked = jvm.java.util.Collections.singleton(resource)
    return next(iter(admin.describeConfigs(asked).all().get().values()))
