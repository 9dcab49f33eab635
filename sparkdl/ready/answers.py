"""QuestionAnswering: an answer, read out of the passage that holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import torch
from pyspark.ml import PipelineModel
from pyspark.sql import functions as sf
from torch import Tensor, nn

from sparkdl.bundle import Bundle
from sparkdl.columns import BadRows
from sparkdl.decode.labels import LabelDecoder
from sparkdl.decode.spans import SpanDecoder
from sparkdl.errors import ColumnNotFoundError, DataError, EmptyDatasetError, InvalidParamError
from sparkdl.model import TorchModel
from sparkdl.params import _param, number, text, whole, with_accessors
from sparkdl.preprocess.learn import learn
from sparkdl.preprocess.text import Text
from sparkdl.ready.base import ReadyEstimator
from sparkdl.ready.reading import Finder, Reader, ReaderLoss, Tower
from sparkdl.signature import Signature, TensorSpec, column_kinds, quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PASSAGES_MOST = 100_000  # texts and vectors of all are in the model
_SPAN = "sparkdl_span"  # where the answer is in its context, as the label
_AT_ONCE = 256
_TOWER = "tower.weight.weight"  # of a reader's weights


@with_accessors
class QuestionAnswering(ReadyEstimator):
    """Trains a reader on questions, each with the passage that holds its answer. docs/question-answering.md is its guide.

    ``fit`` returns a TorchModel that takes ``questionCol`` and ``contextCol`` (texts) and adds ``prediction``, the words of the
    context that answer, ``score`` in [0, 1], and ``answer_start``, in characters. It learns to find the passage of a question
    as well: ``QuestionAnswering.over(model, passages)`` is a pipeline that takes the question alone.

    labelCol: the answer, as it stands in the context. startCol: where it starts there, in characters from 0; by default where
    it is first found.
    length: tokens of question and context together; the end of a longer context is not read. vocabularySize: tokens of the
    tokenizer, trained on both columns; or tokenizer: the path or URI of a ``tokenizer.json``. width: numbers in a token's
    vector. layers: convolutions, each of which looks twice as far. dropout: share of numbers and tokens left out in training.
    longestAnswer: tokens.

    Raises, beside what TorchEstimator does, DataError for answers that are not in their context.
    """

    questionCol = _param("questionCol", "column with the question, text", text("questionCol"))
    contextCol = _param("contextCol", "column with the text that holds the answer", text("contextCol"))
    startCol = _param("startCol", "column with the place of the answer in the context, from 0", text("startCol"))
    length = _param("length", "tokens of question and context together", whole("length", 8))
    vocabularySize = _param("vocabularySize", "tokens of the tokenizer, at most", whole("vocabularySize", 100))
    tokenizer = _param("tokenizer", "path or URI of a tokenizer.json; by default one is trained", text("tokenizer"))
    width = _param("width", "numbers in a token's vector", whole("width", 1))
    layers = _param("layers", "convolutions that read the context", whole("layers", 1))
    dropout = _param("dropout", "share left out in training", number("dropout", 0.0, 1.0))
    longestAnswer = _param("longestAnswer", "tokens of an answer, at most", whole("longestAnswer", 1))
    own_defaults: ClassVar[Mapping[str, Any]] = {
        "questionCol": "question", "contextCol": "context", "labelCol": "answer", "startCol": None, "length": 256,
        "vocabularySize": 8000, "tokenizer": None, "width": 64, "layers": 4, "dropout": 0.1, "longestAnswer": 30, "learningRate": 3e-3,
        "batchSize": 32, "epochs": 10, "clipNorm": 1.0,
    }  # fmt: skip

    heeds: ClassVar[frozenset[str]] = frozenset({"labelCol"})

    def _design(self, df: DataFrame) -> tuple[DataFrame, dict[str, Any]]:
        pair = (self.getOrDefault("questionCol"), self.getOrDefault("contextCol"))
        words = Text(
            tokenizer=self.getOrDefault("tokenizer") or "", length=self.getOrDefault("length"),
            vocabulary=self.getOrDefault("vocabularySize"), offsets=True,
        )  # fmt: skip
        known: dict[Any, Any] = learn(df, {pair: words})
        sizes = {name: self.getOrDefault(name) for name in ("width", "layers", "dropout")}
        model = partial(Reader, known[pair].tokens, known[pair].marks, **sizes)
        return self._with_spans(df), {
            "model": model, "inputCols": list(pair), "labelCol": _SPAN, "shapes": {_SPAN: (2,)}, "preprocess": known,
            "decoder": SpanDecoder(context=pair[1], longest=self.getOrDefault("longestAnswer")),
            "loss": ReaderLoss(by_row=self._reduction == "none"),
        }  # fmt: skip

    def _with_spans(self, df: DataFrame) -> DataFrame:
        """With the place of each answer. Raises DataError if one is not there."""
        names = [self.getOrDefault("labelCol"), self.getOrDefault("contextCol")]
        start_col = self.getOrDefault("startCol")
        for name in [*names, *([start_col] if start_col else [])]:
            if name not in df.columns:
                raise ColumnNotFoundError(name, df.columns)
        answer, context = (quoted(name) for name in names)
        start = (
            f"CAST({quoted(start_col)} AS BIGINT)" if start_col else f"CAST(locate({answer}, {context}) AS BIGINT) - 1"
        )
        told = df.withColumn(_SPAN, sf.expr(f"array({start}, {start} + length({answer}))"))
        there = f"length({answer}) > 0 AND {_SPAN}[0] >= 0 AND substring({context}, CAST({_SPAN}[0] + 1 AS INT), length({answer})) = {answer}"
        lost = told.where(f"NOT coalesce({there}, false)")
        example = lost.select(*(quoted(name) for name in names)).head(1)
        if example:
            raise DataError(
                f"{lost.count():,} rows have an answer that is not in their context, {example[0][0]!r} say, not in "
                f"{str(example[0][1])[:100]!r}; leave them out, or let {names[0]!r} be the words of {names[1]!r}",
                column=names[0], row=None, file=None, expected=f"a part of {names[1]!r}", got=example[0][0],
            )  # fmt: skip
        return told

    @staticmethod
    def over(reader: TorchModel, passages: DataFrame) -> PipelineModel:
        """Questions in, answers out of the best of these passages: a pipeline that finds the passage, as the column that the
        reader takes as context, with its ``similarity`` (a cosine), and reads.

        passages: a batch DataFrame with that column; up to 100,000 different ones, which pass through the driver and are kept
        in the pipeline. Raises InvalidParamError for another model, ColumnNotFoundError, DataError for a passage that is null
        or empty, EmptyDatasetError for less than two.
        """
        decoder = reader.signature.decoder
        (spec, *_) = reader.signature.inputs
        read = spec.preprocess
        if not (isinstance(decoder, SpanDecoder) and isinstance(read, Text) and _TOWER in reader.bundle.weights):
            raise InvalidParamError(
                f"'reader' must be a model that QuestionAnswering.fit returned (got {reader.signature})",
                param="reader",
                value=reader,
            )
        column_kinds(passages, [decoder.context])
        texts = _texts(passages, decoder.context)
        words = Text(**read.model_dump(exclude={"kind", "offsets"}))
        finder = _finder(reader.bundle, words, decoder.context, texts)
        question = TensorSpec(
            spec.columns[0], words.dtype, words.shape, spec.columns[:1], spec.types[:1], preprocess=words
        )
        signature = Signature((question,), decoder=LabelDecoder(values=tuple(texts)))
        found = TorchModel(Bundle.from_module(finder, signature, task="multiclass"))
        found.setParams(predictionCol=decoder.context, probabilityCol="")
        return PipelineModel(stages=[found, reader])


def _texts(passages: DataFrame, name: str) -> list[str]:
    """Each once, in an order of their own."""
    rows = passages.select(quoted(name)).distinct().limit(PASSAGES_MOST + 1).collect()
    if len(rows) < 2:
        raise EmptyDatasetError(name)
    if len(rows) > PASSAGES_MOST:
        raise DataError(
            f"there are more than {PASSAGES_MOST:,} different passages, which do not fit in a model; choose some",
            column=name, row=None, file=None, expected=f"at most {PASSAGES_MOST:,}", got=len(rows),
        )  # fmt: skip
    return sorted((row[0] for row in rows), key=lambda one: (one is not None, one))


def _finder(bundle: Bundle, words: Text, name: str, texts: Sequence[str]) -> nn.Module:
    """Raises DataError for a passage without a token."""
    weights = {key.removeprefix("tower."): v for key, v in bundle.weights.items() if key.startswith("tower.")}
    tower = Tower(*weights["embedding.weight"].shape)
    tower.load_state_dict(weights)
    marks, rest = bundle.weights["marks"], iter(texts)
    parts: list[Tensor] = []
    while batch := list(islice(rest, _AT_ONCE)):
        try:
            tokens = torch.from_numpy(words.read({name: pa.array(batch, pa.string())}))
        except BadRows as error:
            raise error.first(len(parts) * _AT_ONCE) from None
        with torch.no_grad():
            parts.append(tower(tokens, ~torch.isin(tokens, marks)))
    return Finder(tower, marks, torch.cat(parts))
