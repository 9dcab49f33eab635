"""A column of very many categories as bucket numbers: nothing is learnt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.cells import texts


class Hashed(Preprocessor):
    """A column of texts, whole numbers or booleans as bucket numbers, int64 of shape ``()``: two values may share one.

    A value's bucket is 1 + h modulo (buckets - 1), the same on every machine and in every version of Python. h is
    SipHash-2-4 of its text in UTF-8, keyed by the seed's 16 decimal digits, and mixed as SplitMix64 mixes its state; as
    pandas.util.hash_array computes it. (J.-P. Aumasson and D. J. Bernstein, SipHash: a fast short-input PRF, 2012;
    G. L. Steele, D. Lea and C. H. Flood, Fast Splittable Pseudorandom Number Generators, 2014.) 2 and 2.0 have the text
    ``2``, true ``true``. Bucket 0 is that of null, NaN and fractions.
    """

    kind: Literal["hashed"] = "hashed"
    buckets: Annotated[int, Field(ge=2, strict=True)] = 1000
    seed: Annotated[int, Field(ge=0, lt=10**16, strict=True)] = 0
    takes: ClassVar[tuple[str, ...]] = ("string", "long", "boolean")

    @property
    def dtype(self) -> str:
        """Of a bucket's number."""
        return "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        """One number a row."""
        return ()

    def read(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """See Preprocessor."""
        from pandas.util import hash_array

        (column,) = columns.values()
        found = pc.dictionary_encode(texts(column))
        different = found.dictionary.to_numpy(zero_copy_only=False).astype(object)
        hashes = hash_array(different, encoding="utf8", hash_key=f"{self.seed:016d}", categorize=False)
        buckets = np.concatenate([1 + (hashes % np.uint64(self.buckets - 1)).astype(np.int64), [0]])
        places = pc.fill_null(found.indices, len(different)).to_numpy(zero_copy_only=False)
        return np.asarray(buckets[places], dtype=np.int64)
