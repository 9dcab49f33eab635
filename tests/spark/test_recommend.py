"""Recommender: from interactions to ranked items, in a batch and on a stream."""

import pytest
from pyspark.sql import Row

from sparkdl import Recommender

TOPICS = ("art", "law", "tax")
ITEMS = [f"{topic}{i}" for topic in TOPICS for i in range(4)]


def interactions():
    """Each user likes one topic, and took all of it but one item; all took ``law0``, which is popular."""
    rows = []
    for number in range(60):
        topic = TOPICS[number % 3]
        taken = {f"{topic}{i}" for i in range(4) if i != 1 + number // 3 % 3} | {"law0"}
        rows += [Row(user=f"u{number}", item=item, topic=item[:3], age=number % 3, stars=5.0 if item[:3] == topic else 2.0)
                 for item in sorted(taken)]  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def taken(spark):
    return spark.createDataFrame(interactions()).repartition(2).cache()


@pytest.fixture(scope="module")
def users(taken):
    """With what they took, and the item of their topic that they did not."""
    return taken.groupBy("user").agg({"item": "collect_set"}).selectExpr(
        "user", "`collect_set(item)` AS seen",
        "concat(element_at(array('art', 'law', 'tax'), 1 + int(substr(user, 2)) % 3), 1 + int(int(substr(user, 2)) / 3) % 3) AS next",
    ).cache()  # fmt: skip


def recommender(**params):
    told = {
        "itemFeatures": ["topic"],
        "seenCol": "seen",
        "k": 3,
        "epochs": 40,
        "batchSize": 64,
        "numProc": 2,
        "verbose": False,
    }
    return Recommender(**{**told, **params})


@pytest.fixture(scope="module")
def model(taken):
    return recommender().fit(taken)


def test_each_user_gets_what_suits_and_nothing_seen(model, users):
    scored = model.transform(users)
    assert dict(scored.dtypes)["prediction"] == "array<struct<item:string,score:float>>"
    rows = scored.collect()
    for row in rows:
        items, scores = [one.item for one in row.prediction], [one.score for one in row.prediction]
        assert len(items) == 3
        assert not set(items) & set(row.seen)
        assert scores == sorted(scores, reverse=True)
    assert sum(row.prediction[0].item == row.next for row in rows) >= 55
