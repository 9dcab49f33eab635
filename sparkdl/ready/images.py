"""ImageClassifier: images of classes."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import torch

from sparkdl.decode.labels import LabelDecoder
from sparkdl.params import Converter, _param, flag, one_of, refuse, text, whole, with_accessors
from sparkdl.preprocess import augment
from sparkdl.preprocess.images import RESIZE, Image
from sparkdl.preprocess.labels import Labels
from sparkdl.preprocess.learn import learn
from sparkdl.ready import backbones
from sparkdl.ready.base import ReadyEstimator, classes_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_SMALL = 64  # pixels a side, up to which the small network is the default
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation, see torchvision's models


def _channels(value: Any) -> int:
    if isinstance(value, bool) or value not in (1, 3):
        raise refuse("channels", "3, or 1 for gray", value)
    return int(value)


def _numbers(name: str) -> Converter:
    """A list of numbers."""

    def convert(value: Any) -> list[float]:
        good = isinstance(value, (list, tuple)) and all(
            isinstance(one, Real) and not isinstance(one, bool) for one in value
        )
        if not good:
            raise refuse(name, "a list of numbers, one a channel", value)
        return [float(one) for one in value]

    return convert


@with_accessors
class ImageClassifier(ReadyEstimator):
    """Trains a network that tells classes of images apart; docs/images.md is its guide.

    imageCol: the images: bytes of files, paths or URIs of files, or rows of Spark's ``image`` source. labelCol: texts or
    whole numbers; ``prediction`` is one of them, ``probability`` one number a label, in their order.

    height, width, channels (3 or 1), resize: see ``sparkdl.preprocess.Image``. mean, std: of each channel, as numbers in
    [0, 1]; ImageNet's by default.
    backbone: ``small``, a name in torchvision.models such as ``resnet18``, or ``timm/`` and a name in timm; the small one
    by default up to 64 pixels a side, else ``resnet18``. weights: the URI of its state_dict to start from. freeze: train the
    head alone.
    augment: changes of the images in training, see ``sparkdl.preprocess.augment.Augment``.

    All further Params are TorchEstimator's.
    """

    imageCol = _param("imageCol", "column of images", text("imageCol"))
    height = _param("height", "of the images in the network, in pixels", whole("height", 1))
    width = _param("width", "of the images in the network, in pixels", whole("width", 1))
    channels = _param("channels", "3, or 1 for gray", _channels)
    resize = _param("resize", f"one of {get_args(RESIZE)}", one_of("resize", get_args(RESIZE)))
    backbone = _param("backbone", "small, a name in torchvision.models, or timm/ and one in timm", text("backbone"))
    weights = _param("weights", "URI of the backbone's state_dict", text("weights"))
    freeze = _param("freeze", "train the head alone", flag("freeze"))
    augment = _param("augment", "torchvision's transforms of the images in training", augment.checked)
    mean = _param("mean", "of each channel", _numbers("mean"))
    std = _param("std", "deviation of each channel", _numbers("std"))

    own_defaults: ClassVar[Mapping[str, Any]] = {
        "imageCol": "image", "height": 64, "width": 64, "channels": 3, "resize": "stretch", "backbone": None, "weights": None,
        "freeze": False, "augment": [], "mean": None, "std": None, "task": "multiclass", "batchSize": 32,
    }  # fmt: skip
    heeds: ClassVar[frozenset[str]] = frozenset({"frozen"})

    def _design(self, df: DataFrame) -> tuple[DataFrame, dict[str, Any]]:
        image, label = self.getOrDefault("imageCol"), self.getOrDefault("labelCol")
        shown = Image(**{name: self.getOrDefault(name) for name in ("height", "width", "channels", "resize")})
        classes = learn(df, {image: shown, label: Labels()})[label]
        assert isinstance(classes, Labels)
        labels = classes_of(classes, label)
        network, below = self._network(shown.shape, len(labels))
        return df, {
            "model": network,
            "inputCols": [image],
            "preprocess": {image: shown, label: classes},
            "decoder": LabelDecoder(values=labels),
            "frozen": [*self.getOrDefault("frozen"), *below],
        }

    def _network(self, shape: tuple[int, ...], classes: int) -> tuple[backbones.ImageNetwork, list[str]]:
        """The network, and the names in it that are frozen."""
        name = self.getOrDefault("backbone") or ("small" if max(shape[1:]) <= _SMALL else "resnet18")
        changes = augment.Augment(self.getOrDefault("augment"), shape)
        mean, std = (self._of_channels(param, shape[0]) for param in ("mean", "std"))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.getOrDefault("seed"))
            backbone, head = backbones.backbone(name, shape, classes, self.getOrDefault("weights"))
        below = backbones.below_head(backbone, head) if self.getOrDefault("freeze") else []
        return backbones.ImageNetwork(backbone, changes, mean, std), [f"backbone.{pattern}" for pattern in below]

    def _of_channels(self, name: str, channels: int) -> list[float]:
        given: list[float] | None = self.getOrDefault(name)
        if given is None:
            default = _IMAGENET[name == "std"]
            return list(default) if channels == 3 else [sum(default) / 3]
        if len(given) != channels or (name == "std" and min(given) <= 0):
            raise refuse(name, f"a list of {channels} numbers{' above 0' if name == 'std' else ''}", given)
        return given
