"""TorchEstimator: fit a torch model on a DataFrame, with Horovod on the Spark executors."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import safetensors.torch
import torch
from pyspark import keyword_only
from pyspark.ml import Estimator
from torch import Tensor, nn

from sparkdl import checks, plan, program, runs, session, store
from sparkdl.bundle import Bundle
from sparkdl.data import sample
from sparkdl.data.lease import temporary
from sparkdl.data.manifest import Dataset
from sparkdl.data.petastorm import PetastormDataset
from sparkdl.errors import InvalidParamError, NotEnoughSlotsError, StoreError
from sparkdl.model import TorchModel
from sparkdl.params import DEFAULTS, ColumnParams, TorchEstimatorParams, with_accessors
from sparkdl.source import Frame, Stored, source_of
from sparkdl.telling import Telling
from sparkdl.train.callbacks import Callback
from sparkdl.train.loggers import Logger
from sparkdl.train.rank import Rank
from sparkdl.train.supervisor import supervise

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

STORE_CONF = "spark.sparkdl.storePath"


@with_accessors
class TorchEstimator(TorchEstimatorParams, Estimator[TorchModel]):
    """Trains a torch model on the executors; ``fit(df)`` returns a TorchModel. docs/training.md is its guide.

    The columns of ``inputCols`` (or ``featuresCol``) are the arguments of the model's ``forward``, in order, each
    of shape ``(B, *shape of a row)``; if it takes one argument only, scalar columns are stacked into ``(B, n)``.
    Floating columns arrive in the dtype of the model's parameters, all others in their own. The model returns logits.

    The model
        model: an nn.Module, or a function that makes one (called with ``seed`` set). It is not modified.
        initialWeights: what to start from: a Bundle, the URI of one, a TorchModel or a state_dict.
        frozen: name patterns (``encoder.*``) of parameters that are not trained.
        task: ``regression``, ``binary``, ``multiclass``, or None: the outputs as they are.
        loss: a name in torch.nn or torch.nn.functional, or a function of (outputs, label) that returns their mean loss,
            with ``weightCol`` a loss a row; the task's own by default (``mse_loss``,
            ``binary_cross_entropy_with_logits``, ``cross_entropy``).
    The data
        shapes: shape of one row, by column, for binary, string, and for arrays that are to be reshaped.
        preprocess: what makes a tensor of a column, or of a tuple of columns: ``{"photo": Image(height=8, width=8)}`` (see
        ``sparkdl.preprocess``); it is kept in the bundle, and does the same when scoring. What it must learn of the data
        it learns from ``dataset``. The label may have one too.
        decoder: what makes the columns that scoring adds out of the outputs; see ``sparkdl.decode``.
        weightCol: each row's weight, not negative; the loss is the weighted mean.
        validationIndicatorCol (boolean) or validationFraction: which rows are not trained on but measured with.
        reader: ``arrow``, or ``petastorm``. memoryBudget: bytes of rows a rank holds; a shard that fits is read once.
    A step
        batchSize: rows to a step on each rank: a step sees ``batchSize * numProc`` rows. dropLast: leave out a last
        batch that is not whole. accumulationSteps: steps to an update of the weights. clipNorm: the gradient's largest
        norm. precision: of autocast, ``float32`` (none), ``bfloat16``, or ``float16`` with a scaled loss.
        gradientCompression: ``float16`` or ``bfloat16``, in which gradients travel. compileModel: by torch.compile.
        syncBatchNorm: batch norm over the rows of all ranks; else each rank's own, averaged after each epoch.
        optimizer: a name in torch.optim, with ``learningRate`` and ``optimizerParams``, or a function of the
        parameters. parameterGroups: ``[{"params": "head.*", "lr": 0.01}, …]``, settings by name pattern.
        scheduler: a name in torch.optim.lr_scheduler, with ``schedulerParams``, or a function of the optimizer; stepped
        each ``schedulerInterval``, ``epoch`` or ``step``. learningRateScaling: ``linear`` (times the ranks), ``sqrt``.
    What is measured and told
        metrics: names (``f1``, ``auroc``), or torchmetrics objects; of the validation rows if there are some.
        monitor: the figure whose best epoch's weights are returned; ``val_loss`` if there is validation, else the last
        epoch's are. patience, minDelta: stop after so many epochs that were not better by so much.
        callbacks: sparkdl.Callback objects run on every rank, sparkdl.Logger objects on the driver.
    Lasting the night
        numProc: ranks; 0 for one a task slot. maxRetries: how often lost ranks are started again, from the last
        checkpoint; with fewer, down to minProc, if slots are gone. stallTimeout: seconds without progress after which a
        rank counts as lost.
        checkpointDir: a URI where checkpoints are kept, so that ``fit(df, resume=True)`` goes on after the driver died;
        checkpointEvery: ``1 epoch``, ``500 steps``; checkpointKeep: how many.
        storePath: a URI that driver and executors can write, for the training data while ``fit`` runs; by default the
        conf ``spark.sparkdl.storePath``, else a temporary directory if Spark runs on this machine alone.
        collective: ``auto`` is Horovod where it is installed, else ``torch``.
        trusted: keep a model that cannot be exported as code; unpickle the schema of a Petastorm dataset.

    ``fit`` raises a SparkdlError before it starts anything where it can: see ``sparkdl.errors``.
    """

    @keyword_only
    def __init__(
        self,
        *,
        model: nn.Module | Callable[[], nn.Module] | None = None,
        initialWeights: Any = None,
        frozen: list[str] | str | None = None,
        task: str | None = None,
        loss: str | Callable[[Any, Tensor], Tensor] | None = None,
        inputCols: list[str] | None = None,
        featuresCol: str | None = None,
        labelCol: str | None = None,
        weightCol: str | None = None,
        predictionCol: str | None = None,
        probabilityCol: str | None = None,
        probabilityAsVector: bool | None = None,
        shapes: dict[str, tuple[int, ...]] | None = None,
        preprocess: Mapping[Any, Any] | None = None,
        decoder: Any = None,
        validationIndicatorCol: str | None = None,
        validationFraction: float | None = None,
        optimizer: str | Callable[[Any], torch.optim.Optimizer] | None = None,
        optimizerParams: dict[str, Any] | None = None,
        learningRate: float | None = None,
        learningRateScaling: str | None = None,
        parameterGroups: list[dict[str, Any]] | None = None,
        scheduler: str | Callable[[torch.optim.Optimizer], Any] | None = None,
        schedulerParams: dict[str, Any] | None = None,
        schedulerInterval: str | None = None,
        batchSize: int | None = None,
        epochs: int | None = None,
        dropLast: bool | None = None,
        accumulationSteps: int | None = None,
        clipNorm: float | None = None,
        precision: str | None = None,
        gradientCompression: str | None = None,
        compileModel: bool | None = None,
        syncBatchNorm: bool | None = None,
        metrics: Any = None,
        monitor: str | None = None,
        patience: int | None = None,
        minDelta: float | None = None,
        callbacks: Sequence[Callback | Logger] | None = None,
        numProc: int | None = None,
        minProc: int | None = None,
        maxRetries: int | None = None,
        stallTimeout: float | None = None,
        checkpointDir: str | None = None,
        checkpointEvery: str | None = None,
        checkpointKeep: int | None = None,
        resume: bool | None = None,
        reader: str | None = None,
        memoryBudget: int | str | None = None,
        seed: int | None = None,
        storePath: str | None = None,
        collective: str | None = None,
        trusted: bool | None = None,
        verbose: bool | None = None,
    ) -> None:
        super().__init__()
        self._setDefault(**DEFAULTS)
        self.setParams(**self._input_kwargs)

    def setParams(self, **params: Any) -> TorchEstimator:
        """Set several Params at once; None leaves the default."""
        self._set(**{name: value for name, value in params.items() if value is not None})
        return self

    def fit(self, dataset: Any, params: Any = None, *, resume: bool | None = None) -> Any:
        """Train on ``dataset``: a DataFrame; a sparkdl.Dataset (see ``sparkdl.materialize``) or its URI; the URI of a
        Petastorm dataset (with ``trusted``); or what Petastorm's make_spark_converter gave.

        params: as for any pyspark.ml Estimator. resume: go on with the newest run in ``checkpointDir``, to the same
        weights that it would have had undisturbed.
        """
        if resume is not None:
            return self.copy({self.resume: resume}).fit(dataset, params)
        return super().fit(dataset, params)

    def _fit(self, dataset: Any) -> TorchModel:
        spark, values = _session_of(dataset), self._values()
        size = self._ranks(spark)
        settings = plan.settings_of(values) | {"numProc": size}
        with self._run(spark) as run:
            values = plan.learnt(values, dataset)
            module = plan.module_of(values)
            source = source_of(dataset, plan.columns_of(values), module, values["task"], spark)
            example = source.example()
            bundle = self._untrained(module, source, example)
            training = plan.training_of(values, module, bundle, source, example)
            main = program.pickle(training, "the model, loss, optimizer, metrics or callbacks")
            started = time.monotonic()
            identity = plan.identity_of(values, module, training)
            data = self._data(run, source, checks.classes(bundle), identity, size)
            reading = plan.reading_of(values, data)
            for ranks in range(values["minProc"] or size, size + 1):
                checks.check_rows(reading, ranks, module, training.recipe, example)
            checkpoints = plan.checkpoints_of(values, run, {**identity, "data": runs.identity_of(data)})
            rank = Rank(main, reading, checkpoints, store.join(run, "weights.safetensors"))
            with self._telling(settings, data.rows, time.monotonic() - started) as telling:
                answer, attempts = self._launch(spark, rank, size, telling)
                weights = safetensors.torch.load(store.read_bytes(rank.weights_uri))
                told = answer | {"settings": settings, "attempts": attempts, "phases": telling.phases()}
                model = self._model(bundle, weights, told | plan.counts(data, training), source.sample(data))
                model = self._finished(model, dataset)
                telling.end(model, answer["history"])
        return model

    def _values(self) -> plan.Values:
        """What the fit is made of, and what it is told by."""
        return plan.values_of(self)

    def _finished(self, model: TorchModel, dataset: Any) -> TorchModel:
        """What ``fit`` gives of the trained model; loggers are told of that."""
        return model

    def _data(
        self, run: str, source: Frame | Stored, classes: int | None, identity: dict[str, Any], size: int
    ) -> Dataset | PetastormDataset:
        if not self.getOrDefault("resume"):
            return source.dataset(store.join(run, "data"), classes=classes, digest=self.isSet("checkpointDir"))
        runs.check(run, identity, size, self.getOrDefault("minProc"), self.getOrDefault("epochs"))
        return runs.same_data(run, source, classes)

    def _telling(self, settings: dict[str, Any], rows: int, materialise: float) -> Telling:
        loggers = [one for one in self.getOrDefault("callbacks") if isinstance(one, Logger)]
        where = {"checkpointDir": self.getOrDefault("checkpointDir")} if self.isSet("checkpointDir") else {}
        bar = (self.getOrDefault("epochs"), rows) if self.getOrDefault("verbose") else None
        return Telling(loggers, settings | where, bar, materialise)

    def _model(
        self, bundle: Bundle, weights: Mapping[str, Tensor], told: dict[str, Any], rows: Callable[[], pa.Table]
    ) -> TorchModel:
        best = told["best_epoch"]
        entry = told["history"][-1 if best is None else best]
        beside = ("epoch", "seconds", "rows", "lr", "phases")
        metrics = {name: value for name, value in entry.items() if name not in beside}
        columns = {p.name: self.getOrDefault(p) for p in self.params if hasattr(ColumnParams, p.name) and self.isSet(p)}
        trained = sample.with_reference(bundle.with_training(weights, metrics, told), rows)
        return TorchModel(trained).setParams(**columns)

    def _ranks(self, spark: SparkSession) -> int:
        size, fewest = self.getOrDefault("numProc") or session.free_slots(spark), self.getOrDefault("minProc")
        if size is None:
            raise InvalidParamError(
                "'numProc' must be given here: Spark Connect does not tell how many slots the cluster has",
                param="numProc",
                value=0,
            )
        if not size:
            raise NotEnoughSlotsError("the cluster has no task slots; are its executors up?", needed=1, available=0)
        if fewest > size:
            raise InvalidParamError(
                f"'minProc' must not be above the number of ranks, {size} (got {fewest})", param="minProc", value=fewest
            )
        session.check_worker_python(spark)
        session.check_slots(spark, size)
        return int(size)

    @contextlib.contextmanager
    def _run(self, spark: SparkSession) -> Iterator[str]:
        """A directory of this fit's own: in checkpointDir, or one that is gone when the fit ends, however it ends."""
        if self.isSet("checkpointDir"):
            place = self.getOrDefault("checkpointDir")
            store.check_writable(place)
            with runs.run_in(place, resume=self.getOrDefault("resume")) as run:
                yield run
            return
        if self.getOrDefault("resume"):
            raise InvalidParamError(
                "'resume' needs 'checkpointDir': the directory of the fit that was interrupted",
                param="resume",
                value=True,
            )
        place = self.getOrDefault("storePath") if self.isSet("storePath") else _default_store(spark)
        with temporary(place) as run:
            yield run

    def _untrained(self, module: nn.Module, source: Frame | Stored, example: list[Tensor] | None) -> Bundle:
        """The bundle with the weights as they are now: whether model and columns fit, and whether the model can be
        saved, is known before anything is launched."""
        model = self.getOrDefault("model")
        return Bundle.from_module(
            module,
            source.signature,
            task=self.getOrDefault("task"),
            factory=None if isinstance(model, nn.Module) else model,
            example=example,
            trusted=self.getOrDefault("trusted"),
        )

    def _launch(self, spark: SparkSession, rank: Rank, size: int, telling: Telling) -> tuple[dict[str, Any], list[Any]]:
        return supervise(
            spark, rank, size,
            min_size=self.getOrDefault("minProc") or None,
            max_retries=self.getOrDefault("maxRetries"),
            stall_timeout=self.getOrDefault("stallTimeout"),
            backend=self.getOrDefault("collective"),
            on_message=telling,
        )  # fmt: skip


def _session_of(dataset: Any) -> SparkSession:
    return getattr(dataset, "sparkSession", None) or session.current()


def _default_store(spark: SparkSession) -> str:
    conf = spark.conf.get(STORE_CONF, None)
    if conf:
        return str(conf)
    master = str(spark.conf.get("spark.master", "") if session.is_connect(spark) else spark.sparkContext.master)
    if master.startswith("local"):
        return os.path.join(tempfile.gettempdir(), "sparkdl")
    raise StoreError(
        f"fit on {master or 'a cluster'} needs a place that driver and executors share: set storePath (or the conf "
        f"{STORE_CONF}) to a URI such as hdfs:///tmp/sparkdl or s3://bucket/sparkdl",
        uri="",
    )
