"""Counts as figures, values as pixels and samples, models as facts: no Spark."""

import dataclasses
import io
import tracemalloc
import wave

import numpy as np
import pandas as pd
import pytest
from making import signature, spec
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve
from torch import nn

from sparkdl import Bundle, ScoredTable, zeppelin
from sparkdl.errors import ColumnNotFoundError, DataError, EmptyDatasetError, InvalidParamError, SparkdlError
from sparkdl.showing import anything, display, encoding, evaluated, evaluation, facts, images, sounds, streams, texts
from sparkdl.showing.pieces import Facts, Marked, Picture, Sound, Table, Text
from sparkdl.stream.status import Status


def test_a_golden_confusion_matrix():
    head, picture, by_class = evaluated.of_confusion(
        evaluation.confusion_of([(0.0, 0.0, 8), (0.0, 1.0, 2), (1.0, 1.0, 1_000), (None, 1.0, 3)])
    )
    assert head == Facts(
        (("accuracy", "0.9980, 1,008 of 1,010 rows"), ("left out", "3 rows without a label or prediction"))
    )
    assert picture.sketch == (
        Table(("label \\ predicted", "0", "1"), (("0", "8", "2"), ("1", "·", "1,000")), frozenset({1, 2})),
    )
    assert picture.alt == "confusion matrix of 2 classes, accuracy 0.9980"
    assert by_class.rows == (("0", "10", "1.000", "0.800", "0.889"), ("1", "1,000", "0.998", "1.000", "0.999"))
    drawn = Image.open(io.BytesIO(picture.data))
    assert drawn.format == "PNG"
    assert len(picture.data) < 30_000


def test_of_many_classes_those_with_mistakes_are_shown():
    pairs = [(f"c{i:03}", f"c{i:03}", 10) for i in range(1_000)] + [
        (f"c{i:03}", f"c{i + 1:03}", i) for i in range(500, 510)
    ]
    found = evaluation.confusion_of(pairs)
    assert found.classes == 1_000
    assert len(found.names) == evaluation.MOST_CLASSES
    assert set(found.names) >= {f"c{i}" for i in range(501, 510)}
    assert found.names[-1] == evaluation.OTHERS
    assert int(found.counts.sum()) == 10_000 + sum(range(500, 510))
    assert found.accuracy == 10_000 / found.counts.sum()  # of all classes, shown or not
    assert dict(evaluated.of_confusion(found)[0].lines)["classes"].startswith("1,000; those with most mistakes")


def test_a_class_that_is_never_predicted_has_no_precision():
    found = evaluation.confusion_of([("a", "a", 1), ("b", "a", 1)])
    assert [row[2:] for row in evaluated.of_confusion(found)[2].rows] == [
        ("0.500", "1.000", "0.667"),
        ("–", "0.000", "0.000"),
    ]
    with pytest.raises(EmptyDatasetError):
        evaluation.confusion_of([(None, "a", 5)])


def test_rates_and_area_are_scikit_learn_s():
    random = np.random.default_rng(1)
    label, place = random.integers(0, 2, 2_000), random.integers(-30, 30, 2_000)
    place += 10 * label
    counts: dict = {}
    for own, at in zip(label, place, strict=True):
        counts[(1, bool(own), int(at))] = counts.get((1, bool(own), int(at)), 0) + 1
    told = [(one, own, at, n, None) for (one, own, at), n in counts.items()]
    (curve,), left_out = evaluation.rocs_of(
        [*told, (1, None, 3, 7, None), (1, True, None, 2, None), (None, None, None, 4, None)], "p"
    )
    assert left_out == 13
    false, true, _ = roc_curve(label, place, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive, false)
    np.testing.assert_allclose(curve.true_positive, true)
    assert curve.auc == pytest.approx(roc_auc_score(label, place), abs=1e-12)
    head, picture = evaluated.of_rocs([curve], left_out)
    assert head.lines[0][1].startswith(f"{curve.auc:.4f} ± ")
    assert head.lines[1] == ("left out", "13 rows without a label or probability")
    assert picture.alt == f"ROC: class 1 AUC {curve.auc:.4f}"
    assert picture.sketch[0].lines[0][1][-1] == "█"


def test_many_classes_have_as_many_curves_as_can_be_told_apart():
    told = [(one, own, at, 5, None) for one in range(10) for own in (False, True) for at in (0, 1, int(own))]
    curves, _ = evaluation.rocs_of(told, "p")
    assert len(curves) == 10
    head, picture = evaluated.of_rocs(curves, 0)
    assert ("classes", "10; the first 8 are drawn") in head.lines
    assert picture.alt.count("AUC") == 8
    with pytest.raises(DataError, match="a ROC needs rows of both sides"):
        evaluation.rocs_of([(0, True, 1, 5, None), (1, False, 1, 5, None)], "p")


@pytest.mark.parametrize(
    ("value", "shape", "expected"),
    [
        (np.zeros((2, 3)), None, (2, 3, 1)),
        (np.zeros((3, 4, 5)), None, (4, 5, 3)),
        (np.zeros((4, 5, 3)), None, (4, 5, 3)),
        (np.zeros((6, 5, 4), np.uint8), None, (6, 5, 4)),
        (np.zeros((3, 5, 3)), None, (5, 3, 3)),
        (np.zeros(16), None, (4, 4, 1)),
        (np.zeros(15), (3, 5), (3, 5, 1)),
        (np.zeros(60), (3, 4, 5), (4, 5, 3)),
        (b"\0" * 12, (2, 6), (2, 6, 1)),
    ],
)
def test_pixels_of_any_layout(value, shape, expected):
    assert images.pixels(value, shape).shape == expected


@pytest.mark.parametrize(
    ("value", "shape", "why"),
    [
        (None, None, "null"),
        (b"", None, "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n but no more", None, "cannot be decoded"),
        ([1.0, float("nan")], None, "NaN, null or infinite"),
        ([[1, 2], [3]], None, "its rows differ in length"),
        ([[1, None]], None, "it holds"),
        (["a"], None, "no number"),
        (np.zeros(15), None, "15 numbers in a row, and no square"),
        (np.zeros(15), (4, 4), "15 numbers, and the shape"),
        (np.zeros((2, 5, 7)), None, "shape"),
        (np.zeros((2, 2, 2, 2)), None, "shape"),
        ([], None, "no pixels"),
        ({"a": 1}, None, "a struct that is no image"),
        (
            {"height": 2, "width": 2, "nChannels": 3, "mode": 16, "data": b"123", "origin": "file:/x"},
            None,
            "could not decode 'file:/x'",
        ),
        ({"height": 1, "width": 1, "nChannels": 2, "mode": 16, "data": b"12"}, None, "2 channels"),
    ],
)
def test_what_is_no_image_says_why_in_its_place(value, shape, why):
    frame = pd.DataFrame({"image": pd.Series([value, np.ones((2, 2))], dtype=object)})
    bad, good = images.tiles(frame, "image", None, None, 5, None if shape is None else shape).tiles
    assert why in bad.problem
    assert bad.pixels is None
    assert (good.pixels is not None) == (shape is None)


def test_a_file_that_would_fill_the_memory_is_not_decoded():
    """A PNG of some bytes that says it is 60,000 pixels wide and high."""
    import struct
    import zlib

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(head)) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    (tile,) = images.tiles(pd.DataFrame({"image": [b"\x89PNG\r\n\x1a\n" + chunk]}), "image", None, None, 1, None).tiles
    assert "cannot be decoded" in tile.problem


def test_large_images_are_made_small_and_numbers_are_scaled_together():
    big = np.zeros((600, 300, 3), np.uint8)
    frame = pd.DataFrame({"image": [big]})
    assert images.tiles(frame, "image", None, None, 1, None).tiles[0].pixels.shape == (256, 128, 3)
    for low, high, shown in ((0, 1, 255), (0, 0.5, 255), (0, 200, 200), (0, 16, 255), (-1, 1, 255)):
        pair = pd.DataFrame({"image": [np.full((2, 2), float(low)), np.full((2, 2), float(high))]})
        dark, light = images.tiles(pair, "image", None, None, 2, None).tiles
        assert (dark.pixels.max(), light.pixels.max()) == (0, shown), (low, high)


def test_the_alpha_channel_lies_on_white():
    clear = np.zeros((2, 2, 4), np.uint8)
    (tile,) = images.tiles(pd.DataFrame({"image": [clear]}), "image", None, None, 1, None).tiles
    assert (tile.pixels == 255).all()


def test_a_frame_without_the_column():
    with pytest.raises(ColumnNotFoundError, match="did you mean 'image'"):
        zeppelin.images(pd.DataFrame({"image": [1]}), imageCol="imag")


def test_large_images_are_not_kept_at_their_size():
    file = io.BytesIO()
    Image.new("RGBA", (1500, 1000), (200, 0, 0, 255)).save(file, "PNG")
    tracemalloc.start()
    tiles = images.tiles(pd.DataFrame({"image": [file.getvalue()] * 10}), "image", None, None, 10, None).tiles
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # one of them is 4.5 MB as RGB
    assert {tile.pixels.shape for tile in tiles} == {(171, 256, 3)}
    assert tiles[0].pixels[0, 0].tolist() == [200, 0, 0]


def test_large_arrays_keep_their_range():
    dark = np.full((300, 600), 0.1)
    dark[0, 0] = 1.0  # white is 1, whatever becomes of this pixel
    (tile,) = images.tiles(pd.DataFrame({"image": [dark]}), "image", None, None, 1, None).tiles
    assert tile.pixels.shape == (128, 256, 3)
    assert tile.pixels[100, 100].tolist() == [26, 26, 26]


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_files_of_any_width(width, channels):
    samples = np.round(np.sin(np.arange(800) / 10) * 100) / 128
    whole = {1: samples * 128 + 128, 2: samples * 2**15, 3: samples * 2**31, 4: samples * 2**31}[width]
    frames = np.repeat(whole[:, None], channels, axis=1).astype({1: "u1", 2: "<i2", 3: "<i4", 4: "<i4"}[width])
    data = frames.tobytes() if width != 3 else frames.view("u1").reshape(-1, 4)[:, 1:].tobytes()
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(11_025)
        file.writeframes(data)
    (sound,) = sounds.sounds(written.getvalue(), None, "", None, 1)
    assert sound.rate == 11_025
    assert sound.samples.shape == ((800,) if channels == 1 else (800, 2))
    np.testing.assert_allclose(sound.samples.reshape(800, -1)[:, 0], samples, atol=1e-6)
    (again,) = sounds.sounds(encoding.wav(sound), None, "", None, 1)
    np.testing.assert_allclose(again.samples, sound.samples, atol=1e-4)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [(24, bytes(4), "16 bits a sample at 0 Hz"), (34, b"\x28\0", "40 bits a sample at 8,000 Hz")],
)
def test_a_wav_file_of_no_rate_or_of_odd_samples_is_no_sound(place, value, told):
    data = encoding.wav(Sound(np.zeros(800, np.float32), 8_000))
    with pytest.raises(DataError, match=f"this is no sound: a WAV file of {told}"):
        sounds.sounds(data[:place] + value + data[place + len(value) :], None, "", None, 1)


def test_samples_in_arrays():
    short = np.array([0, 16384, -32768, 32767] * 10, np.int16)
    (sound,) = sounds.sounds(short, 8_000, "", None, 1)
    np.testing.assert_allclose(sound.samples[:2], [0, 0.5], atol=1e-4)
    (stereo,) = sounds.sounds(np.zeros((2, 100)), 8_000, "", None, 1)
    assert stereo.samples.shape == (100, 2)


def test_what_is_no_sound_is_refused():
    for value, why in ((np.zeros((3, 100)), "shape"), ([0.0], "1 sample only"), ([float("nan")] * 99, "NaN"), (b"x" * 99, "no WAV"),
                       (["a"] * 99, "no number"), (None, "null")):  # fmt: skip
        with pytest.raises(DataError, match=f"this is no sound: .*{why}"):
            zeppelin.audio(value, 8_000)
    for rate in (0, -1, 8_000.5, "8000"):
        with pytest.raises(InvalidParamError, match="'rate' must be a whole number of 1 or more"):
            zeppelin.audio(np.zeros(100), rate)
    with pytest.raises(InvalidParamError, match="say the rate of the samples"):
        zeppelin.spectrogram(np.zeros(100))


def test_a_spectrogram_has_its_tone_where_it_is(monkeypatch):
    tone = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype(np.float32)
    (picture,) = sounds.spectrograms(sounds.sounds(tone, 16_000, "", None, 1))
    assert isinstance(picture, Picture)
    pixels = np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB")).astype(int)
    column = pixels[:, 300].sum(axis=1)  # cividis: the more power, the lighter
    inside = np.flatnonzero(column < 700)
    at = inside[np.argmax(column[inside])]
    assert 1 - (at - inside[0]) / (inside[-1] - inside[0]) == pytest.approx(1_000 / 8_000, abs=0.05)
    assert sounds.spectrograms([Text("no rows")]) == [Text("no rows")]
    silent = sounds.spectrograms(sounds.sounds(np.zeros(100), 8_000, "", None, 1))
    assert isinstance(silent[0], Picture)
    monkeypatch.setitem(__import__("sys").modules, "scipy.signal", None)
    with pytest.raises(SparkdlError, match=r"needs scipy, .* pip install 'sparkdl\[plot\]'"):
        zeppelin.spectrogram(tone, 16_000)


def test_long_texts_are_cut_far_from_their_answers():
    text = "a" * 1_000 + "HIT" + "b" * 1_000 + "HIT" + "c" * 1_000
    marked = texts.by_text(text, "HIT")
    shown = "".join(part for part, _ in marked.parts)
    assert [part for part, on in marked.parts if on] == ["HIT", "HIT"]
    assert len(shown) < 2_000
    assert shown.startswith(" … a")
    assert texts.by_place("abc", 0, 3) == Marked((("abc", True),))
    assert texts.by_text("aXbX", "X").parts == (("a", False), ("X", True), ("b", False), ("X", True))


def test_a_bundle_tells_what_it_is():
    bundle = dataclasses.replace(
        Bundle.from_module(nn.Linear(4, 3), signature(spec(shape=(4,))), task="multiclass"),
        metrics={"accuracy": 0.98765, "kind": "<b>"},
    )
    (told,) = anything.pieces_of(bundle, 5)
    lines = dict(told.lines)
    assert lines["task"] == "multiclass"
    assert lines["input"] == "x: float32[B, 4] from x array<float>"
    assert lines["output"] == "prediction: float64[B]"
    assert lines["metric"] == "accuracy 0.9877"
    assert lines["program"] == "exported by torch.export"
    assert lines["size"].startswith("15 weights, ")
    assert lines["digest"] == bundle.digest[:12]
    markup = bundle._repr_html_()
    assert "accuracy 0.9877" in markup
    assert "&lt;b&gt;" in markup
    assert "<b>" not in markup
    many = dataclasses.replace(bundle, metrics={f"m{i}": 1 for i in range(20)})
    assert ("", "… 8 more") in facts.of_bundle(many).lines


def test_a_scored_table_tells_what_was_done():
    table = ScoredTable("file:/out", 2_000, 1_990, {"null": 7, "shape": 3}, 2.0, "scan", None, 8, 3)
    assert facts.of_table(table).lines == (
        ("table", "file:/out"), ("rows", "1,990 of 2,000 written"), ("bad rows", "null 7, shape 3"), ("seconds", "2.0, 1,000 rows/s"),
        ("way", "scan"), ("resumed", "3 of 8 pieces were finished before"),
    )  # fmt: skip
    assert "file:/out" in table._repr_html_()
    already = dataclasses.replace(table, already=True)
    assert facts.of_table(already).lines[-1] == ("seconds", "none: the table was there already")
    unwritten = dataclasses.replace(table, uri=None, way="dataframe", why="a view", resumed=0)
    assert ("rows", "2,000 read") in facts.of_table(unwritten).lines
    assert facts.of_table(unwritten).lines[-1] == ("way", "dataframe: a view")


class LongRunning:
    """A query as far as a view of it looks: what its status says, and 5,000 micro-batches of two hours."""

    def __init__(self, batches=5_000):
        random = np.random.default_rng(0)
        names = ("queue", "decode", "model", "write", "sink", "total")
        self.told = [
            {
                "event": "batch", "query": "q", "time": 1.7e9 + 1.44 * i, "rows": int(random.integers(1, 9_999)), "dead": {"null": 1},
                "versions": {"1": 5}, "seconds": dict(zip(names, random.uniform(0, 0.1, 6).tolist(), strict=True)),
            }
            for i in range(batches)
        ]  # fmt: skip

    def events(self):
        return self.told

    def status(self):
        return Status("q").now()


def test_a_view_of_a_stream_that_runs_for_hours_fits_into_a_paragraph():
    facts, *pictures = streams.with_pictures(LongRunning())
    assert facts.lines[0][0] == "query"
    assert [picture.name for picture in pictures] == ["throughput", "latency"]
    written = display.zeppelin([facts, *pictures], int(display.ZEPPELIN_BYTES * 0.7))
    assert written.count("data:image/svg+xml") == 2
    bars = dict(streams.pieces_of(LongRunning())[0].lines)
    assert len(bars["ms a batch"]) == 40


def test_a_view_of_a_stream_that_has_done_nothing_yet():
    (facts,) = streams.with_pictures(LongRunning(0))
    assert streams.pieces_of(LongRunning(0))[0].lines[0] == facts.lines[0]


def test_how_far_the_exact_area_may_be_is_told():
    """Of 4 positives and 4 negatives two each have one score: 14 of 16 pairs are in order, the 4 of that score count half."""
    (curve,), _ = evaluation.rocs_of(
        [(1, True, 5, 2, None), (1, False, 5, 2, None), (1, True, 9, 2, None), (1, False, 0, 2, None)], "p"
    )
    assert (curve.auc, curve.error) == (0.875, 0.125)


def test_a_number_that_is_no_probability_is_named_as_it_was_given():
    with pytest.raises(DataError, match=r"'p' holds 3\.5, and a probability is from 0 to 1"):
        evaluation.rocs_of([(0, True, None, 1, -2.5), (1, False, None, 1, 3.5)], "p")


def test_a_class_that_others_are_taken_for_is_shown_too():
    pairs = [(f"c{i:02}", f"c{i:02}", 10) for i in range(30)] + [("c00", "c25", 5)]
    assert "c25" in evaluation.confusion_of(pairs).names
