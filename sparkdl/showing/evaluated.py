"""A classifier's figures as pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkdl.showing import evaluation, figures, values
from sparkdl.showing.evaluation import MOST_CURVES, Confusion, Roc
from sparkdl.showing.pieces import Facts, Picture, Piece, Table
from sparkdl.showing.plain import sparkline

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def confusion_matrix(df: DataFrame, label: str, prediction: str) -> list[Piece]:
    """Raises as ``evaluation.confusion``."""
    return of_confusion(evaluation.confusion(df, label, prediction))


def roc(df: DataFrame, label: str, probability: str) -> list[Piece]:
    """Raises as ``evaluation.roc``."""
    return of_rocs(*evaluation.roc(df, label, probability))


def of_confusion(found: Confusion) -> list[Piece]:
    """The accuracy, the matrix, and the classes one by one."""
    rows = int(found.counts.sum())
    lines = [("accuracy", f"{found.accuracy:.4f}, {found.right:,} of {values.count(rows, 'row')}")]
    if found.classes > len(found.names):
        lines.append(("classes", f"{found.classes:,}; those with most mistakes are shown, the others together"))
    lines += _left_out(found.left_out, "label or prediction")
    cells = tuple(
        (name, *(f"{count:,}" if count else "·" for count in row.tolist()))
        for name, row in zip(found.names, found.counts, strict=True)
    )
    matrix = Table(("label \\ predicted", *found.names), cells, frozenset(range(1, len(found.names) + 1)))
    figures_of = tuple((name, f"{n:,}", *(_share(value) for value in more)) for name, n, *more in found.by_class())
    by_class = Table(("class", "rows", "precision", "recall", "F1"), figures_of, frozenset(range(1, 5)))
    alt = f"confusion matrix of {values.count(len(found.names), 'class') if len(found.names) == 1 else f'{len(found.names)} classes'}, accuracy {found.accuracy:.4f}"
    return [Facts(tuple(lines)), Picture(figures.confusion(found), alt, "confusion", (matrix,)), by_class]


def of_rocs(found: list[Roc], left_out: int) -> list[Piece]:
    """The areas, and the curves."""
    lines = []
    for curve in found[:MOST_CURVES]:
        what = f"AUC of class {curve.name}" if len(found) > 1 else "AUC"
        exact = f" ± {curve.error:.1g}" if curve.error >= 5e-5 else ""
        sides = f"{curve.positives:,} positive and {curve.negatives:,} negative rows"
        lines.append((what, f"{curve.auc:.4f}{exact}, {sides}"))
    if len(found) > 1:
        lines.append(("their mean", f"{sum(curve.auc for curve in found) / len(found):.4f}"))
    if len(found) > MOST_CURVES:
        lines.append(("classes", f"{len(found):,}; the first {MOST_CURVES} are drawn"))
    lines += _left_out(left_out, "label or probability")
    sketch = tuple((f"class {curve.name}", _sketch(curve)) for curve in found[:MOST_CURVES])
    alt = "ROC: " + ", ".join(f"class {curve.name} AUC {curve.auc:.4f}" for curve in found[:MOST_CURVES])
    return [Facts(tuple(lines)), Picture(figures.roc(found[:MOST_CURVES]), alt, "roc", (Facts(sketch),))]


def _sketch(curve: Roc) -> str:
    """True positive rate at false positive rates from 0 to 1."""
    import numpy as np

    grid = np.linspace(0, 1, 40)
    return sparkline([0.0, *np.interp(grid, curve.false_positive, curve.true_positive)][1:])


def _left_out(rows: int, what: str) -> list[tuple[str, str]]:
    return [("left out", f"{values.count(rows, 'row')} without a {what}")] if rows else []


def _share(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"
