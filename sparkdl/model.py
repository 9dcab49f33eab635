"""TorchModel: an ordinary pyspark.ml Model around a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyspark
from pyspark.ml import Model
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReadable, MLReader, MLWritable, MLWriter

from sparkdl import store
from sparkdl.bundle import Bundle
from sparkdl.errors import BundleError, BundleNotFoundError, InvalidParamError, SignatureError
from sparkdl.params import TorchModelParams, with_accessors
from sparkdl.score.udf import scoring_udf
from sparkdl.signature import Signature, column_kinds
from sparkdl.train.summary import TrainingSummary

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_BUNDLE = "bundle"
_STRUCT = "__sparkdl_outputs__"


@with_accessors
class TorchModel(TorchModelParams, Model, MLWritable, MLReadable["TorchModel"]):  # type: ignore[misc]
    """Scores a DataFrame, batch or streaming, with a bundle.

    ``transform`` is lazy: it appends ``predictionCol`` (double for a task) and ``probabilityCol`` (array<float>, or a
    vector with ``probabilityAsVector``), for task None the outputs by their names, and keeps all other columns.
    Raises ColumnNotFoundError or SignatureError when a column is missing, or its type does not fit, or an output
    would take the name of a column that is there.
    """

    def __init__(self, bundle: Bundle) -> None:
        if not isinstance(bundle, Bundle):
            raise InvalidParamError(
                f"TorchModel takes a Bundle: Bundle.load(uri), or what an estimator's fit made (got {bundle!r})",
                param="bundle",
                value=bundle,
            )
        super().__init__()
        self.bundle = bundle
        self._setDefault(
            predictionCol="prediction", probabilityCol="probability", probabilityAsVector=False, batchSize=4096
        )

    def setParams(self, **params: Any) -> TorchModel:
        """Set several Params at once."""
        self._set(**params)
        return self

    @property
    def signature(self) -> Signature:
        """What goes in and what comes out."""
        return self.bundle.signature

    @property
    def history(self) -> list[dict[str, Any]]:
        """An entry an epoch: epoch (from 0), loss, metrics, seconds, rows. Empty if the bundle was not trained here."""
        return list(self.bundle.training.get("history", []))

    @property
    def summary(self) -> TrainingSummary:
        """What the fit was like: history as a pandas frame, seconds by phase, ``plot()``."""
        return TrainingSummary(self.bundle.training)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        kinds = self._checked_inputs(dataset)
        outputs = self._output_columns(dataset)
        score = scoring_udf(dataset.sparkSession, self.bundle, self.getOrDefault("batchSize"))
        from sparkdl.data.materialize import plain

        scored = dataset.withColumn(_STRUCT, score(*(plain(dataset, name, kind) for name, kind in kinds.items())))
        made = [self._output(scored, output).alias(name) for output, name in outputs.items()]
        return scored.select("*", *made).drop(_STRUCT)  # by "*", since a join may give two columns one name

    def _output(self, scored: DataFrame, output: str) -> Any:
        from pyspark.ml.functions import array_to_vector

        column = scored[_STRUCT].getField(output)
        if output == "probability" and self.getOrDefault("probabilityAsVector"):
            return array_to_vector(column.cast("array<double>"))
        return column

    def _checked_inputs(self, df: DataFrame) -> dict[str, str]:
        """The kinds of the input columns as they are in ``df``; raises if they are not what the model was given."""
        self.signature.check_columns(df.columns)
        found = column_kinds(df, self.signature.columns)
        for spec in self.signature.inputs:
            for name, told in zip(spec.columns, spec.types, strict=True):
                if _form(found[name]) != _form(told):
                    raise SignatureError(
                        f"column {name!r} is {found[name]}; the model takes {told} for {spec}",
                        column=name,
                        expected=told,
                        got=found[name],
                    )
        return found

    def _output_columns(self, df: DataFrame) -> dict[str, str]:
        """Which output becomes which new column."""
        renamed = {"prediction": self.getOrDefault("predictionCol"), "probability": self.getOrDefault("probabilityCol")}
        chosen = {spec.name: renamed.get(spec.name, spec.name) for spec in self.signature.outputs}
        chosen = {output: name for output, name in chosen.items() if name}
        taken = {name.lower(): name for name in df.columns}  # Spark's resolution ignores case
        for output, name in chosen.items():
            if name.lower() in taken:
                raise SignatureError(
                    f"output {output!r} would be column {name!r}, and the DataFrame has {taken[name.lower()]!r} already; "
                    f"drop it, or set another name ({output}Col)",
                    column=name,
                    expected="a new name",
                    got=taken[name.lower()],
                )
            taken[name.lower()] = name
        return chosen

    def write(self) -> MLWriter:
        """As for any pyspark.ml model; ``path`` holds pyspark.ml's ``metadata`` and the ``bundle``."""
        return _Writer(self)

    @classmethod
    def read(cls) -> MLReader[TorchModel]:
        """As for any pyspark.ml model."""
        return _Reader(cls)

    @classmethod
    def load(cls, path: str, *, trusted: bool = False) -> TorchModel:
        """Read what ``save`` wrote. Raises as ``Bundle.load``; ``trusted`` as there."""
        return _Reader(cls, trusted).load(path)


class _Writer(MLWriter):
    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.model = model

    def save(self, path: str) -> None:
        if store.exists(path):
            if not self.shouldOverwrite:
                raise BundleError(f"there is something at {path!r} already; use write().overwrite()", uri=path)
            store.delete(path)
        self.saveImpl(path)

    def saveImpl(self, path: str) -> None:
        where = self.sparkSession if pyspark.__version__ >= "4" else self.sc
        DefaultParamsWriter.saveMetadata(self.model, store.hadoop_uri(path), where)
        self.model.bundle.save(store.join(path, _BUNDLE))


class _Reader(MLReader[TorchModel]):
    def __init__(self, cls: type[TorchModel], trusted: bool = False) -> None:
        super().__init__()
        self.cls = cls
        self.trusted = trusted

    def load(self, path: str) -> TorchModel:
        if not store.exists(store.join(path, "metadata")):
            raise BundleNotFoundError(f"there is no saved TorchModel at {path!r}", uri=path)
        where = self.sparkSession if pyspark.__version__ >= "4" else self.sc
        metadata = DefaultParamsReader.loadMetadata(store.hadoop_uri(path), where)
        model = self.cls(Bundle.load(store.join(path, _BUNDLE), trusted=self.trusted))
        model._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(model, metadata)
        return model


def _form(kind: str) -> str:
    """What kinds must share to be read alike: numbers convert, a vector is an array, a nested array is its own."""
    if kind in ("binary", "string"):
        return kind
    return "array" if kind == "vector" else "array" * kind.count("array<") or "number"
