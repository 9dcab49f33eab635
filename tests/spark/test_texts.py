"""TextClassifier and QuestionAnswering: fit, save, load, transform, evaluate; bad rows; bad Params."""

import pytest
from pyspark.ml import PipelineModel
from pyspark.sql import Row
from pyspark.sql import functions as sf

from sparkdl import QuestionAnswering, TextClassifier, TorchModel
from sparkdl.errors import ColumnNotFoundError, DataError, EmptyDatasetError, InvalidParamError, SignatureError
from sparkdl.evaluate import evaluate
from sparkdl.preprocess import Text

pytestmark = pytest.mark.lane("spark35")

CITIES = ["Ghent", "Lyon", "Porto", "Turin", "Malmo", "Kiel"]
NAMES = ["Ada", "Bruno", "Chen", "Dora", "Elif"]


@pytest.fixture(scope="module")
def questions(spark):
    """Who and when, of a passage that says both."""
    rows = []
    for i in range(120):
        city, name, hour = CITIES[i % 6], NAMES[i % 5], str(8 + i % 7)
        context = f"In {city} the tour starts at {hour} o'clock. The guide is {name}."
        question, answer = (f"Who is the guide in {city}?", name) if i % 2 else (f"When does {city} start?", hour)
        rows.append(Row(id=i, question=question, context=context, answer=answer, kind="who" if i % 2 else "when"))
    return spark.createDataFrame(rows).repartition(2)


@pytest.fixture(scope="module")
def reader(questions):
    return QuestionAnswering(
        epochs=8, length=48, width=32, layers=2, batchSize=16, numProc=2, learningRate=0.01, verbose=False
    ).fit(questions)


def test_it_reads_the_answer_out_of_the_context(reader, questions):
    scored = reader.transform(questions)
    assert dict(scored.dtypes)["prediction"] == "string"
    assert scored.where("prediction != substring(context, answer_start + 1, length(prediction))").count() == 0
    assert scored.where("score BETWEEN 0 AND 1").count() == 120
    figures = evaluate(reader, questions, "answer").figures
    assert set(figures) == {"exact_match", "f1"}
    assert figures["f1"] > 0.9


def test_a_stream_of_questions_against_fixed_passages(reader, questions, spark, tmp_path):
    passages = questions.select("context")
    answering = QuestionAnswering.over(reader, passages)
    answering.write().save(str(tmp_path / "model"))
    answering = PipelineModel.load(str(tmp_path / "model"))
    asked = questions.select("question", "kind", "id", "answer")
    asked.coalesce(1).write.parquet(str(tmp_path / "asked"))
    stream = spark.readStream.schema(asked.schema).parquet(str(tmp_path / "asked"))
    query = answering.transform(stream).writeStream.format("memory").queryName("answered").trigger(availableNow=True)
    query.start().awaitTermination()
    answered = spark.table("answered")
    assert answered.count() == 120
    assert answered.join(passages.distinct(), "context").count() == 120
    right_city = "contains(context, regexp_extract(question, '(Ghent|Lyon|Porto|Turin|Malmo|Kiel)', 1))"
    assert answered.where(right_city).count() > 100
    assert answered.where("similarity BETWEEN -1.001 AND 1.001").count() == 120


def test_bad_rows_have_their_reason(reader, spark):
    rows = [
        ("Who is the guide in Ghent?", "In Ghent the tour starts at 8 o'clock. The guide is Ada."), (None, "x"), ("Who?", None),
        ("", "The guide is Ada."), ("Who?", " \t "), ("who " * 60, "The guide is Ada."), ("谁? 🙂 кто?", "Ада, 艾达, Ada. " * 5000),
    ]  # fmt: skip
    df = spark.createDataFrame([(i, *row) for i, row in enumerate(rows)], "id long, question string, context string")
    kept = reader.copy({reader.handleInvalid: "keep", reader.errorCol: "why"})
    told = {row.id: row for row in kept.transform(df).collect()}
    assert [told[i].why is None for i in range(7)] == [True, False, False, False, False, False, True]
    assert [told[i].why.partition(":")[0] for i in range(1, 6)] == ["null", "null", "value", "value", "value"]
    assert told[6].prediction is not None
    assert told[1].prediction is None
    skipped = reader.copy({reader.handleInvalid: "skip"})
    assert sorted(row.id for row in skipped.transform(df).collect()) == [0, 6]
    with pytest.raises(Exception, match="expected a text"):
        reader.transform(df).collect()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (("answer", "'Zoe'"), DataError, "120 rows have an answer that is not in their context, 'Zoe' say"),
        (("answer", "''"), DataError, "120 rows have an answer that is not in their context"),
        (
            ("answer", "IF(id = 3, NULL, answer)"),
            DataError,
            "1 rows have an answer that is not in their context",
        ),
        (("context", "3"), SignatureError, "column 'context' is integer; Text takes string"),
        (("question", "CAST(NULL AS STRING)"), DataError, "'question'.*expected a text, got None"),
    ],
)
def test_tables_that_cannot_be_learnt_from(questions, change, error, message):
    with pytest.raises(error, match=message):
        QuestionAnswering(numProc=2, length=48, verbose=False).fit(questions.withColumn(change[0], sf.expr(change[1])))


def test_columns_and_params_that_are_not_there(questions):
    with pytest.raises(ColumnNotFoundError, match="passage"):
        QuestionAnswering(contextCol="passage").fit(questions)
    with pytest.raises(ColumnNotFoundError, match="where"):
        QuestionAnswering(startCol="where", numProc=2).fit(questions)
    with pytest.raises(InvalidParamError, match="did you mean 'contextCol'"):
        QuestionAnswering(contxtCol="a")
    with pytest.raises(InvalidParamError, match="'length' must be a whole number, at least 8"):
        QuestionAnswering(length=4)
    with pytest.raises(InvalidParamError, match=r"'encoder' must be one of .*did you mean 'transformer'"):
        TextClassifier(encoder="transfomer")


def test_passages_that_cannot_be_searched(reader, questions, spark):
    with pytest.raises(EmptyDatasetError):
        QuestionAnswering.over(reader, questions.select("context").limit(0))
    with pytest.raises(ColumnNotFoundError, match="context"):
        QuestionAnswering.over(reader, questions.select("question"))
    passages = spark.createDataFrame([("a",), (None,)], "context string")
    with pytest.raises(DataError, match=r"column 'context'.*expected a text, got None"):
        QuestionAnswering.over(reader, passages)


def test_texts_are_classified(questions, tmp_path, spark):
    model = TextClassifier(
        textCol="question", labelCol="kind", encoder="transformer", length=16, width=32, layers=1, epochs=6, numProc=2,
        batchSize=16, learningRate=0.01, verbose=False,
    ).fit(questions)  # fmt: skip
    with pytest.raises(InvalidParamError, match=r"'reader' must be a model that QuestionAnswering.fit returned"):
        QuestionAnswering.over(model, questions.select("context"))
    model.save(str(tmp_path / "model"))
    model = TorchModel.load(str(tmp_path / "model"))
    assert evaluate(model, questions, "kind").figures["accuracy"] >= 0.95
    bad = spark.createDataFrame([("When does Lyon start?",), ("",)], "question string")
    kept = model.copy({model.handleInvalid: "keep", model.errorCol: "why"}).transform(bad).collect()
    assert [row.prediction for row in kept] == ["when", None]
    assert kept[1].why.startswith("value: column 'question': expected a text with at least one token")


def test_one_class_is_none(questions):
    with pytest.raises(DataError, match="'kind' holds one class only, 'who'"):
        TextClassifier(textCol="question", labelCol="kind", numProc=2).fit(questions.where("kind = 'who'"))


def test_a_width_that_is_no_multiple_of_the_heads_is_refused(questions):
    with pytest.raises(InvalidParamError, match=r"'width' must be a multiple of 3, the Transformer's heads .got 100"):
        TextClassifier(textCol="question", labelCol="kind", encoder="transformer", width=100).fit(questions)


def test_a_tokenizer_is_trained_on_rows_that_are_not_null(spark):
    df = spark.createDataFrame([("ada ada",), (None,), ("",)], "text string")
    assert "ada" in Text(vocabulary=100).fit(df, ["text"])._tokenizer().get_vocab()
    with pytest.raises(EmptyDatasetError):
        Text().fit(df.where("text IS NULL"), ["text"])
