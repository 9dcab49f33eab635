"""Diabetes patients: ten figures each (age, sex, body mass, blood pressure, six of blood), and how the disease went on in a year.

scikit-learn's ``load_diabetes``, 442 patients. Its description names as source
https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html, refers to "Least Angle Regression" (B. Efron, T. Hastie, I. Johnstone,
R. Tibshirani; Annals of Statistics 32, 2004), and says nothing of a licence.
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

FIGURE = "r2"
LABEL = "progression"
SETTINGS: dict[str, dict[str, Any]] = {"smallest": {"estimator.epochs": 50}, "small": {}}
BARS = {"smallest": 0.3, "small": 0.42}
FILES = 4


def write(folder: Path, size: str) -> None:
    """``train`` and ``test``, each fifth patient: id, features (array<float>), progression."""
    patients = table()
    held_out = np.arange(len(patients)) % 5 == 0
    for name, chosen in (("train", ~held_out), ("test", held_out)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, rows in enumerate(np.array_split(np.flatnonzero(chosen), FILES)):
            pq.write_table(patients.take(rows), folder / name / f"part-{number}.parquet")


def table() -> pa.Table:
    """All of them; each figure has a mean of 0 and a variance of 1."""
    from sklearn.datasets import load_diabetes

    raw = load_diabetes()
    figures = (raw.data / raw.data.std(axis=0)).astype(np.float32)
    return pa.table({
        "id": pa.array(np.arange(len(figures))),
        "features": pa.array(list(figures), pa.list_(pa.float32())),
        "progression": pa.array(raw.target, pa.float64()),
    })  # fmt: skip


def picture(spark: SparkSession, folder: Path) -> Figure:
    """Predicted and known progression of the held-out patients."""
    from matplotlib.figure import Figure

    rows = spark.read.parquet(str(folder / "scored")).select("progression", "prediction").toPandas()
    known, predicted = rows["progression"].to_numpy(), rows["prediction"].to_numpy()
    r2 = 1 - np.square(known - predicted).sum() / np.square(known - known.mean()).sum()
    figure = Figure(figsize=(5, 4.2))
    axes = figure.subplots()
    axes.scatter(known, predicted, s=16, alpha=0.7)
    axes.plot([0, 350], [0, 350], color="0.6", linewidth=1)
    axes.set_xlabel("progression after a year, known")
    axes.set_ylabel("predicted")
    axes.set_title(f"{len(rows)} held-out patients: R² {r2:.2f}", fontsize=10)
    figure.tight_layout()
    return figure
