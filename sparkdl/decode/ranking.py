"""Item numbers as items, the best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa

from sparkdl.decode.base import Decoder
from sparkdl.errors import DataError, SignatureError
from sparkdl.settings import Values
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.signature import TensorSpec

AT = 10  # how many of a row's items are judged


class Ranking(Decoder):
    """``prediction``, ``array<struct<item, score>>``: the best items first, with the items' own ids.

    values: the items; the model's output ``items``, ``(B, K)`` int64, has their numbers from 1, and 0 for none; ``scores``,
    ``(B, K)``, their scores.

    Judged by a column with the item that the user went for, or an array of these. ``recall_at_10``: the share of a row's
    items that are among the first 10 predicted. ``ndcg_at_10``: those found count ``1 / log2(1 + place)``, as a share of
    what they could at best (Järvelin and Kekäläinen, Cumulated Gain-Based Evaluation of IR Techniques, 2002). Both are means
    over the rows; with fewer than 10 items to a row, of these.
    """

    kind: Literal["ranking"] = "ranking"
    values: Values
    figures: ClassVar[tuple[str, ...]] = ("recall_at_10", "ndcg_at_10")

    def columns(self, outputs: Sequence[TensorSpec]) -> dict[str, pa.DataType]:
        """See Decoder. Raises SignatureError for outputs that are no ``items`` and ``scores``."""
        shapes = {spec.name: spec.shape for spec in outputs}
        if set(shapes) != {"items", "scores"} or shapes["items"] != shapes["scores"] or len(shapes["items"]) != 1:
            raise SignatureError(
                f"a ranking takes the outputs 'items' and 'scores', (B, K) each (got {', '.join(map(str, outputs))})",
                column=None,
                expected={"items": ("K",), "scores": ("K",)},
                got=shapes,
            )
        return {"prediction": pa.list_(pa.struct([("item", self._items.type), ("score", pa.float32())]))}

    @cached_property
    def _items(self) -> pa.Array:
        return pa.array(list(self.values))

    def decode(self, outputs: Mapping[str, np.ndarray], rows: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """See Decoder."""
        items, scores = outputs["items"], outputs["scores"]
        is_item = items > 0
        offsets = np.concatenate([[0], np.cumsum(is_item.sum(axis=1))]).astype(np.int32)
        best = pa.StructArray.from_arrays(
            [
                self._items.take(pa.array(items[is_item] - 1)),
                pa.array(scores[is_item].astype(np.float32)),
            ],
            names=["item", "score"],
        )
        return {"prediction": pa.ListArray.from_arrays(pa.array(offsets), best)}

    def evaluate(self, scored: DataFrame, label: str, prediction: str) -> dict[str, float]:
        """See Decoder. Raises SignatureError for a label of another type than the items, DataError for an empty array."""
        truth, item = scored.schema[label].dataType, scored.schema[prediction].dataType.elementType["item"].dataType
        is_array = truth.typeName() == "array"
        kinds = [one.simpleString() for one in (truth.elementType if is_array else truth, item)]
        if kinds[0] != kinds[1] and "string" in kinds:
            raise SignatureError(
                f"the label is {kinds[0]}, and the items are {kinds[1]}", column=None, expected=kinds[1], got=kinds[0]
            )
        items = quoted(label) if is_array else f"array({quoted(label)})"
        rows = scored.selectExpr(
            f"array_distinct(CAST({items} AS array<{kinds[1]}>)) AS truth",
            f"slice({quoted(prediction)}.item, 1, {AT}) AS found",
        ).selectExpr("*", "nullif(size(truth), 0) AS relevant")
        gain = "aggregate(transform({}), 0D, (total, one) -> total + one)"
        found = gain.format("found, (item, place) -> if(array_contains(truth, item), 1 / log2(place + 2), 0D)")
        ideal = gain.format(f"sequence(1, least({AT}, relevant)), place -> 1 / log2(place + 1)")
        recall, ndcg, empty = rows.selectExpr(
            "avg(size(array_intersect(truth, found)) / relevant)",
            f"avg({found} / {ideal})",
            "count_if(relevant IS NULL)",
        ).first()
        if empty:
            raise DataError(
                f"{empty:,} rows have an empty array as their label: there is nothing to recommend; leave them out before",
                column=None, row=None, file=None, expected="at least one item", got=[],
            )  # fmt: skip
        return {"recall_at_10": float(recall), "ndcg_at_10": float(ndcg)}
