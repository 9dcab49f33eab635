"""Texts as tokens: what is read, what is refused, what travels."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from sparkdl.bundle import Bundle
from sparkdl.columns import BadRows
from sparkdl.errors import InvalidParamError
from sparkdl.preprocess import Text
from sparkdl.preprocess.base import from_json
from sparkdl.ready.reading import Classifier
from sparkdl.ready.texts import _pretrained
from sparkdl.signature import Signature, TensorSpec

ROWS = [
    "Who teaches Algebra?",
    "Ada Lovelace teaches Algebra on Monday.",
    "Wer lehrt Straßenbau? 12 Räume, 日本 🙂",
] * 3


def trained(rows=ROWS, **more):
    """As ``fit`` trains it."""
    return Text(vocabulary=400, **more).trained(rows)


TEXT = trained(length=16)
PAIR = trained(length=16, offsets=True)
PAD, UNK, CLS, SEP = range(4)


def read(text, *columns):
    return text.read({name: pa.array(rows, pa.string()) for name, rows in zip("ab", columns, strict=False)})


def words_of(text, row):
    made = Tokenizer.from_str(text.tokenizer)
    return [made.id_to_token(int(number)) for number in row if number]


def test_tokens_are_padded_with_zeros_at_the_end():
    (row,) = read(TEXT, ["who teaches"])
    assert (row.dtype, row.shape) == (np.int64, (16,))
    assert row[0] == CLS
    count = int((row != 0).sum())
    assert row[count - 1] == SEP
    assert not row[count:].any()
    assert read(TEXT, []).shape == (0, 16)


def test_the_places_of_a_pair_are_those_of_its_last_text():
    context = "Ada  Lovelace teaches Straßenbau 🙂"
    (row,) = read(PAIR, ["who?"], [context])
    assert row.shape == (16, 3)
    inside = row[:, 1] >= 0
    assert (row[~inside, 1:] == -1).all()
    pieces = [context[start:stop] for start, stop in row[inside, 1:]]
    assert "".join(pieces) == context.replace(" ", "")
    assert row[0].tolist() == [CLS, -1, -1]


def test_marks_that_a_text_names_are_text():
    (row,) = read(TEXT, ["a [SEP] b [PAD]"])
    assert (row == SEP).sum() == 1
    assert (row != PAD)[: int((row != 0).sum())].all()


@pytest.mark.parametrize(
    ("first", "last", "kind", "told"),
    [
        (None, "x", "null", "column 'a': expected a text, got None"),
        ("x", None, "null", "column 'b': expected a text, got None"),
        ("", "x", "value", "column 'a': expected a text with at least one token"),
        ("x", " \t\n\u3000", "value", "column 'b': expected a text with at least one token"),
        ("x", "\0\x01\x7f", "value", "column 'b': expected a text with at least one token"),
        ("1 " * 20, "x", "value", "column 'a': expected fewer of its 16 tokens, to leave one to 'b', got 20 tokens"),
    ],
)
def test_a_bad_row_is_told_and_the_others_are_read(first, last, kind, told):
    good = read(PAIR, ["who", "who"], ["ada", "ada"])
    with pytest.raises(BadRows) as error:
        read(PAIR, ["who", first, "who"], ["ada", last, "ada"])
    assert error.value.rows == [1]
    assert error.value.reasons[0].startswith(f"{kind}: {told}")
    if kind != "null":
        assert (error.value.rest == good).all()


def test_all_bad_rows_are_told_at_once():
    with pytest.raises(BadRows) as error:
        read(PAIR, ["", "who", "1 " * 20], ["x", " ", "x"])
    assert error.value.rows == [0, 1, 2]
    assert len(error.value.reasons) == 3


def test_what_is_too_long_is_cut_at_its_end_or_refused():
    (row,) = read(PAIR, ["12"], ["3" * 1_000_000])
    assert row[:, 0].tolist()[-1] == SEP
    assert (row[:, 1] >= 0).sum() == 16 - 3 - 2
    strict = PAIR.model_copy(update={"longer": "error"})
    with pytest.raises(BadRows, match=r"'b', row 0: expected at most 11 tokens, got 12"):
        read(strict, ["12"], ["3" * 12])
    with pytest.raises(BadRows, match="'b', row 0: expected at most 1,600 characters"):
        read(strict, ["12"], [" " * 1_000_000 + "3"])
    assert (read(strict, ["12"], ["3" * 11])[0, :, 1] >= 0).sum() == 11


def test_an_empty_text_can_be_kept():
    kept = TEXT.model_copy(update={"empty": "keep"})
    assert read(kept, [""])[0, :3].tolist() == [CLS, SEP, PAD]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_whatever_a_text_holds_its_tokens_are_places_in_it(text):
    (row,) = read(PAIR.model_copy(update={"empty": "keep"}), ["who?"], [text])
    inside = row[:, 1] >= 0
    assert (row[inside, 1] <= row[inside, 2]).all()
    assert (row[inside, 2] <= len(text)).all()
    assert (np.diff(row[inside, 1]) >= 0).all()
    assert row[:, 0].max() < PAIR.tokens


def test_the_same_rows_make_the_same_tokenizer_whatever_their_order():
    code = (
        "import random, sys; from sparkdl.preprocess import Text; rows = sys.argv[2].split('|'); "
        "random.Random(int(sys.argv[1])).shuffle(rows); print(Text(vocabulary=400).trained(rows).tokenizer)"
    )
    rows = "|".join(ROWS * 5)
    made = {
        subprocess.run([sys.executable, "-c", code, seed, rows], capture_output=True, check=True).stdout
        for seed in "12"
    }
    assert len(made) == 1


@pytest.mark.parametrize("algorithm", ["wordpiece", "unigram"])
def test_other_algorithms_train_too(algorithm):
    text = trained(algorithm=algorithm, length=32)
    (row,) = read(text, ["who teaches algebra"])
    assert "teaches" in "".join(word.removeprefix("##") for word in words_of(text, row))
    assert text.marks == (PAD, UNK, CLS, SEP)


def test_normal_forms_and_letters():
    assert (read(TEXT, ["ＡＤＡ"]) == read(TEXT, ["ada"])).all()
    strict = trained(length=16, normal="NFC", lowercase=False)
    assert (read(strict, ["Ada"]) != read(strict, ["ada"])).any()


def test_it_travels_as_json_with_its_tokenizer():
    told = json.loads(json.dumps(PAIR.to_json()))
    assert told["kind"] == "text"
    again = from_json(told)
    assert again == PAIR
    assert (read(again, ["who"], ["ada"]) == read(PAIR, ["who"], ["ada"])).all()


def test_without_a_tokenizer_it_says_what_to_do():
    with pytest.raises(InvalidParamError, match="has no tokenizer yet: fit trains or reads one"):
        read(Text(), ["who"])


def test_a_path_is_read_by_fit_only(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(TEXT.tokenizer)
    text = Text(tokenizer=str(path), length=16)
    with pytest.raises(InvalidParamError, match="has no tokenizer yet"):
        read(text, ["who"])
    found = text.fit(None, ["a"])
    assert found.tokenizer == TEXT.tokenizer
    path.write_text("not JSON")
    with pytest.raises(InvalidParamError, match="is no tokenizer's JSON: it begins with 'not JSON'"):
        text.fit(None, ["a"])


def changed(**parts):
    return json.dumps({**json.loads(TEXT.tokenizer), **parts})


def words(vocabulary):
    return Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")).to_str()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("{}", "it is no tokenizer's JSON: KeyError"),
        ('{"version": "1.0"', "it is no tokenizer's JSON: JSONDecodeError"),
        (changed(model={"type": "CharLevel", "vocab": {}}), "it is no tokenizer that can be used"),
        (changed(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAAAP//"}), "no tokenizer that can be used"),
        (
            changed(post_processor={
                "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}], "pair": [],
                "special_tokens": {},
            }),
            "no tokenizer that can be used",
        ),
        (changed(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated", "invert": False}), r"no regular expression of its own, and this one has .\(a"),
        (changed(normalizer={"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}]}), "no regular"),
        (words({"[PAD]": 0, "a": 1}), r"Missing \[UNK\] token"),
        (words({"[UNK]": 0, "a": 1}), "token 0 must be its padding"),
        (changed(model={"type": "WordPiece", "vocab": {"[PAD]": 4_000_000_000}}), "below 10,000,000, and one is 4,000,000,000"),
        (changed(added_tokens=[{"id": 10_000_000}]), "below 10,000,000, and one is 10,000,000"),
        (changed(added_tokens=[3]), "it is no tokenizer's JSON: TypeError"),
        ('{"a":' * 100_000, "it is no tokenizer's JSON"),
    ],
)  # fmt: skip
def test_json_that_is_no_tokenizer_is_refused_when_it_is_set(told, message):
    with pytest.raises(InvalidParamError, match=message):
        Text(tokenizer=told)


def test_a_text_that_the_tokenizer_fails_on_is_a_bad_row_of_its_own():
    text = Text(tokenizer=words({"[PAD]": 0, "a": 1, "\ufffd": 2}), length=64)  # it has no [UNK]
    with pytest.raises(BadRows) as error:
        read(text, ["a", "b", "a"])
    assert error.value.rows == [1]
    assert error.value.reasons[0].startswith("failed: column 'a': expected a text that the tokenizer takes")
    assert error.value.rest.shape == (2, 64)


def test_a_tokenizer_may_have_the_harmless_expression_of_well_known_ones():
    spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    assert Text(tokenizer=changed(normalizer=spaces)).tokens == TEXT.tokens


def test_padding_and_truncation_of_a_loaded_tokenizer_are_not_applied_twice():
    made = Tokenizer.from_str(TEXT.tokenizer)
    made.enable_padding(length=64)
    made.enable_truncation(4)
    assert (
        read(Text(tokenizer=made.to_str(), length=16), ["who teaches algebra"]) == read(TEXT, ["who teaches algebra"])
    ).all()


def test_a_tokenizer_without_marks():
    made = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "ada": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    assert read(Text(tokenizer=made.to_str(), length=4), ["ada ada bob ada ada"]).tolist() == [[2, 2, 1, 2]]


@pytest.mark.parametrize(
    "wrong", [{"length": 3}, {"longer": "wrap"}, {"algorithm": "bbpe"}, {"vocabulary": 10}, {"minimum": 0}, {"normal": "NFX"}]
)  # fmt: skip
def test_settings_are_checked(wrong):
    (name,) = wrong
    with pytest.raises(InvalidParamError, match=repr(name)):
        Text(**wrong)


@pytest.mark.parametrize("encoder", ["mean", "gru", "transformer"])
def test_no_encoder_sees_padding(encoder):
    torch.manual_seed(0)
    model = Classifier(50, 24, 3, encoder, width=32, layers=2, dropout=0.1).eval()
    short = torch.randint(1, 50, (4, 9))
    padded = torch.nn.functional.pad(short, (0, 11))
    assert torch.allclose(model(short), model(padded), atol=1e-5)
    assert torch.isfinite(model(torch.zeros(2, 9, dtype=torch.int64))).all()


@pytest.fixture
def folder(tmp_path):
    """Of a Hugging Face encoder with the tokenizer beside."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=TEXT.tokens, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32, architectures=["BertModel"],
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(TEXT.tokenizer)
    return tmp_path


def test_an_encoder_of_hugging_face_is_fine_tuned_and_bundled(folder):
    model = _pretrained(str(folder), TEXT.tokens, 3, 0.1).eval()
    short = torch.from_numpy(read(TEXT, ["who teaches", "ada on monday", "12"]))
    assert torch.allclose(model(short), model(torch.nn.functional.pad(short, (0, 5))), atol=1e-5)
    spec = TensorSpec("text", "int64", (16,), ("text",), ("string",), preprocess=TEXT)
    bundle = Bundle.from_module(model, Signature((spec,)), task="multiclass", example=[short])
    assert bundle.program.kind == "export"
    assert any(name.startswith("backbone.") for name in bundle.weights)


def test_a_tokenizer_that_is_not_the_encoders_is_refused(folder):
    with pytest.raises(InvalidParamError, match=r"use its own tokenizer\.json"):
        _pretrained(str(folder), TEXT.tokens + 1, 3, 0.1)
