"""Handwritten digits: the table and the network of ``make demo``."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor, nn


class Net(nn.Sequential):
    """Images (B, 1, 8, 8) to logits (B, 10)."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 10),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits of each class."""
        return super().forward(image)


def table() -> pa.Table:
    """scikit-learn's 1,797 digits: ``id``, ``image`` (64 floats from 0 to 1) and ``label``."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = pa.array(list((digits.data / 16).astype(np.float32)), pa.list_(pa.float32()))
    ids, labels = pa.array(np.arange(len(images))), pa.array(digits.target, pa.int32())
    return pa.table({"id": ids, "image": images, "label": labels})


def write(directory: Path, rows: pa.Table, files: int) -> None:
    """Write a Parquet table of so many files."""
    directory.mkdir(parents=True, exist_ok=True)
    size = -(-len(rows) // files)
    for i in range(files):
        pq.write_table(rows.slice(i * size, size), directory / f"part-{i:03d}.parquet")


def split(rows: pa.Table, seed: int = 0, held_out: float = 0.2) -> tuple[pa.Table, pa.Table]:
    """Train and test, at random."""
    order = np.random.default_rng(seed).permutation(len(rows))
    cut = int(len(rows) * held_out)
    return rows.take(order[cut:]), rows.take(order[:cut])
