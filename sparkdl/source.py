"""What ``fit`` is given: a DataFrame, or training data that is at rest already; to the estimator they are alike."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from torch import Tensor, nn

from sparkdl import columns, store, tasks
from sparkdl.bundle import float_dtype
from sparkdl.data import sample
from sparkdl.data.manifest import MANIFEST, Dataset, Layout
from sparkdl.data.materialize import plain, write
from sparkdl.data.petastorm import PetastormDataset, PetastormReader, converter_source
from sparkdl.data.reader import ArrowReader
from sparkdl.errors import ColumnNotFoundError, DataError, EmptyDatasetError, InvalidParamError, SignatureError
from sparkdl.signature import Signature, TensorSpec, check_indicator, label_spec, preprocessed, weight_spec
from sparkdl.train.world import World

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sparkdl.decode.base import Decoder
    from sparkdl.preprocess.base import Preprocessor

_SAMPLE_ROWS = 8
_RAW_ROWS = 1000  # for a reference of columns that a preprocessor reads: they go through the driver


@dataclass(frozen=True)
class Columns:
    """Which columns are what; inputs None: all of a dataset's, the ``features`` column of a DataFrame."""

    inputs: list[str] | None
    features: str
    label: str
    weight: str | None
    indicator: str | None
    fraction: float
    shapes: dict[str, tuple[int, ...]]
    seed: int
    trusted: bool
    preprocess: Mapping[Any, Preprocessor] = field(default_factory=dict)
    decoder: Decoder | None = None


@dataclass(frozen=True)
class Frame:
    """A DataFrame, to be materialised."""

    df: DataFrame
    layout: Layout

    @property
    def signature(self) -> Signature:
        """The model's inputs."""
        return self.layout.signature

    @property
    def label(self) -> TensorSpec:
        """As the loss gets it."""
        return self.layout.label

    @property
    def has_validation(self) -> bool:
        """True if some rows are for validation."""
        return self.layout.splits

    @property
    def has_weights(self) -> bool:
        """True if rows have weights."""
        return self.layout.weight is not None

    def example(self) -> list[Tensor] | None:
        """The first rows as the model's arguments, at least three; None if they are bad, which materialising tells."""
        inputs = self.signature.inputs
        kinds = self.signature.kinds
        rows = self.df.select(*(plain(self.df, column, kind) for column, kind in kinds.items())).head(_SAMPLE_ROWS)
        if not rows:
            raise EmptyDatasetError()
        rows = [rows[i % len(rows)] for i in range(max(len(rows), 3))]
        try:
            arrays = _table(rows, kinds)
            return [columns.as_tensor(columns.to_numpy(arrays, spec)) for spec in inputs]
        except (DataError, pa.ArrowInvalid):
            return None

    def sample(self, data: Dataset | PetastormDataset) -> Callable[[], pa.Table]:
        """Gives some of the rows, drawn at random, for a reference: as columns again from the dataset, or of the DataFrame
        where a preprocessor left nothing of them."""
        if all(spec.preprocess is None for spec in self.signature.inputs):
            return partial(sample.sample, data, sample.SAMPLE_ROWS)
        kinds = self.signature.kinds

        def rows() -> pa.Table:
            most = _RAW_ROWS if not {"binary", "struct"} & set(kinds.values()) else _SAMPLE_ROWS * 8
            chosen = self.df.select(*(plain(self.df, column, kind) for column, kind in kinds.items()))
            drawn = chosen.sample(min(1.0, 1.2 * most / data.rows), seed=self.layout.seed).limit(most).collect()
            random.Random(self.layout.seed).shuffle(drawn)
            return pa.table(_table(drawn, kinds))

        return rows

    def dataset(self, uri: str, *, classes: int | None, digest: bool) -> Dataset:
        """Written to ``uri``. Raises DataError for a bad row."""
        return write(self.df, uri, replace(self.layout, classes=classes), digest=digest)


@dataclass(frozen=True)
class Stored:
    """A dataset that is at rest already, and stays where it is."""

    data: Dataset | PetastormDataset

    @property
    def signature(self) -> Signature:
        """The model's inputs."""
        return self.data.signature

    @property
    def label(self) -> TensorSpec:
        """As the loss gets it."""
        return self.data.label

    @property
    def has_validation(self) -> bool:
        """True if some rows are for validation."""
        return isinstance(self.data, Dataset) and bool(self.data.validation_files)

    @property
    def has_weights(self) -> bool:
        """True if rows have weights."""
        return self.data.weight is not None

    def example(self) -> list[Tensor] | None:
        """See Frame."""
        settings: Any = {"batch_size": _SAMPLE_ROWS, "seed": 0, "memory_budget": 0}  # no more is read than is looked at
        if isinstance(self.data, Dataset):
            batch = next(ArrowReader(self.data, World(), **settings).scan())
        else:
            batch = next(PetastormReader(self.data, World(), **settings).scan())
        rows = [i % batch.rows for i in range(max(batch.rows, 3))]
        return [tensor[rows] for tensor in batch.inputs]

    def sample(self, data: Dataset | PetastormDataset) -> Callable[[], pa.Table]:
        """See Frame."""
        return partial(sample.sample, data, sample.SAMPLE_ROWS)

    def dataset(self, uri: str, *, classes: int | None, digest: bool) -> Dataset | PetastormDataset:
        """The dataset itself. Raises DataError if its labels are no class numbers."""
        if classes is not None and isinstance(self.data, Dataset):
            self.data.check_classes(classes)
        return self.data


def source_of(given: Any, names: Columns, module: nn.Module, task: str | None, spark: SparkSession) -> Frame | Stored:
    """What ``fit`` was given, laid out for ``module``. Raises what is wrong with the columns."""
    cache = converter_source(given)
    if cache is not None:
        return _frame(spark.read.parquet(cache.uri), names, module, task)
    if isinstance(given, str):
        given = _opened(given, names)
    if isinstance(given, (Dataset, PetastormDataset)):
        return _stored(given, names, module, task)
    if not hasattr(given, "sparkSession"):
        raise InvalidParamError(
            "fit takes a DataFrame, a sparkdl.Dataset or the URI of one, a Petastorm dataset's URI, or what Petastorm's "
            f"make_spark_converter gave (got {type(given).__name__})",
            param="dataset",
            value=given,
        )
    return _frame(given, names, module, task)


def _opened(uri: str, names: Columns) -> Dataset | PetastormDataset:
    if store.exists(store.join(uri, MANIFEST)) or not store.exists(store.join(uri, "_common_metadata")):
        return Dataset.load(uri)
    inputs = names.inputs or [names.features]
    return PetastormDataset.open(
        uri, inputCols=inputs, labelCol=names.label, weightCol=names.weight, trusted=names.trusted
    )


def _frame(df: DataFrame, names: Columns, module: nn.Module, task: str | None) -> Frame:
    inputs, floats = names.inputs or [names.features], float_dtype(module)
    if df.isStreaming:
        raise SignatureError(
            "fit takes a batch DataFrame, and this one is a stream; write it to a table and fit on that",
            column=None,
            expected="batch",
            got="stream",
        )
    for name in names.shapes:
        if name not in (*inputs, names.label):
            raise ColumnNotFoundError(name, [*inputs, names.label], role="in shapes, column")
    shapes = {name: shape for name, shape in names.shapes.items() if name in inputs}
    of_label = names.preprocess.get(names.label)
    if of_label is None:
        label = label_spec(df, names.label, names.shapes)
    else:
        label = preprocessed(df, names.label, [names.label], of_label)
    if all(key == names.label for key in names.preprocess):
        signature = Signature.from_dataframe(df, inputs, shapes=shapes, stack=stack(module, inputs))
    else:
        signature = _preprocessed(df, inputs, names, shapes)
        _check_arguments(module, [spec.name for spec in signature.inputs])
    signature = replace(signature, decoder=names.decoder)
    if names.indicator is not None:
        check_indicator(df, names.indicator)
    layout = Layout(
        signature.with_float_dtype(floats),
        replace(label, dtype=tasks.label_dtype(task, label.dtype, floats)),
        weight=weight_spec(df, names.weight, floats if floats == "float64" else "float32") if names.weight else None,
        indicator=names.indicator,
        fraction=names.fraction,
        seed=names.seed,
    )
    return Frame(df, layout)


def _preprocessed(df: DataFrame, inputs: Sequence[str], names: Columns, shapes: Mapping[str, Any]) -> Signature:
    """A tensor for each preprocessor, and for each column that has none; in the order of their first columns."""
    specs: dict[Any, TensorSpec] = {}
    groups = {name: key for key in names.preprocess for name in ((key,) if isinstance(key, str) else key)}
    for name in (*groups, names.label):
        if name not in inputs and name != names.label:
            raise ColumnNotFoundError(name, inputs, role="in preprocess, input column")
    for name in inputs:
        key = groups.get(name, name)
        if key in specs:
            continue
        if key in names.preprocess:
            columns_, preprocess = [key] if isinstance(key, str) else list(key), names.preprocess[key]
            taken = {spec.name for spec in specs.values()}
            title = columns_[0] if len(columns_) == 1 or preprocess.kind in taken else preprocess.kind
            specs[key] = preprocessed(df, title, columns_, preprocess)
        else:
            own = {name: shapes[name]} if name in shapes else {}
            (specs[key],) = Signature.from_dataframe(df, [name], shapes=own).inputs
    return Signature(tuple(specs.values()))


def _check_arguments(module: nn.Module, names: Sequence[str]) -> None:
    """Raise SignatureError if forward does not take an argument for each of these tensors."""
    if stack(module, names):
        raise SignatureError(
            f"the model's forward takes one argument, and 'preprocess' makes {len(names)} tensors, {list(names)}: let "
            "one preprocessor read a tuple of columns, or let forward take an argument for each tensor",
            column=None,
            expected="one tensor",
            got=list(names),
        )


def _table(rows: Sequence[Any], kinds: Mapping[str, str]) -> dict[str, pa.Array]:
    """Collected rows as columns."""
    plain_rows = [row.asDict(recursive=True) for row in rows]
    return {n: pa.array([row[n] for row in plain_rows], columns.arrow_of_kind(kind)) for n, kind in kinds.items()}


def _stored(given: Dataset | PetastormDataset, names: Columns, module: nn.Module, task: str | None) -> Stored:
    if names.preprocess:
        raise InvalidParamError(
            "'preprocess' is for a DataFrame: what a dataset holds are tensors already",
            param="preprocess",
            value=names.preprocess,
        )
    given = replace(given, signature=replace(given.signature, decoder=names.decoder))
    if names.indicator is not None or names.fraction:
        param = "validationIndicatorCol" if names.indicator is not None else "validationFraction"
        raise InvalidParamError(
            f"{param!r} is for a DataFrame: which rows of a dataset are for validation is decided when it is written "
            "(sparkdl.materialize)",
            param=param,
            value=names.indicator or names.fraction,
        )
    if names.weight is not None and (given.weight is None or names.weight not in given.weight.columns):
        raise InvalidParamError(
            f"'weightCol' {names.weight!r} is not in the dataset {given.uri}; its weights are "
            f"{given.weight.columns[0] if given.weight else None}; write it with weightCol (sparkdl.materialize)",
            param="weightCol",
            value=names.weight,
        )
    if names.inputs is not None:
        by_name = {spec.name: spec for spec in given.signature.inputs}
        for name in names.inputs:
            if name not in by_name:
                raise ColumnNotFoundError(name, by_name, role="input column")
        chosen = tuple(by_name[name] for name in names.inputs)
        given = replace(given, signature=replace(given.signature, inputs=chosen))
    stacked = stack(module, [spec.name for spec in given.signature.inputs])
    given = given.stacked(stacked) if stacked else given
    floats = float_dtype(module)
    return Stored(given.cast(floats, tasks.label_dtype(task, given.label.dtype, floats)))


def stack(module: nn.Module, names: Sequence[str]) -> str | None:
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
        f"the model's forward takes {[p.name for p in positional]}, inputCols gives {list(names)}: name one column an "
        "argument, or let forward take one argument to get scalar columns stacked",
        column=None,
        expected=[p.name for p in positional],
        got=list(names),
    )
