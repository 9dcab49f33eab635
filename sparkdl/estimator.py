"""TorchEstimator: fit a torch model on a DataFrame, with Horovod on the Spark executors."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from pyspark import keyword_only
from pyspark.ml import Estimator
from torch import Tensor, nn

from sparkdl import checks, program, runs, session, store, tasks
from sparkdl.bundle import Bundle
from sparkdl.data.lease import temporary
from sparkdl.errors import InvalidParamError, NotEnoughSlotsError, StoreError
from sparkdl.model import TorchModel
from sparkdl.params import ColumnParams, TorchEstimatorParams, with_accessors
from sparkdl.source import Columns, Frame, Stored, source_of
from sparkdl.telling import Telling
from sparkdl.train import parameters
from sparkdl.train.callbacks import Callback
from sparkdl.train.checkpoint import Checkpoints, Every
from sparkdl.train.loggers import Logger
from sparkdl.train.loop import Training
from sparkdl.train.metrics import Monitor, metrics_given, monitor_for
from sparkdl.train.named import loss_named, named_optimizer, named_scheduler
from sparkdl.train.rank import Rank, Reading
from sparkdl.train.schedule import Schedule
from sparkdl.train.step import Recipe
from sparkdl.train.supervisor import supervise

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

STORE_CONF = "spark.sparkdl.storePath"
DEFAULTS: dict[str, Any] = {
    "optimizer": "adam", "optimizerParams": {}, "learningRate": 1e-3, "task": None, "probabilityCol": "probability",
    "probabilityAsVector": False, "shapes": {}, "frozen": [], "parameterGroups": [], "validationFraction": 0.0,
    "metrics": [], "patience": 0, "minDelta": 0.0, "callbacks": [], "batchSize": 256, "epochs": 1, "dropLast": False,
    "accumulationSteps": 1, "precision": "float32", "gradientCompression": None, "compileModel": False,
    "syncBatchNorm": False, "schedulerParams": {}, "schedulerInterval": "epoch", "learningRateScaling": "none",
    "numProc": 0, "minProc": 0, "maxRetries": 2, "stallTimeout": 600.0, "checkpointEvery": "1 epoch",
    "checkpointKeep": 2, "resume": False, "reader": "arrow", "memoryBudget": 1 << 30, "seed": 0, "collective": "auto",
    "trusted": False, "verbose": True,
}  # fmt: skip
_MAY_DIFFER = (
    "model", "epochs", "numProc", "minProc", "maxRetries", "stallTimeout", "checkpointEvery", "checkpointKeep", "resume",
    "patience", "collective", "trusted", "verbose", "predictionCol", "probabilityCol", "probabilityAsVector",
)  # between a run and the fit that takes it up  # fmt: skip


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
        spark = _session_of(dataset)
        size = self._ranks(spark)
        with self._run(spark) as run:
            module = self._module()
            source = source_of(dataset, self._columns(), module, self.getOrDefault("task"), spark)
            example = source.example()
            bundle = self._untrained(module, source, example)
            training = self._training(module, bundle, source, example)
            main = program.pickle(training, "the model, loss, optimizer, metrics or callbacks")
            started = time.monotonic()
            identity = self._identity(module, training)
            if self.getOrDefault("resume"):
                runs.check(run, identity, size, self.getOrDefault("minProc"), training.epochs)
                data = runs.same_data(run, source, checks.classes(bundle))
            else:
                data = source.dataset(store.join(run, "data"), classes=checks.classes(bundle), digest=self._keeps())
            reading = self._reading(data)
            for ranks in range(self.getOrDefault("minProc") or size, size + 1):
                checks.check_rows(reading, ranks, module, training.recipe, example)
            identity["data"] = runs.identity_of(data)
            rank = Rank(main, reading, self._checkpoints(run, identity), store.join(run, "weights.safetensors"))
            settings = self._settings(size)
            where = {"checkpointDir": self.getOrDefault("checkpointDir")} if self._keeps() else {}
            seconds = time.monotonic() - started
            with Telling(self._loggers(), settings | where, self._bar(data.rows), seconds) as telling:
                answer, attempts = self._launch(spark, rank, size, telling)
                weights = safetensors.torch.load(store.read_bytes(rank.weights_uri))
                validation = getattr(data, "validation", None)
                told = {
                    **answer, "settings": settings, "rows": data.rows, "attempts": attempts,
                    "validation_rows": validation.rows if validation else 0, "phases": telling.phases(),
                    "monitor": training.monitor.name if training.monitor else None,
                }  # fmt: skip
                model = self._model(bundle, weights, told)
                telling.end(model, answer["history"])
        return model

    def _model(self, bundle: Bundle, weights: Mapping[str, Tensor], told: dict[str, Any]) -> TorchModel:
        best = told["best_epoch"]
        entry = told["history"][-1 if best is None else best]
        beside = ("epoch", "seconds", "rows", "lr", "phases")
        metrics = {name: value for name, value in entry.items() if name not in beside}
        columns = {p.name: self.getOrDefault(p) for p in self.params if hasattr(ColumnParams, p.name) and self.isSet(p)}
        return TorchModel(bundle.with_training(weights, metrics, told)).setParams(**columns)

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
        session.check_slots(spark, size)
        return int(size)

    def _keeps(self) -> bool:
        """True if the run outlives this process."""
        return self.isSet("checkpointDir")

    @contextlib.contextmanager
    def _run(self, spark: SparkSession) -> Iterator[str]:
        """A directory of this fit's own: in checkpointDir, or one that is gone when the fit ends, however it ends."""
        if self._keeps():
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

    def _columns(self) -> Columns:
        def given(name: str) -> Any:
            return self.getOrDefault(name) if self.isSet(name) else None

        columns = Columns(
            given("inputCols"), self.getOrDefault("featuresCol"), self.getOrDefault("labelCol"), given("weightCol"),
            given("validationIndicatorCol"), self.getOrDefault("validationFraction"), self.getOrDefault("shapes"),
            self.getOrDefault("seed"), self.getOrDefault("trusted"),
        )  # fmt: skip
        if columns.indicator is not None and columns.fraction:
            raise InvalidParamError(
                f"set 'validationIndicatorCol' ({columns.indicator!r}) or 'validationFraction' ({columns.fraction}), "
                "not both",
                param="validationFraction",
                value=columns.fraction,
            )
        return columns

    def _module(self) -> nn.Module:
        """The module to train, the user's own left as it is."""
        if not self.isSet("model"):
            raise InvalidParamError("'model' must be set before fit", param="model", value=None)
        model = self.getOrDefault("model")
        if not isinstance(model, nn.Module):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.getOrDefault("seed"))
                model = model()
        if not isinstance(model, nn.Module):
            raise InvalidParamError(f"'model' must make an nn.Module (got {model!r})", param="model", value=model)
        parameters.check_state(model)
        parameters.check(model, self.getOrDefault("frozen"), self.getOrDefault("parameterGroups"))
        if self.isSet("initialWeights"):
            weights = _weights(self.getOrDefault("initialWeights"))
            parameters.check_weights(model, weights)
            model = _copy(model)
            model.load_state_dict(dict(weights))
            return model
        return _copy(model)

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

    def _training(
        self, module: nn.Module, bundle: Bundle, source: Frame | Stored, example: list[Tensor] | None
    ) -> Training:
        task = self.getOrDefault("task")
        loss = self.getOrDefault("loss") if self.isSet("loss") else tasks.DEFAULT_LOSS.get(task or "")
        if loss is None:
            raise InvalidParamError("'loss' must be set when task is None", param="loss", value=None)
        if isinstance(loss, str):
            loss = loss_named(loss, reduction="none" if source.has_weights else "mean")
        optimizer = self.getOrDefault("optimizer")
        if isinstance(optimizer, str):
            arguments = {"lr": self.getOrDefault("learningRate"), **self.getOrDefault("optimizerParams")}
            optimizer = named_optimizer(optimizer, arguments)
        metrics = {}
        if self.getOrDefault("metrics"):
            metrics = metrics_given(self.getOrDefault("metrics"), task, checks.classes(bundle))
        if example is not None:
            checks.check_loss(module, loss, task, example, source.label, weighted=source.has_weights)
            checks.check_metrics(module, metrics, task, example, source.label)
        parameters.check_trainable(module, self.getOrDefault("frozen"))
        monitor = monitor_for(
            self.getOrDefault("monitor") if self.isSet("monitor") else None, source.has_validation, metrics, task,
            patience=self.getOrDefault("patience"), min_delta=self.getOrDefault("minDelta"),
        )  # fmt: skip
        callbacks = self.getOrDefault("callbacks")
        return Training(
            module, loss, optimizer, task, self.getOrDefault("epochs"), self.getOrDefault("seed"),
            recipe=self._recipe(), schedule=self._schedule(monitor), frozen=tuple(self.getOrDefault("frozen")),
            groups=tuple(self.getOrDefault("parameterGroups")), metrics=metrics, monitor=monitor,
            callbacks=tuple(one for one in callbacks if isinstance(one, Callback)),
        )  # fmt: skip

    def _recipe(self) -> Recipe:
        recipe = Recipe(
            accumulation=self.getOrDefault("accumulationSteps"),
            clip_norm=self.getOrDefault("clipNorm") if self.isSet("clipNorm") else None,
            precision=self.getOrDefault("precision"),
            compression=self.getOrDefault("gradientCompression"),
            compile=self.getOrDefault("compileModel"),
            sync_batch_norm=self.getOrDefault("syncBatchNorm"),
        )
        if recipe.compile and recipe.sync_batch_norm:
            raise InvalidParamError(
                "'compileModel' and 'syncBatchNorm' do not go together: torch.compile cannot look into a collective; "
                "leave one of them out",
                param="compileModel",
                value=True,
            )
        return recipe

    def _schedule(self, monitor: Monitor | None) -> Schedule:
        make = self.getOrDefault("scheduler") if self.isSet("scheduler") else None
        if isinstance(make, str):
            make = named_scheduler(make, self.getOrDefault("schedulerParams"))
            make = make.for_mode(monitor.mode) if monitor else make
            if make.is_plateau and self.getOrDefault("schedulerInterval") == "step":
                raise InvalidParamError(
                    "'schedulerInterval' must be 'epoch' for ReduceLROnPlateau, whose figure is known once an epoch "
                    "(got 'step')",
                    param="schedulerInterval",
                    value="step",
                )
        elif make is not None:
            make = checks.WithSteps(make)
        return Schedule(make, self.getOrDefault("schedulerInterval"), self.getOrDefault("learningRateScaling"))

    def _reading(self, data: Any) -> Reading:
        return Reading(
            data,
            batch_size=self.getOrDefault("batchSize"),
            seed=self.getOrDefault("seed"),
            kind=self.getOrDefault("reader"),
            memory_budget=self.getOrDefault("memoryBudget"),
            drop_last=self.getOrDefault("dropLast"),
        )

    def _checkpoints(self, run: str, identity: dict[str, Any]) -> Checkpoints | None:
        if not self._keeps() and not self.getOrDefault("maxRetries"):
            return None
        count, unit = self.getOrDefault("checkpointEvery").split(" ")
        every = Every(epochs=int(count)) if unit.startswith("epoch") else Every(updates=int(count))
        keep, resume = self.getOrDefault("checkpointKeep"), self.getOrDefault("resume")
        return Checkpoints(store.join(run, "checkpoints"), every, keep, identity, resume)

    def _identity(self, module: nn.Module, training: Training) -> dict[str, Any]:
        """What must be the same, beside the data, for a checkpoint to be taken up."""
        shapes = {
            name: f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
            for name, value in module.state_dict().items()
        }
        settings = {name: value for name, value in self._settings(0).items() if name not in _MAY_DIFFER}
        told = {"model": shapes, "metrics": sorted(training.metrics), **settings}
        return dict(json.loads(json.dumps(told, default=str)))  # as a checkpoint gives it back

    def _loggers(self) -> list[Logger]:
        return [one for one in self.getOrDefault("callbacks") if isinstance(one, Logger)]

    def _bar(self, rows: int) -> tuple[int, int] | None:
        return (self.getOrDefault("epochs"), rows) if self.getOrDefault("verbose") else None

    def _launch(self, spark: SparkSession, rank: Rank, size: int, telling: Telling) -> tuple[dict[str, Any], list[Any]]:
        return supervise(
            spark, rank, size,
            min_size=self.getOrDefault("minProc") or None,
            max_retries=self.getOrDefault("maxRetries"),
            stall_timeout=self.getOrDefault("stallTimeout"),
            backend=self.getOrDefault("collective"),
            on_message=telling,
        )  # fmt: skip

    def _settings(self, size: int) -> dict[str, Any]:
        """The Params that made this model, as far as JSON can say them."""
        told = {param.name: self.getOrDefault(param) for param in self.params if self.isDefined(param)}
        left_out = ("storePath", "checkpointDir", "initialWeights", "callbacks", "metrics")
        return {name: _plain(value) for name, value in told.items() if name not in left_out} | {"numProc": size}


def _copy(model: nn.Module) -> nn.Module:
    """A module of this fit's own: several fits, in threads, may be given the same."""
    try:
        return copy.deepcopy(model)
    except Exception:  # what cannot be copied cannot be pickled: that error names the attribute
        program.pickle(model, "model")
        raise


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float, bool, list, dict, type(None))):
        return value
    return getattr(value, "__qualname__", type(value).__name__)


def _session_of(dataset: Any) -> SparkSession:
    from pyspark.sql import SparkSession

    found = getattr(dataset, "sparkSession", None) or SparkSession.getActiveSession()
    return found if found is not None else SparkSession.builder.getOrCreate()


def _weights(given: Any) -> Mapping[str, Tensor]:
    """A state_dict, out of whatever holds one."""
    if isinstance(given, str):
        given = Bundle.load(given if store.exists(store.join(given, "manifest.json")) else store.join(given, "bundle"))
    if isinstance(given, TorchModel):
        given = given.bundle
    weights = given.weights if isinstance(given, Bundle) else given
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InvalidParamError(
            f"'initialWeights' must be a Bundle, the URI of one, a TorchModel or a state_dict "
            f"(got {type(given).__name__})",
            param="initialWeights",
            value=given,
        )
    return weights


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
