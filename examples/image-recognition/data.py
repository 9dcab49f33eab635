"""Handwritten digits as image files: the 1,797 of scikit-learn, 8 × 8 pixels in 16 grays, each as the bytes of a PNG.

By its description (``load_digits().DESCR``) a copy of the test set of the UCI ML hand-written digits (E. Alpaydin, July 1998);
of a licence it says nothing.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyspark.sql import SparkSession

FIGURE = "accuracy"
LABEL = "label"
SETTINGS: dict[str, dict[str, Any]] = {"smallest": {"estimator.epochs": 5}, "small": {}}
BARS = {"smallest": 0.9, "small": 0.97}
ROWS = {"smallest": (600, 200), "small": (1297, 500)}  # to train on, held out
FILES = 4


def write(folder: Path, size: str) -> None:
    """``train`` and ``test``, no digit in both: id, image (a PNG file's bytes), label (the digit)."""
    digits = table()
    order = np.random.default_rng(8).permutation(len(digits))
    train, test = ROWS[size]
    for name, rows in (("train", order[:train]), ("test", order[train : train + test])):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, part in enumerate(np.array_split(rows, FILES)):
            pq.write_table(digits.take(part), folder / name / f"part-{number}.parquet")


def table() -> pa.Table:
    """All of them."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    files = pa.array([png(image) for image in digits.images], pa.binary())
    return pa.table(
        {"id": pa.array(np.arange(len(files))), "image": files, "label": pa.array(digits.target, pa.int32())}
    )


def png(image: np.ndarray) -> bytes:
    """A PNG file of an image of numbers from 0 to 16, ``(8, 8)``."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def picture(spark: SparkSession, folder: Path) -> Figure:
    """Held-out digits with what the model says, the least certain first."""
    from matplotlib.figure import Figure
    from PIL import Image

    scored = spark.read.parquet(str(folder / "scored")).selectExpr("*", "array_max(probability) AS certain")
    right = scored.where("prediction = label").count() / scored.count()
    rows = scored.orderBy("certain").limit(24).collect()
    figure = Figure(figsize=(9, 3.8))
    for axes, row in zip(figure.subplots(3, 8).flat, rows, strict=True):
        axes.imshow(Image.open(io.BytesIO(row.image)), cmap="gray")
        axes.set_axis_off()
        told = f"{row.prediction} ({row.certain:.0%})"
        is_right = row.prediction == row.label
        axes.set_title(
            told if is_right else f"{told}, is {row.label}", fontsize=8, color="k" if is_right else "#d55e00"
        )
    figure.suptitle(f"held-out digits of which the model is least certain; {right:.1%} of all are right", fontsize=10)
    figure.tight_layout()
    return figure
