"""ObjectDetector: boxes around objects in images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from sparkdl.decode.boxes import BoxDecoder
from sparkdl.errors import InvalidParamError
from sparkdl.interop.common import needed
from sparkdl.params import _param, number, one_of, text, whole, with_accessors
from sparkdl.preprocess.boxes import Boxes
from sparkdl.preprocess.images import Image
from sparkdl.preprocess.learn import learn
from sparkdl.ready.base import ReadyEstimator

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

BACKBONES = ("small", "resnet18", "resnet34", "resnet50")


@with_accessors
class ObjectDetector(ReadyEstimator):
    """Trains a network that finds objects in images, and says what they are: torchvision's FCOS. docs/detection.md is its guide.

    imageCol: the images, as ImageClassifier takes them. labelCol: ``array<struct<xmin, ymin, xmax, ymax, label>>``;
    ``prediction`` is such an array, with a score.

    height, width: of the images in the network, in pixels. unit: of the boxes' sides, ``pixel`` for images of this very size, or
    ``relative``, shares of width and height, for images that are stretched to it.
    backbone: ``small``, three feature maps of strides 4, 8 and 16 for objects of a few dozen pixels, or a ResNet of torchvision
    with strides 8, 16, 32 and 64; untrained: ``initialWeights`` takes those of another detector.
    mostBoxes: of one image in training. minScore: of a box that is given. overlap: intersection over union with a better box of its
    class above which a box is left out.

    All further Params are TorchEstimator's.
    """

    imageCol = _param("imageCol", "column of images", text("imageCol"))
    height = _param("height", "of the images in the network, in pixels", whole("height", 32))
    width = _param("width", "of the images in the network, in pixels", whole("width", 32))
    unit = _param("unit", "of the boxes' sides, pixel or relative", one_of("unit", ("pixel", "relative")))
    backbone = _param("backbone", f"one of {BACKBONES}", one_of("backbone", BACKBONES))
    mostBoxes = _param("mostBoxes", "in one image of the training rows", whole("mostBoxes", 1))
    minScore = _param("minScore", "of a box that is given", number("minScore", 0.0, 1.0))
    overlap = _param("overlap", "above which the worse box of a class is left out", number("overlap", 0.0, 1.0))

    own_defaults: ClassVar[Mapping[str, Any]] = {
        "imageCol": "image", "labelCol": "boxes", "height": 64, "width": 64, "unit": "pixel", "backbone": "small",
        "mostBoxes": 20, "minScore": 0.05, "overlap": 0.5, "batchSize": 16, "optimizer": "adamw",
    }  # fmt: skip

    def _design(self, df: DataFrame) -> tuple[DataFrame, dict[str, Any]]:
        if self.isDefined("weightCol"):
            raise InvalidParamError(
                "ObjectDetector takes no 'weightCol': its loss is over the places of a batch, not over rows; leave it out",
                param="weightCol",
                value=self.getOrDefault("weightCol"),
            )
        needed("torchvision", "detection")
        from sparkdl.ready.detector import DetectionLoss, Detector, backbone

        image, label = self.getOrDefault("imageCol"), self.getOrDefault("labelCol")
        size: dict[str, Any] = {name: self.getOrDefault(name) for name in ("height", "width")}
        unit = self.getOrDefault("unit")
        shown = Image(**size, resize="never" if unit == "pixel" else "stretch")
        boxes = learn(df, {image: shown, label: Boxes(**size, limit=self.getOrDefault("mostBoxes"), unit=unit)})[label]
        assert isinstance(boxes, Boxes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.getOrDefault("seed"))
            network = Detector(backbone(self.getOrDefault("backbone")), len(boxes.values), **size)
        told = {"score": self.getOrDefault("minScore"), "overlap": self.getOrDefault("overlap")}
        return df, {
            "model": network,
            "loss": DetectionLoss(network, len(boxes.values)),
            "inputCols": [image],
            "preprocess": {image: shown, label: boxes},
            "decoder": BoxDecoder(values=boxes.values, unit=unit, **size, **told),
        }
