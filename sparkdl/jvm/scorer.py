"""A bundle as an expression of Spark that no Python worker takes part in: ``sparkdl.jvm.Scorer`` in the executors' JVM."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkdl import __version__, columns
from sparkdl.bundle import Bundle
from sparkdl.errors import BundleIntegrityError, SignatureError
from sparkdl.graph import Graph
from sparkdl.graph.graph import FILE
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

    gives: ``record``, a struct of the answers, ``problem`` (string, null: nothing is wrong) and ``model_version``;
    ``answers``, a struct of these; ``value``, the only one. invalid: ``error`` ends the job at a bad row, ``keep`` gives
    nulls. threads: of a forward pass. warmup: made-up rows to run before the first real one. record: behind its
    columns a row has why its record could not be parsed (string, null: it could), and the record's timestamp, since which
    the latency is measured. follow: where newer models come from;
    None: nowhere.
    """

    model_version: str = ""
    gives: str = "record"
    invalid: str = "error"
    threads: int = 1
    warmup: int = 1
    record: bool = False
    follow: Following | None = None


def of_bundle(spark: SparkSession, bundle: Bundle, settings: Settings) -> Callable[[Column], Column]:
    """As ``scorer``, of the bundle's graph. Raises GraphError, too, where it has none."""
    return scorer(spark, bundle.signature, bundle.graph, settings)


def scorer(spark: SparkSession, signature: Signature, graph: Graph, settings: Settings) -> Callable[[Column], Column]:
    """A function of one column, a struct of ``signature.columns`` in that order (and what ``Settings.record`` says), as ``plain_column``
    makes each; it gives what the settings say.

    Raises SparkdlError as ``session.load`` does, SignatureError for an answer that is called as what is told of a record.
    """
    from pyspark.sql import Column

    made = java_scorer(spark, signature, graph, settings).function(ddl(signature, settings.gives))
    context: Any = spark.sparkContext

    def apply(row: Column) -> Column:
        given = context._gateway.new_array(context._jvm.org.apache.spark.sql.Column, 1)
        given[0] = row._jc
        return Column(made.apply(given))

    return apply


def java_scorer(spark: SparkSession, signature: Signature, graph: Graph, settings: Settings) -> Any:
    """The Java object. Raises BundleIntegrityError for an ONNX model that the JVM refuses."""
    from pyspark.errors import IllegalArgumentException

    java = session.load(spark)
    told = {"version": __version__, "graph": graph.to_json(), "columns": list(signature.columns), **asdict(settings)}
    with tempfile.TemporaryDirectory(prefix="sparkdl-") as folder:
        file = os.path.join(folder, FILE)
        Path(file).write_bytes(graph.content)  # Py4J would carry the bytes as text
        try:
            return java.Scorer.of(spark.sparkContext._jsc, json.dumps(told), file)
        except IllegalArgumentException as error:
            raise BundleIntegrityError(str(error).split(chr(10))[0], uri=None, file=FILE) from error


def ddl(signature: Signature, gives: str) -> str:
    """The type of what the Scorer gives, as SQL writes it."""
    kinds = {name: columns.ddl(kind) for name, kind in columns.answers(signature).items()}
    if gives == "value":
        return next(iter(kinds.values()))
    if gives == "record":
        for name in (PROBLEM, MODEL_VERSION):
            if name in kinds:
                raise SignatureError(
                    f"the model's output {name!r} is called as what is told of every record; give it another name in the model",
                    column=name,
                    expected="another name",
                    got=name,
                )
        kinds |= {PROBLEM: "string", MODEL_VERSION: "string"}
    return f"struct<{', '.join(f'{quoted(name)}:{kind}' for name, kind in kinds.items())}>"
