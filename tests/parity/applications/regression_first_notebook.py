"""Dense 64-32-1 by Keras alone, in one process: what the example regression-first-notebook is compared with."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

os.environ.setdefault("KERAS_BACKEND", "torch")

EPOCHS = {"smallest": 50, "small": 100}
BATCH = 32  # of two ranks with 16 rows each


def figure(folder: Path, size: str) -> float:
    """R² of the held-out patients."""
    import keras

    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential([layers.Dense(64, "relu"), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse")
    x, y = _rows(folder / "train")
    model.fit(x, y, batch_size=BATCH, epochs=EPOCHS[size], verbose=0)
    x, y = _rows(folder / "test")
    predicted = model.predict(x, verbose=0)[:, 0]
    return float(1 - np.square(y - predicted).sum() / np.square(y - y.mean()).sum())


def _rows(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(folder)
    return np.stack(table["features"].to_numpy()).astype(np.float32), table["progression"].to_numpy()


if __name__ == "__main__":
    import sys

    print(figure(Path(sys.argv[1]), sys.argv[2]))
