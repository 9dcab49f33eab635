"""Who took which course at an online school: generated, for no package carries such data under a licence that fits.

Each course belongs mostly to one topic; each user likes a few topics. A user takes a course with a chance that grows with its
popularity (Zipf's law) and with how well it suits the user's taste, and never twice. The newest course of each user is held
out. Some users are new: there is nothing of them but this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyspark.sql import SparkSession

FIGURE = "recall_at_10"
LABEL = "course"
SETTINGS: dict[str, dict[str, Any]] = {"smallest": {"estimator.epochs": 16}, "small": {}}
MARGIN = 1.5  # times what one gets who recommends to all what is popular
TOPICS = (
    "python", "statistics", "spark", "design", "finance", "biology",
    "history", "music", "spanish", "chess", "law", "physics",
)  # fmt: skip
FILES = 4


@dataclass(frozen=True)
class Size:
    """taken: courses to a user, on average."""

    users: int
    courses: int
    taken: int


SIZES = {"smallest": Size(600, 120, 14), "small": Size(3000, 400, 20)}
NEW_USERS = 0.03


def write(folder: Path, size: str) -> None:
    """``train``: user, course, topic, day (of the year). ``test``: user, seen (the courses before), course."""
    train, test = tables(SIZES[size])
    for name, table in (("train", train), ("test", test)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        share = -(-len(table) // FILES)
        for number in range(FILES):
            pq.write_table(table.slice(number * share, share), folder / name / f"part-{number}.parquet")


def tables(size: Size, seed: int = 8) -> tuple[pa.Table, pa.Table]:
    """The interactions to train on, and the users with what they took next."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(len(TOPICS), size=size.courses)
    content = 0.15 * rng.dirichlet(np.ones(len(TOPICS)), size.courses)
    content[np.arange(size.courses), topic] += 0.85
    popularity = 1 / np.arange(1, size.courses + 1) ** 0.8
    names = [f"{TOPICS[t]} {place:03d}" for place, t in enumerate(topic)]
    train, test = [], []
    for number in range(size.users):
        taste = rng.dirichlet(np.full(len(TOPICS), 0.15))
        chance = popularity * (0.02 + content @ taste) ** 1.5
        count = int(np.clip(rng.poisson(size.taken), 4, size.courses // 3))
        taken = rng.permutation(rng.choice(size.courses, count, replace=False, p=chance / chance.sum()))
        days = np.sort(rng.uniform(0, 365, count)).round(2)
        user = f"user {number:05d}"
        *before, newest = taken
        before = before if number >= NEW_USERS * size.users else []
        for course, day in zip(before, days, strict=False):
            train.append({"user": user, "course": names[course], "topic": TOPICS[topic[course]], "day": float(day)})
        test.append({"user": user, "seen": [names[course] for course in before], "course": names[newest]})
    order = rng.permutation(len(test))
    return pa.Table.from_pylist(train).sort_by("day"), pa.Table.from_pylist(test).take(order)


def popular(folder: Path, k: int = 10) -> float:
    """Recall at k of what is popular, without what the user had."""
    counts = pc.value_counts(pq.read_table(folder / "train")["course"]).to_pylist()
    courses = [one["values"] for one in sorted(counts, key=lambda one: -one["counts"])]
    found = []
    for row in pq.read_table(folder / "test").to_pylist():
        seen = set(row["seen"])
        found.append(row["course"] in [course for course in courses if course not in seen][:k])
    return float(np.mean(found))


def _bar(folder: Path) -> float:
    return MARGIN * popular(folder)


BARS = {"smallest": _bar, "small": _bar}


def AFTER(spark: SparkSession, folder: Path) -> dict[str, float]:
    """What popularity alone gets."""
    value = popular(folder)
    print(f"recommending what is popular: recall_at_10 {value:.4f}")
    return {"popular_recall_at_10": value}


def picture(spark: SparkSession, folder: Path) -> Figure:
    """Recall at 1 to 10 of the model, and of popularity."""
    from matplotlib.figure import Figure

    scored = spark.read.parquet(str(folder / "scored")).selectExpr("array_position(prediction.item, course) AS place")
    places = np.array([row.place for row in scored.collect()])
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    ks = range(1, 11)
    axes.plot(ks, [np.mean((places > 0) & (places <= k)) for k in ks], marker="o", label="Recommender")
    axes.plot(ks, [popular(folder, k) for k in ks], marker="s", label="what is popular")
    axes.set_xlabel("k, courses recommended")
    axes.set_ylabel("recall: the share of users whose next course is among them")
    axes.set_xticks(list(ks))
    axes.set_ylim(0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
