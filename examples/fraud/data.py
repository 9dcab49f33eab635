"""Card transactions, 1 to 2 in 100 of them fraud: generated, for no package carries such data under a licence that fits.

Good ones: each customer has a country, a usual amount and a few devices; buys by day more than by night, at merchants that
are popular by Zipf's law, seldom abroad. Fraud is of three patterns, all of them less than sure signs: a stolen card (a
large amount, abroad, from a device that the customer never had, by night), card testing (many small amounts in an hour at
digital merchants), and a ring (a few devices and merchants that occur again and again). Some cells are missing.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyspark.sql import SparkSession

FIGURE = "auroc"
LABEL = "fraud"
SETTINGS: dict[str, dict[str, Any]] = {"smallest": {"estimator.epochs": 4}, "small": {}}
BARS = {"smallest": 0.9, "small": 0.93}
ROWS = {"smallest": (20_000, 8_000), "small": (160_000, 40_000)}
FILES = 4
COUNTRIES = ("NO", "SE", "DK", "FI", "DE", "NL", "FR", "GB", "ES", "IT", "PL", "US", "BR", "IN", "TH", "NG")
KINDS = ("grocery", "fuel", "travel", "fashion", "electronics", "digital", "restaurant", "health")
FRAUD = (0.006, 0.005, 0.004)  # shares of a stolen card, card testing, the ring
START = dt.datetime(2025, 1, 1, tzinfo=dt.timezone.utc)
DAYS = 120


def write(folder: Path, size: str) -> None:
    """``train`` and, of the days after it, ``test``: see ``transactions``."""
    train, test = ROWS[size]
    table = transactions(train + test)
    for name, part in (("train", table.slice(0, train)), ("test", table.slice(train))):
        (folder / name).mkdir(parents=True, exist_ok=True)
        share = -(-len(part) // FILES)
        for number in range(FILES):
            pq.write_table(part.slice(number * share, share), folder / name / f"part-{number}.parquet")


def transactions(rows: int, seed: int = 15) -> pa.Table:
    """In the order of their days. ``amount`` in euros; ``in_last_hour``: of this card; ``customer_days``: since it was issued."""
    rng = np.random.default_rng(seed)
    customers, merchants = rows // 25, 400
    home = rng.choice(8, customers, p=np.array([30, 20, 12, 10, 10, 8, 6, 4]) / 100)
    usual = rng.normal(3.2, 0.5, customers)  # ln of euros
    issued = rng.integers(30, 4000, customers)
    kind_of = rng.integers(len(KINDS), size=merchants)
    popular = 1 / np.arange(1, merchants + 1) ** 0.9

    pattern = rng.choice(4, rows, p=[1 - sum(FRAUD), *FRAUD])
    stolen, tested, ring = (pattern == number for number in (1, 2, 3))
    sure = rng.random(rows) < 0.8  # a fraud that looks like any other transaction in all but one respect is not found
    customer = rng.integers(customers, size=rows)
    day = np.sort(rng.integers(DAYS, size=rows))
    by_day = np.clip(rng.normal(15, 4, rows), 0, 23.99)
    hour = np.where(
        stolen & sure, rng.uniform(0, 6, rows), np.where(rng.random(rows) < 0.1, rng.uniform(0, 24, rows), by_day)
    )
    merchant = rng.choice(merchants, rows, p=popular / popular.sum())
    digital = np.flatnonzero(kind_of == KINDS.index("digital"))
    merchant = np.where(tested & sure, rng.choice(digital, rows), merchant)
    merchant = np.where(ring & sure, rng.choice(np.arange(180, 192), rows), merchant)
    country = np.where(rng.random(rows) < 0.05, rng.integers(len(COUNTRIES), size=rows), home[customer])
    country = np.where(stolen & sure, rng.integers(8, len(COUNTRIES), size=rows), country)
    amount = rng.lognormal(usual[customer] + 0.4 * (kind_of[merchant] == KINDS.index("travel")), 0.8)
    amount = np.where(stolen, amount * rng.lognormal(1.5, 0.6, rows), amount)
    amount = np.where(tested & sure, rng.uniform(0.5, 3, rows), amount)
    often = rng.poisson(0.3, rows) + np.where(tested, rng.poisson(4, rows), 0)
    device = customer * 3 + rng.integers(3, size=rows)
    device = np.where(rng.random(rows) < 0.04, rng.integers(10**9, 2 * 10**9, size=rows), device)
    device = np.where(stolen, rng.integers(10**9, 2 * 10**9, size=rows), device)
    device = np.where(ring, 5 * 10**8 + rng.integers(25, size=rows), device)

    micros = int(START.timestamp() * 1e6) + ((day + hour / 24) * 86_400e6).astype(np.int64)
    return pa.table(
        {
            "transaction": np.arange(rows),
            "at": pa.array(micros, pa.timestamp("us", "UTC")),
            "amount": _with_gaps(amount.round(2), rng, 0.02),
            "in_last_hour": often,
            "customer_days": _with_gaps((issued[customer] + day).astype(float), rng, 0.05),
            "merchant": _named("m", merchant),
            "kind": pa.array(KINDS).take(pa.array(kind_of[merchant])),
            "country": _with_gaps(pa.array(COUNTRIES).take(pa.array(country)), rng, 0.01),
            "home": pa.array(COUNTRIES).take(pa.array(home[customer])),
            "device": _with_gaps(_named("d", device), rng, 0.03),
            "fraud": pattern > 0,
        }
    )


def _named(letter: str, numbers: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(letter, pa.array(numbers).cast(pa.string()), "")


def _with_gaps(values: Any, rng: np.random.Generator, share: float) -> pa.Array:
    return pc.if_else(pa.array(rng.random(len(values)) < share), None, pa.array(values))


def picture(spark: SparkSession, folder: Path) -> Figure:
    """The ROC and precision-recall curves, and the scores of both kinds."""
    from matplotlib.figure import Figure
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    rows = spark.read.parquet(str(folder / "scored")).selectExpr("fraud", "probability[1] score").toPandas()
    fraud, scores = rows["fraud"].to_numpy(bool), rows["score"].to_numpy(float)
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    false, true, _ = roc_curve(fraud, scores)
    left.plot(false, true, label=f"area {roc_auc_score(fraud, scores):.3f}")
    left.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle="--")
    left.set_xlabel("good transactions stopped")
    left.set_ylabel("frauds found")
    left.legend(loc="lower right")
    precision, recall, _ = precision_recall_curve(fraud, scores)
    middle.plot(recall, precision, label=f"average precision {average_precision_score(fraud, scores):.3f}")
    middle.axhline(fraud.mean(), color="gray", linewidth=0.8, linestyle="--", label=f"by chance {fraud.mean():.3f}")
    middle.set_xlabel("frauds found")
    middle.set_ylabel("frauds among the stopped")
    middle.legend(loc="lower left", bbox_to_anchor=(0, 0.1))
    right.hist([scores[~fraud], scores[fraud]], bins=np.linspace(0, 1, 31), label=["good", "fraud"], histtype="step")
    right.set_xlabel("probability of fraud")
    right.set_ylabel("held-out transactions")
    right.set_yscale("log")
    right.legend()
    return figure
