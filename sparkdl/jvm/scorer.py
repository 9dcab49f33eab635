"""A bundle as an expression of Spark that no Python worker takes part in: ``sparkdl.jvm.Scorer`` in the executors' JVM."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sparkdl import __version__, columns
from sparkdl.jvm import session
from sparkdl.signature import Signature, quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession

PROBLEM, MODEL_VERSION = "problem", "model_version"


@dataclass(frozen=True)
class Following:
    """Where the executors look for the model to run.

    uri: a folder that they reach, as Hadoop writes it; its ``current.json`` names the model. everyMs: milliseconds from
    one look to the next.
    """

    uri: str
    everyMs: int = 1000


@dataclass(frozen=True)
class Settings:
    """How the Scorer runs.

    invalid: ``error`` ends the job at a bad row, ``keep`` gives nulls and what is wrong. threads: of a forward pass.
    warmup: made-up rows to run before the first real one. timestamp: the last field of a row is its record's timestamp,
    since which the latency is measured. follow: where newer models come from; None: nowhere.
    """

    model_version: str = ""
    invalid: str = "error"
    threads: int = 1
    warmup: int = 1
    timestamp: bool = False
    follow: Following | None = None


def scorer(
    spark: SparkSession, signature: Signature, graph: Mapping[str, Any], content: bytes, settings: Settings
) -> Callable[[Column], Column]:
    """A function of one column, a struct of ``signature.columns`` in that order (and the timestamp).

    It gives a struct: ``columns.answers(signature)``, ``problem`` (string, null: nothing is wrong), ``model_version``.
    graph: as ``Graph.to_json`` tells; content: its ONNX bytes. Raises SparkdlError as ``session.load`` does.
    """
    from pyspark.sql import Column

    java = session.load(spark)
    context = spark.sparkContext
    told = json.dumps({"version": __version__, "graph": dict(graph), **asdict(settings)})
    with tempfile.NamedTemporaryFile(prefix="sparkdl-", suffix=".onnx", delete=False) as file:
        file.write(content)  # Py4J would carry the bytes as base64
    try:
        made = java.Scorer.of(context._jsc, told, file.name)
    finally:
        os.unlink(file.name)
    function = made.function(ddl(signature))
    columns_of_java: Any = context._jvm.org.apache.spark.sql.Column  # type: ignore[union-attr]

    def apply(row: Column) -> Column:
        given = context._gateway.new_array(columns_of_java, 1)  # type: ignore[union-attr]
        given[0] = row._jc
        return Column(function.apply(given))

    return apply


def ddl(signature: Signature) -> str:
    """The type of what the Scorer gives."""
    fields = {name: columns.ddl(kind) for name, kind in columns.answers(signature).items()}
    fields |= {PROBLEM: "string", MODEL_VERSION: "string"}
    return ", ".join(f"{quoted(name)} {kind}" for name, kind in fields.items())


def of_bundle(spark: SparkSession, bundle: Any, settings: Settings) -> Callable[[Column], Column]:
    """As ``scorer``, of the bundle's graph. Raises as ``Bundle.graph`` does where the bundle has none."""
    graph = bundle.graph
    return scorer(spark, bundle.signature, graph.to_json(), graph.content, settings)
