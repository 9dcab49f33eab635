"""The predictor as a vectorised UDF: an Arrow UDF on Spark 4.1 and later, a pandas UDF below.

The bundle travels once a session: as a broadcast, or as an artifact over Spark Connect. A worker process keeps one
loaded model, under the bundle's digest, between tasks and micro-batches, until another takes its place.
"""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Tuple  # noqa: UP035

import pyarrow as pa
import torch

from sparkdl import columns, session
from sparkdl.bundle import Bundle
from sparkdl.score.predictor import Predictor
from sparkdl.signature import Signature

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import Column, SparkSession

Files = Mapping[str, bytes]


def scoring_udf(spark: SparkSession, bundle: Bundle, batch_size: int) -> Callable[..., Column]:
    """A function of the signature's columns (``Signature.columns``, in that order) that gives a struct of the outputs."""
    session.check_worker_python(spark)
    scorer = _Scorer(bundle.digest, _shipped(spark, bundle), bundle.signature, batch_size, bundle.trusted)
    fields = ", ".join(f"`{spec.name}` {columns.spark_type(spec)}" for spec in bundle.signature.outputs)
    returns = f"struct<{fields.replace('` ', '`:')}>"
    several = len(bundle.signature.columns) > 1
    if tuple(int(part) for part in spark.version.split(".")[:2]) >= (4, 1):
        from pyspark.sql.functions import arrow_udf

        made: Callable[..., Column] = arrow_udf(_hinted(scorer.arrow, pa.Array, several, pa.Array), returns)
        return made
    import pandas as pd
    from pyspark.sql.functions import pandas_udf

    made = pandas_udf(_hinted(scorer.pandas, pd.Series, several, pd.DataFrame), returns)
    return made


def _hinted(score: Callable[[Any], Any], takes: Any, several: bool, gives: Any) -> Callable[[Any], Any]:
    """``score`` as a plain function with the type hints by which Spark knows an iterator UDF."""

    def function(batches: Any) -> Any:
        return score(batches)

    batch = Tuple[takes, ...] if several else takes  # noqa: UP006  # Spark looks for this name
    function.__annotations__ = {"batches": Iterator[batch], "return": Iterator[gives]}  # type: ignore[valid-type]
    return function


@dataclass(frozen=True)
class _Scorer:
    """Runs in the workers: columns in, a struct of outputs out."""

    digest: str
    fetch: Callable[[], Files]
    signature: Signature
    batch_size: int
    trusted: bool

    def arrow(self, batches: Iterator[Any]) -> Iterator[pa.Array]:
        predictor = None
        for batch in batches:
            predictor = predictor or self._load()
            outputs = self._predict(predictor, batch if isinstance(batch, tuple) else (batch,))
            yield pa.StructArray.from_arrays(list(outputs.values()), names=list(outputs))

    def pandas(self, batches: Iterator[Any]) -> Iterator[pd.DataFrame]:
        import pandas as pd

        predictor = None
        for batch in batches:
            predictor = predictor or self._load()
            series = batch if isinstance(batch, tuple) else (batch,)
            outputs = self._predict(predictor, tuple(pa.Array.from_pandas(column) for column in series))
            yield pd.DataFrame({name: array.to_pandas() for name, array in outputs.items()})

    def _load(self) -> Predictor:
        """Held while a task lasts, so that two models of one query do not take each other's place at every batch."""
        return loaded(self.digest, self.fetch, self.batch_size, self.trusted)

    def _predict(self, predictor: Predictor, arrays: tuple[pa.Array, ...]) -> dict[str, pa.Array]:
        named = dict(zip(self.signature.columns, arrays, strict=True))
        inputs = {spec.name: columns.to_numpy(named, spec) for spec in self.signature.inputs}
        outputs = predictor.predict(inputs)
        return {name: columns.to_arrow(values) for name, values in outputs.items()}


_loaded: tuple[tuple[str, int], Predictor] | None = None


def loaded(digest: str, fetch: Callable[[], Files], batch_size: int, trusted: bool) -> Predictor:
    """This process's predictor for the bundle of that digest, loaded if it is not the one it has."""
    global _loaded
    key = (digest, batch_size)
    if _loaded is None or _loaded[0] != key:
        _loaded = None  # its memory first
        torch.set_num_threads(max(1, _task_cpus()))
        _loaded = (key, Predictor(Bundle.from_files(fetch(), trusted=trusted), batch_size=batch_size))
    return _loaded[1]


def _task_cpus() -> int:
    from pyspark import TaskContext

    context = TaskContext.get()
    return context.cpus() if context else 1


@dataclass(frozen=True)
class _Broadcast:
    broadcast: Any

    def __call__(self) -> Files:
        files: Files = self.broadcast.value
        return files


@dataclass(frozen=True)
class _Artifact:
    name: str

    def __call__(self) -> Files:
        from pyspark import SparkFiles

        with zipfile.ZipFile(SparkFiles.get(self.name)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


_ships: dict[tuple[str, str], Callable[[], Files]] = {}


def _shipped(spark: SparkSession, bundle: Bundle) -> Callable[[], Files]:
    """How a worker gets at the bundle's files; they are sent once a session."""
    connect = session.is_connect(spark)
    identity = spark.session_id if connect else spark.sparkContext.applicationId
    key = (identity, bundle.digest)
    if key not in _ships:
        _ships[key] = (
            _add_artifact(spark, bundle) if connect else _Broadcast(spark.sparkContext.broadcast(dict(bundle.files)))
        )
    return _ships[key]


def _add_artifact(spark: Any, bundle: Bundle) -> _Artifact:
    name = f"sparkdl-{bundle.digest[:16]}.zip"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file, content in bundle.files.items():
            archive.writestr(file, content)
    with tempfile.TemporaryDirectory(prefix="sparkdl-") as folder:
        path = os.path.join(folder, name)
        with open(path, "wb") as target:
            target.write(buffer.getvalue())
        spark.addArtifacts(path, file=True)
    return _Artifact(name)
