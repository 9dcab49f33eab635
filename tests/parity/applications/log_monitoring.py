"""The example ``log-monitoring`` in plain PyTorch: one process, no Spark.

python tests/parity/applications/log_monitoring.py .examples/log-monitoring small
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from sklearn.metrics import roc_auc_score

from sparkdl.ready.recurrent import DenseCoder, Surprise

EPOCHS, BATCH, HIDDEN, BOTTLENECK, RATE = 20, 64, 64, 8, 0.002


def figure(folder: Path, size: str) -> float:
    """The area under the ROC curve of the held-out windows' scores."""
    torch.manual_seed(1)
    train, test = (_series(folder / name) for name in ("train", "test"))
    mean, deviation = train.mean(axis=(0, 1)), train.std(axis=(0, 1))
    x, held_out = (torch.tensor((series - mean) / deviation).float() for series in (train, test))
    model = Surprise(DenseCoder(*x.shape[1:], HIDDEN, BOTTLENECK), x.shape[2])
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            model(x[batch]).mean().backward()
            optimizer.step()
    with torch.no_grad():
        score = model.eval()(held_out).numpy()
    return float(roc_auc_score(pq.read_table(folder / "test")["fault"].to_numpy(), score))


def _series(folder: Path) -> np.ndarray:
    """(B, L, F)."""
    return np.array(pq.read_table(folder)["series"].to_pylist())


if __name__ == "__main__":
    print(figure(Path(sys.argv[1]), sys.argv[2]))
