"""TorchModel.transform: an ordinary, lazy Transformer whose outputs are the module's own, on tables and streams."""

from __future__ import annotations

import collections
import os

import pyspark
import pytest
import torch
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import (
    BinaryClassificationEvaluator,
    MulticlassClassificationEvaluator,
    RegressionEvaluator,
)
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.functions import array_to_vector
from pyspark.sql.functions import expr
from torch import nn

from sparkdl import Bundle, Signature, SparkdlError, TensorSpec, TorchEstimator, TorchModel

FEATURES = TensorSpec("features", "float32", (4,), ("features",), ("array<float>",))


def net(outputs: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, outputs))


@pytest.fixture(scope="module")
def bundles():
    """A bundle a task, on ``features``."""
    return {
        task: Bundle.from_module(net(outputs), Signature((FEATURES,)), task=task)
        for task, outputs in (("regression", 1), ("binary", 1), ("multiclass", 3), (None, 2))
    }


def in_torch(task, features):
    """What the task says the module's outputs mean, written out."""
    outputs = net({"multiclass": 3, None: 2}.get(task, 1))(torch.tensor(features)).detach()
    if task == "multiclass":
        return outputs.argmax(1).tolist(), outputs.softmax(1).tolist()
    if task == "binary":
        positive = outputs.squeeze(1).sigmoid()
        return (positive > 0.5).float().tolist(), torch.stack([1 - positive, positive], 1).tolist()
    return (outputs.squeeze(1) if task else outputs).tolist(), None


@pytest.fixture
def arrow_batches(spark):
    """Sets the rows to an Arrow batch."""
    name = "spark.sql.execution.arrow.maxRecordsPerBatch"
    usual = spark.conf.get(name)
    yield lambda rows: spark.conf.set(name, str(rows))
    spark.conf.set(name, usual)


# What comes out


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass", None])
def test_outputs_are_the_module_s_own(points, bundles, task):
    rows = TorchModel(bundles[task]).transform(points).orderBy("id").collect()
    assert [row.id for row in rows] == list(range(400))
    predictions, probabilities = in_torch(task, [row.features for row in rows])
    for i, row in enumerate(rows):
        assert row.prediction == pytest.approx(predictions[i], abs=1e-6)
        assert probabilities is None or row.probability == pytest.approx(probabilities[i], abs=1e-6)
    assert ("probability" in rows[0]) == (probabilities is not None)
    assert task is None or len({row.prediction for row in rows}) > 1


@pytest.mark.parametrize(("partitions", "batch"), [(1, 1), (2, 7), (9, 7), (9, 10_000)])
def test_the_split_into_partitions_and_batches_changes_nothing(spark, bundles, arrow_batches, partitions, batch):
    """40 rows; the repartitioning by one value leaves all partitions but one empty."""
    arrow_batches(batch)
    columns = "id", "transform(array(3d, 5d, 7d, 11d), f -> cast(sin(id * f) as float)) as features"
    model = TorchModel(bundles["binary"]).setBatchSize(3)
    for df in (spark.range(0, 40, 1, partitions), spark.range(0, 40, 1, 1).repartition(partitions, expr("id * 0"))):
        rows = model.transform(df.selectExpr(*columns)).collect()
        assert sorted(row.id for row in rows) == list(range(40))
        predictions, probabilities = in_torch("binary", [row.features for row in rows])
        assert [row.prediction for row in rows] == predictions
        assert torch.allclose(torch.tensor([row.probability for row in rows]), torch.tensor(probabilities), atol=1e-6)


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_one_row(points, bundles, rows):
    out = TorchModel(bundles["multiclass"]).transform(points.where(f"id < {rows}"))
    assert out.count() == rows
    assert len(out.collect()) == rows
    assert out.dtypes[-2:] == [("prediction", "double"), ("probability", "array<float>")]


def test_other_columns_pass_through_untouched(spark, bundles):
    """Every type, any name, their order; also two columns of one name, as a join makes them."""
    df = spark.range(0, 20, 1, 3).selectExpr(
        "map('k', id, 'l', id + 1) as `a.map`",
        "transform(array(3d, 5d, 7d, 11d), f -> cast(sin(id * f) as float)) as features",
        "named_struct('x', id, 'y', array(cast(id as string))) as `a struct`",
        "timestamp_seconds(id) as `zeit ⏰`",
        "cast(id / 7 as decimal(20, 9)) as `back``tick`",
        "if(id % 2 = 0, null, 'text') as maybe",
        "date_add(date'2024-02-28', cast(id as int)) as day",
        "unhex(hex(id)) as raw",
        "id as twice",
        "-id as twice",
    )
    out = TorchModel(bundles["multiclass"]).transform(df)
    assert out.columns == [*df.columns, "prediction", "probability"]
    assert out.dtypes[:-2] == df.dtypes
    before, after = df.collect(), out.collect()
    assert [tuple(row)[:-2] for row in after] == [tuple(row) for row in before]


def test_a_signature_s_odd_column_names(spark):
    names = ("a.b", "c d", "e`f", "gé")
    spec = TensorSpec("x", "float64", (4,), names, ("long", "double", "integer", "float"))
    module = nn.Linear(4, 1).double()
    df = spark.range(5).selectExpr(
        "id as `a.b`", "double(id) / 2 as `c d`", "int(id) * 3 as `e``f`", "float(1) as `gé`", "id as a"
    )
    rows = TorchModel(Bundle.from_module(module, Signature((spec,)), task="regression")).transform(df).collect()
    for row in rows:
        assert row.prediction == pytest.approx(module(torch.tensor([row[n] for n in names]).double()).item(), abs=1e-12)


@pytest.mark.parametrize("kind", ["array<double>", "vector", "array<decimal>"])
def test_numbers_of_another_kind_are_converted(points, bundles, kind):
    expected = {row.id: row.prediction for row in TorchModel(bundles["regression"]).transform(points).collect()}
    df = points.selectExpr(
        "id", "cast(features as array<double>) features", "cast(features as array<decimal(30,15)>) d"
    )
    if kind == "vector":
        df = df.withColumn("features", array_to_vector("features"))
    elif kind == "array<decimal>":
        df = df.drop("features").withColumnRenamed("d", "features")
    for row in TorchModel(bundles["regression"]).transform(df).collect():
        assert row.prediction == pytest.approx(expected[row.id], abs=1e-6)


def test_probability_as_vector_and_the_evaluators_of_pyspark(points, bundles):
    binary = TorchModel(bundles["binary"]).setParams(probabilityAsVector=True, probabilityCol="p").transform(points)
    assert dict(binary.dtypes)["p"] == "vector"
    rows = binary.select("side", "prediction", "p").collect()
    by_hand = sum(row.side == row.prediction for row in rows) / len(rows)
    metric = MulticlassClassificationEvaluator(labelCol="side", metricName="accuracy")
    assert metric.evaluate(binary) == pytest.approx(by_hand)
    ranks = BinaryClassificationEvaluator(labelCol="side", rawPredictionCol="p", numBins=0).evaluate(binary)
    good, bad = ([row.p[1] for row in rows if row.side == side] for side in (1, 0))
    by_hand = sum((g > b) + (g == b) / 2 for g in good for b in bad) / (len(good) * len(bad))
    assert ranks == pytest.approx(by_hand, abs=1e-3)
    regression = TorchModel(bundles["regression"]).transform(points)
    rows = regression.collect()
    by_hand = sum((row.target - row.prediction) ** 2 for row in rows) / len(rows)
    evaluator = RegressionEvaluator(labelCol="target", metricName="mse")
    assert evaluator.evaluate(regression) == pytest.approx(by_hand)


def test_outputs_can_be_renamed_or_left_out(points, bundles):
    model = TorchModel(bundles["multiclass"])
    assert model.setParams(predictionCol="klass", probabilityCol="").transform(points).columns == [
        *points.columns,
        "klass",
    ]
    assert model.getPredictionCol() == "klass"
    assert model.copy({model.predictionCol: "other"}).transform(points).columns[-1] == "other"
    assert model.transform(points, {model.probabilityCol: "p"}).columns[-2:] == ["klass", "p"]


# How it runs


def test_transform_is_lazy(spark, bundles, jobs):
    df = spark.range(5).selectExpr("array(float(raise_error('evaluated')), 0f, 0f, 0f) as features")
    out = TorchModel(bundles["multiclass"]).transform(df).where("prediction > 0")
    assert out.columns == ["features", "prediction", "probability"]
    assert jobs() == 0
    with pytest.raises(Exception, match="evaluated"):
        out.collect()
    assert jobs() == 1


def test_the_model_runs_once_a_row_however_the_outputs_are_used(points, bundles):
    def plan(df):
        return df._jdf.queryExecution().executedPlan().toString()

    out = TorchModel(bundles["multiclass"]).transform(points)
    used = out.selectExpr("prediction + probability[0] as x", "probability", "prediction as y", "size(probability) n")
    filtered = out.where("prediction > 0 and probability[0] > 0.5 and id < 5")
    assert [plan(df).count("EvalPython") for df in (out, used, filtered)] == [1, 1, 1]
    scoring = plan(filtered).index("EvalPython")
    assert "(id" in plan(filtered)[scoring:], "rows are left out by other columns before they are scored"
    assert filtered.count() == sum(row.prediction > 0 and row.probability[0] > 0.5 for row in out.take(5))


class Logged(nn.Module):
    """Writes the process' number to a file each time it is unpickled; not exportable, so that it is pickled."""

    def __init__(self, log):
        super().__init__()
        self.inner, self.log = nn.Linear(4, 1), log

    def __setstate__(self, state):
        self.__dict__.update(state)
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()}\n")

    def forward(self, x):
        return self.inner(x) if x.sum() > -1e9 else x[:, :1]


def test_a_worker_loads_a_model_once(points, tmp_path):
    log = tmp_path / "loads"
    bundle = Bundle.from_module(Logged(str(log)), Signature((FEATURES,)), task="regression", trusted=True)
    log.write_text("")
    for _ in range(2):
        model = TorchModel(bundle)
        for df in (points, points.repartition(5)):
            assert len(model.transform(df).collect()) == 400
    loads = collections.Counter(log.read_text().split())
    assert loads, "the workers unpickled it"
    assert str(os.getpid()) not in loads
    assert set(loads.values()) == {1}
    assert len(loads) <= 2, "one worker process a slot"


def test_two_models_in_one_query_take_turns_a_task_not_a_batch(spark, tmp_path, arrow_batches):
    arrow_batches(2)
    df = spark.range(0, 60, 1, 3).selectExpr("array(1f, 2f, 3f, 4f) as features")
    for name in ("first", "second"):
        bundle = Bundle.from_module(
            Logged(str(tmp_path / name)), Signature((FEATURES,)), task="regression", trusted=True
        )
        (tmp_path / name).write_text("")
        df = TorchModel(bundle).setPredictionCol(name).transform(df)
    df.collect()
    for name in ("first", "second"):
        assert 1 <= len((tmp_path / name).read_text().split()) <= 3, "once a task"


def test_two_models_in_one_query_do_not_mix(points, bundles):
    first = TorchModel(bundles["binary"]).setParams(predictionCol="b", probabilityCol="pb")
    second = TorchModel(bundles["multiclass"]).setParams(predictionCol="m", probabilityCol="pm")
    rows = second.transform(first.transform(points)).collect()
    features = [row.features for row in rows]
    assert [row.b for row in rows] == in_torch("binary", features)[0]
    assert [row.m for row in rows] == in_torch("multiclass", features)[0]


def test_a_stream_gives_the_same_predictions(spark, points, bundles, tmp_path):
    model = TorchModel(bundles["multiclass"])
    table, out = str(tmp_path / "table"), str(tmp_path / "out")
    points.repartition(3).write.parquet(table)
    expected = {row.id: (row.prediction, row.probability) for row in model.transform(points).collect()}
    stream = spark.readStream.schema(points.schema).option("maxFilesPerTrigger", 1).parquet(table)
    scored = model.transform(stream)
    assert scored.isStreaming
    query = (
        scored.writeStream.trigger(availableNow=True)
        .option("checkpointLocation", str(tmp_path / "checkpoint"))
        .start(out, format="parquet")
    )
    try:
        assert query.awaitTermination(120)
        assert len(query.recentProgress) >= 3, "a micro-batch a file"
    finally:
        query.stop()
    got = {row.id: (row.prediction, row.probability) for row in spark.read.parquet(out).collect()}
    assert got.keys() == expected.keys()
    for key, (prediction, probability) in expected.items():
        assert got[key][0] == prediction
        assert got[key][1] == pytest.approx(probability, abs=1e-6)


# Bad rows

DIRTY = [[1.0, 2.0, 3.0, 4.0], None, [1.0], [0.0, None, 0.0, 0.0], [4.0, 3.0, 2.0, 1.0], [float("nan")] * 4]
REASONS = {1: "null", 2: "shape", 3: "null", 5: "non-finite"}


@pytest.fixture(scope="module")
def dirty(spark):
    return spark.createDataFrame(list(enumerate(DIRTY)), "id int, features array<float>").coalesce(1)


@pytest.mark.parametrize("udf_type", ["auto", "pandas"])
@pytest.mark.parametrize("task", ["binary", None])
def test_bad_rows_are_kept_with_a_reason_or_skipped(dirty, bundles, task, udf_type):
    model = TorchModel(bundles[task]).setParams(udfType=udf_type, handleInvalid="keep", errorCol="why")
    kept = model.transform(dirty)
    assert kept.columns[-1] == "why"
    rows = kept.orderBy("id").collect()
    by_pandas = udf_type == "pandas" or pyspark.__version__ < "4.1"  # which makes NaN of a null inside an array
    reasons = REASONS | ({3: "non-finite"} if by_pandas else {})
    assert {row.id: row.why.split(":")[0] for row in rows if row.why} == reasons
    expected = in_torch(task, [DIRTY[0], DIRTY[4]])[0]
    assert [row.prediction is None for row in rows] == [row.id in REASONS for row in rows]
    assert torch.allclose(torch.tensor([rows[i].prediction for i in (0, 4)]), torch.tensor(expected), atol=1e-6)
    skipped = model.setHandleInvalid("skip").transform(dirty)
    assert skipped.columns == kept.columns[:-1]
    assert [row.id for row in skipped.collect()] == [0, 4]
    assert (
        skipped.where("prediction is not null")._jdf.queryExecution().executedPlan().toString().count("EvalPython") == 1
    )


def test_bad_rows_beside_vectors_and_in_a_batch_of_their_own(spark, dirty, bundles):
    model = TorchModel(bundles["binary"]).setParams(handleInvalid="keep", probabilityAsVector=True)
    rows = model.transform(dirty).orderBy("id").collect()
    assert [row.probability is None for row in rows] == [row.id in REASONS for row in rows]
    assert rows[0].probability.size == 2
    nothing = spark.createDataFrame([(0, None)], "id int, features array<float>")
    for udf_type in ("auto", "pandas"):
        model = TorchModel(bundles["regression"]).setParams(handleInvalid="skip", udfType=udf_type)
        assert model.transform(nothing).count() == 0


def test_outputs_of_odd_names(spark):
    class Named(nn.Module):
        def forward(self, x):
            return {"a`b": x, "c.d é": x + 1, "error": x + 2}

    bundle = Bundle.from_module(Named(), Signature((TensorSpec("x", "float32", (), ("x",), ("float",)),)))
    df = spark.sql("select 1f as x")
    assert tuple(TorchModel(bundle).transform(df).head()) == (1.0, 1.0, 2.0, 3.0)
    kept = TorchModel(bundle).setParams(handleInvalid="keep", errorCol="why")
    assert kept.transform(df).columns == ["x", "a`b", "c.d é", "error", "why"]
    with pytest.raises(SparkdlError, match=r"output 'error' would be column 'error', .*; drop it, or give it another"):
        kept.transform(df.selectExpr("x", "x as ERROR"))


def test_a_bad_row_ends_the_job_by_default_and_is_named(dirty, bundles):
    with pytest.raises(Exception, match=r"column 'features', row 1: expected float32\[4\], got None"):
        TorchModel(bundles["binary"]).transform(dirty).collect()


def test_integers_and_arrays_of_bad_rows_are_null(spark):
    class Parts(nn.Module):
        def forward(self, x):
            return {"whole": x.long(), "flag": x > 1, "both": torch.stack([x, -x], 1)}

    bundle = Bundle.from_module(Parts(), Signature((TensorSpec("x", "float32", (), ("x",), ("float",)),)))
    df = spark.sql("select * from values (1, 1f), (2, null), (3, 3f) as t(id, x)")
    for udf_type in ("auto", "pandas"):
        model = TorchModel(bundle).setParams(handleInvalid="keep", udfType=udf_type)
        assert [tuple(row)[2:] for row in model.transform(df).orderBy("id").collect()] == [
            (1, False, [1.0, -1.0]), (None, None, None), (3, True, [3.0, -3.0]),
        ]  # fmt: skip


# As an expression


def test_a_model_in_an_expression_and_in_sql(spark, points, bundles):
    model = TorchModel(bundles["regression"])
    expected = {row.id: row.prediction for row in model.transform(points).collect()}
    score = model.udf()
    rows = points.select("id", (score("features") * 2).alias("twice"), score(points.features).alias("once")).collect()
    assert {row.id: row.once for row in rows} == expected
    assert all(row.twice == 2 * row.once for row in rows)
    points.createOrReplaceTempView("points")
    model.register(spark, "score")
    assert {row.id: row.p for row in spark.sql("SELECT id, score(features) AS p FROM points").collect()} == expected
    several = TorchModel(bundles["binary"])
    several.register(spark, "score_binary")
    got = spark.sql("SELECT id, score_binary(features) AS s FROM points").select("id", "s.*").collect()
    assert got == several.transform(points).select("id", "prediction", "probability").collect()


def test_an_expression_takes_vectors_and_keeps_bad_rows(dirty, points, bundles):
    vectors = points.select("id", array_to_vector(points.features.cast("array<double>")).alias("v"))
    spec = TensorSpec("features", "float32", (4,), ("v",), ("vector",))
    bundle = Bundle.from_module(net(1), Signature((spec,)), task="regression")
    got = [row.p for row in vectors.select(TorchModel(bundle).udf()("v").alias("p")).collect()]
    assert got == [row.prediction for row in TorchModel(bundle).transform(vectors).collect()]
    model = TorchModel(bundles["regression"]).setHandleInvalid("keep")
    rows = dirty.select("id", model.udf()("features").alias("p")).collect()
    assert {row.id for row in rows if row.p is None} == set(REASONS)


@pytest.mark.parametrize(
    ("params", "act", "says"),
    [
        ({"handleInvalid": "skip"}, lambda m, s: m.udf(), "an expression cannot leave out a row"),
        ({"handleInvalid": "skip"}, lambda m, s: m.register(s, "score"), "cannot leave out"),
        ({}, lambda m, s: m.register(s, "no name"), "'name' must be a function's name in SQL"),
        ({}, lambda m, s: m.udf()(), r"takes 1 columns, \['features'\] \(got 0\)"),
        ({}, lambda m, s: m.setHandleInvalid("ignore"), "'handleInvalid' must be one of"),
        ({}, lambda m, s: m.setDevice("gpu"), "'device' must be 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        ({}, lambda m, s: m.setPrecision("float8"), "'precision' must be one of"),
        ({}, lambda m, s: m.setUdfType("scala"), "'udfType' must be one of"),
        ({}, lambda m, s: m.setBatchSize(-1), "'batchSize' must be a whole number, at least 0"),
        ({"handleInvalid": "keep", "errorCol": "ID"}, lambda m, s: m.transform(s.range(1).selectExpr(
            "id", "array(1f, 2f, 3f, 4f) features")), "would be column 'ID', and there is 'id' already; set another name .errorCol."),
        ({"handleInvalid": "keep", "errorCol": "Prediction"}, lambda m, s: m.transform(s.range(1).selectExpr(
            "array(1f, 2f, 3f, 4f) features")), "would be column 'Prediction'"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_on_the_driver(spark, bundles, jobs, params, act, says):
    with pytest.raises(SparkdlError, match=says):
        act(TorchModel(bundles["regression"]).setParams(**params), spark)
    assert jobs() == 0


# Lengths that vary, image files


class Mean(nn.Module):
    """The mean of each row's values, told by the mask."""

    def forward(self, values, mask):
        return (values * mask).sum(dim=1) / mask.sum(dim=1)


def test_rows_of_any_length_are_padded_with_a_mask(spark):
    inputs = (
        TensorSpec("values", "float32", (-1,), ("values",), ("array<float>",)),
        TensorSpec("mask", "float32", (-1,), mask_of="values"),
    )
    model = TorchModel(Bundle.from_module(Mean(), Signature(inputs))).setBatchSize(8)
    df = spark.range(0, 100, 1, 3).selectExpr(
        "id", "transform(sequence(0, (id * 7) % 13), x -> cast(x as float)) as values"
    )
    for row in model.transform(df).collect():
        assert row.prediction == pytest.approx((row.id * 7 % 13) / 2), "the mean of 0, 1, … n is n / 2"


# Save and load


def test_saved_and_loaded_it_is_the_same_model(points, bundles, tmp_path):
    path = str(tmp_path / "model")
    model = TorchModel(bundles["multiclass"]).setParams(predictionCol="p", batchSize=7, probabilityAsVector=True)
    model.save(path)
    loaded = TorchModel.load(path)
    assert (loaded.uid, loaded.bundle.digest) == (model.uid, model.bundle.digest)
    assert {p.name: v for p, v in loaded.extractParamMap().items()} == {
        p.name: v for p, v in model.extractParamMap().items()
    }
    assert loaded.transform(points).collect() == model.transform(points).collect()


def test_a_pipeline_with_an_assembler_saved_and_loaded(spark, points, tmp_path):
    df = points.selectExpr("features[0] a", "features[1] b", "features[2] c", "side as label")
    stages = [
        VectorAssembler(inputCols=["a", "b", "c"], outputCol="features"),
        TorchEstimator(model=nn.Linear(3, 1), task="binary", numProc=2, epochs=5, batchSize=16, learningRate=0.05,
                       verbose=False),
    ]  # fmt: skip
    fitted = Pipeline(stages=stages).fit(df)
    before = fitted.transform(df)
    assert before.columns == [*df.columns, "features", "prediction", "probability"]
    accuracy = MulticlassClassificationEvaluator(metricName="accuracy").evaluate(before)
    assert accuracy > 0.85
    fitted.write().overwrite().save(str(tmp_path / "pipeline"))
    loaded = PipelineModel.load(str(tmp_path / "pipeline"))
    assert isinstance(loaded.stages[1], TorchModel)
    assert loaded.transform(df).collect() == before.collect()
