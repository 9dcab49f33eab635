"""Texts as numbers of their characters: what a recognizer of speech or of writing learns to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from sparkdl.columns import bad_rows
from sparkdl.errors import DataError, EmptyDatasetError
from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.cells import together
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MOST = 5_000  # different characters: more than any script of syllables has, and a table of Chinese may have


class Characters(Preprocessor):
    """A column of texts as int64 of shape ``(length,)``: each character's place in ``alphabet``, from 1; 0 behind the end.

    alphabet: the characters, each once; in order those of all rows that ``fit`` is given, validation rows too, if none are
    given. length: of the longest text. A null, a longer text, and one with another character are bad rows. Texts are taken as they are: lower case, one
    Unicode normal form, no double spaces are for whoever writes the column.
    """

    kind: Literal["characters"] = "characters"
    alphabet: str = ""
    length: int = Field(default=200, ge=1, le=10_000)
    takes: ClassVar[tuple[str, ...]] = ("string",)

    @field_validator("alphabet")
    @classmethod
    def _each_once(cls, value: str) -> str:
        twice = next((one for place, one in enumerate(value) if one in value[:place]), None)
        if twice is not None:
            raise ValueError(f"each character once, {twice!r} is there twice")
        return value

    @property
    def dtype(self) -> str:
        """Of a character's number."""
        return "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        """``(length,)``."""
        return (self.length,)

    def read(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """See Preprocessor."""
        ((name, column),) = columns.items()
        texts = column.to_pylist()
        number = {character: place for place, character in enumerate(self.alphabet, start=1)}
        problems = [
            bad_rows(bad[0], name, [row], *bad[1:]) for row, text in enumerate(texts) if (bad := self._bad(text))
        ]
        if problems:
            raise together(problems)
        ids = np.zeros((len(texts), self.length), np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = [number[one] for one in text]
        return ids

    def _bad(self, text: str | None) -> tuple[str, str, list[object]] | None:
        """The kind, what is expected, and what is there; None if nothing is wrong."""
        if text is None:
            return "null", "a text", [None]
        if len(text) > self.length:
            return "shape", f"at most {self.length:,} characters", [len(text)]
        unknown = sorted(set(text) - set(self.alphabet))
        return ("value", f"characters of {self.alphabet!r:.80}", [f"{unknown[0]!r} too"]) if unknown else None

    def fit(self, df: DataFrame, columns: Sequence[str]) -> Characters:
        """See Preprocessor. Raises DataError for too many different characters, EmptyDatasetError."""
        from pyspark.sql import functions as sf

        if self.alphabet:
            return self
        (name,) = columns
        each = df.select(sf.explode(sf.split(sf.col(quoted(name)), "")).alias("one"))
        found = {character for row in each.distinct().limit(MOST + 1).collect() for character in row.one}
        if not found:
            raise EmptyDatasetError(name)
        if len(found) > MOST:
            raise DataError(
                f"column {name!r} holds more than {MOST:,} different characters; is this a column of texts?",
                column=name, row=None, file=None, expected=f"at most {MOST:,} characters", got=len(found),
            )  # fmt: skip
        return self.model_copy(update={"alphabet": "".join(sorted(found))})
