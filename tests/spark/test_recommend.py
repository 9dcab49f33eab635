"""Recommender: from interactions to ranked items, in a batch and on a stream."""

import math

import pytest
from pyspark.sql import Row
from pyspark.sql import functions as sf

from sparkdl import Recommender, TorchModel
from sparkdl.errors import (
    ColumnNotFoundError,
    DataError,
    EmptyDatasetError,
    InvalidParamError,
    SignatureError,
)
from sparkdl.evaluate import evaluate

pytestmark = pytest.mark.lane("latest")

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


def test_figures_are_those_of_the_formulas(model, users):
    found = [([one.item for one in row.prediction], row.next) for row in model.transform(users).collect()]
    places = [1 + items.index(truth) if truth in items else None for items, truth in found]
    evaluation = evaluate(model, users, "next")
    assert evaluation.figures == {
        "recall_at_10": pytest.approx(sum(place is not None for place in places) / 60),
        "ndcg_at_10": pytest.approx(sum(1 / math.log2(1 + place) for place in places if place) / 60),
    }
    assert evaluation.figures["recall_at_10"] > 0.9


def test_several_items_that_count(model, users):
    first, second = (sf.col("prediction")[place]["item"] for place in (0, 1))
    told = model.transform(users).select("user", "seen", sf.array(first, second, sf.lit("nothing known")).alias("next"))
    figures = evaluate(model, told, "next").figures
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert figures["recall_at_10"] == pytest.approx(2 / 3)
    assert figures["ndcg_at_10"] == pytest.approx((1 + 1 / math.log2(3)) / ideal)


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        ("1", SignatureError, "the label is int, and the items are string"),
        ("filter(array(next), one -> false)", DataError, "60 rows have an empty array as their label"),
        ("CAST(NULL AS STRING)", DataError, "60 of 60 rows"),
    ],
)
def test_labels_that_say_nothing_are_refused(model, users, label, error, message):
    with pytest.raises(error, match=message):
        evaluate(model, users.selectExpr("user", "seen", f"{label} AS next"), "next")


def test_who_is_not_known_gets_what_is_popular(model, spark):
    rows = spark.createDataFrame([("who?", []), (None, None), ("who?", ["law0"])], "user string, seen array<string>")
    unknown, none, had = model.transform(rows).collect()
    assert unknown.prediction[0].item == "law0"
    assert [one.item for one in none.prediction] == [one.item for one in unknown.prediction]
    assert [one.item for one in had.prediction[:2]] == [one.item for one in unknown.prediction[1:]]


def test_who_had_everything_gets_nothing(model, spark):
    rows = spark.createDataFrame(
        [("u0", ITEMS), ("u0", ITEMS[1:]), ("u0", ["law0", "gone"])], "user string, seen array<string>"
    )
    none, one, most = (row.prediction for row in model.transform(rows).collect())
    assert none == []
    assert [found.item for found in one] == [ITEMS[0]]
    assert len(most) == 3


def test_it_is_saved_and_streams(model, users, spark, tmp_path):
    model.save(str(tmp_path / "model"))
    again = TorchModel.load(str(tmp_path / "model"))
    expected = {row.user: row.prediction for row in model.transform(users).collect()}
    users.select("user", "seen").write.parquet(str(tmp_path / "users"))
    stream = spark.readStream.schema("user string, seen array<string>").parquet(str(tmp_path / "users"))
    query = (
        again.transform(stream).writeStream.format("memory").queryName("recommended").trigger(availableNow=True).start()
    )
    assert query.awaitTermination(60)
    assert {row.user: row.prediction for row in spark.table("recommended").collect()} == expected


def test_pairs_are_scored_and_a_strange_item_is_a_bad_row(taken, spark):
    strange = taken.where("topic = 'art'").selectExpr("user", "replace(item, 'art', 'tax') AS item", "0.0 AS weight")
    weighted = taken.selectExpr("user", "item", "1.0 AS weight").union(strange)  # what weighs nothing is not learnt
    pairs = recommender(pairs=True, weightCol="weight", itemFeatures=[], epochs=20).fit(weighted)
    names = ("art2", "tax2", "zoo1", None)
    rows = spark.createDataFrame([("u0", item) for item in names], "user string, item string")
    suits, other, strange, none = pairs.setParams(handleInvalid="keep", errorCol="why").transform(rows).collect()
    assert suits.prediction > other.prediction + 0.5
    assert (strange.prediction, none.prediction) == (None, None)
    assert strange.why.startswith("value: column 'item': expected one of the 12 labels")
    with pytest.raises(InvalidParamError, match="has no task"):
        evaluate(pairs, taken, "item")


def test_ratings_are_predicted(taken, spark):
    estimator = recommender(ratingCol="stars", pairs=True, epochs=30, userFeatures=["age"])
    assert estimator.getLabelCol() == "stars"
    model = estimator.fit(taken)
    assert model.signature.columns == ("user", "age", "item")
    assert evaluate(model, taken, "stars").figures["rmse"] < 0.5
    stranger = spark.createDataFrame([("who?", -1, item) for item in ITEMS], "user string, age long, item string")
    (rating,) = model.transform(stranger).selectExpr("avg(prediction)").first()
    (mean,) = taken.selectExpr("avg(stars)").first()
    assert rating == pytest.approx(mean, abs=1.0)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"userCol": "who"}, ColumnNotFoundError, "who"),
        ({"itemCol": "what"}, ColumnNotFoundError, "what"),
        ({"itemFeatures": ["colour"]}, ColumnNotFoundError, "colour"),
        ({"ratingCol": "topic"}, SignatureError, "topic"),
        ({"ratingCol": "points"}, ColumnNotFoundError, "points"),
        ({"itemCol": "stars", "ratingCol": "never"}, EmptyDatasetError, "never"),
    ],
)
def test_columns_that_do_not_fit_are_refused(taken, params, error, message):
    with pytest.raises(error, match=message):
        recommender(**params).fit(taken.withColumn("never", sf.lit(None).cast("double")))


def test_an_empty_table_is_refused(taken):
    with pytest.raises(EmptyDatasetError):
        recommender().fit(taken.limit(0))


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"k": 0}, "k"),
        ({"embeddingSize": 0}, "embeddingSize"),
        ({"anybodyFraction": 1.0}, "anybodyFraction"),
        ({"userCol": ""}, "userCol"),
        ({"pairs": "yes"}, "pairs"),
        ({"itemFeatures": [3]}, "itemFeatures"),
        ({"itemcol": "x"}, "did you mean 'itemCol'"),
    ],
)
def test_bad_params_are_refused(params, name):
    with pytest.raises(InvalidParamError, match=name):
        Recommender(**params)


@pytest.mark.parametrize(
    ("params", "label"),
    [({"itemCol": "course"}, "course"), ({"ratingCol": "stars"}, "item"), ({"labelCol": "next"}, "next")],
)
def test_what_it_is_judged_by(params, label):
    assert Recommender(**params).getLabelCol() == label
