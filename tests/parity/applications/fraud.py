"""The example ``fraud`` in plain PyTorch: one process, no Spark. Of sparkdl it has the network, the buckets and the hours.

python tests/parity/applications/fraud.py .examples/fraud small
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sklearn.metrics import roc_auc_score

from sparkdl.preprocess import DateParts, Hashed
from sparkdl.ready.table_net import TableNet

EPOCHS = {"smallest": 4, "small": 4}
BATCH = 512  # two ranks with 256 rows each
NUMBERS = ["amount", "in_last_hour", "customer_days"]
CATEGORIES = ["merchant", "kind", "country", "home"]
SEEN = 5  # rows that a category must have to be known
BUCKETS = 1000


def figure(folder: Path, size: str) -> float:
    """Area under the ROC curve of the held-out transactions."""
    torch.manual_seed(0)
    train, test = (pq.read_table(folder / name) for name in ("train", "test"))
    frame = train.select([*NUMBERS, *CATEGORIES]).to_pandas()
    logs = np.log1p(frame[NUMBERS])
    median, mean, deviation = logs.median(), logs.mean(), logs.std(ddof=0)
    known = {name: frame[name].value_counts().loc[lambda n: n >= SEEN].index for name in CATEGORIES}

    def tensors(table: pa.Table) -> list[torch.Tensor]:
        rows = table.select([*NUMBERS, *CATEGORIES]).to_pandas()
        logs = np.log1p(rows[NUMBERS])
        numbers = np.hstack([(logs.fillna(median) - mean) / deviation, logs.isna()])
        ids = np.stack([pd.Index(known[name]).get_indexer(rows[name]) + 1 for name in CATEGORIES], axis=1)
        device = Hashed(buckets=BUCKETS).read({"device": table["device"].combine_chunks()})
        parts = DateParts(parts=("weekday", "hour")).read({"at": table["at"].combine_chunks()})
        return [torch.tensor(numbers).float(), torch.tensor(ids), torch.tensor(device), torch.tensor(parts)]

    x, y = tensors(train), torch.tensor(train["fraud"].to_numpy()).float()
    sizes = [*(len(known[name]) + 1 for name in CATEGORIES), BUCKETS]
    model = TableNet(2 * len(NUMBERS) + x[-1].shape[1], sizes, 1, hidden=[64, 32], dropout=0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    for _ in range(EPOCHS[size]):
        for batch in torch.randperm(len(y)).split(BATCH):
            optimizer.zero_grad()
            outputs = model(*(tensor[batch] for tensor in x)).squeeze(1)
            torch.nn.functional.binary_cross_entropy_with_logits(outputs, y[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        scores = model.eval()(*tensors(test)).squeeze(1)
    return float(roc_auc_score(test["fraud"].to_numpy(), scores.numpy()))


if __name__ == "__main__":
    print(figure(Path(sys.argv[1]), sys.argv[2]))
