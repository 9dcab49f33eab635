"""A preprocessor that learns of moments and counts, so that all of a fit's learn in one pass over the rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.statistics import Moments

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class Learner(Preprocessor):
    """Base: says of some rows what it wants measured and counted, and makes itself of what that is over all rows.

    It reads the rows that it learns from as it reads those that it is applied to: in Arrow, by the same code.
    """

    @property
    @abstractmethod
    def is_learnt(self) -> bool:
        """True if it knows what it must know."""

    def measured(self, columns: Mapping[str, pa.Array]) -> list[np.ndarray]:
        """Numbers of which it wants the Moments: float64 ``(B,)`` each; those that are not finite do not count."""
        return []

    def counted(self, columns: Mapping[str, pa.Array]) -> list[pa.Array]:
        """Texts or whole numbers of which it wants to know how often each occurs; null is not counted."""
        return []

    @property
    def frequent(self) -> int | None:
        """How many of the most frequent it wants of each that is ``counted``; None: all."""
        return None

    @abstractmethod
    def learnt(
        self, columns: Sequence[str], moments: Sequence[Moments], counts: Sequence[Mapping[str, int]]
    ) -> Learner:
        """One that knows, of what was ``measured`` and ``counted`` (as texts), most frequent first, those as frequent by
        their text. Raises DataError for columns that there is nothing to learn of."""

    def fit(self, df: DataFrame, columns: Sequence[str]) -> Preprocessor:
        """See Preprocessor."""
        from sparkdl.preprocess.learn import learn

        return learn(df, {tuple(columns): self})[tuple(columns)]
