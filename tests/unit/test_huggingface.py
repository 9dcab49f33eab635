"""Hugging Face folders: texts of any length give what the transformers library gives for each alone."""

import json

import numpy as np
import pytest
import torch

from sparkdl.bundle import Bundle
from sparkdl.errors import BundleError, BundleNotFoundError, InvalidParamError, UntrustedBundleError

pytestmark = pytest.mark.lane("spark35")

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 32, "max_position_embeddings": 64}  # fmt: skip
TEXTS = [[5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9], [11], [3] * 30]


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def classifier(transformers, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("classifier")
    config = transformers.BertConfig(**SIZES, num_labels=3)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(transformers, tmp_path_factory):
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("encoder")
    config = transformers.DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    transformers.DistilBertModel(config).save_pretrained(folder)
    return folder


def padded():
    length = max(map(len, TEXTS))
    ids = torch.tensor([text + [0] * (length - len(text)) for text in TEXTS])
    return ids, (torch.arange(length) < torch.tensor([len(text) for text in TEXTS])[:, None]).long()


def test_logits(transformers, classifier):
    bundle = Bundle.from_huggingface(classifier)
    assert bundle.program.kind == "export"
    assert [(s.name, s.shape, s.columns, s.mask_of) for s in bundle.signature.inputs] == [
        ("input_ids", (-1,), ("input_ids",), ""),
        ("attention_mask", (-1,), (), "input_ids"),
    ]
    model = transformers.BertForSequenceClassification.from_pretrained(classifier).eval()
    with torch.no_grad():
        got = Bundle.from_files(bundle.files).module()(*padded())["logits"]
        for row, text in enumerate(TEXTS):
            torch.testing.assert_close(got[row], model(torch.tensor([text])).logits[0], rtol=1e-4, atol=1e-5)


def test_a_task_and_a_column_of_one_s_own(classifier):
    bundle = Bundle.from_huggingface(str(classifier), task="multiclass", column="tokens")
    assert bundle.signature.columns == ("tokens",)
    assert [(s.name, s.shape) for s in bundle.signature.outputs] == [("prediction", ()), ("probability", (3,))]


@pytest.mark.parametrize("which", ["encoder", "classifier"])
def test_an_embedding_is_the_mean_over_the_tokens(transformers, request, which):
    folder = request.getfixturevalue(which)
    bundle = Bundle.from_huggingface(folder, output="embedding" if which == "classifier" else None)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        got = Bundle.from_files(bundle.files).module()(*padded())["embedding"]
        assert got.shape == (len(TEXTS), 16)
        for row, text in enumerate(TEXTS):
            alone = model(torch.tensor([text])).last_hidden_state.mean(dim=1)[0]
            torch.testing.assert_close(got[row], alone, rtol=1e-4, atol=1e-5)


def test_as_onnx(classifier, tmp_path):
    bundle = Bundle.from_huggingface(classifier)
    bundle.to_onnx(str(tmp_path / "model.onnx"))
    back = Bundle.from_onnx(tmp_path / "model.onnx", bundle.signature)
    with torch.no_grad():
        expected, got = bundle.module()(*padded()), back.module()(*padded())
    np.testing.assert_allclose(got["logits"], expected["logits"], rtol=1e-3, atol=1e-4)


@pytest.fixture
def copied(classifier, tmp_path):
    for file in classifier.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def configured(folder, **changes):
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_weights_in_a_pickle_need_trust(copied, transformers):
    state = transformers.BertForSequenceClassification.from_pretrained(copied).state_dict()
    (copied / "model.safetensors").unlink()
    torch.save(state, copied / "pytorch_model.bin")
    with pytest.raises(UntrustedBundleError, match="not in safetensors"):
        Bundle.from_huggingface(copied)
    assert Bundle.from_huggingface(copied, trusted=True).program.kind == "export"


def test_code_of_its_own_does_not_run(copied):
    configured(copied, auto_map={"AutoModel": "evil.Model"})
    (copied / "evil.py").write_text("raise SystemExit")
    with pytest.raises(UntrustedBundleError, match="brings its own code"):
        Bundle.from_huggingface(copied, trusted=True)


@pytest.mark.parametrize("name", ["NoSuchModel", "AutoModel", "BertConfig", "logging", "pipeline"])
def test_an_architecture_that_is_none_is_refused(copied, name):
    configured(copied, architectures=[name])
    with pytest.raises(BundleError, match=f"has no model {name!r}"):
        Bundle.from_huggingface(copied)


@pytest.mark.parametrize("config", ["text", "[]", "{}", '{"architectures": []}', '{"architectures": [3]}'])
def test_a_config_that_is_none_is_refused(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(BundleError, match=r"config\.json"):
        Bundle.from_huggingface(tmp_path)


def test_nothing_there_is_said_so(tmp_path):
    with pytest.raises(BundleNotFoundError, match="no Hugging Face model"):
        Bundle.from_huggingface(tmp_path / "none")


def test_arguments_that_do_not_fit_are_refused(classifier):
    with pytest.raises(InvalidParamError, match=r"'output' must be one of \['logits', 'embedding'\]"):
        Bundle.from_huggingface(classifier, output="pooled")
    with pytest.raises(InvalidParamError, match="'task' must be None for an embedding"):
        Bundle.from_huggingface(classifier, output="embedding", task="multiclass")
