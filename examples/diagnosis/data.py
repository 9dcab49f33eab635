"""Breast tumours, benign or malignant: scikit-learn's ``load_breast_cancer``, 569 patients, 30 measures of cell nuclei each.

By its description a copy of UCI ML Breast Cancer Wisconsin (Diagnostic), made by W. H. Wolberg, W. N. Street and
O. L. Mangasarian, November 1995; of a licence it says nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyspark.sql import SparkSession

FIGURE = "auroc"
LABEL = "diagnosis"
SETTINGS: dict[str, dict[str, Any]] = {"smallest": {"estimator.epochs": 15}, "small": {}}
BARS = {"smallest": 0.98, "small": 0.98}
FILES = 4


def write(folder: Path, size: str) -> None:
    """``train`` and ``test``, three patients in four and the fourth: ``patient``, 30 measures, ``diagnosis``. One data set for
    all sizes."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    data = load_breast_cancer()
    columns = {name.replace(" ", "_"): data.data[:, place] for place, name in enumerate(data.feature_names)}
    diagnosis = data.target_names[data.target].tolist()
    table = pa.table({"patient": np.arange(len(diagnosis)), **columns, "diagnosis": diagnosis})
    parts = train_test_split(np.arange(len(table)), test_size=0.25, random_state=0, stratify=diagnosis)
    for name, rows in zip(("train", "test"), parts, strict=True):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, some in enumerate(np.array_split(rows, FILES)):
            pq.write_table(table.take(pa.array(some)), folder / name / f"part-{number}.parquet")


def picture(spark: SparkSession, folder: Path) -> Figure:
    """The ROC curve, and the scores of both kinds."""
    from matplotlib.figure import Figure
    from sklearn.metrics import roc_auc_score, roc_curve

    rows = spark.read.parquet(str(folder / "scored")).select("diagnosis", "probability").collect()
    malignant = np.array([row.diagnosis == "malignant" for row in rows])
    scores = np.array([row.probability[1] for row in rows])
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    false, true, _ = roc_curve(malignant, scores)
    left.step(false, true, where="post", label=f"area {roc_auc_score(malignant, scores):.4f}")
    left.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle="--")
    left.set_xlabel("benign ones taken for malignant")
    left.set_ylabel("malignant ones found")
    left.legend(loc="lower right")
    bins = np.linspace(0, 1, 21)
    right.hist([scores[~malignant], scores[malignant]], bins=bins, label=["benign", "malignant"], stacked=True)
    right.set_xlabel("probability of malignant")
    right.set_ylabel("held-out patients")
    right.set_yscale("log")
    right.legend()
    return figure
