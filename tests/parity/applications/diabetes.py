"""How diabetes goes on after a year (scikit-learn's ``load_diabetes``, 442 patients) in plain PyTorch: one process, no Spark.

B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, Least Angle Regression, 2004.

python tests/parity/applications/diabetes.py
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from sklearn.datasets import load_diabetes
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

from sparkdl.ready.table_net import TableNet

EPOCHS, BATCH, HIDDEN, RATE, DROPOUT = 40, 32, [32], 0.003, 0.2


def tables() -> tuple[pa.Table, pa.Table]:
    """To train on, and held out: ten measures and ``progression``."""
    data = load_diabetes()
    columns = dict(zip(data.feature_names, data.data.T, strict=True))
    table = pa.table({**columns, "progression": data.target})
    train, test = train_test_split(np.arange(len(table)), test_size=0.25, random_state=0)
    return table.take(pa.array(train)), table.take(pa.array(test))


def figure() -> float:
    """R² of the held-out patients."""
    torch.manual_seed(0)
    (train, label), (test, held_out) = map(_arrays, tables())
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    x, y = torch.tensor((train - mean) / deviation).float(), torch.tensor((label - label.mean()) / label.std()).float()
    model = TableNet(x.shape[1], (), 1, hidden=HIDDEN, dropout=DROPOUT)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x[batch]).squeeze(1), y[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        found = model.eval()(torch.tensor((test - mean) / deviation).float()).squeeze(1).numpy()
    return float(r2_score(held_out, found * label.std() + label.mean()))


def _arrays(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    *measures, label = table.columns
    return np.stack([column.to_numpy() for column in measures], axis=1), label.to_numpy()


if __name__ == "__main__":
    print(figure())
