"""Texts out of the logits of characters, frame by frame."""

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


class CtcDecoder(Decoder):
    """``prediction``: the text that a model trained by connectionist temporal classification hears.

    Takes the outputs ``logits`` ``(B, T, C)``, class 0 the blank and class i the i-th character, and ``frames`` ``(B,)``:
    how many of the T are the row's.

    alphabet: the characters. beam: texts that are followed at a time by the prefix beam search of Hannun et al. (2014), no
    language model; 1: the best class of each frame. confidence: add the column ``confidence``, double: the probability of
    the text given the recording, over all its alignments (Graves et al., 2006).
    Evaluated by ``wer`` and ``cer``: words, or characters, to insert, delete or replace, per word or character of the truth.
    """

    kind: Literal["ctc"] = "ctc"
    alphabet: str
    beam: int = Field(default=1, ge=1, le=1_000)
    confidence: bool = False
    figures: ClassVar[tuple[str, ...]] = ("wer", "cer")

    def columns(self, outputs: Sequence[TensorSpec]) -> dict[str, pa.DataType]:
        """See Decoder. Raises SignatureError for other outputs, or another number of characters."""
        shapes = {spec.name: spec.shape for spec in outputs}
        classes = len(self.alphabet) + 1
        logits = shapes.get("logits", ())
        if len(logits) != 2 or logits[1] != classes or shapes.get("frames") != ():
            raise SignatureError(
                f"texts are decoded from logits (B, T, {classes}), for the blank and {classes - 1} characters, and frames "
                f"(B,) (got {shapes})",
                column=None,
                expected=("T", classes),
                got=shapes,
            )
        return {"prediction": pa.string()} | ({"confidence": pa.float64()} if self.confidence else {})

    def decode(self, outputs: Mapping[str, np.ndarray], rows: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """See Decoder."""
        steps_BTC, frames_B = _log_softmax(outputs["logits"]), outputs["frames"].astype(np.int64)
        each = zip(steps_BTC, frames_B, strict=True)
        if self.beam == 1:
            found = [best_path(steps_TC[:frames]) for steps_TC, frames in each]
        else:
            found = [prefix_search(steps_TC[:frames], self.beam) for steps_TC, frames in each]
        texts = ["".join(self.alphabet[number - 1] for number in text) for text in found]
        made = {"prediction": pa.array(texts, pa.string())}
        return made | ({"confidence": pa.array(likelihoods(steps_BTC, frames_B, found))} if self.confidence else {})

    def evaluate(self, scored: DataFrame, label: str, prediction: str) -> dict[str, float]:
        """See Decoder. The rows go through the driver, a thousand at a time."""
        from torchmetrics.text import CharErrorRate, WordErrorRate

        measures = {"wer": WordErrorRate(), "cer": CharErrorRate()}
        for part in parts(scored, label, prediction):
            said, heard = ([row[place] for row in part] for place in (0, 1))
            for measure in measures.values():
                measure.update(heard, said)
        return {name: float(measure.compute()) for name, measure in measures.items()}


def best_path(steps_TC: np.ndarray) -> list[int]:
    """The classes of the likeliest alignment, repeats and blanks left out."""
    best_T = steps_TC.argmax(axis=1)
    is_new = np.diff(best_T, prepend=0) != 0
    return [int(one) for one in best_T[is_new] if one]


def prefix_search(steps_TC: np.ndarray, beam: int) -> list[int]:
    """The likeliest of the texts that stayed among the ``beam`` best at each frame. steps_TC: log-probabilities.

    Of each text K in the beam two probabilities are kept: of its alignments that end in a blank, and of those that do not.
    A text that grows by its own last character grows out of the former only. One that was in the beam already, and is
    reached again by growing, is one text.
    """
    texts: list[tuple[int, ...]] = [()]
    blank_K, other_K = np.zeros(1), np.full(1, -np.inf)
    for step_C in steps_TC:
        place = {text: number for number, text in enumerate(texts)}
        last_K = np.array([text[-1] if text else 0 for text in texts])
        all_K = np.logaddexp(blank_K, other_K)
        grown_KC = all_K[:, None] + step_C
        ends = np.arange(len(texts))
        grown_KC[ends, last_K] = blank_K + step_C[last_K]
        grown_KC[:, 0] = -np.inf
        stays_K = np.where(last_K > 0, other_K + step_C[last_K], -np.inf)
        for number, text in enumerate(texts):
            shorter = place.get(text[:-1]) if text else None
            if shorter is not None:
                stays_K[number] = np.logaddexp(stays_K[number], grown_KC[shorter, text[-1]])
                grown_KC[shorter, text[-1]] = -np.inf
        blanks_K = all_K + step_C[0]
        scores = np.concatenate([np.logaddexp(blanks_K, stays_K), grown_KC.ravel()])
        best = np.argsort(-scores, kind="stable")[:beam]
        best = best[np.isfinite(scores[best])]
        kept, grown = best[best < len(texts)], best[best >= len(texts)] - len(texts)
        parents, classes = np.divmod(grown, steps_TC.shape[1])
        blank_K = np.concatenate([blanks_K[kept], np.full(len(grown), -np.inf)])
        other_K = np.concatenate([stays_K[kept], grown_KC[parents, classes]])
        texts = [texts[one] for one in kept] + [
            (*texts[parent], int(one)) for parent, one in zip(parents, classes, strict=True)
        ]
    return list(texts[int(np.argmax(np.logaddexp(blank_K, other_K)))])


def likelihoods(steps_BTC: np.ndarray, frames_B: np.ndarray, texts: Sequence[Sequence[int]]) -> np.ndarray:
    """The probability of each text given its row, ``(B,)`` float64."""
    import torch

    if not len(texts):
        return np.empty(0)
    lengths = [len(text) for text in texts]
    padded = torch.zeros(len(texts), max(*lengths, 1), dtype=torch.int64)
    for row, text in enumerate(texts):
        padded[row, : len(text)] = torch.tensor(text, dtype=torch.int64)
    loss_B = torch.nn.functional.ctc_loss(
        torch.from_numpy(steps_BTC).transpose(0, 1), padded, torch.from_numpy(frames_B), torch.tensor(lengths),
        reduction="none",
    )  # fmt: skip
    return np.exp(-loss_B.numpy())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    import torch

    return np.asarray(torch.from_numpy(logits).double().log_softmax(dim=-1).numpy())
