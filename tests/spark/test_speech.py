"""SpeechRecognizer: recordings to texts and back, through a fit, a bundle, transform and evaluate; the voices are synthetic."""

import sys
from pathlib import Path

import pytest
from pyspark.sql import Row

from sparkdl import SpeechRecognizer, TorchModel
from sparkdl.errors import DataError, EmptyDatasetError, InvalidParamError, SignatureError
from sparkdl.evaluate import evaluate
from sparkdl.preprocess import Characters

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
import run as examples  # noqa: E402

pytestmark = pytest.mark.lane("latest")


@pytest.fixture(scope="module")
def digits():
    """The example's module."""
    return examples.module(EXAMPLES / "speech-recognition/data.py")


@pytest.fixture(scope="module")
def recordings(spark, digits):
    rows = list(digits.spoken(96, digits.VOICES[:6], most_words=1, seed=0))
    return spark.createDataFrame([Row(**row) for row in rows]).repartition(2).cache()


def recognizer(**more):
    own = {"rate": 8_000, "seconds": 0.9, "textLength": 10, "mels": 24, "hidden": 32, "layers": 1, "augment": False}
    shared = {"epochs": 6, "batchSize": 8, "learningRate": 0.01, "numProc": 2, "verbose": False, "seed": 3}
    return SpeechRecognizer(**{**own, **shared, **more})


@pytest.fixture(scope="module")
def model(recordings):
    return recognizer(confidence=True, beam=4).fit(recordings)


def test_it_learns_from_recordings(model, recordings):
    losses = [entry["loss"] for entry in model.bundle.training["history"]]
    assert losses[-1] < 0.6 * losses[0]
    alphabet = "".join(sorted(set("zeroonetwothreefourfivesixseveneightnine")))
    assert model.signature.decoder.alphabet == alphabet
    assert str(model.signature.inputs[0].preprocess) == "audio(rate=8000, seconds=0.9)"


def test_texts_come_out_after_saving_too(model, recordings, tmp_path):
    model.save(str(tmp_path / "model"))
    again = TorchModel.load(str(tmp_path / "model"))
    assert again.signature == model.signature
    scored = again.transform(recordings.select("id", "audio"))
    assert scored.dtypes[-2:] == [("prediction", "string"), ("confidence", "double")]
    found = scored.collect()
    assert len(found) == 96
    assert all(0 <= row.confidence <= 1 for row in found)
    before = {row.id: row.prediction for row in model.transform(recordings).collect()}
    assert {row.id: row.prediction for row in found} == before


def test_it_is_judged_by_words_and_characters(model, recordings):
    from torchmetrics.functional.text import char_error_rate, word_error_rate

    found = evaluate(model, recordings, "transcript")
    rows = model.transform(recordings).collect()
    texts = [row.prediction for row in rows], [row.transcript for row in rows]
    assert (found.rows, found.invalid) == (96, 0)
    assert found.figures == pytest.approx(
        {"wer": float(word_error_rate(*texts)), "cer": float(char_error_rate(*texts))}
    )
    assert not found.short_of({"cer": 1e9})
    assert found.short_of({"cer": 0.0})  # lower is better


@pytest.fixture(scope="module")
def broken(spark, recordings):
    whole = bytes(recordings.where("id = 0").first().audio)
    values = {1: whole, 2: None, 3: b"", 4: whole[: len(whole) // 2], 5: b"no sound at all", 6: whole}
    return spark.createDataFrame(list(values.items()), "id int, audio binary").coalesce(1)


def test_bad_recordings_are_rows_with_their_reason(model, broken):
    kept = model.copy({model.handleInvalid: "keep", model.errorCol: "why"}).transform(broken).orderBy("id").collect()
    assert [row.id for row in kept if row.why] == [2, 3, 4, 5]
    assert [row.why.partition(":")[0] for row in kept if row.why] == ["null"] + ["undecodable"] * 3
    assert all((row.prediction is None) == bool(row.why) for row in kept)
    assert kept[0].prediction == kept[5].prediction


def test_bad_recordings_are_left_out_or_end_the_query(model, broken):
    left = model.copy({model.handleInvalid: "skip"}).transform(broken).collect()
    assert sorted(row.id for row in left) == [1, 6]
    with pytest.raises(Exception, match=r"'audio', row 1: expected a recording, got None"):
        model.transform(broken).collect()


def test_a_bad_recording_ends_a_fit_with_its_row(recordings, broken):
    from pyspark.sql import functions as sf

    rows = recordings.select("audio", "transcript").union(
        broken.select("audio", sf.lit("one")).where("length(audio) = 15")
    )
    with pytest.raises(DataError, match=r"'audio'.*begins with b'no sound'"):
        recognizer().fit(rows)


def test_an_alphabet_is_learnt_of_any_script(spark):
    df = spark.createDataFrame([("naïve",), (None,), ("",), ("日本 a😀",)], "said string")
    learnt = Characters(length=9).fit(df, ["said"])
    assert learnt == Characters(alphabet="".join(sorted("naïve日本 😀")), length=9)
    with pytest.raises(EmptyDatasetError, match="said"):
        Characters().fit(df.where("said IS NULL"), ["said"])


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"rate": 100}, InvalidParamError, "'rate' must be a whole number, at least 4000"),
        ({"rate": 500_000}, InvalidParamError, "'rate' of Audio"),
        ({"seconds": 0}, InvalidParamError, "'seconds' must be a number, at least 0.1"),
        ({"longer": "wrap"}, InvalidParamError, "'longer' must be one of"),
        ({"encoder": "gruu"}, InvalidParamError, "'encoder' must be one of.*did you mean 'gru'"),
        ({"hidden": 30}, InvalidParamError, "'hidden' must be a multiple of 4"),
        ({"alphabet": ["a"]}, InvalidParamError, "'alphabet' must be a text"),
        ({"alphabet": "aa"}, InvalidParamError, "'a' is there twice"),
        ({"alphabet": "xyz"}, DataError, "expected characters of 'xyz', got"),
        ({"textLength": 2}, DataError, "at most 2 characters"),
        ({"labelCol": "id"}, SignatureError, "id"),
        ({"beams": 4}, InvalidParamError, "did you mean 'beam'"),
    ],
)
def test_what_does_not_fit_is_refused(recordings, params, error, message):
    with pytest.raises(error, match=message):
        recognizer(**params).fit(recordings)
