"""The part of a text that answers a question.

Sizes: B rows, L tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from sparkdl.decode.base import Decoder, parts
from sparkdl.errors import SignatureError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.signature import TensorSpec


class SpanDecoder(Decoder):
    """``prediction``: what stands in the column ``context`` from the best start to the best end of at most ``longest``
    tokens; ``score``: the probability of both, float in [0, 1]; ``answer_start``: in characters from 0.

    Takes the outputs ``start`` and ``end``, logits ``(B, L)``, and ``place`` ``(B, L, 2)``, where each token starts and ends
    in the context, -1 outside of it: see ``sparkdl.preprocess.Text`` with offsets.
    Its figures are SQuAD's (Rajpurkar et al. 2016), as torchmetrics computes them, in [0, 1]: ``exact_match``, and ``f1``, the
    mean over the rows of that of the words, both without case, punctuation and articles.
    """

    kind: Literal["spans"] = "spans"
    context: str = Field("context", min_length=1)
    longest: int = Field(30, ge=1, le=65_536)
    figures: ClassVar[tuple[str, ...]] = ("exact_match", "f1")

    @property
    def reads(self) -> tuple[str, ...]:
        """See Decoder."""
        return (self.context,)

    def columns(self, outputs: Sequence[TensorSpec]) -> dict[str, pa.DataType]:
        """See Decoder."""
        shapes = {spec.name: spec.shape for spec in outputs}
        start = shapes.get("start", ())
        if len(start) != 1 or shapes.get("end") != start or shapes.get("place") != (*start, 2):
            raise SignatureError(
                f"spans are made of the outputs start and end, (B, L), and place, (B, L, 2) (got {shapes})",
                column=None,
                expected={"start": ("L",), "end": ("L",), "place": ("L", 2)},
                got=shapes,
            )
        return {"prediction": pa.string(), "score": pa.float32(), "answer_start": pa.int32()}

    def decode(self, outputs: Mapping[str, np.ndarray], rows: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """See Decoder."""
        start_BL, end_BL, place_BL2 = (outputs[name] for name in ("start", "end", "place"))
        start_BL, end_BL = (_log_softmax(logits, place_BL2[..., 0] >= 0) for logits in (start_BL, end_BL))
        count = np.arange(len(start_BL))
        best_B, first_B, last_B = np.full(len(count), -np.inf), count * 0, count * 0
        for longer in range(min(self.longest, start_BL.shape[1])):
            sums = start_BL[:, : start_BL.shape[1] - longer] + end_BL[:, longer:]
            at_B = sums.argmax(1)
            is_better = sums[count, at_B] > best_B
            best_B[is_better] = sums[count, at_B][is_better]
            first_B[is_better], last_B[is_better] = at_B[is_better], at_B[is_better] + longer
        starts, ends = place_BL2[count, first_B, 0], place_BL2[count, last_B, 1]
        texts = rows[self.context].to_pylist()
        found = [text[max(a, 0) : max(b, 0)] for text, a, b in zip(texts, starts.tolist(), ends.tolist(), strict=True)]
        return {
            "prediction": pa.array(found, pa.string()),
            "score": pa.array(np.exp(best_B).astype(np.float32)),
            "answer_start": pa.array(starts.astype(np.int32)),
        }

    def evaluate(self, scored: DataFrame, label: str, prediction: str) -> dict[str, float]:
        """See Decoder. The rows pass through the driver."""
        from torchmetrics.text import SQuAD

        metric = SQuAD()
        for number, part in enumerate(parts(scored, label, prediction)):
            ids = [f"{number} {place}" for place in range(len(part))]
            metric.update(
                [{"prediction_text": row[1], "id": one} for one, row in zip(ids, part, strict=True)],
                [
                    {"answers": {"answer_start": [0], "text": [row[0]]}, "id": one}
                    for one, row in zip(ids, part, strict=True)
                ],
            )
        return {name: float(value) / 100 for name, value in metric.compute().items()}


def _log_softmax(logits_BL: np.ndarray, there_BL: np.ndarray) -> np.ndarray:
    """Over the places that are there; -inf elsewhere."""
    shown = np.where(there_BL, logits_BL.astype(np.float64), -np.inf)
    highest = np.where(there_BL.any(1), shown.max(1, initial=-np.inf), 0.0)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return shown - highest - np.log(np.exp(shown - highest).sum(1, keepdims=True))
