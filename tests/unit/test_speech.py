"""From a waveform to a text: the network, its loss, and decoding."""

import itertools
import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from sparkdl import Bundle, Signature, TensorSpec
from sparkdl.decode.base import from_json
from sparkdl.decode.ctc import CtcDecoder, best_path, likelihoods, prefix_search
from sparkdl.errors import InvalidParamError, SignatureError
from sparkdl.preprocess import Audio
from sparkdl.ready.acoustics import Acoustics, SpecAugment, ctc_loss, mel_bands, turned

RATE = 8_000


def by_hand(steps_TC):
    """The probability of each text: the sum over its alignments, one by one."""
    frames, classes = steps_TC.shape
    found = {}
    for path in itertools.product(range(classes), repeat=frames):
        text = tuple(one for one, _ in itertools.groupby(path) if one)
        found[text] = found.get(text, 0.0) + float(np.exp(steps_TC[range(frames), path].sum()))
    return found


@st.composite
def steps(draw):
    """Log-probabilities of 1 to 5 frames, of the blank and 1 to 3 characters."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(2, 4)))
    logits = np.random.default_rng(draw(st.integers(0, 10_000))).normal(0, draw(st.sampled_from([0.3, 2.0])), shape)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@given(steps())
@settings(max_examples=100, deadline=None)
def test_a_wide_beam_finds_the_likeliest_text_of_all(steps_TC):
    truth = by_hand(steps_TC)
    assert truth[tuple(prefix_search(steps_TC, 1_000))] == pytest.approx(max(truth.values()))


@given(steps())
@settings(max_examples=50, deadline=None)
def test_a_texts_likelihood_is_the_sum_over_its_alignments(steps_TC):
    truth = by_hand(steps_TC)
    texts = sorted(truth)
    found = likelihoods(np.stack([steps_TC] * len(texts)), np.full(len(texts), len(steps_TC)), texts)
    np.testing.assert_allclose(found, [truth[text] for text in texts], rtol=1e-6)
    assert sum(found) == pytest.approx(1)


def test_the_best_path_leaves_out_blanks_and_repeats():
    path = [0, 1, 1, 0, 1, 2, 2, 3, 0, 0]
    assert best_path(np.log(np.eye(4)[path] * 0.9 + 0.02)) == [1, 1, 2, 3]
    assert best_path(np.zeros((0, 4))) == []


def test_many_alignments_outweigh_the_best_one():
    """Graves (2012), 7.5: blank twice is the likeliest path, 0.36; 'a' is the likeliest text, 0.64."""
    steps_TC = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert best_path(steps_TC) == []
    assert prefix_search(steps_TC, 2) == [1]


def outputs(texts, alphabet, frames=12):
    """Logits that say these texts, plainly, in fewer frames than there are."""
    logits = np.zeros((len(texts), frames, len(alphabet) + 1), np.float32)
    for row, text in enumerate(texts):
        for place, character in enumerate(text):
            logits[row, 2 * place, alphabet.index(character) + 1] = 9
            logits[row, 2 * place + 1, 0] = 9
        logits[row, 2 * len(text) :, 1] = 9  # behind the end: not to be heard
    return {"logits": logits, "frames": np.array([2 * len(text) for text in texts])}


SPECS = [TensorSpec("logits", "float32", (12, 4)), TensorSpec("frames", "int64")]


@pytest.mark.parametrize("beam", [1, 4])
def test_texts_and_their_confidence_are_columns(beam):
    decoder = CtcDecoder(alphabet="abc", beam=beam, confidence=True)
    assert decoder.columns(SPECS) == {"prediction": pa.string(), "confidence": pa.float64()}
    made = decoder.decode(outputs(["cab", "", "aa"], "abc"), {})
    assert made["prediction"].to_pylist() == ["cab", "", "aa"]
    assert all(0.98 < one <= 1 for one in made["confidence"].to_pylist())
    assert from_json(decoder.to_json()) == decoder


def test_no_rows_are_no_texts():
    made = CtcDecoder(alphabet="abc", confidence=True).decode(outputs([], "abc"), {})
    assert {name: (column.type, len(column)) for name, column in made.items()} == {
        "prediction": (pa.string(), 0), "confidence": (pa.float64(), 0),
    }  # fmt: skip


@pytest.mark.parametrize(
    "specs",
    [
        [TensorSpec("logits", "float32", (12, 5)), TensorSpec("frames", "int64")],
        [TensorSpec("logits", "float32", (4,)), TensorSpec("frames", "int64")],
        [TensorSpec("logits", "float32", (12, 4))],
        [TensorSpec("prediction", "float64")],
    ],
)
def test_other_outputs_are_refused(specs):
    with pytest.raises(SignatureError, match=r"logits \(B, T, 4\), for the blank and 3 characters, and frames \(B,\)"):
        CtcDecoder(alphabet="abc").columns(specs)


def test_a_beam_of_nothing_is_refused():
    with pytest.raises(InvalidParamError, match="'beam' of CtcDecoder"):
        CtcDecoder(alphabet="abc", beam=0)


@pytest.mark.parametrize(("rate", "size", "mels"), [(8_000, 256, 40), (16_000, 512, 80)])
def test_mel_bands_are_those_of_transformers(rate, size, mels):
    reference = pytest.importorskip("transformers.audio_utils").mel_filter_bank(
        size // 2 + 1, mels, 20.0, rate / 2, rate, norm=None, mel_scale="htk"
    )
    np.testing.assert_allclose(mel_bands(rate, size, mels), reference.T, atol=1e-6)


def made(encoder, **more):
    torch.manual_seed(0)
    return Acoustics(RATE, 5, encoder, mels=16, hidden=16, layers=2, **more).eval()


def waves(rows=3, samples=6_400):
    found = torch.randn(rows, samples, generator=torch.Generator().manual_seed(1)) * 0.1
    for row in range(1, rows):
        found[row, samples // (row + 1) :] = 0
    return found


@pytest.mark.parametrize("encoder", ["gru", "transformer"])
def test_padding_does_not_change_what_is_heard(encoder):
    model, wave_BN = made(encoder), waves()
    with torch.no_grad():
        short, long = model(wave_BN), model(F.pad(wave_BN, (0, 5_000)))
        alone = [model(wave_BN[row : row + 1, : 6_400 // (row + 1)]) for row in range(3)]
    assert short["frames"].tolist() == long["frames"].tolist() == [40, 20, 14]  # of 20 ms
    for row, frames in enumerate(short["frames"]):
        for other, place in ((long, row), (alone[row], 0)):
            assert int(other["frames"][place]) == frames
            torch.testing.assert_close(
                short["logits"][row, :frames], other["logits"][place, :frames], atol=1e-4, rtol=1e-4
            )


@pytest.mark.parametrize("encoder", ["gru", "transformer"])
def test_silence_is_finite_and_one_frame(encoder):
    with torch.no_grad():
        heard = made(encoder)(torch.zeros(2, 6_400))
    assert heard["frames"].tolist() == [1, 1]
    assert torch.isfinite(heard["logits"]).all()


@pytest.mark.parametrize("encoder", ["gru", "transformer"])
def test_it_is_a_bundle_without_code(encoder, tmp_path):
    audio = Audio(rate=RATE, seconds=0.8)
    spec = TensorSpec("audio", audio.dtype, audio.shape, ("audio",), ("binary",), preprocess=audio)
    signature = Signature((spec,), decoder=CtcDecoder(alphabet="abcd"))
    bundle = Bundle.from_module(made(encoder), signature, example=[waves()])
    bundle.save(str(tmp_path / "bundle"))
    again = Bundle.load(str(tmp_path / "bundle"))
    assert again.signature == bundle.signature
    with torch.no_grad():
        expected = made(encoder)(waves())
    found = again.predict({"audio": waves().numpy()})
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-4)
    assert found["frames"].tolist() == [40, 20, 14]


def test_turning_twice_changes_nothing():
    x_BTH, frames_B = torch.arange(24.0).reshape(2, 6, 2), torch.tensor([6, 4])
    assert turned(x_BTH, frames_B)[1, :, 0].tolist() == [18, 16, 14, 12, 20, 22]
    assert torch.equal(turned(turned(x_BTH, frames_B), frames_B), x_BTH)


def test_augmentation_blanks_one_stretch_of_time_and_one_of_bands_while_training():
    x_BMT = torch.ones(50, 20, 30)
    augment = SpecAugment(time=0.5, bands=0.5)
    assert torch.equal(augment.eval()(x_BMT), x_BMT)
    torch.manual_seed(0)
    augmented = augment.train()(x_BMT)
    bands, frames = augmented.amax(dim=2), augmented.amax(dim=1)  # 0 where all is blank
    for kept, most in ((bands, 10), (frames, 15)):
        blank = (kept == 0).int()
        assert 0 < blank.sum(dim=1).max() <= most
        assert (F.pad(blank, (1, 1)).diff(dim=1) == 1).sum(dim=1).max() == 1
    assert torch.equal(augmented, bands.unsqueeze(2) * frames.unsqueeze(1))


def test_the_loss_is_ctc_per_character():
    generator = torch.Generator().manual_seed(2)
    logits, frames = torch.randn(3, 10, 5, generator=generator), torch.tensor([10, 8, 2])
    label = torch.tensor([[1, 2, 2, 0], [4, 0, 0, 0], [1, 2, 3, 4]])  # the last has no room
    loss_B = ctc_loss({"logits": logits, "frames": frames}, label, reduction="none")
    for row, text in enumerate([[1, 2, 2], [4]]):
        alone = F.ctc_loss(
            logits[row, : frames[row]].log_softmax(dim=1), torch.tensor(text), frames[row], torch.tensor(len(text))
        )
        torch.testing.assert_close(loss_B[row], alone)
    assert loss_B[2] == 0
    torch.testing.assert_close(ctc_loss({"logits": logits, "frames": frames}, label), loss_B.mean())
    assert pickle.loads(pickle.dumps(ctc_loss)) is ctc_loss
