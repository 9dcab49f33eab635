"""TabularClassifier and TabularRegressor: rows of numbers, categories and dates, and what is to be told of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from sparkdl.decode.labels import LabelDecoder
from sparkdl.errors import ColumnNotFoundError, InvalidParamError, SignatureError
from sparkdl.params import Converter, _param, mapping, number, one_of, refuse, texts, with_accessors
from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.categories import Categories
from sparkdl.preprocess.dates import DateParts
from sparkdl.preprocess.hashed import Hashed
from sparkdl.preprocess.labels import Labels
from sparkdl.preprocess.learn import learn
from sparkdl.preprocess.numbers import Numbers
from sparkdl.ready.base import ReadyEstimator, classes_of
from sparkdl.ready.table_net import TableNet
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_NUMERIC = ("byte", "short", "integer", "long", "float", "double", "decimal")
_ROLE_OF = {  # which Param takes the columns of a type that nobody named
    **dict.fromkeys(_NUMERIC, "numericCols"),
    **dict.fromkeys(("string", "boolean"), "categoricalCols"),
    **dict.fromkeys(("date", "timestamp", "timestamp_ntz"), "dateCols"),
}
_ROLES = ("numericCols", "categoricalCols", "hashedCols", "dateCols")
_WEIGHT = "sparkdl_weight"


def _settings(name: str, of: Callable[..., Preprocessor]) -> Converter:
    """Settings of a preprocessor by name, as JSON has them."""

    def convert(value: Any) -> dict[str, Any]:
        given = mapping(name)(value)
        of(**given)
        return given

    return convert


def _sizes(value: Any) -> list[int]:
    good = isinstance(value, (list, tuple)) and all(type(size) is int and size > 0 for size in value)
    if not good:
        raise refuse("hiddenSizes", "a list of whole numbers above 0", value)
    return list(value)


@with_accessors
class _Tabular(ReadyEstimator):
    """What both share."""

    numericCols = _param("numericCols", "columns of numbers", texts("numericCols"))
    categoricalCols = _param("categoricalCols", "columns of categories, by a vocabulary", texts("categoricalCols"))
    hashedCols = _param("hashedCols", "columns of very many categories, hashed", texts("hashedCols"))
    dateCols = _param("dateCols", "columns of dates and timestamps", texts("dateCols"))
    numbers = _param("numbers", "settings of sparkdl.preprocess.Numbers", _settings("numbers", Numbers))
    categories = _param("categories", "settings of sparkdl.preprocess.Categories", _settings("categories", Categories))
    hashed = _param("hashed", "settings of sparkdl.preprocess.Hashed", _settings("hashed", Hashed))
    dates = _param("dates", "settings of sparkdl.preprocess.DateParts", _settings("dates", DateParts))
    hiddenSizes = _param("hiddenSizes", "units of each hidden layer", _sizes)
    dropout = _param("dropout", "share of hidden units left out in training", number("dropout", 0.0, 1.0))
    own_defaults: ClassVar[Mapping[str, Any]] = {
        "numericCols": [], "categoricalCols": [], "hashedCols": [], "dateCols": [], "numbers": {}, "categories": {},
        "hashed": {}, "dates": {}, "hiddenSizes": [128, 64], "dropout": 0.1, "epochs": 10,
    }  # fmt: skip
    heeds: ClassVar[frozenset[str]] = frozenset({"inputCols", "weightCol"})

    def _columns(self, df: DataFrame) -> dict[str, list[str]]:
        """Those of each role. Raises InvalidParamError for one with two roles, for none with any, and for label, weight and
        validation among them; of ``inputCols``, ColumnNotFoundError, and SignatureError for a type that has no role."""
        params = (self.labelCol, self.weightCol, self.validationIndicatorCol)
        own = {self.getOrDefault(param): param.name for param in params if self.isDefined(param)}
        told: dict[str, list[str]] = {role: self.getOrDefault(role) for role in _ROLES}
        if not any(told.values()):
            types = {field.name: field.dataType.typeName() for field in df.schema.fields}
            if self.isSet("inputCols"):
                among = self.getInputCols()
                _check_types(among, types)
            else:
                among = [name for name in df.columns if name not in own]
            told = {role: [name for name in among if _ROLE_OF.get(types[name]) == role] for role in _ROLES}
        elif self.isSet("inputCols"):
            raise InvalidParamError(
                f"'inputCols' does not go with columns that are named in {list(_ROLES)}; leave one of them out",
                param="inputCols",
                value=self.getInputCols(),
            )
        named = [name for columns in told.values() for name in columns]
        for name in named:
            if name in own:
                raise InvalidParamError(
                    f"column {name!r} is the {own[name]!r}, and cannot be learnt from too; leave one of them out",
                    param=own[name],
                    value=name,
                )
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            raise InvalidParamError(
                f"column {twice!r} is named twice in {list(_ROLES)}", param="numericCols", value=twice
            )
        if not named:
            raise InvalidParamError(
                f"there is no column of numbers, texts, booleans or dates to learn from; name some in {list(_ROLES)}",
                param="numericCols",
                value=[],
            )
        return told

    def _learnt(self, df: DataFrame, label: Preprocessor) -> tuple[dict[Any, Any], dict[str, Any]]:
        """All preprocessors with the label's, learnt in one pass; and the Params of TorchEstimator that follow from them,
        with the model still to be told its ``outputs``."""
        told = self._columns(df)
        asked: dict[Any, Preprocessor] = {}
        if told["numericCols"]:
            asked[tuple(told["numericCols"])] = Numbers(**self.getOrDefault("numbers"))
        if told["categoricalCols"]:
            asked[tuple(told["categoricalCols"])] = Categories(**self.getOrDefault("categories"))
        asked |= {name: Hashed(**self.getOrDefault("hashed")) for name in told["hashedCols"]}
        asked |= {name: DateParts(**self.getOrDefault("dates")) for name in told["dateCols"]}
        known: dict[Any, Any] = learn(df, {**asked, self.getLabelCol(): label})
        inputs = [known[key] for key in asked]
        model = partial(
            TableNet,
            numbers=sum(one.shape[0] for one in inputs if isinstance(one, (Numbers, DateParts))),
            categories=[size for one in inputs for size in _ids(one)],
            hidden=self.getOrDefault("hiddenSizes"),
            dropout=self.getOrDefault("dropout"),
        )
        names = [name for columns in told.values() for name in columns]
        return known, {"model": model, "inputCols": names, "preprocess": {key: known[key] for key in asked}}


def _check_types(names: list[str], types: Mapping[str, str]) -> None:
    """Raise ColumnNotFoundError, and SignatureError for a type that has no role."""
    for name in names:
        if name not in types:
            raise ColumnNotFoundError(name, types)
        if types[name] not in _ROLE_OF:
            raise SignatureError(
                f"column {name!r} is {types[name]}; a column to learn from is of {list(_ROLE_OF)}",
                column=name,
                expected=list(_ROLE_OF),
                got=types[name],
            )


def _ids(one: Preprocessor) -> tuple[int, ...]:
    return one.sizes if isinstance(one, Categories) else (one.buckets,) if isinstance(one, Hashed) else ()


@with_accessors
class TabularClassifier(_Tabular):
    """Trains a multilayer perceptron with embeddings to tell the class of a row; ``fit`` returns a TorchModel that takes the
    columns and adds ``prediction``, the label, and ``probability`` of each label, in the order of the sorted labels.
    docs/tables.md is its guide.

    labelCol: the class: text, whole numbers or boolean. Of two, the second in order is the one that ``auroc`` is about.
    numericCols, categoricalCols, hashedCols, dateCols: what to learn from. None of them: all columns of ``inputCols``, or of
    the DataFrame but for label and weight, by their types: numbers; texts and booleans as categories; dates, timestamps.
    numbers, categories, hashed, dates: settings of the preprocessors (Numbers, Categories, Hashed, DateParts of
    ``sparkdl.preprocess``): ``numbers={"log": True}``.
    hiddenSizes: units of each hidden layer. dropout: share of them left out in training.
    classWeight: ``balanced`` gives each class the same weight in the loss, as scikit-learn does: rows / (classes * rows of
    the class), times ``weightCol``. The probabilities are then those of a world in which the classes are as frequent.
    """

    classWeight = _param("classWeight", "'balanced' or None", one_of("classWeight", ("balanced", None)))
    own_defaults: ClassVar[Mapping[str, Any]] = {**_Tabular.own_defaults, "classWeight": None}

    def _design(self, df: DataFrame) -> tuple[DataFrame, dict[str, Any]]:
        label = self.getLabelCol()
        known, designed = self._learnt(df, Labels())
        values = classes_of(known[label], label)
        designed["model"] = partial(designed["model"], outputs=1 if len(values) == 2 else len(values))
        designed["preprocess"][label] = known[label]
        designed["task"] = "binary" if len(values) == 2 else "multiclass"
        designed["decoder"] = LabelDecoder(values=values)
        if self.getOrDefault("classWeight") is not None:
            weight = self.getOrDefault("weightCol") if self.isDefined("weightCol") else None
            return _balanced(df, label, weight), {**designed, "weightCol": _WEIGHT}
        return df, designed


def _balanced(df: DataFrame, label: str, weight: str | None) -> DataFrame:
    """With a column of weights that make all classes alike."""
    from pyspark.sql import functions as sf

    counts = df.where(f"{quoted(label)} IS NOT NULL").groupBy(quoted(label)).count().collect()
    rows = sum(row[1] for row in counts)
    factors = sf.create_map(*(sf.lit(one) for value, n in counts for one in (value, rows / (len(counts) * n))))
    own = sf.col(quoted(weight)) if weight else sf.lit(1.0)
    return df.withColumn(_WEIGHT, own * sf.coalesce(factors[sf.col(quoted(label))], sf.lit(1.0)))


@with_accessors
class TabularRegressor(_Tabular):
    """As TabularClassifier, for a number: adds ``prediction`` in the units of ``labelCol``.

    The model works on the standardised label and gives it back in its units, by the mean and deviation of the training
    rows, which are in its weights. The loss, unless ``loss`` is set, is the squared error in deviations: of 1 if it knows
    the mean alone, 1 - R² of the training rows.
    """

    def _design(self, df: DataFrame) -> tuple[DataFrame, dict[str, Any]]:
        known, designed = self._learnt(df, Numbers(impute="constant"))
        (mean,), (scale,) = known[self.getLabelCol()].shifts, known[self.getLabelCol()].scales
        designed["model"] = partial(designed["model"], outputs=1, mean=mean, scale=scale)
        own = None if self.isSet("loss") else partial(_squared_error, scale=scale, reduction=self._reduction)
        return df, {**designed, "task": "regression", "loss": own}


def _squared_error(outputs: Tensor, label: Tensor, *, scale: float, reduction: str) -> Tensor:
    loss: Tensor = nn.functional.mse_loss(outputs / scale, label / scale, reduction=reduction)
    return loss
