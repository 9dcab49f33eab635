"""A preprocessor: columns of rows in, one tensor of the model out; the same code when training and when serving.

It is plain data, so it travels inside the bundle as JSON, and runs nothing that it does not name: no code comes from a
bundle. What must be known of the data first (a vocabulary, a mean) is learnt by ``fit`` on the driver, from a DataFrame.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from sparkdl.settings import Settings, of_kind

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.columns import Ragged

KINDS = {
    "audio": "sparkdl.preprocess.audio:Audio",
    "boxes": "sparkdl.preprocess.boxes:Boxes",
    "categories": "sparkdl.preprocess.categories:Categories",
    "characters": "sparkdl.preprocess.characters:Characters",
    "dates": "sparkdl.preprocess.dates:DateParts",
    "hashed": "sparkdl.preprocess.hashed:Hashed",
    "image": "sparkdl.preprocess.images:Image",
    "label_lists": "sparkdl.preprocess.label_lists:LabelLists",
    "labels": "sparkdl.preprocess.labels:Labels",
    "series": "sparkdl.preprocess.series:Series",
    "text": "sparkdl.preprocess.text:Text",
    "numbers": "sparkdl.preprocess.numbers:Numbers",
}


class Preprocessor(Settings):
    """Base of all preprocessors: frozen, its settings checked when it is made (InvalidParamError).

    takes: the kinds of columns that it reads (see ``TensorSpec.types``): ``binary``, ``string``, ``long``, …; a number's
    kind stands for all numbers. most: columns of one tensor; None: any number.
    """

    takes: ClassVar[tuple[str, ...]]
    most: ClassVar[int | None] = 1

    @property
    def count(self) -> int | None:
        """How many columns it was learnt for; None: as many as ``most`` allows."""
        return None

    @property
    @abstractmethod
    def dtype(self) -> str:
        """Of the tensor, see ``TensorSpec.dtype``."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of one row of the tensor."""

    @abstractmethod
    def read(self, columns: Mapping[str, pa.Array]) -> np.ndarray | Ragged:
        """The tensor, ``(B, *shape)``, out of the columns by name, in their order; never a ChunkedArray.

        Raises BadRows (``columns.bad_rows``) for rows that cannot be read, nulls too unless they have a meaning here;
        where reading is dear, with what was read of the other rows as its ``rest``.
        """

    def fit(self, df: DataFrame, columns: Sequence[str]) -> Preprocessor:
        """One that knows what it must know of these columns of ``df``, a batch DataFrame; itself, if that is nothing."""
        return self


def from_json(told: Any) -> Preprocessor:
    """The preprocessor that ``to_json`` told of. Raises InvalidParamError."""
    found = of_kind(told, KINDS, "preprocess")
    assert isinstance(found, Preprocessor)
    return found
