"""What preprocessors must know of the data before the model is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sparkdl.errors import SignatureError
from sparkdl.preprocess.base import Preprocessor
from sparkdl.signature import preprocessed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def learn(df: DataFrame, preprocess: Mapping[Any, Preprocessor]) -> dict[Any, Preprocessor]:
    """Each preprocessor as it is once it has seen its columns: those of its key, a name or a tuple of names.

    Raises ColumnNotFoundError, SignatureError for columns that one does not take, before any of them looks at a row; and
    what ``fit`` of a preprocessor raises.
    """
    if df.isStreaming:
        raise SignatureError(
            "a preprocessor learns from a batch DataFrame, and this one is a stream; write it to a table and learn from that",
            column=None,
            expected="batch",
            got="stream",
        )
    columns = {key: [key] if isinstance(key, str) else list(key) for key in preprocess}
    for key, one in preprocess.items():
        preprocessed(df, columns[key][0], columns[key], one)
    return {key: one.fit(df, columns[key]) for key, one in preprocess.items()}
