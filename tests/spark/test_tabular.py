"""TabularClassifier and TabularRegressor, what they learn, and pyspark.ml's feature stages before a model."""

import datetime as dt

import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.feature import StandardScaler, StringIndexer, VectorAssembler
from pyspark.sql import functions as sf
from torch import nn

from sparkdl import TabularClassifier, TabularRegressor, TorchEstimator, TorchModel
from sparkdl.errors import ColumnNotFoundError, DataError, EmptyDatasetError, InvalidParamError, SignatureError
from sparkdl.evaluate import evaluate
from sparkdl.preprocess import Categories, DateParts, Hashed, Numbers
from sparkdl.preprocess.learn import learn

QUIET = {"numProc": 1, "verbose": False}
ROWS = 240
COLUMNS = {
    "numericCols": ["amount"],
    "categoricalCols": ["country", "weekend"],
    "hashedCols": ["device"],
    "dateCols": ["at"],
    "hashed": {"buckets": 16},
}


@pytest.fixture(scope="module")
def payments(spark):
    """Bad ones are large, or from one country; some amounts are missing."""
    rows = []
    for i in range(ROWS):
        country = ("NO", "SE", "XX", "FI")[i % 4]
        amount = 900.0 if i % 5 == 0 else 5.0 + i % 7
        kind = "bad" if amount > 100 or country == "XX" else "good"
        at = dt.datetime(2024, 1 + i % 12, 1 + i % 28, i % 24)
        told = None if i % 11 == 7 else amount
        rows.append((i, told, country, f"device-{i % 50}", i % 2 == 0, at, kind, 1000.0 + amount))
    ddl = (
        "id long, amount double, country string, device string, weekend boolean, at timestamp, kind string, fee double"
    )
    return spark.createDataFrame(rows, ddl).repartition(2).cache()


@pytest.fixture(scope="module")
def model(payments):
    estimator = TabularClassifier(
        labelCol="kind", **COLUMNS, numbers={"log": True, "indicator": True}, hiddenSizes=[16], epochs=25, batchSize=32,
        learningRate=0.02, classWeight="balanced", **QUIET,
    )  # fmt: skip
    return estimator.fit(payments)


def test_a_row_is_classified_by_its_label(model, payments):
    figures = evaluate(model, payments, "kind").figures
    assert figures["auroc"] > 0.95, figures
    scored = model.transform(payments)
    assert dict(scored.dtypes)["prediction"] == "string"
    assert scored.where("prediction = kind").count() > 0.9 * ROWS


def test_a_saved_model_scores_the_same(model, payments, tmp_path):
    model.save(str(tmp_path / "model"))
    again = TorchModel.load(str(tmp_path / "model"))
    assert again.signature == model.signature
    assert again.bundle.program.kind == "export"
    assert again.transform(payments).exceptAll(model.transform(payments)).count() == 0


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_the_sessions_zone_changes_nothing(model, payments, spark, zone):
    expected = {row.id: row.probability for row in model.transform(payments).select("id", "probability").collect()}
    before = spark.conf.get("spark.sql.session.timeZone")
    try:
        spark.conf.set("spark.sql.session.timeZone", zone)
        for kind in ("auto", "pandas"):
            scored = model.copy({model.udfType: kind}).transform(payments).select("id", "probability").collect()
            assert {row.id: row.probability for row in scored} == expected
    finally:
        spark.conf.set("spark.sql.session.timeZone", before)


@pytest.fixture(scope="module")
def odd(payments, spark):
    """A good row, and what else arrives."""
    good = payments.where("id = 1").drop("kind", "fee")
    changed = [
        {},
        {"country": "'unseen'"},
        {"amount": "NULL", "country": "NULL", "device": "NULL", "at": "NULL", "weekend": "NULL"},
        {"amount": "double('NaN')"},
        {"amount": "double('infinity')"},
        {"at": "timestamp'0001-06-01 00:00:00'"},
        {"at": "timestamp'9999-06-01 00:00:00'"},
        {"amount": "9.3e18D", "device": "'\\u0000'"},
    ]
    frames = [
        good.select(*(sf.expr(row.get(name, name)).alias(name) for name in good.columns)).withColumn(
            "id", sf.lit(i).cast("long")
        )
        for i, row in enumerate(changed)
    ]
    made = frames[0]
    for frame in frames[1:]:
        made = made.unionByName(frame)
    return made.coalesce(1)


def test_bad_rows_are_kept_with_their_reasons(model, odd):
    kept = model.copy({model.handleInvalid: "keep", model.errorCol: "why"}).transform(odd)
    rows = {row.id: row for row in kept.select("id", "why", "prediction").collect()}
    why = {i: row.why for i, row in rows.items() if row.why is not None}
    assert why == {
        4: "non-finite: column 'amount': expected a finite number, got inf",
        5: "value: column 'at': expected a year from 1970 to 2100, got 1",
        6: "value: column 'at': expected a year from 1970 to 2100, got 9999",
    }
    assert [rows[i].prediction is None for i in range(8)] == [i in why for i in range(8)]
    assert model.copy({model.handleInvalid: "skip"}).transform(odd).count() == 5
    with pytest.raises(Exception, match=r"expected a finite number, got inf|expected a year from 1970"):
        model.transform(odd).select("prediction").collect()


def test_numbers_of_other_types_are_taken(model, payments):
    other = payments.withColumns(
        {"amount": sf.expr("cast(amount as decimal(20, 2))"), "weekend": sf.expr("weekend = true")}
    )
    assert other.count() == model.transform(other).where("prediction IS NOT NULL").count()
    with pytest.raises(SignatureError, match="column 'amount' is string; the model takes double"):
        model.transform(payments.withColumn("amount", sf.col("amount").cast("string")))


def test_the_columns_are_found_by_their_types(payments):
    estimator = TabularRegressor(labelCol="fee", weightCol="id")
    assert estimator._columns(payments.withColumn("bytes", sf.col("kind").cast("binary"))) == {
        "numericCols": ["amount"],
        "categoricalCols": ["country", "device", "weekend", "kind"],
        "hashedCols": [],
        "dateCols": ["at"],
    }
    assert estimator.copy({estimator.inputCols: ["at", "amount"]})._columns(payments)["numericCols"] == ["amount"]


def test_a_number_is_told_in_its_units(payments):
    rows = payments.where("amount IS NOT NULL")
    model = TabularRegressor(
        labelCol="fee",
        numericCols=["amount"],
        hiddenSizes=[8],
        dropout=0.0,
        epochs=20,
        batchSize=16,
        learningRate=0.02,
        **QUIET,
    ).fit(rows)
    figures = evaluate(model, rows, "fee").figures
    assert figures["r2"] > 0.99, figures
    assert model.history[0]["loss"] < 3.0  # in deviations of the label, which is in the thousands


def test_a_loss_that_was_set_is_the_one(payments):
    rows = payments.where("amount IS NOT NULL")
    estimator = TabularRegressor(
        labelCol="fee", numericCols=["amount"], loss="l1_loss", learningRate=1e-9, epochs=1, **QUIET
    )
    told = estimator.fit(rows).bundle.training
    (mean, deviation) = rows.selectExpr("avg(fee)", "stddev_pop(fee)").first()
    (off,) = rows.selectExpr(f"avg(abs(fee - {mean}))").first()
    assert told["history"][0]["loss"] == pytest.approx(off, abs=deviation)  # in the label's units
    settings = {"application": "TabularRegressor", "loss": "l1_loss", "numericCols": ["amount"], "dropout": 0.1}
    assert settings.items() <= told["settings"].items()


def test_all_is_learnt_in_one_pass(payments, spark):
    seen = spark.sparkContext.accumulator(0)

    def look(batches):
        for batch in batches:
            seen.add(len(batch))
            yield batch

    columns = ("amount", "country", "device", "at", "weekend")
    watched = payments.select(*columns).mapInArrow(look, payments.select(*columns).schema)
    made = learn(
        watched,
        {
            ("amount",): Numbers(clip=(0.1, 0.9)),
            ("country", "weekend"): Categories(),
            "device": Hashed(),
            "at": DateParts(),
            ("device", "country"): Categories(minCount=5, vocabSize=3),
        },
    )
    assert seen.value == ROWS
    assert made["country", "weekend"].vocabularies == (("FI", "NO", "SE", "XX"), ("false", "true"))
    assert made["device", "country"].vocabularies == (("device-0", "device-1", "device-10"), ("FI", "NO", "SE"))
    amounts = [row.amount for row in payments.select("amount").collect() if row.amount is not None]
    assert made["amount",].shifts[0] == pytest.approx(sum(amounts) / len(amounts), rel=1e-8)  # rounded by cells.steady
    assert made["amount",].highs[0] == pytest.approx(900, rel=1e-3)
    assert learn(payments, made) == made  # nothing more to learn


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"numericCols": ["amount", "kinds"]}, ColumnNotFoundError, "kinds"),
        ({"numericCols": ["country"]}, SignatureError, "column 'country' is string; Numbers takes long"),
        ({"categoricalCols": ["at"]}, SignatureError, "column 'at' is timestamp; Categories takes string"),
        ({"numericCols": ["amount"], "hashedCols": ["amount"]}, InvalidParamError, "'amount' is named twice"),
        ({"inputCols": ["amount", "bytes"]}, SignatureError, "column 'bytes' is binary; a column to learn from is of"),
        ({"inputCols": ["amount", "countri"]}, ColumnNotFoundError, "did you mean 'country'"),
        ({"inputCols": ["amount"], "numericCols": ["fee"]}, InvalidParamError, "'inputCols' does not go with"),
        ({"inputCols": ["amount", "kind"]}, InvalidParamError, "column 'kind' is the 'labelCol'"),
        ({"numericCols": ["fee", "id"], "weightCol": "id"}, InvalidParamError, "column 'id' is the 'weightCol'"),
        (
            {"categoricalCols": ["weekend"], "validationIndicatorCol": "weekend"},
            InvalidParamError,
            "is the 'validation",
        ),
        ({"task": "regression", "numericCols": ["fee"]}, InvalidParamError, "TabularClassifier sets 'task' itself"),
        ({"featuresCol": "fee", "numericCols": ["fee"]}, InvalidParamError, "sets 'featuresCol' itself"),
        ({"numericCols": ["nothing"]}, DataError, "column 'nothing' holds no number to learn from"),
        ({"labelCol": "same", "numericCols": ["fee"]}, DataError, "'same' holds one class only, 1"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(payments, params, error, message):
    odd = payments.selectExpr("*", "cast(kind as binary) bytes", "cast(null as double) nothing", "1 same")
    with pytest.raises(error, match=message):
        TabularClassifier(**{"labelCol": "kind", **QUIET, **params}).fit(odd)


def test_no_rows_are_refused(payments):
    with pytest.raises(EmptyDatasetError):
        TabularRegressor(labelCol="fee", **QUIET).fit(payments.where("id < 0"))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"hiddenSizes": [16, 0]}, "'hiddenSizes' must be a list of whole numbers above 0"),
        ({"dropout": 1}, "'dropout' must be"),
        ({"numbers": {"impute": "mode"}}, "'impute' of Numbers"),
        ({"categories": {"mincount": 2}}, "did you mean 'minCount'"),
        ({"hashed": 3}, "'hashed' must be a dictionary"),
        ({"classWeight": "even"}, "'classWeight' must be one of"),
        ({"numericCol": ["x"]}, "did you mean 'numericCols'"),
    ],
)
def test_a_bad_param_is_refused_when_it_is_set(params, message):
    with pytest.raises(InvalidParamError, match=message):
        TabularClassifier(**params)


def test_a_pipeline_of_spark_ml_is_one_model(payments, spark, tmp_path):
    """Spark's own stages before the model; saved, loaded, and on a stream."""
    stages = [
        StringIndexer(inputCol="country", outputCol="country_id", handleInvalid="keep"),
        StringIndexer(inputCol="kind", outputCol="label"),
        VectorAssembler(inputCols=["fee", "country_id"], outputCol="raw"),
        StandardScaler(inputCol="raw", outputCol="features", withMean=True),
        TorchEstimator(model=lambda: nn.Linear(2, 2), task="multiclass", epochs=2, batchSize=32, **QUIET),
    ]
    pipeline = Pipeline(stages=stages).fit(payments)
    pipeline.write().overwrite().save(str(tmp_path / "pipeline"))
    again = PipelineModel.load(str(tmp_path / "pipeline"))
    expected = {row.id: row.prediction for row in pipeline.transform(payments).collect()}
    assert len(expected) == ROWS
    payments.write.parquet(str(tmp_path / "arriving"))
    stream = again.transform(spark.readStream.schema(payments.schema).parquet(str(tmp_path / "arriving")))
    query = (
        stream.select("id", "prediction")
        .writeStream.format("memory")
        .queryName("tabular_scored")
        .trigger(availableNow=True)
        .start()
    )
    try:
        assert query.awaitTermination(120)
    finally:
        query.stop()
    assert {row.id: row.prediction for row in spark.table("tabular_scored").collect()} == expected


def test_a_ready_estimator_is_a_stage(payments, tmp_path):
    stages = [
        StringIndexer(inputCol="country", outputCol="country_id"),
        TabularClassifier(labelCol="kind", numericCols=["fee", "country_id"], hiddenSizes=[4], epochs=1, **QUIET),
    ]
    pipeline = Pipeline(stages=stages).fit(payments)
    pipeline.write().overwrite().save(str(tmp_path / "pipeline"))
    again = PipelineModel.load(str(tmp_path / "pipeline"))
    assert again.transform(payments).exceptAll(pipeline.transform(payments)).count() == 0
