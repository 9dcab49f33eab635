"""Every row gets its own prediction, whatever the batches, and whatever is wrong with its neighbours."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from sparkdl.bundle import Bundle
from sparkdl.columns import KINDS, to_arrow
from sparkdl.decode import CtcDecoder
from sparkdl.errors import DataError
from sparkdl.preprocess import Categories, Characters, LabelLists, Labels, Series
from sparkdl.preprocess import Image as Pixels
from sparkdl.score import scorer as scorer_module
from sparkdl.score import worker
from sparkdl.score.scorer import Scorer
from sparkdl.score.scoring import Scoring
from sparkdl.score.udf import PROBLEM, _Score, exact_longs
from sparkdl.signature import Signature, TensorSpec

FEATURES = TensorSpec("features", "float32", (4,), ("features",), ("array<float>",))


class Both(nn.Module):
    """Two inputs, two outputs: shapes () and (4,)."""

    def forward(self, features, key):
        return {"sum": features.sum(dim=1) + key, "scaled": features * 2}


class Reciprocal(nn.Module):
    def forward(self, x):
        return 1 / x


class Brightness(nn.Module):
    def forward(self, image):
        return image.float().mean(dim=(1, 2, 3))


KEY = TensorSpec("key", "int64", (), ("key",), ("long",))


def scorer(module, *inputs, invalid="error", batch_size=0):
    bundle = Bundle.from_module(module, Signature(inputs))
    return Scorer(bundle.digest, lambda: bundle.files, bundle.signature, Scoring(batch_size, invalid=invalid), False)


@pytest.fixture(scope="module")
def both():
    bundle = Bundle.from_module(Both(), Signature((FEATURES, KEY)))

    def make(invalid="keep", batch_size=0):
        return Scorer(
            bundle.digest, lambda: bundle.files, bundle.signature, Scoring(batch_size, invalid=invalid), False
        )

    return make


def batch(features, key):
    return pa.RecordBatch.from_arrays(
        [pa.array(features, pa.list_(pa.float32())), pa.array(key, pa.int64()), pa.array(range(len(key)))],
        ["features", "key", "id"],
    )


def is_bad(features, key):
    return features is None or key is None or len(features) != 4 or None in features


rows = st.lists(
    st.tuples(
        st.one_of(
            st.lists(st.floats(-9, 9, width=32), min_size=4, max_size=4),
            st.sampled_from([None, [], [1.0, 2.0], [1.0, None, 2.0, 3.0], [1.0] * 5]),
        ),
        st.one_of(st.integers(-9, 9), st.none()),
    ),
    max_size=30,
)


@given(st.lists(rows, max_size=4), st.integers(0, 5), st.integers(16, 200))
@settings(max_examples=60, deadline=None)
def test_a_bad_row_is_null_and_shifts_no_other(both, batches, batch_size, piece_bytes):
    given_batches = [batch([f for f, _ in rows], [k for _, k in rows]) for rows in batches]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer_module, "PIECE_BYTES", piece_bytes)
        scored = list(both(batch_size=batch_size).score(iter(given_batches)))
    assert [b.column("id").to_pylist() for b, _ in scored] == [list(range(len(rows))) for rows in batches]
    for rows, (_, made) in zip(batches, scored, strict=True):
        assert sorted(made.problems) == [i for i, row in enumerate(rows) if is_bad(*row)]
        assert {why.split(":")[0] for why in made.problems.values()} <= set(KINDS)
        for i, (features, key) in enumerate(rows):
            total, scaled = made.outputs["sum"][i].as_py(), made.outputs["scaled"][i].as_py()
            if is_bad(features, key):
                assert total is None
                assert scaled is None
            else:
                assert total == pytest.approx(sum(features) + key, abs=1e-4)
                assert scaled == pytest.approx([2 * f for f in features])


def test_the_reason_tells_column_and_what_is_wrong(both):
    bad = batch([None, [1.0], [1.0, None, 2.0, 3.0], [1.0] * 4], [1, 2, 3, None])
    ((_, made),) = both().score([bad])
    assert made.problems == {
        0: "null: column 'features': expected float32[4], got None",
        1: "shape: column 'features': expected 4 values, got 1 values",
        2: "null: column 'features': expected values that are not null, got a null inside the array",
        3: "null: column 'key': expected int64[], got None",
    }


def test_error_stops_at_the_first_bad_row(both):
    with pytest.raises(DataError, match=r"column 'features', row 1: expected 4 values, got 2 values") as caught:
        list(both("error").score([batch([[1.0] * 4, [1.0, 2.0]], [1, 2])]))
    assert (caught.value.column, caught.value.row) == ("features", 1)


def test_the_row_told_is_that_of_the_batch_however_it_is_cut(both, monkeypatch):
    monkeypatch.setattr(scorer_module, "PIECE_BYTES", 48)
    with pytest.raises(DataError, match="column 'key', row 5: expected int64") as caught:
        list(both("error").score([batch([[1.0] * 4] * 7, [1, 2, 3, 4, 5, None, 7])]))
    assert caught.value.row == 5


X = TensorSpec("x", "float64", (), ("x",), ("double",))


def test_outputs_that_are_not_finite(both):
    x = pa.RecordBatch.from_arrays([pa.array([1.0, 0.0, -4.0, float("nan")])], ["x"])
    ((_, made),) = scorer(Reciprocal(), X, invalid="keep").score([x])
    assert made.outputs["prediction"].to_pylist() == [1.0, None, -0.25, None]
    assert made.problems == {
        1: "non-finite: output 'prediction': the model returned inf",
        3: "non-finite: output 'prediction': the model returned nan",
    }
    with pytest.raises(DataError, match=r"output 'prediction', row 1: the model returned inf; say handleInvalid"):
        list(scorer(Reciprocal(), X).score([x]))


def test_no_batch_loads_no_model():
    def fetch():
        raise AssertionError("an empty partition needs no model")

    bundle = Bundle.from_module(Reciprocal(), Signature((X,)))
    assert list(Scorer(bundle.digest, fetch, bundle.signature, Scoring(), False).score(iter([]))) == []


def test_batches_without_rows():
    empty = pa.RecordBatch.from_arrays([pa.array([], pa.float64())], ["x"])
    ((_, made),) = scorer(Reciprocal(), X).score([empty])
    assert made.outputs["prediction"] == to_arrow(np.empty(0))
    assert made.problems == {}


def test_an_error_of_the_source_is_raised_as_it_is():
    def source():
        yield pa.RecordBatch.from_arrays([pa.array([2.0])], ["x"])
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(scorer(Reciprocal(), X).score(source()))


@pytest.mark.parametrize("given_columns", [[[None], [None]], [[None, None], [3, None]]])
def test_a_batch_of_nothing_but_bad_rows(both, given_columns):
    """As pandas carries it: without a type."""
    features, key = (pa.array(values) for values in given_columns)
    ((_, made),) = both().score([pa.RecordBatch.from_arrays([features, key], ["features", "key"])])
    assert made.outputs["sum"].null_count == len(features)
    assert sorted(made.problems) == list(range(len(features)))


# Image files

IMAGE = TensorSpec(
    "image", "uint8", (3, 8, 6), ("file",), ("binary",), preprocess=Pixels(height=8, width=6, resize="never")
)


def image_file(size=(6, 8), kind="PNG", value=100, mode="RGB"):
    stream = io.BytesIO()
    Image.new(mode, size, value if mode in ("L", "I;16") else (value,) * len(mode)).save(stream, kind)
    return stream.getvalue()


def test_image_files_are_decoded_and_bad_ones_are_kept_apart():
    files = [
        image_file(value=10),
        b"no image",
        image_file(value=20, kind="JPEG"),
        image_file(size=(8, 6)),
        b"",
        None,
        image_file(value=30, mode="L"),
        image_file(kind="JPEG")[:200],
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 8\n",
        image_file(value=1000, mode="I;16"),
    ]
    rows = pa.RecordBatch.from_arrays([pa.array(files, pa.binary())], ["file"])
    ((_, made),) = scorer(Brightness(), IMAGE, invalid="keep").score([rows])
    brightness = made.outputs["prediction"].to_pylist()
    assert [brightness[i] and round(brightness[i]) for i in (0, 2, 6)] == [10, 20, 30]
    assert {row: why.split(":")[0] for row, why in made.problems.items()} == {
        1: "undecodable", 3: "shape", 4: "undecodable", 5: "null", 7: "undecodable",
        8: "undecodable", 9: "undecodable",
    }  # fmt: skip
    assert made.problems[3].endswith("expected an image of (3, 8, 6), got (3, 6, 8)")
    with pytest.raises(DataError, match=r"column 'file', row 1: expected one of JPEG.* got .* b'no image'"):
        list(scorer(Brightness(), IMAGE).score([rows]))


def test_pixels_are_those_of_the_file():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    rows = pa.RecordBatch.from_arrays([pa.array([stream.getvalue()], pa.binary())], ["file"])
    ((_, made),) = scorer(nn.Identity(), IMAGE).score([rows])
    assert torch.tensor(made.outputs["prediction"][0].as_py()).tolist() == pixels.transpose(2, 0, 1).tolist()


def test_a_model_that_gives_way_to_another_leaves_no_memory_behind():
    """An exported program refers to itself, and what a worker has loaded is passed over by the garbage collector."""
    import gc
    import weakref

    x = pa.RecordBatch.from_arrays([pa.array([2.0])], ["x"])
    list(scorer(Reciprocal(), X).score([x]))
    first = weakref.ref(next(iter(worker._kept.values()))._forward.module)
    gc.freeze()
    list(scorer(nn.Identity(), X).score([x]))
    assert first() is None


class Table(nn.Module):
    """Fails on ids that it has no entry for, as an nn.Embedding does."""

    def __init__(self):
        super().__init__()
        self.entries = nn.Embedding(10, 1)

    def forward(self, x):
        return self.entries(x)[:, 0]


IDS = TensorSpec("x", "int64", (), ("x",), ("bigint",))


@pytest.mark.parametrize("poison", [[], [0], [7], [0, 1, 2], [3, 500, 999], list(range(0, 1000, 50))])
def test_a_row_on_which_the_model_raises_is_a_bad_row_and_the_others_are_scored(poison):
    ids = np.arange(1000) % 10
    ids[poison] = 10 + np.arange(len(poison))
    score = scorer(Table(), IDS, invalid="keep")
    ((_, scored),) = score.score([pa.RecordBatch.from_arrays([pa.array(ids)], ["x"])])
    assert list(scored.problems) == poison
    assert all(why.startswith("failed: the model raised IndexError") for why in scored.problems.values())
    values = scored.outputs["prediction"]
    assert [row for row in range(1000) if not values[row].is_valid] == poison
    bundle = Bundle.from_files(score.fetch())
    good = np.delete(np.arange(1000), poison)
    expected = bundle.predict({"x": ids[good]})["prediction"]
    assert values.take(pa.array(good)).to_pylist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_a_model_that_raises_on_a_great_many_rows_ends_the_task():
    rows = pa.RecordBatch.from_arrays([pa.array(np.arange(1000))], ["x"])
    with pytest.raises(IndexError):
        list(scorer(Table(), IDS, invalid="keep").score([rows]))
    with pytest.raises(IndexError):  # and by default one is enough
        list(scorer(Table(), IDS).score([rows.slice(5, 10)]))


def tidied(ahead=None):
    worker.tidy(ahead)
    if worker._tidying is not None:
        worker._tidying.join()


def test_several_models_stay_where_that_is_wanted_and_one_is_loaded_ahead(monkeypatch):
    monkeypatch.setattr(worker, "_kept", {})
    monkeypatch.setattr(worker, "_wanted", {})
    x = pa.RecordBatch.from_arrays([pa.array([2.0])], ["x"])
    first, second, third = scorer(Reciprocal(), X), scorer(nn.Identity(), X), scorer(nn.Tanh(), X)
    worker.keep("one", [first.digest, second.digest])
    list(first.score([x]))
    tidied(second)
    assert worker.loaded() == sorted([first.digest, second.digest])
    list(second.score([x]))
    list(first.score([x]))
    list(third.score([x]))  # not among those that stay, and it drops none of them
    assert worker.loaded() == sorted([first.digest, second.digest, third.digest])
    worker.keep("another", [third.digest])
    tidied()
    assert len(worker.loaded()) == 3
    worker.keep("one", [second.digest])
    assert len(worker.loaded()) == 3  # not while a task computes
    tidied()
    assert worker.loaded() == sorted([second.digest, third.digest])
    monkeypatch.setattr(worker, "FORGET_S", 0.0)  # of the first stream nothing more is heard
    worker.keep("another", [third.digest])
    tidied()
    assert worker.loaded() == [third.digest]


def test_a_worker_counts_drift_if_the_bundle_has_a_reference_that_can_be_understood(monkeypatch, caplog):
    monkeypatch.setattr(worker, "_kept", {})
    monkeypatch.setattr(worker, "_references", {})
    plain = Bundle.from_module(Reciprocal(), Signature((X,)))
    x = pa.RecordBatch.from_arrays([pa.array([2.0, 4.0])], ["x"])

    def counted(bundle):
        score = Scorer(bundle.digest, lambda: bundle.files, bundle.signature, Scoring(), False)
        assert worker.counter(score) is None  # its model is not here yet
        ((_, scored),) = score.score([x])
        made = worker.counter(score), worker.counter(score)
        if made[0] is None:
            return made[1]
        made[0].add(x, scored.outputs)
        assert made[0].counts["x"] != made[1].counts["x"] == [0] * len(made[1].counts["x"])  # each task has its own
        return sum(made[0].counts["x"])

    assert counted(plain) is None
    assert counted(plain.with_reference(pa.table({"x": [1.0, 2.0, 3.0]}))) == 2
    assert "drift is not told" not in caplog.text
    assert counted(replace(plain, training={"reference": {"rows": "many"}})) is None
    assert caplog.text.count("drift is not told") == 1
    worker.keep("one", [])
    tidied()
    assert worker._references == {}


def test_what_stays_is_passed_over_by_the_garbage_collector_after_another_has_gone(monkeypatch):
    import gc

    monkeypatch.setattr(worker, "_kept", {})
    monkeypatch.setattr(worker, "_wanted", {})
    monkeypatch.setattr(worker, "_freeze", gc.freeze)  # as in a task
    x = pa.RecordBatch.from_arrays([pa.array([2.0])], ["x"])
    first, second = scorer(Reciprocal(), X), scorer(nn.Identity(), X)
    try:
        worker.keep("one", [first.digest, second.digest])
        list(first.score([x]))
        list(second.score([x]))
        worker.keep("one", [second.digest])
        tidied()
        assert worker.loaded() == [second.digest]
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()


@pytest.mark.parametrize(
    ("preprocess", "kind", "good", "expected"),
    [
        (Series(length=2, mean=(0.0,), deviation=(1.0,)), "array<double>", np.array([1.0, 2.0]), 3.0),
        (LabelLists(values=("a", "b")), "array<string>", np.array(["a", "b"], object), 3.0),
        (Characters(alphabet="abc", length=3), "string", "ab", None),
        (Labels(values=(2**53, 2**53 + 1)), "long", str(2**53 + 1), 1.0),  # as exact_longs has it sent
    ],
)
def test_objects_of_pandas_that_are_all_null_are_bad_rows(preprocess, kind, good, expected):
    class Total(nn.Module):
        def forward(self, x):
            return {
                "total": x.double().reshape(x.shape[0], -1).sum(dim=1),
                "whole": x.long().reshape(x.shape[0], -1).sum(dim=1),
            }

    spec = TensorSpec("x", preprocess.dtype, preprocess.shape, ("x",), (kind,), preprocess=preprocess)
    score = _Score(scorer(Total(), spec, invalid="keep"), ("total", "whole", PROBLEM), None)
    nothing, some = score.pandas(iter([pd.Series([None, None], dtype=object), pd.Series([good, None], dtype=object)]))
    is_bad = not isinstance(preprocess, LabelLists)  # to which a null is an empty list
    assert nothing[PROBLEM].notna().tolist() == nothing["total"].isna().tolist() == [is_bad] * 2
    assert some[PROBLEM].notna().tolist() == [False, is_bad]
    assert expected is None or some["total"][0] == expected
    assert not is_bad or (some["whole"].dtype == object and isinstance(some["whole"][0], int))  # no float beside a null


def test_bigints_are_exact_in_a_pandas_udf():
    ids = TensorSpec(
        "ids", "int64", (2,), ("a", "b"), ("long", "long"), preprocess=Categories(vocabularies=(("1",), ("2",)))
    )
    plain = TensorSpec("plain", "int64", (), ("c",), ("long",))
    floats = TensorSpec("floats", "float32", (), ("d",), ("long",))
    assert exact_longs(Signature((ids, plain, floats))) == {"a", "b", "c"}


def test_a_decoder_is_given_no_row_that_is_not_finite():
    class Steps(nn.Module):
        def forward(self, x):
            return {
                "logits": (1 / x)[:, None, None].expand(-1, 2, 3),
                "frames": torch.full_like(x, 2, dtype=torch.int64),
            }

    decoder = CtcDecoder(alphabet="ab", beam=2)
    bundle = Bundle.from_module(Steps(), Signature((X,), decoder=decoder))
    score = Scorer(bundle.digest, lambda: bundle.files, bundle.signature, Scoring(invalid="keep"), False)
    rows = pa.RecordBatch.from_arrays([pa.array([1.0, 0.0, 2.0], pa.float32())], ["x"])
    ((_, scored),) = score.score([rows])
    assert scored.outputs["prediction"].is_null().to_pylist() == [False, True, False]
    assert list(scored.problems) == [1]
    assert scored.problems[1].startswith("non-finite: output 'logits'")
