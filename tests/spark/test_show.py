"""What is shown of Spark's tables and queries: counted by Spark, cut before it travels, equal to the references' figures."""

import datetime
import io
import math
import time
import wave
from decimal import Decimal

import numpy as np
import pytest
from PIL import Image
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import SparseVector, Vectors
from pyspark.sql import functions as sf
from rich.console import Console
from scale import DDL, Scale
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

import sparkdl
from sparkdl import Bundle, Signature, TensorSpec, notebook, zeppelin
from sparkdl.errors import ColumnNotFoundError, DataError, EmptyDatasetError, InvalidParamError, SignatureError
from sparkdl.showing import anything, cuts, display, evaluated, evaluation, images, sounds, streams, tables, texts
from sparkdl.showing.pieces import Marked, Sound, Table, Text


@pytest.fixture(scope="module")
def everything(spark):
    """A row of each kind of value, and one of nulls."""
    ddl = (
        "i int, f float, d double, m decimal(10,2), b boolean, t string, day date, at timestamp, raw binary, "
        "a array<double>, s struct<x: int, y: string>, k map<string, int>"
    )
    row = (
        7, 0.1, 0.5, Decimal("1.50"), True, "%html <script>\n\t", datetime.date(2026, 11, 22),
        datetime.datetime(2026, 11, 22, 1, 2, 3), b"\x00\x01" * 50, [0.123456789] * 1000, (1, "é"), {"one": 1},
    )  # fmt: skip
    return spark.createDataFrame([row, (None,) * 12], ddl)


@pytest.fixture(scope="module")
def judged(spark):
    """5,000 rows of a classifier that is right more often than not; a tenth has neither label nor prediction."""
    random = np.random.default_rng(0)
    label = random.integers(0, 3, 5_000)
    logits = random.normal(size=(5_000, 3)) + 1.5 * np.eye(3)[label]
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = [
        (int(a), float(p.argmax()), [float(x) for x in p]) if i % 10 else (None, float("nan"), None)
        for i, (a, p) in enumerate(zip(label, probability, strict=True))
    ]
    return spark.createDataFrame(rows, "label int, prediction double, probability array<double>").repartition(3).cache()


def test_every_kind_of_value_is_short_and_on_one_line(everything):
    table = tables.of_spark(everything, 5)
    assert table.columns == tuple(everything.columns)
    assert table.rows[0] == (
        "7", "0.1", "0.5", "1.50", "true", "%html <script>\\n\\t", "2026-11-22", "2026-11-22 01:02:03",
        "00 01 00 01 00 01 00 01 … 100 bytes", "[0.1235, 0.1235, 0.1235, 0.1235, 0.1235, 0.1235, … 1,000 in all]", "{x: 1, y: é}",
        "{one: 1}",
    )  # fmt: skip
    assert table.rows[1] == (None,) * 12
    assert table.numeric == {0, 1, 2, 3}


def test_vectors_are_shown_and_names_may_occur_twice(spark):
    dense, sparse = Vectors.dense(range(10)), SparseVector(100, {3: 1.0})
    df = spark.createDataFrame([(dense, sparse)], ["v", "w"])
    both = df.select("v", "w", sf.lit(1).alias("a.b`"), sf.lit(2).alias("v"))
    table = tables.of_spark(both, 5)
    assert table.columns == ("v", "w", "a.b`", "v")
    assert table.rows == (("[0, 1, 2, 3, 4, 5, … 10 in all]", "(100, {3: 1})", "1", "2"),)


def test_long_values_are_cut_before_they_travel(spark):
    long = spark.range(3).select(
        sf.expr("repeat('x', 100000000)").alias("t"), sf.expr("sequence(1, 1000000)").alias("a")
    )
    (row, *_) = tables.of_spark(long, 3).rows
    assert row == ("x" * 200 + "…", "[1, 2, 3, 4, 5, 6, … 1,000,000 in all]")
    assert travelled(long) < 500


def travelled(df):
    """The most letters that come to the driver of a row that is shown."""
    kinds = tables.types_of(df)
    return max(len(str(row)) for row in df.select(*(cuts.cut(df[name], kinds[name]) for name in df.columns)).collect())


def test_what_is_long_within_a_value_is_cut_too(spark):
    long = spark.range(2).selectExpr(
        "named_struct('origin', 'file:/a.png', 'height', 1000, 'width', 1000, 'nChannels', 3, 'mode', 16, "
        "'data', unhex(repeat('00ff', 1500000))) as image",
        "transform(sequence(1, 1000), i -> transform(sequence(1, 1000), j -> float(j))) as nested",
        "map_from_arrays(transform(sequence(1, 1000), i -> string(i)), transform(sequence(1, 1000), i -> repeat('x', 1000))) as map",
        "if(id = 1, null, named_struct('a.b`', array(named_struct('t', repeat('y', 100000)), null))) as deep",
    )
    long = long.select("*", array_to_vector(sf.expr("transform(sequence(1, 100000), i -> double(i))")).alias("v"))
    row, last = tables.of_spark(long, 2).rows
    assert row == (
        "{origin: file:/a.png, height: 1000, width: 1000, nChannels: 3, mode: 16, data: 00 ff 00 ff 00 ff 00 ff … 3 MB}",
        "[" + ", ".join(["[1, 2, 3, 4, 5, 6, … 1,000 in all]"] * 6) + ", … 1,000 in all]",
        "{" + ", ".join(f"{i}: {'x' * 59}…" for i in range(1, 7)) + ", … 1,000 in all}",
        "{a.b`: [{t: " + "y" * 54 + "…}",
        "[1, 2, 3, 4, 5, 6, … 100,000 in all]",
    )
    assert last[3] is None
    assert travelled(long) < 5_000


def test_names_that_differ_in_case_alone_are_shown(spark):
    table = tables.of_spark(spark.sql("select named_struct('a', 'x', 'A', 'y') as s"), 1)
    assert table.rows == (("{a: x, A: y}",),)


def test_no_more_rows_are_read_than_are_shown_and_it_is_told(spark):
    counted = spark.sparkContext.accumulator(0)
    seen = sf.udf(lambda x: (counted.add(1), x)[1], "long")
    table = tables.of_spark(spark.range(0, 20_000, 1, 2).select(seen("id").alias("id")), 20)
    assert len(table.rows) == 20
    assert table.note == "the first 20 rows; there are more"
    assert counted.value < 1_000
    assert tables.of_spark(spark.range(20), 20).note == ""
    assert tables.of_spark(spark.range(0), 20).note == "no rows"


def test_rows_that_do_not_exist_yet_are_refused(spark):
    stream = spark.readStream.format("rate").load()
    for call in (zeppelin.show, zeppelin.confusion_matrix, zeppelin.images, zeppelin.audio):
        with pytest.raises(InvalidParamError, match="a streaming DataFrame has no rows to show before it runs"):
            call(stream)
    with pytest.raises(InvalidParamError, match="'n' must be a whole number of 1 or more"):
        zeppelin.show(spark.range(1), n=0)


def test_a_confusion_matrix_is_scikit_learn_s(judged):
    found = evaluation.confusion(judged, "label", "prediction")
    known = judged.where("label is not null").toPandas()
    assert found.names == ("0", "1", "2")
    assert np.array_equal(found.counts, confusion_matrix(known.label, known.prediction))
    assert found.left_out == 500
    expected = precision_recall_fscore_support(known.label, known.prediction)
    shown = [list(column) for column in zip(*found.by_class(), strict=True)]
    for ours, theirs in zip(shown[2:], expected, strict=False):
        np.testing.assert_allclose(ours, theirs)
    lines = dict(evaluated.of_confusion(found)[0].lines)
    assert lines["left out"] == "500 rows without a label or prediction"
    assert lines["accuracy"].startswith(f"{(known.label == known.prediction).mean():.4f}, ")


def test_a_matrix_of_texts_and_of_booleans(spark):
    df = spark.createDataFrame([("cat", "dog"), ("cat", "cat"), ("dog", "dog")], "label string, prediction string")
    found = evaluation.confusion(df, "label", "prediction")
    assert found.names == ("cat", "dog")
    assert found.counts.tolist() == [[1, 1], [0, 1]]
    flags = spark.createDataFrame([(True, 1.0), (False, 1.0)], "label boolean, prediction double")
    assert evaluation.confusion(flags, "label", "prediction").counts.tolist() == [[0, 1], [0, 1]]


def test_what_is_no_class_is_refused(spark, judged, monkeypatch):
    with pytest.raises(ColumnNotFoundError, match="'predicton' is not in the DataFrame; did you mean 'prediction'"):
        zeppelin.confusion_matrix(judged, predictionCol="predicton")
    with pytest.raises(SignatureError, match="'probability' must be a class, a number or text a row"):
        zeppelin.confusion_matrix(judged, predictionCol="probability")
    mixed = judged.withColumn("label", sf.lit("cat"))
    with pytest.raises(SignatureError, match="'label' holds strings and 'prediction' numbers, which are never equal"):
        zeppelin.confusion_matrix(mixed)
    with pytest.raises(EmptyDatasetError):
        zeppelin.confusion_matrix(judged.limit(0))
    with pytest.raises(EmptyDatasetError):
        zeppelin.confusion_matrix(judged.where("label is null"))
    with pytest.raises(InvalidParamError, match=r"this takes a DataFrame of Spark \(got list\)"):
        zeppelin.confusion_matrix([1, 2])
    monkeypatch.setattr(evaluation, "MOST_PAIRS", 100)
    with pytest.raises(DataError, match="more than 100 pairs of values: these are no classes"):
        zeppelin.confusion_matrix(spark.range(200).selectExpr("id as label", "double(id) as prediction"))


def test_areas_below_the_roc_are_scikit_learn_s_within_what_is_told(judged):
    curves, left_out = evaluation.roc(judged, "label", "probability")
    known = judged.where("label is not null").toPandas()
    scores = np.stack(known.probability)
    assert left_out == 500
    assert [curve.name for curve in curves] == ["0", "1", "2"]
    for number, curve in enumerate(curves):
        exact = roc_auc_score(known.label == number, scores[:, number])
        assert abs(curve.auc - exact) <= curve.error + 1e-12
        assert curve.error < 1e-3
        assert curve.positives + curve.negatives == 4_500
        assert (curve.false_positive[-1], curve.true_positive[-1]) == (1, 1)


def test_a_number_an_array_and_a_vector_of_two_classes_give_one_curve(judged):
    both = judged.selectExpr("int(label = 1) as label", "probability[1] as p").where("p is not null")
    pair = sf.array(1 - sf.col("p"), sf.col("p"))
    forms = [sf.col("p"), sf.col("p").cast("float"), pair, array_to_vector(pair)]
    areas = []
    for form in forms:
        (curve,), left_out = evaluation.roc(both.select("label", form.alias("probability")), "label", "probability")
        assert (curve.name, left_out) == ("1", 0)
        areas.append(curve.auc)
    np.testing.assert_allclose(areas, areas[0], atol=2e-4)


def test_certain_models_have_exact_areas(spark):
    """Scores of 0 and 1, and ones that a float32 hardly tells from them."""
    rows = [(1, 1.0), (0, 0.0), (1, 1 - 1e-7), (0, 1e-30), (1, 0.0), (0, 1 - 1e-7)]
    df = spark.createDataFrame(rows, "label int, probability double")
    (curve,), _ = evaluation.roc(df, "label", "probability")
    assert curve.auc == pytest.approx(roc_auc_score(*zip(*rows, strict=True)), abs=1e-12)


def test_what_is_no_probability_is_refused(spark, judged):
    with pytest.raises(DataError, match=r"'probability' holds 3\.5, and a probability is from 0 to 1"):
        zeppelin.roc(spark.createDataFrame([(1, 3.5), (0, 0.5)], "label int, probability double"))
    with pytest.raises(DataError, match="a ROC needs rows of both sides"):
        zeppelin.roc(judged.where("label = 0"), probabilityCol="probability")
    with pytest.raises(SignatureError, match="'prediction' must be the probability"):
        zeppelin.roc(judged.selectExpr("label", "string(prediction) as prediction"), probabilityCol="prediction")
    with pytest.raises(SignatureError, match="'label' must be class numbers"):
        zeppelin.roc(judged.selectExpr("string(label) as label", "probability"))
    with pytest.raises(EmptyDatasetError):
        zeppelin.roc(judged.limit(0))


def test_nothing_is_collected_but_counts(judged, jobs, spark):
    """The whole answer fits where the table's rows would not."""
    before = spark.conf.get("spark.sql.shuffle.partitions")
    assert before == "2"
    many = judged.crossJoin(sf.broadcast(spark.range(40)))  # 200,000 rows
    found = evaluation.confusion(many, "label", "prediction")
    assert int(found.counts.sum()) == 180_000
    assert jobs() <= 4


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def test_images_of_every_form_are_the_same_picture(spark, digits):
    picture = digits.images[0]
    grey = (picture / 16 * 255).round().astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(grey).save(written, "PNG")
    bgr = np.repeat(grey[:, :, None], 3, axis=2)
    struct = "struct<origin: string, height: int, width: int, nChannels: int, mode: int, data: binary>"
    forms = [
        (written.getvalue(), "binary", None),
        (bytes(grey.tobytes()), "binary", (8, 8)),
        ((grey / 255).tolist(), "array<array<double>>", None),
        (grey[None].tolist(), "array<array<array<int>>>", None),
        (grey.reshape(-1).tolist(), "array<int>", None),
        (grey.reshape(-1).astype(float).tolist(), "array<float>", (1, 8, 8)),
        (("x", 8, 8, 3, 16, bytes(bgr.tobytes())), struct, None),
    ]
    for value, kind, shape in forms:
        df = spark.createDataFrame([(value,)], f"image {kind}")
        (tile,) = images.tiles(df, "image", None, None, 5, shape).tiles
        assert not tile.problem
        np.testing.assert_allclose(tile.pixels[:, :, 0], grey, atol=1, err_msg=kind)


def test_predictions_stand_below_and_a_broken_image_says_why(spark, digits):
    rows = [
        ([float(x) for x in image.reshape(-1)], int(label), float(label))
        for image, label in zip(digits.images[:3], digits.target, strict=False)
    ]
    rows[1] = (rows[1][0], 1, 7.0)
    rows[2] = (rows[2][0][:-1], 2, 2.0)
    rows.append((None, 3, None))
    df = spark.createDataFrame(rows, "image array<double>, label int, prediction double")
    found = images.tiles(df, "image", "prediction", "label", 10, None).tiles
    assert [(tile.caption, tile.right) for tile in found] == [("0", True), ("7, is 1", False), ("2", True), ("3", None)]
    assert [tile.problem for tile in found] == [
        "",
        "",
        "63 numbers in a row, and no square; say shape=(H, W) or (C, H, W)",
        "null",
    ]
    assert found[1].pixels.max() == 255


def test_spark_s_own_image_source_is_shown(spark, tmp_path):
    red = np.zeros((4, 6, 3), np.uint8)
    red[:, :, 0] = 200
    Image.fromarray(red).save(tmp_path / "red.png")
    (tmp_path / "bad.png").write_bytes(b"not an image")
    df = spark.read.format("image").load(str(tmp_path)).orderBy(sf.desc("image.origin"))
    good, bad = images.tiles(df, "image", None, None, 5, None).tiles
    assert good.pixels[0, 0].tolist() == [200, 0, 0]
    assert "Spark could not decode" in bad.problem


def test_what_holds_no_images_is_refused(spark, judged):
    with pytest.raises(ColumnNotFoundError, match="'image'"):
        zeppelin.images(judged)
    for name in ("label", "prediction"):
        with pytest.raises(SignatureError, match=f"column '{name}' is no image"):
            zeppelin.images(judged, imageCol=name)
    df = spark.createDataFrame([([0.0] * 4,)], "image array<double>")
    for n in (0, -1, True, 1.5, "3", 401):
        with pytest.raises(InvalidParamError, match="'n' must be"):
            zeppelin.images(df, n=n)
    for shape in ((0, 4), (4,), "44", (2, 2.0)):
        with pytest.raises(InvalidParamError, match="'shape' must be"):
            zeppelin.images(df, shape=shape)
    assert images.tiles(df.limit(0), "image", None, None, 3, None).note == "no rows"


def tone(seconds=0.1, rate=8_000, width=2):
    samples = np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return samples, written.getvalue()


def test_sounds_of_a_table_are_played_and_one_that_is_none_says_why(spark):
    samples, file = tone()
    df = spark.createDataFrame(
        [(bytearray(file), "a"), (bytearray(b"RIFF"), "b"), (None, "c")], "audio binary, said string"
    )
    good, bad, missing = sounds.sounds(df, None, "audio", "said", 5)
    assert isinstance(good, Sound)
    assert (good.rate, good.caption) == (8_000, "a")
    np.testing.assert_allclose(good.samples, samples, atol=1e-4)
    assert bad.text.startswith("b: no sound: no WAV file of plain samples")
    assert missing.text == "c: no sound: null"
    with pytest.raises(InvalidParamError, match="'n' must be at most 20"):
        zeppelin.spectrogram(df, n=21)
    floats = spark.createDataFrame([(samples.tolist(),)], "audio array<float>")
    (found,) = sounds.sounds(floats, 8_000, "audio", None, 5)
    np.testing.assert_allclose(found.samples, samples, atol=1e-6)
    with pytest.raises(InvalidParamError, match="say the rate of the samples"):
        zeppelin.audio(floats)
    with pytest.raises(SignatureError, match="column 'said' is no sound"):
        zeppelin.audio(df, audioCol="said")


def test_answers_are_marked_by_place_or_by_text(spark):
    rows = [
        ("Spark runs on the JVM.", 14, 17, "the JVM"),
        ("é ü", 2, 9, "x"),
        (None, 0, 1, "y"),
        ("no", None, None, None),
    ]
    df = spark.createDataFrame(rows, "text string, from int, until long, answer string")
    by_place = texts.marked(df, "text", "from", "until", None, None, 10)
    assert by_place[0] == Marked((("Spark runs on ", False), ("the", True), (" JVM.", False)))
    assert by_place[1].problem == "the answer from 2 to 9 is not within the text's 3 letters"
    assert by_place[3].problem == "no answer"
    by_text = texts.marked(df, "text", None, None, "answer", "from", 2)
    assert by_text[0] == Marked((("Spark runs on ", False), ("the JVM", True), (".", False)), "14")
    assert by_text[1].problem == "the answer 'x' is not in the text"
    assert texts.marked(df.limit(0), "text", None, None, "answer", None, 2) == [Text("no rows")]


def test_answers_that_are_not_told_clearly_are_refused(spark):
    df = spark.createDataFrame([("a", 0, 1, "a")], "text string, start int, end int, answer string")
    for wrong in ({}, {"startCol": "start"}, {"startCol": "start", "endCol": "end", "answerCol": "answer"}):
        with pytest.raises(InvalidParamError, match="by startCol and endCol, or what it is, by answerCol"):
            zeppelin.answers(df, **wrong)
    with pytest.raises(SignatureError, match="column 'answer' must be byte or short or integer or long"):
        zeppelin.answers(df, startCol="answer", endCol="end")
    with pytest.raises(ColumnNotFoundError, match="did you mean 'answer'"):
        zeppelin.answers(df, answerCol="anwser")


def test_a_query_of_spark_s_own_is_shown_until_it_ends(spark, capsys, monkeypatch):
    query = spark.readStream.format("rate").option("rowsPerSecond", 50).load().writeStream.format("noop").start()
    try:
        deadline = time.monotonic() + 60
        while len(query.recentProgress) < 2 and time.monotonic() < deadline:
            query.awaitTermination(0.1)
        zeppelin.live(query, seconds=1, every=0.5)
        lines = dict(streams.pieces_of(query)[0].lines)
        assert lines["query"].endswith("running")
        assert "batch" in lines
        terminal = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
        monkeypatch.setattr(display, "console", lambda: terminal)
        zeppelin.live(query, seconds=1, every=0.3)
        drawn = terminal.file.getvalue()
        assert drawn.count("running") > 1
        assert "\x1b[1A" in drawn  # up again, over what was drawn before
        monkeypatch.setattr(display, "console", lambda: None)
    finally:
        query.stop()
    zeppelin.live(query)  # which has ended: returns at once
    told = capsys.readouterr().out
    assert told.count("query") == 4  # at the start and at the end of each call: no terminal here
    assert told.count("stopped") == 2


def test_a_query_that_fails_is_shown_with_what_it_failed_of(spark, tmp_path):
    boom = sf.udf(lambda x: 1 // 0, "int")
    (tmp_path / "in").mkdir()
    spark.range(3).write.mode("overwrite").parquet(str(tmp_path / "in"))
    stream = spark.readStream.schema("id long").parquet(str(tmp_path / "in")).select(boom("id"))
    query = stream.writeStream.format("noop").start()
    zeppelin.live(query, every=0.2)
    assert not query.isActive
    lines = dict(streams.pieces_of(query)[0].lines)
    assert lines["query"].endswith("failed")
    assert lines["error"]


def test_a_scored_stream_is_shown_while_it_runs(spark, tmp_path, monkeypatch):
    """In a notebook's place: what is drawn, each time instead of the one before."""
    bundle = Bundle.from_module(
        Scale(2.0), Signature((TensorSpec("features", "float32", (2,), ("features",), ("array<float>",)),))
    )
    spark.range(0, 40, 1, 4).selectExpr("id", "array(float(id), 1f) features").write.parquet(str(tmp_path / "in"))
    events = spark.readStream.schema(DDL).option("maxFilesPerTrigger", 1).parquet(str(tmp_path / "in"))
    query = sparkdl.score_stream(
        events, model=bundle, sink=sparkdl.sinks.Parquet(str(tmp_path / "out")), checkpoint=str(tmp_path / "checkpoint"),
        trigger="available now",
    )  # fmt: skip
    drawn = []
    monkeypatch.setattr(notebook, "place", lambda: "jupyter")
    monkeypatch.setattr(display.View, "draw", lambda self, pieces: drawn.append(pieces))
    zeppelin.live(query, every=1)
    assert len(drawn) > 1
    facts, *pictures = drawn[-1]
    assert dict(facts.lines)["rows"] == "40 in, 40 out, 0 dead"
    assert "stopped since" in dict(facts.lines)["query"]
    assert [picture.name for picture in pictures] == ["throughput", "latency"]
    assert len(display.zeppelin(drawn[-1]).encode()) < display.ZEPPELIN_BYTES
    assert display.zeppelin(drawn[-1]).count("data:image/svg+xml") == 2
    assert anything.pieces_of(query, 5)[0].lines[1] == facts.lines[1]
    assert dict(streams.pieces_of(query)[0].lines)["ms a batch"]


def test_live_takes_a_query_and_seconds(spark):
    with pytest.raises(InvalidParamError, match="live takes a running query"):
        zeppelin.live(spark.range(1))
    query = spark.readStream.format("rate").load().writeStream.format("noop").start()
    try:
        for wrong in ({"seconds": 0}, {"seconds": "5"}, {"every": math.nan}, {"every": -1}):
            with pytest.raises(InvalidParamError, match="must be a number of seconds above 0"):
                zeppelin.live(query, **wrong)
    finally:
        query.stop()


def test_a_list_is_shown_one_by_one(spark):
    found = anything.pieces_of([spark.range(1), spark.range(2)], 5)
    assert [len(table.rows) for table in found] == [1, 2]
    assert all(isinstance(table, Table) for table in found)
