"""TorchEstimator: fit a torch model on a DataFrame, with Horovod on the Spark executors."""

from __future__ import annotations

import contextlib
import inspect
import os
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import safetensors.torch
import torch
from pyspark import keyword_only
from pyspark.ml import Estimator
from torch import Tensor, nn

from sparkdl import columns, program, store, tasks
from sparkdl.bundle import Bundle, float_dtype
from sparkdl.data.manifest import Dataset
from sparkdl.data.materialize import materialize, plain
from sparkdl.data.reader import ArrowReader
from sparkdl.errors import (
    ColumnNotFoundError,
    DataError,
    EmptyDatasetError,
    InvalidParamError,
    NotEnoughSlotsError,
    SignatureError,
    StoreError,
    TooFewRowsError,
)
from sparkdl.model import TorchModel
from sparkdl.params import ColumnParams, TorchEstimatorParams, with_accessors
from sparkdl.session import check_slots, check_worker_python, free_slots, is_connect
from sparkdl.signature import Signature, TensorSpec
from sparkdl.train.collective import Collective
from sparkdl.train.launcher import launch
from sparkdl.train.loop import Training, train
from sparkdl.train.named import loss_named, named_optimizer
from sparkdl.train.progress import FitProgress, Report

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_SAMPLE_ROWS = 8
STORE_CONF = "spark.sparkdl.storePath"


@with_accessors
class TorchEstimator(TorchEstimatorParams, Estimator[TorchModel]):
    """Trains a torch model on the executors; ``fit(df)`` returns a TorchModel.

    The columns of ``inputCols`` (or ``featuresCol``) are the arguments of the model's ``forward``, in order, each
    of shape ``(B, *shape of a row)``; if it takes one argument only, scalar columns are stacked into ``(B, n)``.
    Floating columns arrive in the dtype of the model's parameters, all others in their own. The model returns logits.

    model: an nn.Module, or a function that makes one (called with ``seed`` set).
    loss: a name in torch.nn or torch.nn.functional, or a function of (outputs, label) that returns their mean loss;
        the task's own by default (``mse_loss``, ``binary_cross_entropy_with_logits``, ``cross_entropy``).
    optimizer: a name in torch.optim, with ``learningRate`` and ``optimizerParams``, or a function of the parameters.
    task: ``regression``, ``binary``, ``multiclass``, or None: the outputs as they are.
    batchSize: rows to a step on each rank: a step sees ``batchSize * numProc`` rows.
    numProc: ranks; 0 for one a task slot. collective: ``auto`` is Horovod where it is installed.
    storePath: a URI that driver and executors can write, for the training data while ``fit`` runs; by default the
        conf ``spark.sparkdl.storePath``, else a temporary directory if Spark runs on this machine alone.
    shapes: shape of one row, by column, for binary, string, and for arrays that are to be reshaped.

    ``fit`` raises a SparkdlError before it starts anything where it can: see ``sparkdl.errors``.
    """

    @keyword_only
    def __init__(
        self,
        *,
        model: nn.Module | Callable[[], nn.Module] | None = None,
        loss: str | Callable[[Any, Tensor], Tensor] | None = None,
        optimizer: str | Callable[[Any], torch.optim.Optimizer] = "adam",
        optimizerParams: dict[str, Any] | None = None,
        learningRate: float = 1e-3,
        task: str | None = None,
        inputCols: list[str] | None = None,
        featuresCol: str = "features",
        labelCol: str = "label",
        predictionCol: str = "prediction",
        probabilityCol: str = "probability",
        probabilityAsVector: bool = False,
        shapes: dict[str, tuple[int, ...]] | None = None,
        batchSize: int = 256,
        epochs: int = 1,
        numProc: int = 0,
        seed: int = 0,
        storePath: str | None = None,
        collective: str = "auto",
        trusted: bool = False,
        verbose: bool = True,
    ) -> None:
        super().__init__()
        self._setDefault(
            optimizer="adam", optimizerParams={}, learningRate=1e-3, task=None, probabilityCol="probability",
            probabilityAsVector=False, shapes={}, batchSize=256, epochs=1, numProc=0, seed=0, collective="auto",
            trusted=False, verbose=True,
        )  # fmt: skip
        self.setParams(**self._input_kwargs)

    def setParams(self, **params: Any) -> TorchEstimator:
        """Set several Params at once; None leaves the default."""
        self._set(**{name: value for name, value in params.items() if value is not None})
        return self

    def _fit(self, dataset: DataFrame) -> TorchModel:
        if dataset.isStreaming:
            raise SignatureError(
                "fit takes a batch DataFrame, and this one is a stream; write it to a table and fit on that",
                column=None,
                expected="batch",
                got="stream",
            )
        spark = dataset.sparkSession
        check_worker_python(spark)
        size = self._ranks(spark)
        with self._run_directory(spark) as run:
            module = self._module()
            signature, label = self._columns(dataset, module)
            bundle, example = self._untrained(dataset, module, signature)
            training = self._training(module, bundle, example, label)
            main = program.pickle(training, "the model, loss or optimizer")
            data = materialize(dataset, store.join(run, "data"), bundle.signature, label, classes=_classes(bundle))
            _check_enough_rows(data.rows, size)
            rank = _Rank(main, data, self.getOrDefault("batchSize"), store.join(run, "weights.safetensors"))
            history = self._launch(spark, rank, size, data.rows)
            weights = safetensors.torch.load(store.read_bytes(rank.weights_uri))
        told = {"history": history, "settings": self._settings(size), "rows": data.rows}
        metrics = {name: value for name, value in history[-1].items() if name not in ("epoch", "seconds", "rows")}
        columns = {p.name: self.getOrDefault(p) for p in self.params if hasattr(ColumnParams, p.name) and self.isSet(p)}
        return TorchModel(bundle.with_training(weights, metrics, told)).setParams(**columns)

    def _ranks(self, spark: SparkSession) -> int:
        size = self.getOrDefault("numProc") or free_slots(spark)
        if size is None:
            raise InvalidParamError(
                "'numProc' must be given here: Spark Connect does not tell how many slots the cluster has",
                param="numProc",
                value=0,
            )
        if not size:
            raise NotEnoughSlotsError("the cluster has no task slots; are its executors up?", needed=1, available=0)
        check_slots(spark, size)
        return int(size)

    @contextlib.contextmanager
    def _run_directory(self, spark: SparkSession) -> Iterator[str]:
        """A directory of this fit's own, gone when it ends, however it ends."""
        place = self.getOrDefault("storePath") if self.isSet("storePath") else _default_store(spark)
        store.check_writable(place)
        run = store.join(place, f"sparkdl-fit-{uuid.uuid4().hex}")
        try:
            yield run
        finally:
            store.delete(run)

    def _module(self) -> nn.Module:
        if not self.isSet("model"):
            raise InvalidParamError("'model' must be set before fit", param="model", value=None)
        model = self.getOrDefault("model")
        if not isinstance(model, nn.Module):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.getOrDefault("seed"))
                model = model()
        if not isinstance(model, nn.Module):
            raise InvalidParamError(f"'model' must make an nn.Module (got {model!r})", param="model", value=model)
        return model

    def _columns(self, df: DataFrame, module: nn.Module) -> tuple[Signature, TensorSpec]:
        """The inputs' signature and the label's spec, from the schema of ``df``."""
        names = self.getOrDefault("inputCols") if self.isSet("inputCols") else [self.getOrDefault("featuresCol")]
        shapes, floats = self.getOrDefault("shapes"), float_dtype(module)
        for name in shapes:
            if name not in (*names, self.getOrDefault("labelCol")):
                raise ColumnNotFoundError(name, [*names, self.getOrDefault("labelCol")], role="in shapes, column")
        inputs = {name: shape for name, shape in shapes.items() if name in names}
        signature = Signature.from_dataframe(df, names, shapes=inputs, stack=_stack(module, names))
        name, task = self.getOrDefault("labelCol"), self.getOrDefault("task")
        label = _label(df, name, {key: shape for key, shape in shapes.items() if key == name})
        return signature.with_float_dtype(floats), replace(label, dtype=tasks.label_dtype(task, label.dtype, floats))

    def _untrained(self, df: DataFrame, module: nn.Module, signature: Signature) -> tuple[Bundle, list[Tensor] | None]:
        """The bundle with the weights as they are now: whether model and columns fit, and whether the model can be
        saved, is known before anything is launched."""
        example = _sample(df, signature)
        model = self.getOrDefault("model")
        bundle = Bundle.from_module(
            module,
            signature,
            task=self.getOrDefault("task"),
            factory=None if isinstance(model, nn.Module) else model,
            example=example,
            trusted=self.getOrDefault("trusted"),
        )
        return bundle, example

    def _training(self, module: nn.Module, bundle: Bundle, example: list[Tensor] | None, label: TensorSpec) -> Training:
        task = self.getOrDefault("task")
        loss = self.getOrDefault("loss") if self.isSet("loss") else tasks.DEFAULT_LOSS.get(task or "")
        if loss is None:
            raise InvalidParamError("'loss' must be set when task is None", param="loss", value=None)
        loss = loss_named(loss) if isinstance(loss, str) else loss
        optimizer = self.getOrDefault("optimizer")
        if isinstance(optimizer, str):
            arguments = {"lr": self.getOrDefault("learningRate"), **self.getOrDefault("optimizerParams")}
            optimizer = named_optimizer(optimizer, arguments)
        if example is not None:
            _check_loss(module, loss, task, example, label)
        return Training(module, loss, optimizer, task, self.getOrDefault("epochs"), self.getOrDefault("seed"))

    def _launch(self, spark: SparkSession, rank: _Rank, size: int, rows: int) -> list[dict[str, Any]]:
        backend = self.getOrDefault("collective")
        if not self.getOrDefault("verbose"):
            return list(launch(spark, rank, size, backend=backend))
        with contextlib.closing(FitProgress(self.getOrDefault("epochs"), rows)) as progress:
            return list(launch(spark, rank, size, backend=backend, on_message=progress))

    def _settings(self, size: int) -> dict[str, Any]:
        """The Params that made this model, as far as JSON can say them."""
        told = {param.name: self.getOrDefault(param) for param in self.params if self.isDefined(param)}
        plain_types = (str, int, float, bool, list, dict, type(None))
        return {
            name: value if isinstance(value, plain_types) else getattr(value, "__qualname__", type(value).__name__)
            for name, value in told.items()
            if name != "storePath"
        } | {"numProc": size}


@dataclass(frozen=True)
class _Rank:
    """What every rank runs."""

    training: bytes
    data: Dataset
    batch_size: int
    weights_uri: str

    def __call__(self, collective: Collective) -> list[dict[str, Any]]:
        import cloudpickle

        training: Training = cloudpickle.loads(self.training)
        reader = ArrowReader(self.data, collective.world, batch_size=self.batch_size, seed=training.seed)
        result = train(training, reader, collective, progress=Report())
        if collective.world.is_chief:
            weights = {name: value.detach().cpu().clone() for name, value in result.module.state_dict().items()}
            store.write_bytes(self.weights_uri, safetensors.torch.save(weights))
        return result.history


def _default_store(spark: SparkSession) -> str:
    conf = spark.conf.get(STORE_CONF, None)
    if conf:
        return str(conf)
    master = str(spark.conf.get("spark.master", "") if is_connect(spark) else spark.sparkContext.master)
    if master.startswith("local"):
        return os.path.join(tempfile.gettempdir(), "sparkdl")
    raise StoreError(
        f"fit on {master or 'a cluster'} needs a place that driver and executors share: set storePath (or the conf "
        f"{STORE_CONF}) to a URI such as hdfs:///tmp/sparkdl or s3://bucket/sparkdl",
        uri="",
    )


def _stack(module: nn.Module, names: list[str]) -> str | None:
    """A name for all columns in one tensor if ``forward`` takes one argument, None if it takes one a column."""
    parameters = inspect.signature(module.forward).parameters.values()
    if len(names) == 1 or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    if len(required) <= len(names) <= len(positional):
        return None
    if len(required) <= 1:
        return "features"
    raise SignatureError(
        f"the model's forward takes {[p.name for p in positional]}, inputCols gives {names}: name one column an "
        "argument, or let forward take one argument to get scalar columns stacked",
        column=None,
        expected=[p.name for p in positional],
        got=names,
    )


def _label(df: DataFrame, name: str, shapes: dict[str, tuple[int, ...]]) -> TensorSpec:
    kinds = {field["name"]: field["type"] for field in df.schema.jsonValue()["fields"]}
    if kinds.get(name) in ("string", "binary"):
        raise SignatureError(
            f"label column {name!r} is {kinds[name]}; turn it into numbers first, by pyspark.ml's StringIndexer",
            column=name,
            expected="numbers",
            got=kinds[name],
        )
    return Signature.from_dataframe(df, [name], shapes=shapes).inputs[0]


def _sample(df: DataFrame, signature: Signature) -> list[Tensor] | None:
    """The first rows as the model's arguments, at least three; None if they are bad, which materialising will tell."""
    kinds = {c: kind for spec in signature.inputs for c, kind in zip(spec.columns, spec.types, strict=True)}
    rows = df.select(*(plain(df, column, kind) for column, kind in kinds.items())).head(_SAMPLE_ROWS)
    if not rows:
        raise EmptyDatasetError()
    rows = [rows[i % len(rows)] for i in range(max(len(rows), 3))]
    try:
        arrays = {name: pa.array([row[i] for row in rows]) for i, name in enumerate(kinds)}
        return [columns.as_tensor(columns.to_numpy(arrays, spec)) for spec in signature.inputs]
    except (DataError, pa.ArrowInvalid):
        return None


def _classes(bundle: Bundle) -> int | None:
    """How many classes a classifier tells apart; None for another task."""
    if bundle.task not in ("binary", "multiclass"):
        return None
    return {spec.name: spec for spec in bundle.signature.outputs}["probability"].size


def _check_loss(module: nn.Module, loss: Any, task: str | None, example: list[Tensor], label: TensorSpec) -> None:
    """Raise SignatureError if the loss does not take what the model gives for the label's shape."""
    target = torch.zeros(len(example[0]), *label.shape, dtype=getattr(torch, label.dtype))
    training = module.training
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("error", message="Using a target size")  # torch would broadcast, which no one means
            value = loss(tasks.align(task, module.eval()(*example), target), target)
    except Exception as error:  # whatever the loss raises for these shapes is the finding
        raise SignatureError(
            f"the loss does not take the model's outputs and the label.\n  label column: {label}\n  loss says:    "
            f"{type(error).__name__}: {error}",
            column=label.name,
            expected=str(error),
            got=str(label),
        ) from error
    finally:
        module.train(training)
    if not isinstance(value, Tensor) or value.ndim:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise SignatureError(
            f"the loss must return one number, the mean over the batch (got {got})",
            column=None,
            expected="a scalar tensor",
            got=got,
        )


def _check_enough_rows(rows: int, ranks: int) -> None:
    if rows < ranks:
        raise TooFewRowsError(
            f"{ranks} ranks cannot share {rows} row{'s' if rows > 1 else ''}: each needs at least one; "
            f"set numProc to {rows} or lower",
            column=None,
            row=None,
            file=None,
            expected=ranks,
            got=rows,
            rows=rows,
            ranks=ranks,
        )
