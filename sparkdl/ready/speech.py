"""SpeechRecognizer: recordings as texts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from sparkdl.decode.ctc import CtcDecoder
from sparkdl.params import _param, flag, number, one_of, refuse, text, whole, with_accessors
from sparkdl.preprocess.audio import Audio
from sparkdl.preprocess.characters import Characters
from sparkdl.preprocess.learn import learn
from sparkdl.ready.acoustics import ENCODERS, Acoustics, ctc_loss
from sparkdl.ready.base import ReadyEstimator

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@with_accessors
class SpeechRecognizer(ReadyEstimator):
    """Learns to write down what is said: log-mel, convolutions, a GRU or a Transformer, and CTC. docs/speech.md is its guide.

    featuresCol: the recordings, ``audio`` by default: WAV, FLAC or OGG bytes, or paths of files. labelCol: what is said in
    them, ``transcript`` by default. The model adds ``prediction``, a text, and is evaluated by ``wer`` and ``cer``.

    rate: samples a second that the model hears. seconds: of the longest recording; longer ones are cut, with ``longer`` as
    ``error`` they are bad rows. alphabet: the characters it writes; those of the rows that ``fit`` is given if none are told. textLength:
    characters of the longest transcript.
    encoder: ``gru`` (both ways) or ``transformer``. mels: bands. hidden: width. layers: of the encoder. augment: blank
    stretches of time and bands while training (SpecAugment).
    beam: texts that decoding follows at a time; 1: the best character of each frame. confidence: add the column
    ``confidence``, the probability of the text given the recording.
    All other Params are TorchEstimator's. By default ``batchSize`` is 16, ``learningRate`` 0.003, ``clipNorm`` 1, ``epochs`` 20.
    """

    rate = _param("rate", "samples a second that the model hears", whole("rate", 4_000))
    seconds = _param("seconds", "of the longest recording", number("seconds", 0.1))
    longer = _param("longer", "recordings that are longer: 'cut' or 'error'", one_of("longer", ("cut", "error")))
    alphabet = _param("alphabet", "characters to write; by default those of the rows of fit", text("alphabet"))
    textLength = _param("textLength", "characters of the longest transcript", whole("textLength", 1))
    encoder = _param("encoder", "'gru' or 'transformer'", one_of("encoder", ENCODERS))
    mels = _param("mels", "bands of the spectrum", whole("mels", 1))
    hidden = _param("hidden", "width of the model, a multiple of 4", whole("hidden", 4))
    layers = _param("layers", "of the encoder", whole("layers", 1))
    augment = _param("augment", "blank stretches of time and bands while training", flag("augment"))
    beam = _param("beam", "texts that decoding follows at a time", whole("beam", 1))
    confidence = _param("confidence", "add the probability of the text", flag("confidence"))

    own_defaults: ClassVar[Mapping[str, Any]] = {
        "featuresCol": "audio", "labelCol": "transcript", "rate": 16_000, "seconds": 10.0, "longer": "cut", "alphabet": None,
        "textLength": 200, "encoder": "gru", "mels": 40, "hidden": 128, "layers": 2, "augment": True, "beam": 1,
        "confidence": False, "batchSize": 16, "learningRate": 3e-3, "clipNorm": 1.0, "epochs": 20,
    }  # fmt: skip

    heeds: ClassVar[frozenset[str]] = frozenset({"featuresCol"})

    def _design(self, df: DataFrame) -> tuple[DataFrame, dict[str, Any]]:
        own = {name: self.getOrDefault(name) for name in self.own_defaults}
        audio, label = own["featuresCol"], own["labelCol"]
        if own["hidden"] % 4:  # two directions, or four heads
            raise refuse("hidden", "a multiple of 4", own["hidden"])
        preprocess = learn(df, {
            audio: Audio(rate=own["rate"], seconds=own["seconds"], longer=own["longer"]),
            label: Characters(alphabet=own["alphabet"] or "", length=own["textLength"]),
        })  # fmt: skip
        characters = preprocess[label]
        assert isinstance(characters, Characters)
        alphabet = characters.alphabet
        size = {name: own[name] for name in ("encoder", "mels", "hidden", "layers", "augment")}
        return df, {
            "model": partial(Acoustics, own["rate"], len(alphabet) + 1, **size),
            "preprocess": preprocess,
            "inputCols": [audio],
            "decoder": CtcDecoder(alphabet=alphabet, beam=own["beam"], confidence=own["confidence"]),
            "loss": partial(ctc_loss, reduction=self._reduction),
        }
