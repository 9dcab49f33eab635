"""Answers out of logits; the reader and its loss."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from sparkdl.bundle import Bundle
from sparkdl.decode.base import from_json
from sparkdl.decode.spans import SpanDecoder
from sparkdl.errors import InvalidParamError, SignatureError
from sparkdl.ready.reading import Finder, Reader, ReaderLoss, Tower
from sparkdl.signature import Signature, TensorSpec

CONTEXT = "Ada teaches on Monday"
PLACE = [[-1, -1], [0, 3], [4, 11], [12, 14], [15, 21], [-1, -1]]


def outputs(start, end, place=PLACE):
    """Logits that are high at these tokens."""
    logits = np.full((2, 1, len(place)), -5.0, np.float32)
    logits[0, 0, start], logits[1, 0, end] = 5.0, 5.0
    return {"start": logits[0], "end": logits[1], "place": np.array([place])}


def decoded(made, **settings):
    rows = {"context": pa.array([CONTEXT] * len(made["start"]))}
    return {name: column.to_pylist() for name, column in SpanDecoder(**settings).decode(made, rows).items()}


@pytest.mark.parametrize(
    ("start", "end", "longest", "answer"),
    [
        (1, 1, 30, "Ada"),
        (3, 4, 30, "on Monday"),
        (1, 4, 30, "Ada teaches on Monday"),
        (4, 4, 1, "Monday"),
        ([1, 4], 4, 2, "Monday"),  # from 1 it would be too long
        ([4, 2], [3, 1], 30, "teaches on"),  # no end before its start
    ],
)
def test_the_best_start_and_end_that_fit_together(start, end, longest, answer):
    found = decoded(outputs(start, end), longest=longest)
    assert found["prediction"] == [answer]
    assert found["answer_start"] == [CONTEXT.index(answer)]
    assert 0 <= found["score"][0] <= 1


def test_nothing_outside_the_context_is_an_answer():
    made = outputs([0, 4], [4, 5])
    assert decoded(made)["prediction"] == ["Monday"]


def test_the_score_is_the_probability_of_both():
    made = outputs(1, 2)
    made["start"][:], made["end"][:] = 0.0, 0.0
    assert decoded(made)["score"] == [pytest.approx(1 / 16)]


def test_no_rows():
    empty = {name: values[:0] for name, values in outputs(1, 1).items()}
    assert decoded(empty) == {"prediction": [], "score": [], "answer_start": []}


def test_it_travels_as_json():
    decoder = SpanDecoder(context="passage", longest=5)
    assert from_json(decoder.to_json()) == decoder
    with pytest.raises(InvalidParamError, match="'longest'"):
        SpanDecoder(longest=0)


def test_a_context_that_no_input_reads_is_refused():
    question = TensorSpec("question", "int64", (4,), ("question", "context"), ("string", "string"))
    assert Signature((question,), decoder=SpanDecoder()).columns == ("question", "context")
    with pytest.raises(SignatureError, match=r"reads the column 'contxt'.*did you mean 'context'"):
        Signature((question,), decoder=SpanDecoder(context="contxt"))


def test_outputs_of_another_model_are_refused():
    with pytest.raises(SignatureError, match="spans are made of the outputs start and end"):
        SpanDecoder().columns([TensorSpec("prediction", "float32", (6,))])


def reader(width=16):
    torch.manual_seed(0)
    return Reader(40, (0, 1, 2, 3), width=width, layers=2, dropout=0.2)


def texts(rows=4, question=5, context=12, padding=3):
    torch.manual_seed(1)
    tokens = torch.randint(4, 40, (rows, question + context))
    place = torch.full((rows, question + context, 2), -1)
    place[:, question:, 0] = torch.arange(context) * 3
    place[:, question:, 1] = place[:, question:, 0] + 2
    made = torch.cat([tokens.unsqueeze(-1), place], -1)
    blank = torch.tensor([0, -1, -1]).expand(rows, padding, 3)
    return torch.cat([made, blank], 1)


def test_the_reader_does_not_see_padding():
    model = reader().eval()
    short, padded = model(texts(padding=0)), model(texts(padding=9))
    for name in ("start", "end"):
        assert torch.allclose(short[name], padded[name][:, :17], atol=1e-5)
        assert (padded[name][:, 17:] < -1000).all()
    for name in ("question", "context"):
        assert torch.allclose(short[name], padded[name], atol=1e-6)


def test_the_reader_becomes_a_bundle_without_code():
    spec = TensorSpec("text", "int64", (20, 3), ("question", "context"), ("string", "string"))
    example = texts()
    model = reader().eval()
    bundle = Bundle.from_module(model, Signature((spec,)), example=[example])
    assert bundle.program.kind == "export"
    assert np.allclose(bundle.predict({"text": example.numpy()})["start"], model(example)["start"].detach(), atol=1e-5)


def test_the_loss_is_least_at_the_answer():
    made = reader().eval()(texts())
    label = torch.tensor([[3, 8]] * 4)  # the context's second and third token
    place = texts()[..., 1:]
    made["start"], made["end"] = (torch.full((4, 20), -20.0) for _ in range(2))
    made["start"][:, 6], made["end"][:, 7] = 20.0, 20.0
    loss = ReaderLoss(by_row=True)
    right = loss({**made, "place": place}, label)
    assert right.shape == (4,)
    for wrong in ([[3, 5]], [[0, 8]], [[9, 11]]):
        assert (loss({**made, "place": place}, torch.tensor(wrong * 4)) > right + 10).all()
    assert torch.isclose(ReaderLoss()({**made, "place": place}, label), right.mean())


def test_an_answer_that_was_cut_counts_for_nothing():
    made = reader().eval()(texts())
    loss = ReaderLoss(by_row=True)
    cut = loss(made, torch.tensor([[33, 90]] * 4))
    again = loss({**made, "start": made["start"] * 7}, torch.tensor([[33, 90]] * 4))
    assert torch.equal(cut, again)
    assert torch.isfinite(cut).all()


def test_copies_of_a_context_are_no_wrong_answers():
    example = texts()
    same = example[:1].expand(4, -1, -1)
    loss = ReaderLoss(by_row=True)
    label = torch.tensor([[3, 8]] * 4)
    alone = loss(reader().eval()(example[:1]), label[:1])
    assert torch.allclose(loss(reader().eval()(same), label), alone.expand(4), atol=1e-4)


def test_the_finder_finds_the_passage_with_the_questions_words():
    torch.manual_seed(0)
    tower = Tower(40, 32)
    passages = torch.stack([torch.arange(4, 14), torch.arange(14, 24), torch.arange(24, 34)])
    index = tower(passages, passages > 3).detach()
    finder = Finder(tower, torch.tensor([0, 1, 2, 3]), index)
    found = finder(torch.tensor([[2, 15, 20, 3, 0, 0], [2, 30, 25, 3, 0, 0]]))
    assert found["prediction"].argmax(1).tolist() == [1, 2]
    assert torch.equal(found["similarity"], found["prediction"].amax(1))
    assert torch.isfinite(finder(torch.zeros(1, 4, dtype=torch.int64))["similarity"]).all()
