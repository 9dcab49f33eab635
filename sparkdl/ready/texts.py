"""TextClassifier: texts, and the class of each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from sparkdl.decode.labels import LabelDecoder
from sparkdl.errors import InvalidParamError
from sparkdl.interop.huggingface import backbone
from sparkdl.params import _param, number, one_of, refuse, text, whole, with_accessors
from sparkdl.preprocess.labels import Labels
from sparkdl.preprocess.learn import learn
from sparkdl.preprocess.text import Text
from sparkdl.ready.base import ReadyEstimator, classes_of
from sparkdl.ready.reading import Classifier, FineTuned, heads_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

ENCODERS = ("mean", "gru", "transformer")


@with_accessors
class TextClassifier(ReadyEstimator):
    """Trains a classifier of texts; ``fit`` returns a TorchModel that takes ``textCol`` and adds ``prediction``, the label, and
    ``probability`` of each, in the order of the sorted labels. docs/text.md is its guide.

    textCol: the text. labelCol: its class, text, whole numbers or boolean.
    encoder: ``mean`` of the tokens' vectors, fast and good where words tell; ``gru``, or ``transformer``, where their order
    does. width: numbers in a token's vector. layers: of the encoder. dropout: share left out in training.
    length: tokens of a text; the end of a longer one is not read. vocabularySize: tokens of the tokenizer, trained on the
    texts; or tokenizer: the path or URI of a ``tokenizer.json``.
    pretrained: a local folder of a Hugging Face encoder, with its ``tokenizer.json``, instead of an encoder of its own: the
    mean of its last hidden states. ``frozen="backbone.*"`` trains the classes alone.
    """

    textCol = _param("textCol", "column with the text", text("textCol"))
    encoder = _param("encoder", f"one of {ENCODERS}", one_of("encoder", ENCODERS))
    length = _param("length", "tokens of a text", whole("length", 4))
    vocabularySize = _param("vocabularySize", "tokens of the tokenizer, at most", whole("vocabularySize", 100))
    tokenizer = _param("tokenizer", "path or URI of a tokenizer.json; by default one is trained", text("tokenizer"))
    width = _param("width", "numbers in a token's vector", whole("width", 1))
    layers = _param("layers", "of the encoder", whole("layers", 1))
    dropout = _param("dropout", "share left out in training", number("dropout", 0.0, 1.0))
    pretrained = _param("pretrained", "local folder of a Hugging Face encoder", text("pretrained"))
    own_defaults: ClassVar[Mapping[str, Any]] = {
        "textCol": "text", "encoder": "mean", "length": 128, "vocabularySize": 8000, "tokenizer": None, "width": 64,
        "layers": 2, "dropout": 0.1, "pretrained": None, "learningRate": 3e-3, "batchSize": 64, "epochs": 10,
    }  # fmt: skip

    def _design(self, df: DataFrame) -> tuple[DataFrame, dict[str, Any]]:
        name, label = self.getOrDefault("textCol"), self.getLabelCol()
        folder = self.getOrDefault("pretrained")
        sizes = {one: self.getOrDefault(one) for one in ("length", "encoder", "width", "layers", "dropout")}
        heads = heads_of(sizes["width"])
        if not folder and sizes["encoder"] == "transformer" and sizes["width"] % heads:
            raise refuse("width", f"a multiple of {heads}, the Transformer's heads", sizes["width"])
        words = Text(
            tokenizer=self.getOrDefault("tokenizer") or (str(Path(folder) / "tokenizer.json") if folder else ""),
            length=self.getOrDefault("length"),
            vocabulary=self.getOrDefault("vocabularySize"),
        )
        known: dict[str, Any] = learn(df, {name: words, label: Labels()})
        labels = classes_of(known[label], label)
        classes = len(labels)
        if folder:
            model: Any = partial(_pretrained, folder, known[name].tokens, classes, self.getOrDefault("dropout"))
        else:
            model = partial(Classifier, tokens=known[name].tokens, classes=classes, **sizes)
        return df, {
            "model": model, "inputCols": [name], "preprocess": known, "task": "multiclass",
            "decoder": LabelDecoder(values=labels),
        }  # fmt: skip


def _pretrained(folder: str, tokens: int, classes: int, dropout: float) -> nn.Module:
    """Raises InvalidParamError for a tokenizer that is not the model's."""
    encoder, width, known = backbone(folder)
    if tokens > known:
        raise InvalidParamError(
            f"the tokenizer has {tokens:,} tokens, and the model in {folder!r} knows {known:,}; use its own tokenizer.json",
            param="tokenizer",
            value=tokens,
        )
    return FineTuned(encoder, width, classes, dropout)
