"""A decoder: what the model returned for some rows, and the rows, in; the columns that people read out.

Plain data as a preprocessor is, kept in the bundle's signature. It runs in the workers, after the model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from sparkdl.settings import Settings, class_at, of_kind
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.signature import TensorSpec

_AT_ONCE = 1_000  # rows of an evaluation on the driver
KINDS = {
    "anomaly": "sparkdl.decode.sequences:AnomalyDecoder",
    "boxes": "sparkdl.decode.boxes:BoxDecoder",
    "ctc": "sparkdl.decode.ctc:CtcDecoder",
    "forecast": "sparkdl.decode.sequences:ForecastDecoder",
    "labels": "sparkdl.decode.labels:LabelDecoder",
    "ranking": "sparkdl.decode.ranking:Ranking",
    "spans": "sparkdl.decode.spans:SpanDecoder",
}


class Decoder(Settings):
    """Base of all decoders.

    figures: names of those that ``evaluate`` gives. Empty: the model is judged by its task, or not.
    """

    figures: ClassVar[tuple[str, ...]] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """The input columns that ``decode`` must have of the rows."""
        return ()

    @abstractmethod
    def columns(self, outputs: Sequence[TensorSpec]) -> dict[str, pa.DataType]:
        """The columns that scoring adds for a model with these outputs, ``prediction`` first. Raises SignatureError for
        outputs that it cannot decode."""

    @abstractmethod
    def decode(self, outputs: Mapping[str, np.ndarray], rows: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """The columns, of the types that ``columns`` told. outputs: ``(B, …)`` each, by name. rows: the B rows' input
        columns."""

    def evaluate(self, scored: DataFrame, label: str, prediction: str) -> dict[str, float]:
        """``figures`` of rows with a truth and a prediction that is not null, in columns of these names."""
        raise NotImplementedError


def parts(scored: DataFrame, *names: str) -> Iterator[list[Any]]:
    """The rows' values in these columns, through the driver, a thousand rows at a time."""
    rows = scored.select(*map(quoted, names)).toLocalIterator()
    while part := list(islice(rows, _AT_ONCE)):
        yield part


def figure_names() -> list[str]:
    """Of all decoders' figures."""
    return [name for path in KINDS.values() for name in class_at(path).figures]


def from_json(told: Any) -> Decoder:
    """The decoder that ``to_json`` told of. Raises InvalidParamError."""
    found = of_kind(told, KINDS, "decoder")
    assert isinstance(found, Decoder)
    return found
