"""Preprocessors and decoders through a fit, a bundle, transform and evaluate."""

from decimal import Decimal

import pytest
import torch
from pyspark.sql import Row
from pyspark.sql import functions as sf

from sparkdl import Bundle, Signature, TensorSpec, TorchEstimator, TorchModel
from sparkdl.decode.labels import LabelDecoder
from sparkdl.decode.sequences import ForecastDecoder
from sparkdl.errors import ColumnNotFoundError, DataError, InvalidParamError, SignatureError
from sparkdl.evaluate import evaluate
from sparkdl.preprocess import Categories, DateParts, Labels, Numbers


@pytest.fixture(scope="module")
def flowers(spark):
    """Two features; the label is a text that they tell."""
    rows = []
    for i in range(120):
        kind = ("iris", "rose", "tulip")[i % 3]
        rows.append(Row(id=i, x=float(i % 3) + (i % 7) / 100, y=float(-(i % 3)) + (i % 5) / 100, kind=kind))
    return spark.createDataFrame(rows).repartition(2)


def estimator(**more):
    return TorchEstimator(
        model=lambda: torch.nn.Linear(2, 3), inputCols=["x", "y"], labelCol="kind", task="multiclass",
        preprocess={"kind": Labels()}, decoder=LabelDecoder(values=("iris", "rose", "tulip")),
        epochs=30, learningRate=0.1, batchSize=16, numProc=2, verbose=False, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(flowers):
    return estimator().fit(flowers)


def test_labels_of_text_are_learnt_and_predicted(model, flowers):
    scored = model.transform(flowers)
    assert dict(scored.dtypes)["prediction"] == "string"
    assert scored.where("prediction = kind").count() == 120
    assert evaluate(model, flowers, "kind").figures["accuracy"] == 1.0


def test_the_decoder_is_in_the_bundle(model, flowers, tmp_path):
    model.save(str(tmp_path / "model"))
    again = TorchModel.load(str(tmp_path / "model"))
    assert again.signature == model.signature
    assert again.transform(flowers).where("prediction = kind").count() == 120
    assert Bundle.load(str(tmp_path / "model" / "bundle")).signature.decoder == model.signature.decoder


def test_the_label_that_nobody_knows_is_told_with_its_row(flowers):
    bad = estimator().setParams(preprocess={"kind": {"kind": "labels", "values": ["iris", "rose", "lily"]}})
    with pytest.raises(DataError, match=r"'kind'.*expected one of the 3 labels 'iris', 'rose', 'lily', got 'tulip'"):
        bad.fit(flowers)


@pytest.mark.parametrize(
    ("preprocess", "error", "message"),
    [
        ({"kind": {"kind": "label"}}, InvalidParamError, "did you mean 'labels'"),
        ({"kind": 3}, InvalidParamError, "must have a 'kind'"),
        ([Labels()], InvalidParamError, "a dictionary from columns"),
        ({"sort": Labels()}, ColumnNotFoundError, "sort"),
        ({"x": Labels()}, DataError, "'x' holds numbers that are not whole"),
        ({("x", "y"): Labels()}, SignatureError, "Labels takes 1 column "),
        ({"kind": Labels(values=(1, 2))}, SignatureError, "column 'kind' is string, and the labels are no texts"),
    ],
)
def test_what_does_not_fit_is_refused(flowers, preprocess, error, message):
    with pytest.raises(error, match=message):
        estimator().setParams(preprocess=preprocess).fit(flowers)


def test_labels_of_decimals_are_whole_numbers(spark):
    rows = spark.createDataFrame([(Decimal(one),) for one in ("2", "0", "1", "2")], "kind decimal(5, 2)")
    learnt = Labels().fit(rows, ["kind"])
    assert learnt.values == (0, 1, 2)
    assert all(type(value) is int for value in learnt.values)
    with pytest.raises(DataError, match=r"not whole, 2\.50 say"):
        Labels().fit(spark.createDataFrame([(Decimal("2.5"),)], "kind decimal(5, 2)"), ["kind"])


def test_labels_that_the_model_does_not_know_are_told_as_such(model, flowers):
    with pytest.raises(
        DataError, match="120 of 120 rows have no label that the model knows in the label column 'kind'"
    ):
        evaluate(model, flowers.withColumn("kind", sf.lit("lily")), "kind")


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        ("array(1, 2)", DataError, "a label has 2 steps, and the forecast has 3"),
        ("1", SignatureError, "an array of its steps, and the label is int"),
    ],
)
def test_a_forecast_is_judged_by_as_many_steps(spark, label, error, message):
    scored = spark.sql(f"SELECT {label} AS `the label`, array(1.0, 2.0, 3.0) AS `it's`")
    with pytest.raises(error, match=message):
        ForecastDecoder(mean=0, deviation=1).evaluate(scored, "the label", "it's")


def test_names_of_columns_are_quoted(spark):
    scored = spark.sql("SELECT array(1, 2, NULL) AS `the label`, array(1.0, 2.0, 3.0) AS `it's`")
    assert ForecastDecoder(mean=0, deviation=1).evaluate(scored, "the label", "it's")["rmse"] == 0


def test_labels_that_are_not_the_models_classes_are_refused(flowers):
    with pytest.raises(SignatureError, match="there are 2 labels, and the model tells 3 classes apart"):
        estimator().setParams(decoder=LabelDecoder(values=("iris", "rose"))).fit(flowers)


def test_a_setting_that_is_not_there_is_named():
    with pytest.raises(InvalidParamError, match=r"'value' of Labels.*did you mean 'values'"):
        Labels(value=("a",))


BIG = 2**53


class Together(torch.nn.Module):
    """What it is given, as it is: an id and the hour."""

    def forward(self, key, at, plain):
        return {"id": key.sum(dim=1), "hour": at.sum(dim=1), "same": plain + 0}


@pytest.fixture(scope="module")
def keyed():
    """A vocabulary of two ids that float64 does not tell apart; the hour of a timestamp; a bigint as it is."""
    ids, hour = Categories(vocabularies=((str(BIG), str(BIG + 1)),)), DateParts(parts=("hour",), cyclic=False)
    specs = (
        TensorSpec("key", "int64", (1,), ("key",), ("long",), preprocess=ids),
        TensorSpec("at", "float32", (1,), ("at",), ("timestamp",), preprocess=hour),
        TensorSpec("plain", "int64", (), ("plain",), ("long",)),
    )
    return Bundle.from_module(Together(), Signature(specs))


@pytest.mark.parametrize("udf_type", ["auto", "pandas"])
def test_an_id_and_a_time_are_exact_beside_a_null(spark, keyed, udf_type):
    zone = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    try:
        rows = [(BIG, BIG + 1), (BIG + 1, BIG), (None, BIG + 1), (BIG + 1, None)]
        df = spark.createDataFrame(rows, "key long, plain long").coalesce(1)
        df = df.selectExpr("key", "plain", "timestamp'2024-05-01 06:00:00 UTC' AS at")
        model = TorchModel(keyed).setParams(udfType=udf_type, handleInvalid="keep")
        made = model.transform(df).select("id", "hour", "same").collect()
        assert [row.id for row in made] == [1, 2, 0, None]
        assert [row.same for row in made] == [BIG + 1, BIG, BIG + 1, None]
        (hour,) = {row.hour for row in made[:3]}
        assert hour == 6 / 24
        (one,) = df.limit(1).select(model.udf(spark)("key", "at", "plain").alias("made")).collect()
        assert one.made.hour == 6 / 24  # not 15 o'clock, as it is in Tokyo
        with pytest.raises(
            InvalidParamError, match=r"timestamps of \['at'\] in the session's time zone.*use transform"
        ):
            model.register(spark, "score")
        clock = df.withColumn("at", df.at.cast("timestamp_ntz"))
        with pytest.raises(SignatureError, match="column 'at' is timestamp_ntz; the model takes timestamp"):
            model.transform(clock)
    finally:
        spark.conf.set("spark.sql.session.timeZone", zone)


def test_tensors_of_preprocessors_are_not_stacked(flowers):
    given = estimator().setParams(preprocess={"x": Numbers(), "y": Numbers(), "kind": Labels()})
    with pytest.raises(SignatureError, match=r"'preprocess' makes 2 tensors, \['x', 'y'\]: let one preprocessor read"):
        given.fit(flowers)
