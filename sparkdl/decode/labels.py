"""Class numbers as labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from sparkdl import columns
from sparkdl.decode.base import Decoder
from sparkdl.errors import SignatureError
from sparkdl.settings import Values

if TYPE_CHECKING:
    from sparkdl.signature import TensorSpec


class LabelDecoder(Decoder):
    """``prediction`` as the label that a class number stands for; further outputs as they are."""

    kind: Literal["labels"] = "labels"
    values: Values

    def columns(self, outputs: Sequence[TensorSpec]) -> dict[str, pa.DataType]:
        """See Decoder. Raises SignatureError for a model that tells another number of classes apart."""
        made = {spec.name: columns.arrow_type(spec) for spec in outputs}
        classes = next((spec.shape[0] for spec in outputs if spec.name == "probability"), None)
        if classes != len(self.values):
            raise SignatureError(
                f"there are {len(self.values)} labels, and the model tells {classes} classes apart",
                column=None,
                expected=len(self.values),
                got=classes,
            )
        return made | {"prediction": pa.array(list(self.values)).type}

    def decode(self, outputs: Mapping[str, np.ndarray], rows: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """See Decoder."""
        made = {name: columns.to_arrow(values) for name, values in outputs.items()}
        numbers = pa.array(outputs["prediction"].astype(np.int64))
        return made | {"prediction": pa.array(list(self.values)).take(numbers)}
