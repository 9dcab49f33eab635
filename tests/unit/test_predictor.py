"""Named arrays in, named arrays out; what does not fit the signature is refused, and never broadcast or wrapped."""

import logging
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making import signature, spec
from torch import nn

from sparkdl.bundle import Bundle
from sparkdl.columns import Ragged
from sparkdl.errors import SignatureError, SparkdlError
from sparkdl.score import predictor as predictors
from sparkdl.score.predictor import Predictor
from sparkdl.score.scorer import Scorer
from sparkdl.score.scoring import Scoring
from sparkdl.score.sizing import LEAST, PROBE_ROWS, TENSOR_BYTES
from sparkdl.signature import TensorSpec


class Both(nn.Module):
    def forward(self, x, key):
        return {"sum": x.sum(dim=1), "key": key + 1}


class Counting(nn.Module):
    """Tells how many rows came at a time."""

    def forward(self, x):
        return x.sum(dim=1).long() * 0 + x.shape[0]


@pytest.fixture(scope="module")
def both():
    return Bundle.from_module(Both(), signature(spec("x", shape=(2,)), spec("key", "int16", type="short")))


def ask(bundle, x=((1.0, 2.0), (3.0, 4.0)), key=(1, 2), x_dtype="float32", key_dtype="int16"):
    return bundle.predict({"x": np.array(x, x_dtype) if x_dtype else x, "key": np.array(key, key_dtype)})


def test_outputs_come_by_name(both):
    predicted = ask(both)
    assert {name: (value.dtype.name, value.tolist()) for name, value in predicted.items()} == {
        "sum": ("float32", [3.0, 7.0]),
        "key": ("int16", [2, 3]),
    }


@pytest.mark.parametrize(("x_dtype", "key_dtype"), [("float64", "int64"), ("float16", "uint16"), ("int32", "bool")])
def test_other_dtypes_that_hold_the_same_values_are_taken(both, x_dtype, key_dtype):
    assert ask(both, key=(1, 0), x_dtype=x_dtype, key_dtype=key_dtype)["sum"].tolist() == [3.0, 7.0]


def test_lists_and_non_contiguous_and_read_only_arrays_are_taken(both):
    wide = np.arange(8, dtype=np.float32).reshape(2, 4)[:, ::2]
    wide.flags.writeable = False
    assert both.predict({"x": wide, "key": np.int16([1, 2])})["sum"].tolist() == [2.0, 10.0]
    assert both.predict({"x": [[1.0, 2.0]], "key": [1]})["key"].tolist() == [2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"x": ((1.0, 2.0, 3.0),) * 2}, r"'x' must have shape \(B, 2\) \(got \(2, 3\)\)"),
        ({"x": (1.0, 2.0)}, r"'x' must have shape"),
        (
            {"x": ((1.0, 2.0), (1.0,)), "x_dtype": None},
            r"'x' must have shape \(B, 2\) \(got rows of different shapes\)",
        ),
        ({"x": 1.0}, r"'x' must have shape"),
        ({"key": ((1,), (2,))}, r"'key' must have shape \(B, \) \(got \(2, 1\)\)"),
        ({"key": (1, 2, 3)}, "'key' has 3 rows, 'x' has 2"),
        ({"key": (1.0, 2.0), "key_dtype": "float64"}, "'key' must be int16 .got float64, which it cannot hold"),
        ({"key": (1, 40_000), "key_dtype": "uint16"}, "'key' must be int16 .got uint16 values that it cannot hold"),
        ({"key": (1, 1 << 16), "key_dtype": "int64"}, "'key' must be int16 .got int64 values that it cannot hold"),
        ({"x": (("a", "b"),) * 2, "x_dtype": "str"}, "'x' must be float32"),
        ({"x": ((None, 1),) * 2, "x_dtype": "object"}, "'x' must be float32"),
    ],
)
def test_what_does_not_fit_is_refused(both, arguments, says):
    with pytest.raises(SignatureError, match=says):
        ask(both, **arguments)


def test_a_missing_input_is_named_with_those_given(both):
    with pytest.raises(SignatureError, match=r"input 'key' is missing; given are \['keys', 'x'\]"):
        both.predict({"x": np.zeros((1, 2)), "keys": np.zeros(1)})


def test_rows_go_through_in_batches_and_come_out_in_order():
    bundle = Bundle.from_module(Counting(), signature(spec(shape=(2,))))
    predicted = Predictor(bundle, Scoring(batch_size=3)).predict({"x": np.zeros((8, 2))})["prediction"]
    assert predicted.tolist() == [3, 3, 3, 3, 3, 3, 2, 2]
    rows = np.arange(10, dtype=np.float32)[:, None].repeat(2, 1)
    linear = Bundle.from_module(nn.Linear(2, 1), signature(spec(shape=(2,))))
    whole, parts = (Predictor(linear, Scoring(batch_size=size)).predict({"x": rows})["prediction"] for size in (100, 3))
    np.testing.assert_allclose(whole, parts, rtol=1e-6)


def test_no_rows_give_no_rows(both):
    predicted = both.predict({"x": np.zeros((0, 2)), "key": np.zeros(0, np.int16)})
    assert {name: (value.dtype.name, value.shape) for name, value in predicted.items()} == {
        "sum": ("float32", (0,)),
        "key": ("int16", (0,)),
    }


def test_outputs_of_another_shape_than_the_signature_s_are_refused_not_broadcast():
    bundle = Bundle.from_module(nn.Linear(2, 1), signature(spec(shape=(2,))))
    told = replace(bundle.signature, outputs=(TensorSpec("prediction", "float32", (4,)),))
    wrong = replace(bundle, signature=told)
    with pytest.raises(SignatureError, match=r"returned \(3, 1\) as 'prediction' for 3 rows"):
        wrong.predict({"x": np.zeros((3, 2))})


def test_bfloat16_which_numpy_lacks_comes_out_as_float32():
    class Half(nn.Module):
        def forward(self, x):
            return x.bfloat16()

    bundle = Bundle.from_module(Half(), signature(spec(shape=(2,))))
    predicted = bundle.predict({"x": [[1.5, 2.0]]})["prediction"]
    assert (predicted.dtype, predicted.tolist()) == (np.float32, [[1.5, 2.0]])


def test_predicting_keeps_no_graph(both):
    assert not torch.is_inference_mode_enabled()
    ask(both)
    assert torch.is_grad_enabled()


# whose memory it is


class InPlace(nn.Module):
    """Writes to its input, by itself or through a view; looking at values keeps it from being exported."""

    def __init__(self, looks=False, view=False):
        super().__init__()
        self.looks, self.view, self.linear = looks, view, nn.Linear(3, 2)

    def forward(self, x):
        if self.view:
            x[:, 1:].relu_().reshape(-1, 2).mul_(2)
        else:
            x.mul_(2)
        return self.linear(-x if self.looks and float(x.sum()) > 1e9 else x)


IN_PLACE = {
    "a layer": lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)),
    "an operator": InPlace,
    "through a view": lambda: InPlace(view=True),
    "not exported": lambda: InPlace(looks=True),
}


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("batch_size", [0, 7])
def test_a_model_that_works_in_place_leaves_the_caller_s_memory_and_arrow_s_as_they_were(name, batch_size):
    torch.manual_seed(0)
    module = IN_PLACE[name]()
    bundle = Bundle.from_module(module, signature(spec(shape=(3,))), trusted=True)
    assert (bundle.program.kind == "export") == (name != "not exported")
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x.copy())).numpy()
    given = x.copy()
    np.testing.assert_allclose(
        Predictor(bundle, Scoring(batch_size)).predict({"x": given})["prediction"], expected, rtol=1e-5, atol=1e-6
    )
    assert given.tolist() == x.tolist()

    rows = pa.RecordBatch.from_arrays([pa.array(x.tolist(), pa.list_(pa.float32()))], ["x"])
    scorer = Scorer(bundle.digest, lambda: bundle.files, bundle.signature, Scoring(batch_size), bundle.trusted)
    ((batch, scored),) = scorer.score([rows])
    np.testing.assert_allclose(scored.outputs["prediction"].to_pylist(), expected, rtol=1e-5, atol=1e-6)
    assert batch["x"].to_pylist() == x.tolist()


def test_rows_that_go_again_for_want_of_memory_are_as_they_were():
    class Hungrily(nn.Module):
        def forward(self, x):
            x.add_(1)
            if len(x) > 5 and float(x.sum()) != len(x):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return x.long()

    bundle = Bundle.from_module(Hungrily(), signature(spec(shape=())), example=(torch.zeros(2),), trusted=True)
    x = np.arange(40, dtype=np.float32)
    assert Predictor(bundle, Scoring(batch_size=32)).predict({"x": x})["prediction"].tolist() == (x + 1).tolist()


def test_the_rows_of_other_models_are_not_copied(monkeypatch):
    recording = Recording()
    monkeypatch.setattr(predictors, "transfer", lambda device: recording)
    x = np.zeros((40, 2), np.float32)
    Predictor(Bundle.from_module(nn.Linear(2, 1), signature(spec(shape=(2,))))).predict({"x": x})
    assert all(np.shares_memory(x, array) for array in recording.arrays[-1])


# whatever the size of the batches


@cache
def mixed():
    """A model of two inputs and three outputs, as a bundle."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.head = nn.Linear(5, 16), nn.Linear(16, 3)
            self.embedding = nn.Embedding(7, 16)

        def forward(self, x, key):
            hidden = torch.relu(self.hidden(x)) + self.embedding(key)
            return {"logits": self.head(hidden), "embedding": hidden, "key": key * 3}

    torch.manual_seed(0)
    inputs = signature(spec("x", shape=(5,)), spec("key", "int64", type="long"))
    module = Mixed().eval()
    return module, Bundle.from_module(module, inputs)


@given(st.integers(0, 70), st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_every_split_into_batches_gives_what_the_module_gives(rows, batch_size, seed):
    module, _ = mixed()
    random = np.random.default_rng(seed)
    x, key = random.normal(size=(rows, 5)).astype(np.float32), random.integers(0, 7, rows)
    with torch.no_grad():
        expected = module(torch.from_numpy(x), torch.from_numpy(key))
    predicted = scorer(batch_size).predict({"x": x, "key": key})
    assert list(predicted) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(predicted[name], value.numpy(), rtol=1e-5, atol=2e-6)
        assert predicted[name].dtype == value.numpy().dtype


@cache
def scorer(batch_size):
    return Predictor(mixed()[1], Scoring(batch_size=batch_size))


def test_a_size_that_is_given_makes_the_same_bits_every_time():
    random = np.random.default_rng(0)
    inputs = {"x": random.normal(size=(1000, 5)).astype(np.float32), "key": random.integers(0, 7, 1000)}
    one, two = (Predictor(mixed()[1], Scoring(batch_size=64)).predict(inputs) for _ in range(2))
    for name, value in one.items():
        np.testing.assert_array_equal(two[name], value)


class Wide(nn.Module):
    """Makes 256 KiB a row, and tells how many rows came at a time."""

    def forward(self, x):
        return (x[:, :1].float() * torch.ones(1 << 16)).sum(1).long() * 0 + x.shape[0]


def test_the_rows_at_a_time_suit_the_model_and_are_told_once(caplog):
    predictor = Predictor(Bundle.from_module(Wide(), signature(spec(shape=(2,)))))
    with caplog.at_level(logging.INFO, "sparkdl"):
        predicted = predictor.predict({"x": np.zeros((100, 2))})["prediction"]
        again = predictor.predict({"x": np.zeros((100, 2))})["prediction"]
    assert predictor.batch_size == TENSOR_BYTES["cpu"] // (256 << 10)
    assert predicted.tolist() == again.tolist() == [8] * 96 + [4] * 4
    assert [record.message for record in caplog.records if "rows to a forward pass" in record.message] == [
        "8 rows to a forward pass; the largest tensor of 8 takes 2097152 bytes"
    ]


def test_a_few_rows_make_one_pass():
    predictor = Predictor(Bundle.from_module(Counting(), signature(spec(shape=(2,)))))
    for _ in range(3):
        assert predictor.predict({"x": np.zeros((PROBE_ROWS, 2))})["prediction"].tolist() == [PROBE_ROWS] * PROBE_ROWS


def test_the_same_rows_give_the_same_bits_in_a_new_process_s_first_batch_and_later():
    """As a task that runs again does, in a process that has run others or not."""
    x = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
    module = nn.Sequential(nn.Linear(4, 512), nn.Tanh(), nn.Linear(512, 1), nn.Sigmoid())
    bundle = Bundle.from_module(module, signature(spec(shape=(4,))))
    used = Predictor(bundle)
    used.predict({"x": x[:777]})
    for _ in range(2):
        np.testing.assert_array_equal(
            Predictor(bundle).predict({"x": x})["prediction"], used.predict({"x": x})["prediction"]
        )


# rows of varying length


class Words(nn.Module):
    """A small Transformer over the rows' words, with a mask, and of their marks; what is padded must not count."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, words, is_word, marks, has_marks, weight):
        hidden = self.encoder(self.embedding(words), src_key_padding_mask=(is_word == 0) & (is_word.cumsum(1) > 0))
        hidden = (hidden * is_word.unsqueeze(-1)).sum(1) / is_word.sum(1, keepdim=True).clamp(min=1)
        marks = (marks * has_marks.unsqueeze(-1)).sum(1)
        return torch.cat([hidden * weight.unsqueeze(1), marks], dim=1)


def ragged_signature():
    return signature(
        TensorSpec("words", "int64", (-1,), ("words",), ("array<long>",)),
        TensorSpec("is_word", "float32", (-1,), mask_of="words"),
        TensorSpec("marks", "float32", (-1, 2), ("marks",), ("array<array<float>>",)),
        TensorSpec("has_marks", "int64", (-1,), mask_of="marks"),
        spec("weight"),
    )


@cache
def words():
    torch.manual_seed(0)
    module = Words().eval()
    return module, Bundle.from_module(module, ragged_signature())


def texts(lengths, seed=0):
    random = np.random.default_rng(seed)
    return {
        "words": [random.integers(0, 10, length) for length in lengths],
        "marks": [random.normal(size=(length % 5, 2)).astype(np.float32) for length in lengths],
        "weight": random.normal(size=len(lengths)).astype(np.float32),
    }


def alone(module, inputs, row):
    """What the module gives for one row, with nothing padded; a row without values is one of padding."""

    def unpadded(values):
        values = values if len(values) else np.zeros((1, *values.shape[1:]), values.dtype)
        return torch.from_numpy(np.asarray(values))[None]

    tokens, marks = inputs["words"][row], inputs["marks"][row]
    with torch.no_grad():
        return module(
            unpadded(tokens),
            torch.full((1, max(1, len(tokens))), float(len(tokens) > 0)),
            unpadded(marks),
            torch.full((1, max(1, len(marks))), int(len(marks) > 0)),
            torch.from_numpy(inputs["weight"][row : row + 1]),
        )[0].numpy()


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(0, 9), st.integers(0, 2**32 - 1))
def test_rows_of_any_lengths_give_what_each_gives_alone(lengths, batch_size, seed):
    module, _ = words()
    inputs = texts(lengths, seed)
    predicted = ragged_scorer(batch_size).predict(inputs)["prediction"]
    assert predicted.shape == (len(lengths), 10)
    for row in range(len(lengths)):
        np.testing.assert_allclose(predicted[row], alone(module, inputs, row), rtol=1e-4, atol=1e-5)


@cache
def ragged_scorer(batch_size):
    return Predictor(words()[1], Scoring(batch_size=batch_size))


def test_no_row_is_padded_beyond_what_a_model_can_take():
    class Placed(nn.Module):
        """Knows 20 places; an index beyond them is an error."""

        def __init__(self):
            super().__init__()
            self.places = nn.Embedding(20, 4)

        def forward(self, words, is_word):
            return (self.places(torch.arange(words.shape[1])) * (words * is_word).unsqueeze(-1)).sum(1)

    torch.manual_seed(0)
    inputs = signature(*ragged_signature().inputs[:2])
    module = Placed()
    predictor = Predictor(Bundle.from_module(module, inputs))
    for longest in (20, 3):
        rows = texts(np.arange(40) % (longest + 1))["words"]
        predicted = predictor.predict({"words": rows})["prediction"]
        with torch.no_grad():
            expected = [(module.places.weight[: len(row)] * torch.from_numpy(row)[:, None]).sum(0) for row in rows]
        np.testing.assert_allclose(predicted, torch.stack(expected).numpy(), rtol=1e-5, atol=1e-5)


def test_the_rows_at_a_time_do_not_depend_on_those_that_came_first():
    class Headed(nn.Module):
        """Its largest tensor is the same whatever the length: 16 KiB a row."""

        def forward(self, words, is_word):
            wide = (words * is_word).sum(1, keepdim=True) * torch.ones(4096)
            return wide.sum(1).long() * 0 + words.shape[0]

    bundle = Bundle.from_module(Headed(), signature(*ragged_signature().inputs[:2]))
    seen = set()
    for first in (0, 1, 2, 5, 12, 100):
        predictor = Predictor(bundle)
        predictor.predict({"words": texts([first] * 20)["words"]})
        seen.add(predictor.predict({"words": texts([16] * 300)["words"]})["prediction"].max())
    assert seen == {96}


def test_a_model_that_takes_no_made_up_rows_goes_with_few_at_a_time():
    class Few(nn.Module):
        """Knows 6 places only."""

        def __init__(self):
            super().__init__()
            self.places = nn.Embedding(6, 4)

        def forward(self, words, is_word):
            hidden = self.places(torch.arange(words.shape[1])) * (words * is_word).unsqueeze(-1)
            return hidden.sum(1), words[:, 0] * 0 + words.shape[0]

    inputs = signature(*ragged_signature().inputs[:2])
    example = (torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3))
    bundle = Bundle.from_module(Few(), inputs, example=example, trusted=True)
    predictor = Predictor(bundle)
    for _ in range(2):
        assert predictor.predict({"words": texts([5] * 40)["words"]})["output_1"].max() == LEAST
    with pytest.raises(IndexError):
        predictor.predict({"words": texts([7] * 40)["words"]})


def test_little_is_padded(monkeypatch):
    recording = Recording()
    monkeypatch.setattr(predictors, "transfer", lambda device: recording)
    lengths = np.random.default_rng(0).integers(5, 203, 2000)
    Predictor(words()[1], Scoring(batch_size=50)).predict(texts(lengths))
    padded = [shapes[0] for shapes in recording.shapes]
    assert sum(rows for rows, _ in padded) == len(lengths)
    assert max(length for _, length in padded) == lengths.max()
    assert {length % 8 for _, length in padded if length < lengths.max()} == {0}
    assert sum(rows * length for rows, length in padded) < 1.06 * lengths.sum()


def test_a_ragged_and_an_array_for_all_rows_are_taken_too():
    inputs = texts([4] * 6)
    expected = ragged_scorer(4).predict(inputs)["prediction"]
    flat = Ragged(np.concatenate(inputs["words"]).astype(np.int32), np.arange(0, 25, 4))
    for given_words in (flat, np.stack(inputs["words"]), [row.tolist() for row in inputs["words"]]):
        np.testing.assert_array_equal(ragged_scorer(4).predict(inputs | {"words": given_words})["prediction"], expected)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("words", 3, r"'words' must have an array of shape \(L, \) for each row \(got 3\)"),
        ("words", [1, 2], r"for each row \(got \(\)\)"),
        ("words", [[1], [[2]]], r"\(got \(1, 1\)\)"),
        ("words", [[1], [[2], [3, 4]]], r"\(got \[\[2\], \[3, 4\]\]\)"),
        ("words", [[1], [2.5]], "must be int64 .got float64, which it cannot hold"),
        ("words", [[1], ["a"]], "must be int64"),
        ("words", [[1], [2], [3]], "'marks' has 2 rows, 'words' has 3"),
        ("words", Ragged(np.zeros((3, 1), np.int64), np.array([0, 1, 3])), r"\(got \(3, 1\)\)"),
        ("marks", [[[1.0, 2.0, 3.0]], []], r"'marks' must have an array of shape \(L, 2\) .* \(got \(1, 3\)\)"),
        (
            "weight",
            Ragged(np.zeros(3, np.float32), np.array([0, 1, 3])),
            r"'weight' must have shape \(B, \) \(got rows of varying length\)",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused(name, value, says):
    inputs = texts([1, 2]) | {name: value}
    with pytest.raises(SignatureError, match=says):
        ragged_scorer(4).predict(inputs)


# memory


class Hungry(nn.Module):
    """Its memory is enough for 5 rows, or for none. Not to be exported: it looks at values."""

    def __init__(self, rows, gpu):
        super().__init__()
        self.rows, self.gpu, self.linear = rows, gpu, nn.Linear(3, 2)

    def forward(self, x, *others):
        if float(x.sum()) != 0 and len(x) > self.rows:
            if self.gpu:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
            torch.empty(1 << 60)
        return self.linear(x), torch.full((len(x),), len(x))


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("batch_size", [0, 1, 5, 6, 64])
def test_what_does_not_fit_the_memory_goes_in_halves(gpu, batch_size, caplog):
    torch.manual_seed(0)
    module = Hungry(5, gpu)
    predictor = Predictor(hungry(module), Scoring(batch_size=batch_size))
    x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    predicted = predictor.predict({"x": x})
    with torch.no_grad():
        np.testing.assert_allclose(
            predicted["output_0"], module.linear(torch.from_numpy(x)).numpy(), rtol=1e-5, atol=1e-6
        )
    assert predicted["output_1"].max() <= 5
    assert predictor.batch_size <= 5
    told = caplog.text.count("rows do not fit")
    assert (told > 0) == (batch_size not in (1, 5))
    predictor.predict({"x": x})
    assert caplog.text.count("rows do not fit") == told, "what does not fit is not tried again"


def test_rows_that_share_a_halved_batch_with_longer_ones_come_out_in_their_place(monkeypatch):
    class HungryWords(nn.Module):
        def forward(self, words, is_word):
            if float(is_word.sum()) != 0 and words.numel() > 60:
                torch.empty(1 << 60)
            return (words * is_word).sum(1)

    inputs = signature(
        TensorSpec("words", "int64", (-1,), ("words",), ("array<long>",)),
        TensorSpec("is_word", "bool", (-1,), mask_of="words"),
    )
    bundle = Bundle.from_module(
        HungryWords(),
        inputs,
        example=(torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool)),
        trusted=True,
    )
    rows = texts(np.random.default_rng(1).integers(0, 30, 50))["words"]
    for batch_size in (0, 16):
        predicted = Predictor(bundle, Scoring(batch_size=batch_size)).predict({"words": rows})["prediction"]
        assert predicted.tolist() == [row.sum() for row in rows]


def test_a_row_that_does_not_fit_is_told_with_what_to_do():
    predictor = Predictor(hungry(Hungry(0, True)), Scoring(batch_size=4))
    with pytest.raises(
        SparkdlError, match=r"one row does not fit the memory of cpu, .*: CUDA out of memory.* Use a device"
    ):
        predictor.predict({"x": np.ones((4, 3))})


def test_another_error_of_the_model_is_raised_as_it_is():
    class Failing(Hungry):
        def forward(self, x):
            if float(x.sum()) > 100:
                raise RuntimeError("no such thing")
            return super().forward(x)

    predictor = Predictor(hungry(Failing(5, True)), Scoring(batch_size=4))
    with pytest.raises(RuntimeError, match="no such thing"):
        predictor.predict({"x": np.full((4, 3), 100)})


def hungry(module):
    return Bundle.from_module(module, signature(spec(shape=(3,))), example=(torch.zeros(2, 3),), trusted=True)


# the order of things


class Recording:
    """As on a device that computes beside the host: it tells when what is begun, and when what is waited for."""

    def __init__(self):
        self.told, self.shapes, self.arrays = [], [], []
        self.puts = self.takes = 0

    def put(self, arrays):
        number, self.puts = self.puts, self.puts + 1
        self.told.append(f"put {number}")
        self.shapes.append([array.shape for array in arrays])
        self.arrays.append(arrays)

        def arrived():
            self.told.append(f"compute {number}")
            return [torch.from_numpy(array) for array in arrays]

        return arrived

    def take(self, outputs):
        number, self.takes = self.takes, self.takes + 1

        def arrays():
            self.told.append(f"store {number}")
            return {name: value.numpy() for name, value in outputs.items()}

        return arrays

    def wait(self):
        self.told.append("wait")

    def free(self):
        self.told.append("free")


def test_the_next_batch_moves_while_one_computes_and_the_one_before_is_stored(monkeypatch):
    recording = Recording()
    monkeypatch.setattr(predictors, "transfer", lambda device: recording)
    bundle = Bundle.from_module(Counting(), signature(spec(shape=(2,))))
    Predictor(bundle, Scoring(batch_size=2)).predict({"x": np.zeros((7, 2))})
    assert recording.told == [
        "put 0", "compute 0",
        "put 1", "compute 1",
        "put 2", "store 0", "compute 2",
        "put 3", "store 1", "compute 3",
        "store 2", "store 3",
    ]  # fmt: skip


def test_a_device_whose_memory_is_full_before_the_model_begins(monkeypatch):
    class Full(Recording):
        def put(self, arrays):
            if len(arrays[0]) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().put(arrays)

    full = Full()
    monkeypatch.setattr(predictors, "transfer", lambda device: full)
    predictor = Predictor(Bundle.from_module(Counting(), signature(spec(shape=(2,)))), Scoring(batch_size=8))
    assert predictor.predict({"x": np.zeros((16, 2))})["prediction"].tolist() == [2] * 16
    assert predictor.batch_size == 2
    assert full.told.count("free") > 0
