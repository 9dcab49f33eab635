"""Columns of categories as numbers, by a vocabulary that is learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from sparkdl.columns import bad_rows
from sparkdl.preprocess.cells import texts, together
from sparkdl.preprocess.learner import Learner
from sparkdl.preprocess.statistics import Moments

_Positive = Annotated[int, Field(ge=1, strict=True)]


class Categories(Learner):
    """Columns of texts, whole numbers or booleans as ids, int64 of shape ``(n,)``: 1 is the most frequent value of the
    column, 2 the next, and 0 all that is not known: null, NaN, a fraction, a value that was not seen or too seldom.

    minCount: rows that hold a value for it to be known. vocabSize: the most values of a column that are known.
    unknown: ``keep`` as id 0, or ``error``: a bad row.
    vocabularies: the known values of each column as texts, by their ids; learnt. 2 and 2.0 are the text ``2``, true is
    ``true``.
    """

    kind: Literal["categories"] = "categories"
    minCount: _Positive = 1
    vocabSize: _Positive = 10_000
    unknown: Literal["keep", "error"] = "keep"
    vocabularies: tuple[tuple[str, ...], ...] = ()
    takes: ClassVar[tuple[str, ...]] = ("string", "long", "boolean")
    most: ClassVar[int | None] = None

    @property
    def dtype(self) -> str:
        """Of an id."""
        return "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        """One id a column."""
        return (len(self.vocabularies),)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many ids each column has, 0 with them: what an embedding must hold."""
        return tuple(len(values) + 1 for values in self.vocabularies)

    @property
    def count(self) -> int | None:
        """See Preprocessor."""
        return len(self.vocabularies) or None

    @property
    def is_learnt(self) -> bool:
        """See Learner."""
        return bool(self.vocabularies)

    @property
    def frequent(self) -> int:
        """See Learner."""
        return self.vocabSize

    @cached_property
    def _known(self) -> tuple[pa.Array, ...]:
        return tuple(pa.array(values, pa.string()) for values in self.vocabularies)

    def read(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """See Preprocessor."""
        rows = len(next(iter(columns.values())))
        ids: np.ndarray = np.empty((rows, *self.shape), dtype=np.int64)
        problems = []
        for place, (name, column) in enumerate(columns.items()):
            known = self._known[place]
            found = pc.fill_null(pc.index_in(texts(column), value_set=known), -1)
            ids[:, place] = found.to_numpy(zero_copy_only=False)
            wrong = np.flatnonzero(ids[:, place] < 0) if self.unknown == "error" else ()
            if len(wrong):
                got = (repr(column[int(row)].as_py()) for row in wrong)
                problems.append(bad_rows("value", name, wrong, f"one of the {len(known)} known values", got))
        if problems:
            raise together(problems)
        return ids + 1

    def counted(self, columns: Mapping[str, pa.Array]) -> list[pa.Array]:
        """See Learner."""
        return [texts(column) for column in columns.values()]

    def learnt(
        self, columns: Sequence[str], moments: Sequence[Moments], counts: Sequence[Mapping[str, int]]
    ) -> Categories:
        """See Learner. A column without a value has an empty vocabulary: all of it is id 0."""
        known = tuple(tuple(text for text, count in of_one.items() if count >= self.minCount) for of_one in counts)
        return Categories(**{**self.model_dump(), "vocabularies": known})
