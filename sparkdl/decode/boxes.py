"""Boxes around objects, out of what a detector says at each place of an image.

Sizes: B rows, P places, C classes, K candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from sparkdl.decode.base import Decoder
from sparkdl.errors import SignatureError
from sparkdl.interop.common import needed
from sparkdl.preprocess.boxes import LONGEST_SIDE, SIDES
from sparkdl.settings import Values

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.signature import TensorSpec

BOXES = pa.list_(
    pa.struct([*((side, pa.float64()) for side in SIDES), ("score", pa.float32()), ("label", pa.string())])
)
_RELATIVE = 1000.0  # of an image's side, for COCO's areas of small and large boxes


class BoxDecoder(Decoder):
    """``prediction``: ``array<struct<xmin, ymin, xmax, ymax double, score float, label string>>``, the best first; sides in
    ``unit`` as the boxes that were trained with, see ``sparkdl.preprocess.Boxes``; in pixels of the image as the model gets it.

    Takes ``boxes`` ``(B, P, 4)`` in pixels, ``classes`` ``(B, P, C)`` and ``centerness`` ``(B, P, 1)``, logits; a score is the
    root of the product of both's probabilities (FCOS, Tian et al. 2019, arXiv:2006.09214). Of the ``candidates`` best of at
    least ``score``, those that overlap a better one of their class by more than ``overlap`` (intersection over union) are
    left out, and ``most`` are given.
    Its figures, in [0, 1], are COCO's by torchmetrics: ``map_50``, the mean over classes of the average precision at an overlap
    of 0.5, and ``map``, the mean of that over overlaps of 0.5 to 0.95.
    """

    kind: Literal["boxes"] = "boxes"
    values: Values = Field(min_length=1)
    height: int = Field(ge=1, le=LONGEST_SIDE)
    width: int = Field(ge=1, le=LONGEST_SIDE)
    unit: Literal["pixel", "relative"] = "pixel"
    score: float = Field(default=0.05, ge=0, lt=1)
    overlap: float = Field(default=0.5, gt=0, le=1)
    candidates: int = Field(default=400, ge=1, le=100_000)
    most: int = Field(default=100, ge=1, le=100_000)
    figures: ClassVar[tuple[str, ...]] = ("map", "map_50")

    def columns(self, outputs: Sequence[TensorSpec]) -> dict[str, pa.DataType]:
        """See Decoder. Raises SignatureError for a model with other outputs."""
        shapes = {spec.name: spec.shape for spec in outputs}
        places = shapes.get("boxes", (0,))[0]
        wanted = {"boxes": (places, 4), "classes": (places, len(self.values)), "centerness": (places, 1)}
        if shapes != wanted:
            raise SignatureError(
                f"boxes are made of the outputs {wanted} (got {shapes})", column=None, expected=wanted, got=shapes
            )
        return {"prediction": BOXES}

    def decode(self, outputs: Mapping[str, np.ndarray], rows: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """See Decoder."""
        needed("torchvision", "detection")
        import torch

        boxes, classes, centerness = (
            torch.from_numpy(np.ascontiguousarray(outputs[name])).float() for name in ("boxes", "classes", "centerness")
        )
        scores_BPC = (classes.sigmoid() * centerness.sigmoid()).sqrt()
        return {"prediction": pa.array([self._of_row(*row) for row in zip(boxes, scores_BPC, strict=True)], BOXES)}

    def _of_row(self, boxes_P4: Any, scores_PC: Any) -> list[dict[str, Any]]:
        import torch
        from torchvision.ops import batched_nms, clip_boxes_to_image

        scores_K, places_K = scores_PC.flatten().topk(min(self.candidates, scores_PC.numel()))
        chosen = scores_K >= self.score
        scores_K, places_K = scores_K[chosen], places_K[chosen]
        classes_K = places_K % scores_PC.shape[1]
        boxes_K4 = clip_boxes_to_image(boxes_P4[places_K // scores_PC.shape[1]], (self.height, self.width))
        has_area = (boxes_K4[:, 2:] > boxes_K4[:, :2]).all(1)
        boxes_K4, scores_K, classes_K = boxes_K4[has_area], scores_K[has_area], classes_K[has_area]
        kept = batched_nms(boxes_K4, scores_K, classes_K, self.overlap)[: self.most]
        if self.unit == "relative":
            boxes_K4 = boxes_K4 / torch.tensor([self.width, self.height, self.width, self.height])
        return [
            {**dict(zip(SIDES, sides, strict=True)), "score": score, "label": str(self.values[number])}
            for sides, score, number in zip(
                boxes_K4[kept].tolist(), scores_K[kept].tolist(), classes_K[kept].tolist(), strict=True
            )
        ]

    def evaluate(self, scored: DataFrame, label: str, prediction: str) -> dict[str, float]:
        """See Decoder. The boxes pass through the driver."""
        from sparkdl.signature import quoted

        needed("faster_coco_eval", "detection")
        from torchmetrics.detection import MeanAveragePrecision

        metric = MeanAveragePrecision(backend="faster_coco_eval")
        for truth, found in scored.select(quoted(label), quoted(prediction)).toLocalIterator():
            metric.update([self._told(found, scores=True)], [self._told(truth)])
        told = metric.compute()
        return {name: float(told[name]) for name in self.figures}

    def _told(self, boxes: Sequence[Any], *, scores: bool = False) -> dict[str, Any]:
        """As torchmetrics takes them."""
        import torch

        scale = _RELATIVE if self.unit == "relative" else 1.0
        numbers = {str(value): number for number, value in enumerate(self.values)}
        told = {
            "boxes": torch.tensor([[box[side] * scale for side in SIDES] for box in boxes]).reshape(-1, 4),
            "labels": torch.tensor([numbers.get(str(box["label"]), len(numbers)) for box in boxes], dtype=torch.int64),
        }
        return {**told, "scores": torch.tensor([box["score"] for box in boxes])} if scores else told
