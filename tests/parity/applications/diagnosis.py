"""The example ``diagnosis`` in plain PyTorch: one process, no Spark.

python tests/parity/applications/diagnosis.py .examples/diagnosis small
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sklearn.metrics import roc_auc_score

from sparkdl.ready.table_net import TableNet

EPOCHS = {"smallest": 15, "small": 30}
BATCH = 32  # two ranks with 16 rows each


def figure(folder: Path, size: str) -> float:
    """Area under the ROC curve of the held-out patients."""
    torch.manual_seed(0)
    (train, malignant), (test, held_out) = (_read(folder / name) for name in ("train", "test"))
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    x, y = torch.tensor((train - mean) / deviation).float(), torch.tensor(malignant).float()
    model = TableNet(x.shape[1], (), 1, hidden=[32], dropout=0.2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(EPOCHS[size]):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(model(x[batch]).squeeze(1), y[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        scores = model.eval()(torch.tensor((test - mean) / deviation).float()).squeeze(1)
    return float(roc_auc_score(held_out, scores.numpy()))


def _read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(folder)
    measures = [table[field.name].to_numpy() for field in table.schema if pa.types.is_floating(field.type)]
    return np.stack(measures, axis=1), np.array(table["diagnosis"].to_pylist()) == "malignant"


if __name__ == "__main__":
    print(figure(Path(sys.argv[1]), sys.argv[2]))
