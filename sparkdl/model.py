"""TorchModel: an ordinary pyspark.ml Model around a bundle."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

import pyspark
from pyspark.ml import Model
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReadable, MLReader, MLWritable, MLWriter

from sparkdl import session, store
from sparkdl.bundle import Bundle
from sparkdl.columns import answers
from sparkdl.errors import BundleError, BundleNotFoundError, InvalidParamError, SignatureError
from sparkdl.jvm import model as jvm
from sparkdl.params import MODEL_DEFAULTS, TorchModelParams, with_accessors
from sparkdl.score.scorer import Scorer
from sparkdl.score.scoring import Scoring
from sparkdl.score.udf import PROBLEM, exact_longs, scorer_of, scoring_udf, udf_type
from sparkdl.signature import Signature, column_kinds, form, quoted
from sparkdl.train.summary import TrainingSummary

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_BUNDLE = "bundle"


@with_accessors
class TorchModel(TorchModelParams, Model, MLWritable, MLReadable["TorchModel"]):  # type: ignore[misc]
    """Scores a DataFrame, batch or streaming, with a bundle.

    ``transform`` is lazy: it appends ``predictionCol`` (double for a task) and ``probabilityCol`` (array<float>, or a
    vector with ``probabilityAsVector``), for task None the outputs by their names, and keeps all other columns.
    Raises ColumnNotFoundError or SignatureError when a column is missing, or its type does not fit, or an output
    would take the name of a column that is there.

    ``handleInvalid`` says what becomes of a row that holds a null, has another shape than the model takes, cannot be
    decoded, or for which the model returns NaN or an infinity: ``error`` (default) ends the job with a DataError, ``keep``
    gives nulls and, in ``errorCol`` if that is set, what is wrong, ``skip`` leaves the row out.

    Further Params: ``batchSize`` (0: what suits the model), ``device`` (auto, cpu, cuda, cuda:N), ``precision``
    (float32, bfloat16, float16, int8), ``compileModel``, ``modelsPerGpu``, ``udfType`` (auto, arrow, pandas).

    ``engine`` ``onnx-jvm`` scores row by row in the executors' JVM, by ONNX Runtime, without Python workers: see
    docs/jvm-engine.md. It raises GraphError for a bundle that cannot be one ONNX graph, SparkdlError for a session that
    lacks the jar, InvalidParamError if one of the further Params is set.
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
        self._setDefault(**MODEL_DEFAULTS)

    def setParams(self, **params: Any) -> TorchModel:
        """Set several Params at once."""
        self._set(**params)
        return self

    def _repr_html_(self) -> str:
        from sparkdl.showing import facts

        return facts.html(facts.of_model(self))

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

    @property
    def scoring(self) -> Scoring:
        """How the model is run, by the Params."""
        return Scoring(
            batch_size=self.getOrDefault("batchSize"),
            device=self.getOrDefault("device"),
            precision=self.getOrDefault("precision"),
            compile=self.getOrDefault("compileModel"),
            invalid=self.getOrDefault("handleInvalid"),
            models_per_gpu=self.getOrDefault("modelsPerGpu"),
        )

    def udf(self, spark: SparkSession | None = None) -> Callable[..., Column]:
        """A function of columns, those of ``signature.columns`` in that order, for use in any expression.

        It gives the model's only output, or a struct of several: ``df.select(model.udf()("features"))``. With
        ``handleInvalid`` ``keep`` it gives null for a bad row. spark: the session; the current one by default.

        Raises InvalidParamError for ``skip``: an expression cannot leave out a row.
        """
        from pyspark.sql.functions import col

        from sparkdl.data.materialize import plain_column

        made = self._expression(spark)
        kinds = self.signature.kinds
        names = self.signature.columns

        def function(*given: Column | str) -> Column:
            if len(given) != len(names):
                raise SignatureError(
                    f"the model takes {len(names)} columns, {list(names)} (got {len(given)})",
                    column=None,
                    expected=names,
                    got=given,
                )
            taken = [col(column) if isinstance(column, str) else column for column in given]
            return made(*(plain_column(c, kinds[name]) for name, c in zip(names, taken, strict=True)))

        return function

    def register(self, spark: SparkSession, name: str) -> None:
        """Make ``udf`` a function of SQL: ``SELECT score(features) FROM t``, until the session ends.

        Vectors are given as ``array<double>`` there. Raises as ``udf``, and InvalidParamError for a name SQL cannot take,
        and for a model that reads timestamps: SQL gives them to a function in the session's time zone.
        """
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise InvalidParamError(f"'name' must be a function's name in SQL (got {name!r})", param="name", value=name)
        times = [column for column, kind in self.signature.kinds.items() if kind == "timestamp"]
        if times:
            raise InvalidParamError(
                f"a function of SQL gets the timestamps of {times} in the session's time zone, and the model takes them in "
                "UTC; use transform, or udf() in an expression",
                param="name",
                value=name,
            )
        if self.getOrDefault("engine") == "onnx-jvm":
            self._refuse_skip()
            jvm.register(self, spark, name)
        else:
            spark.udf.register(name, self._expression(spark))

    def _refuse_skip(self) -> None:
        if self.getOrDefault("handleInvalid") == "skip":
            raise InvalidParamError(
                "'handleInvalid' is 'skip', and an expression cannot leave out a row; say 'keep' and filter the nulls, or "
                "use transform",
                param="handleInvalid",
                value="skip",
            )

    def _expression(self, spark: SparkSession | None) -> Any:
        self._refuse_skip()
        if self.getOrDefault("engine") == "onnx-jvm":
            return jvm.expression(self, spark or session.current())
        outputs = tuple(answers(self.signature))
        return scoring_udf(self._scorer(spark or session.current()), self.getOrDefault("udfType"), outputs, alone=True)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        from pyspark.sql import functions as sf

        from sparkdl.data.materialize import plain

        kinds = self.input_kinds(dataset)
        made = self.output_columns(dataset.columns)
        invalid, error_column = self.getOrDefault("handleInvalid"), self.getOrDefault("errorCol")
        if invalid == "skip":
            made[PROBLEM] = PROBLEM
        elif invalid == "keep" and error_column:
            made[PROBLEM] = error_column
        given = {name: plain(dataset, name, kind) for name, kind in kinds.items()}
        by_jvm = self.getOrDefault("engine") == "onnx-jvm"
        scored = jvm.scored(self, dataset, given, made) if by_jvm else self._by_python(dataset, kinds, given, made)
        if invalid == "skip":
            scored = scored.where(sf.col(PROBLEM).isNull()).drop(PROBLEM)
        if "probability" in made and self.getOrDefault("probabilityAsVector"):
            return _as_vector(scored, made["probability"])
        return scored

    def _by_python(
        self, dataset: DataFrame, kinds: dict[str, str], given: dict[str, Column], made: dict[str, str]
    ) -> DataFrame:
        from pyspark.sql import functions as sf

        score = scoring_udf(
            self._scorer(dataset.sparkSession, for_stream=dataset.isStreaming),
            self.getOrDefault("udfType"),
            tuple(made),
        )
        texts = exact_longs(self.signature) if udf_type(self.getOrDefault("udfType")) == "pandas" else ()
        longs = {n for n, kind in kinds.items() if n in texts and kind == "long" and dataset.schema[n].nullable}
        inputs = [column.cast("string") if name in longs else column for name, column in given.items()]
        # inline: a filter by what is predicted is not pushed below it, where the model would run once more for it
        return dataset.select("*", sf.inline(sf.array(score(*inputs))).alias(*made.values()))

    def _scorer(self, spark: SparkSession, *, for_stream: bool = False) -> Scorer:
        return scorer_of(spark, self.bundle, self.scoring, for_stream=for_stream)

    def input_kinds(self, df: DataFrame) -> dict[str, str]:
        """The kinds of the input columns as they are in ``df`` (see ``TensorSpec.types``).

        Raises ColumnNotFoundError if one is missing, SignatureError if one is not what the model was given.
        """
        self.signature.check_columns(df.columns)
        found = column_kinds(df, self.signature.columns)
        for spec in self.signature.inputs:
            for name, told in zip(spec.columns, spec.types, strict=True):
                if form(found[name]) != form(told):
                    raise SignatureError(
                        f"column {name!r} is {found[name]}; the model takes {told} for {spec}",
                        column=name,
                        expected=told,
                        got=found[name],
                    )
        return found

    def output_columns(self, columns: Iterable[str]) -> dict[str, str]:
        """Which output becomes which column beside ``columns``. Raises SignatureError for a name that is taken."""
        renamed = {"prediction": self.getOrDefault("predictionCol"), "probability": self.getOrDefault("probabilityCol")}
        chosen = {output: renamed.get(output, output) for output in answers(self.signature)}
        chosen = {output: name for output, name in chosen.items() if name}
        taken = {name.lower(): name for name in columns}  # Spark's resolution ignores case
        for output, name in chosen.items():
            remedy = f"set another name ({output}Col)" if output in renamed else "give it another name in the model"
            _take(taken, name, f"output {output!r}", f"drop it, or {remedy}")
        if self.getOrDefault("handleInvalid") == "keep" and self.getOrDefault("errorCol"):
            _take(taken, self.getOrDefault("errorCol"), "what is wrong with a row", "set another name (errorCol)")
        return chosen

    def write(self) -> MLWriter:
        """As for any pyspark.ml model; ``path`` holds pyspark.ml's ``metadata`` and the ``bundle``."""
        return _Writer(self)

    @classmethod
    def read(cls) -> MLReader[TorchModel]:
        """As for any pyspark.ml model."""
        return _Reader(cls)

    @classmethod
    def load(cls, path: str, *, trusted: bool | Collection[str] = False) -> TorchModel:
        """Read what ``save`` wrote. Raises as ``Bundle.load``; ``trusted`` as there."""
        return _Reader(cls, trusted).load(path)


def _take(taken: dict[str, str], name: str, what: str, remedy: str) -> None:
    """Add ``name`` to those that are taken. Raises SignatureError if it is."""
    if name.lower() in taken:
        raise SignatureError(
            f"{what} would be column {name!r}, and there is {taken[name.lower()]!r} already; {remedy}",
            column=name,
            expected="a new name",
            got=taken[name.lower()],
        )
    taken[name.lower()] = name


def _as_vector(df: DataFrame, name: str) -> DataFrame:
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import functions as sf

    column = sf.col(quoted(name)).cast("array<double>")
    vector = array_to_vector(sf.coalesce(column, sf.array().cast("array<double>")))  # it takes no null
    return df.withColumn(name, sf.when(column.isNotNull(), vector))


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
    def __init__(self, cls: type[TorchModel], trusted: bool | Collection[str] = False) -> None:
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
