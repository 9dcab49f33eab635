"""What the training benchmarks train: an MLP on rows of 50 floats, and a small ConvNet on 32x32x3 images of bytes.

Shapes: B rows of a batch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cloudpickle
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

FEATURES, CLASSES, IMAGE = 50, 10, (3, 32, 32)
ROW_BYTES = 4 * (FEATURES + 1)  # of the MLP

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # executors cannot import it


@dataclass(frozen=True)
class Work:
    """network: makes the module, the same each time. data: ``(rows, seed) -> (x, y)``. batch: rows a rank and step."""

    name: str
    rows: int
    batch: int
    task: str
    network: Callable[[], nn.Module]
    data: Callable[[int, int], tuple[np.ndarray, np.ndarray]]
    loss: Callable[[Tensor, Tensor], Tensor]

    def of(self, rows: int) -> Work:
        return replace(self, rows=rows)

    def tensors(self, rows: int, seed: int) -> tuple[Tensor, Tensor]:
        x, y = self.data(rows, seed)
        return torch.from_numpy(x), torch.from_numpy(y)

    def write(self, folder: str, files: int) -> None:
        """Parquet of the columns ``features`` and ``label``, as many rows a file."""
        for seed in range(files):
            x, y = self.data(self.rows // files, seed)
            pq.write_table(pa.table({"features": column(x), "label": y}), Path(folder) / f"{seed:03}.parquet")


def column(x: np.ndarray) -> pa.Array:
    """Lists of floats, or, for bytes, one binary value a row."""
    offsets = np.arange(len(x) + 1, dtype=np.int32) * (x.size // len(x))
    if x.dtype == np.uint8:
        return pa.Array.from_buffers(pa.binary(), len(x), [None, pa.py_buffer(offsets), pa.py_buffer(x)])
    return pa.ListArray.from_arrays(offsets, x.ravel())


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1), nn.Flatten(0)
    )


def numbers(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, FEATURES), dtype=np.float32)
    return x, x[:, :5].sum(axis=1) + 0.1 * random.standard_normal(rows, dtype=np.float32)


class Scaled(nn.Module):
    """Bytes as floats in [0, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float() / 255


def convnet() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        Scaled(),
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 8 * 8, CLASSES),
    )  # fmt: skip


def images(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, each class a little brighter than the one before."""
    random = np.random.default_rng(seed)
    label = random.integers(0, CLASSES, rows)
    x = random.integers(0, 156, (rows, *IMAGE), dtype=np.uint8)
    return x + (label * 10).astype(np.uint8)[:, None, None, None], label


MLP = Work("mlp", 400_000, 256, "regression", mlp, numbers, nn.functional.mse_loss)
CONVNET = Work("convnet", 20_000, 64, "multiclass", convnet, images, nn.functional.cross_entropy)
