"""How a classifier does, counted by Spark: what comes to the driver does not grow with the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkdl.errors import DataError, EmptyDatasetError, SignatureError
from sparkdl.showing import values
from sparkdl.showing.tables import check_columns, types_of
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

MOST_PAIRS = 100_000  # of label and prediction: more are not classes
MOST_CLASSES = 20  # shown; the others together
MOST_CURVES = 8
OTHERS = "others"
_STEPS = 50  # of the log odds, each a bin: odds of a bin differ by 2 %
_FARTHEST = 110.0  # log odds, as far as float32 goes; beyond is one bin
_TINY = 1e-300
_NUMBERS = ("byte", "short", "integer", "long", "float", "double", "boolean")


@dataclass(frozen=True)
class Confusion:
    """counts: ``(C, C)``, labels down, predictions across, in the order of ``names``. left_out: rows without one of them.
    classes: how many there are, shown or not. right: rows of all classes that are predicted as they are."""

    names: tuple[str, ...]
    counts: np.ndarray
    left_out: int
    classes: int
    right: int

    @property
    def accuracy(self) -> float:
        """Share of right rows."""
        return self.right / int(self.counts.sum())

    def by_class(self) -> list[tuple[str, int, float, float, float]]:
        """Name, rows, precision, recall and F1 of each class; NaN where nothing was predicted, or nothing is so."""
        right = np.diag(self.counts).astype(float)
        predicted, there = self.counts.sum(axis=0), self.counts.sum(axis=1)
        with np.errstate(invalid="ignore"):
            precision, recall, f1 = right / predicted, right / there, 2 * right / (predicted + there)
        return list(zip(self.names, there.tolist(), precision.tolist(), recall.tolist(), f1.tolist(), strict=True))


@dataclass(frozen=True)
class Roc:
    """One class against all others. false_positive, true_positive: rates by falling threshold, from 0 to 1.
    auc: the area below; error: by how much the exact one may differ, for rows of nearly the same score count as equal."""

    name: str
    false_positive: np.ndarray
    true_positive: np.ndarray
    auc: float
    error: float
    positives: int
    negatives: int


def confusion(df: DataFrame, label: str, prediction: str) -> Confusion:
    """Count the pairs, in one Spark job.

    Raises ColumnNotFoundError, SignatureError for columns that cannot be compared, EmptyDatasetError, and DataError for
    more pairs than classes have.
    """
    from pyspark.sql import functions as sf

    check_columns(df, label, prediction)
    kinds = [_class_kind(df, name) for name in (label, prediction)]
    if kinds[0] != kinds[1]:
        raise SignatureError(
            f"{label!r} holds {kinds[0]}s and {prediction!r} {kinds[1]}s, which are never equal; map one to the other, by "
            "pyspark.ml's StringIndexer or IndexToString",
            column=prediction,
            expected=kinds[0],
            got=kinds[1],
        )
    pair = [_class(sf.col(quoted(name)), kinds[0]) for name in (label, prediction)]
    grouped = df.select(pair[0].alias("label"), pair[1].alias("prediction")).groupBy("label", "prediction").count()
    found = [(row[0], row[1], row[2]) for row in grouped.limit(MOST_PAIRS + 1).collect()]
    if not found:
        raise EmptyDatasetError()
    if len(found) > MOST_PAIRS:
        raise DataError(
            f"{label!r} and {prediction!r} have more than {MOST_PAIRS:,} pairs of values: these are no classes; round them, or "
            "show(df)",
            column=prediction, row=None, file=None, expected="classes", got=f"more than {MOST_PAIRS} pairs",
        )  # fmt: skip
    return confusion_of(found)


def confusion_of(pairs: Sequence[tuple[Any, Any, int]]) -> Confusion:
    """From ``(label, prediction, rows)``; of more than MOST_CLASSES classes those with most mistakes, and the others
    together. Raises EmptyDatasetError if no row has both."""
    known = [(a, b, n) for a, b, n in pairs if a is not None and b is not None]
    if not known:
        raise EmptyDatasetError()
    order = sorted({value for a, b, _ in known for value in (a, b)})
    wrong: dict[Any, int] = dict.fromkeys(order, 0)
    for a, b, n in known:
        if a != b:
            wrong[a] += n
            wrong[b] += n
    shown = order
    if len(order) > MOST_CLASSES:
        worst = set(sorted(order, key=lambda value: -wrong[value])[: MOST_CLASSES - 1])
        shown = [value for value in order if value in worst]
    place = {value: i for i, value in enumerate(shown)}
    size = len(shown) + (len(shown) < len(order))
    counts = np.zeros((size, size), dtype=np.int64)
    for a, b, n in known:
        counts[place.get(a, size - 1), place.get(b, size - 1)] += n
    names = tuple(_name(value) for value in shown) + ((OTHERS,) if size > len(shown) else ())
    left_out = sum(n for _, _, n in pairs) - int(counts.sum())
    return Confusion(names, counts, left_out, len(order), sum(n for a, b, n in known if a == b))


def roc(df: DataFrame, label: str, probability: str) -> tuple[list[Roc], int]:
    """A curve a class, and how many rows were left out for a null or NaN; of two classes the one of class 1. One Spark job
    counts rows by class and bin of the log odds.

    Raises ColumnNotFoundError, SignatureError for columns of other types, DataError for a probability beyond [0, 1] or a
    label of one class only, EmptyDatasetError.
    """
    from pyspark.sql import functions as sf

    check_columns(df, label, probability)
    if _class_kind(df, label) != "number":
        raise SignatureError(
            f"{label!r} must be class numbers, 0, 1, …: the places of their probabilities; make them by pyspark.ml's "
            "StringIndexer",
            column=label,
            expected="a number",
            got=types_of(df)[label],
        )
    cells = df.select(
        _class(sf.col(quoted(label)), "number").alias("label"), _probabilities(df, probability).alias("p")
    )
    each = cells.select("label", sf.posexplode_outer("p").alias("class", "p"))
    usable = sf.col("p").between(0.0, 1.0) & ~sf.isnan("p") & sf.col("label").isNotNull()
    odds = sf.log(sf.greatest("p", sf.lit(_TINY)) / sf.greatest(1.0 - sf.col("p"), sf.lit(_TINY)))
    within = sf.greatest(sf.least(odds, sf.lit(_FARTHEST)), sf.lit(-_FARTHEST))
    at = sf.round(within * _STEPS).cast("int")
    beyond = sf.when(sf.isnan("p") | sf.col("p").between(0.0, 1.0), None).otherwise(sf.col("p"))
    rows = (
        each.groupBy("class", (sf.col("label") == sf.col("class")).alias("own"), sf.when(usable, at).alias("bin"))
        .agg(sf.count(sf.lit(1)).alias("rows"), sf.max(beyond).alias("beyond"))
        .collect()
    )
    return rocs_of([(row["class"], row["own"], row["bin"], row["rows"], row["beyond"]) for row in rows], probability)


def rocs_of(
    counted: Sequence[tuple[int | None, bool | None, int | None, int, float | None]], name: str
) -> tuple[list[Roc], int]:
    """From ``(class, whether the row is of it, bin, rows, a probability beyond [0, 1])``."""
    if not counted:
        raise EmptyDatasetError()
    beyond = {one: value for one, *_, value in counted if one is not None and value is not None}
    if beyond:
        worst = beyond[max(beyond)]  # of a number a row, which is of class 1, as it was given
        raise DataError(
            f"{name!r} holds {worst:g}, and a probability is from 0 to 1; of logits it is 1 / (1 + exp(-x))",
            column=name, row=None, file=None, expected="0 to 1", got=worst,
        )  # fmt: skip
    classes = sorted({one for one, *_ in counted if one is not None})
    chosen = classes[1:] if len(classes) == 2 else classes
    first = {None, *chosen[:1]}  # a row is counted once a class; one without probabilities has no class
    left_out = sum(
        n for one, own, place, n, _ in counted if one in first and (one is None or own is None or place is None)
    )
    found = []
    for one in chosen:
        known = [
            (place, own, n) for c, own, place, n, _ in counted if c == one and place is not None and own is not None
        ]
        by_bin: dict[int, list[int]] = {}
        for place, own, n in known:
            by_bin.setdefault(place, [0, 0])[bool(own)] += n
        if known:
            curve = _roc(str(one), np.array([by_bin[place] for place in sorted(by_bin, reverse=True)]))
            found += [curve] if curve else []
    if not found:
        raise DataError(
            f"the rows are all of one class, or have no probability in {name!r}: a ROC needs rows of both sides",
            column=name, row=None, file=None, expected="two classes", got=f"{len(classes)} probabilities a row",
        )  # fmt: skip
    return found, left_out


def _roc(name: str, counts: np.ndarray) -> Roc | None:
    """counts: ``(bins, 2)``, negatives and positives, the highest scores first."""
    negatives, positives = counts.sum(axis=0).tolist()
    if not negatives or not positives:
        return None
    rates = np.vstack([[0.0, 0.0], np.cumsum(counts, axis=0) / [negatives, positives]])
    false, true = rates[:, 0], rates[:, 1]
    area = float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))
    error = float((counts[:, 0] * counts[:, 1]).sum() / (2 * negatives * positives))
    return Roc(name, false, true, area, error, positives, negatives)


def _probabilities(df: DataFrame, name: str) -> Column:
    """As an array, an item a class; of one number a row that of class 1, class 0 having the rest."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as sf

    kind, column = types_of(df)[name], sf.col(quoted(name))
    if isinstance(kind, dict) and kind["type"] == "udt" and "Vector" in str(kind.get("class")):
        return vector_to_array(column)
    if isinstance(kind, dict) and kind["type"] == "array" and kind["elementType"] in ("float", "double"):
        return column.cast("array<double>")
    if kind in ("float", "double"):
        value = column.cast("double")
        return sf.array(1.0 - value, value)
    raise SignatureError(
        f"{name!r} must be the probability, a float or double, or one for each class as an array or vector (got {kind})",
        column=name,
        expected="a probability",
        got=kind,
    )


def _class_kind(df: DataFrame, name: str) -> str:
    kind = types_of(df)[name]
    if kind == "string":
        return "string"
    if isinstance(kind, str) and (kind in _NUMBERS or kind.startswith("decimal")):
        return "number"
    raise SignatureError(
        f"{name!r} must be a class, a number or text a row (got {kind})", column=name, expected="a class", got=kind
    )


def _class(column: Column, kind: str) -> Column:
    """The class as text or double; NaN is null."""
    from pyspark.sql import functions as sf

    if kind == "string":
        return column
    value = column.cast("double")
    return sf.when(~sf.isnan(value), value)


def _name(value: Any) -> str:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:.4g}"
    return values.shortened(values.printable(str(value)), 24)
