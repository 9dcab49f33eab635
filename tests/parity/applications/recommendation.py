"""The example ``recommendation`` in plain PyTorch: one process, no Spark.

python tests/parity/applications/recommendation.py .examples/recommendation small
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import torch

from sparkdl.ready.towers import TwoTower, Vectors, in_batch_softmax

EPOCHS = {"smallest": 16, "small": 12}
BATCH = 512  # two ranks with 256 rows each


def figure(folder: Path, size: str) -> float:
    """Recall at 10 of the held-out courses."""
    torch.manual_seed(0)
    train = pq.read_table(folder / "train").to_pylist()
    test = pq.read_table(folder / "test").to_pylist()
    users = {user: number for number, user in enumerate(sorted({row["user"] for row in train}), start=1)}
    topic_of = {row["course"]: row["topic"] for row in train}
    courses = {course: number for number, course in enumerate(sorted(topic_of))}
    topics = {topic: number for number, topic in enumerate(sorted(set(topic_of.values())), start=1)}
    ids = [(0, 0), *((number + 1, topics[topic_of[course]]) for course, number in courses.items())]
    taken = Counter(row["course"] for row in train)
    towers = TwoTower([len(users) + 1], ids, 16, anybody=0.1)
    model = Vectors(towers, [taken[course] / len(train) for course in courses])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.5)
    user = torch.tensor([[users[row["user"]]] for row in train])
    course = torch.tensor([courses[row["course"]] for row in train])
    for _ in range(EPOCHS[size]):
        for batch in torch.randperm(len(train)).split(BATCH):
            optimizer.zero_grad()
            in_batch_softmax(model(user[batch], course[batch]), course[batch]).backward()
            optimizer.step()
    model.eval()
    hits = 0
    with torch.no_grad():
        vectors, biases = towers.of_items(torch.arange(1, len(courses) + 1))
        for row in test:
            scores = towers.user(torch.tensor([[users.get(row["user"], 0)]])) @ vectors.T + biases
            scores[0, [courses[one] for one in row["seen"]]] = -torch.inf
            hits += courses.get(row["course"], -1) in scores.topk(10).indices
    return hits / len(test)


if __name__ == "__main__":
    print(figure(Path(sys.argv[1]), sys.argv[2]))
