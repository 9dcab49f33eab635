"""The network of an ObjectDetector, and its loss: torchvision's FCOS for images of one size.

Shapes: B rows, P places, C classes, M boxes to a row. A place is the middle of a cell of one of the feature maps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork

from sparkdl.preprocess.boxes import NO_BOX

CHANNELS = 64  # of the small network's feature maps; a multiple of 32, for the head's group norm
_CONVS = 2  # of the head, which has 4 in the paper
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as torchvision's backbones were trained


class Detector(nn.Module):
    """A backbone with a feature pyramid and FCOS' head; takes uint8 ``(B, 3, height, width)``.

    Returns ``boxes`` ``(B, P, 4)`` in pixels: left, top, right, bottom; ``classes`` ``(B, P, C)`` and ``centerness``
    ``(B, P, 1)``, logits.
    """

    mean: Tensor
    std: Tensor
    anchors: Tensor

    def __init__(self, backbone: Any, classes: int, height: int, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: Any = FCOSHead(backbone.out_channels, 1, classes, num_convs=_CONVS)
        self.register_buffer("mean", 255 * torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(_STD).view(3, 1, 1), persistent=False)
        anchors, self.places_per_level = _anchors(backbone, height, width)
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See the class."""
        features = list(self.backbone((images.float() - self.mean) / self.std).values())
        told = self.head(features)
        sides = told["bbox_regression"]
        boxes = self.head.box_coder.decode(sides, self.anchors.expand_as(sides))
        return {"boxes": boxes, "classes": told["cls_logits"], "centerness": told["bbox_ctrness"]}


class DetectionLoss(nn.Module):
    """FCOS' loss as torchvision computes it: focal loss of the classes, generalised IoU of the boxes, centerness; each over the
    places in boxes of the batch."""

    anchors: Tensor

    def __init__(self, network: Detector, classes: int) -> None:
        super().__init__()
        stand_in: Any = nn.Identity()
        stand_in.out_channels = 32  # of a head that is not used
        self.fcos: Any = FCOS(stand_in, classes, head=FCOSHead(32, 1, classes, num_convs=1))
        self.register_buffer("anchors", network.anchors.clone(), persistent=False)
        self.places_per_level = network.places_per_level

    def forward(self, outputs: dict[str, Tensor], label_BM5: Tensor) -> Tensor:
        """The sum of the three."""
        anchors = self.anchors.to(label_BM5.device)
        boxes_BP4 = outputs["boxes"].float()
        told = {
            "bbox_regression": self.fcos.box_coder.encode(anchors.expand_as(boxes_BP4), boxes_BP4),
            "cls_logits": outputs["classes"].float(),
            "bbox_ctrness": outputs["centerness"].float(),
        }
        targets = []
        for boxes_M5 in label_BM5:
            given = boxes_M5[boxes_M5[:, 4] != NO_BOX]
            targets.append({"boxes": given[:, :4], "labels": given[:, 4].long()})
        losses = self.fcos.compute_loss(targets, told, [anchors] * len(targets), self.places_per_level)
        return torch.stack(list(losses.values())).sum()


class SmallBackbone(nn.Module):
    """Convolutions with a feature pyramid of strides 4, 8 and 16."""

    out_channels = CHANNELS

    def __init__(self) -> None:
        super().__init__()
        sizes = (32, 48, 64, 96)
        self.stages = nn.ModuleList(
            nn.Sequential(*_convolution(before, size, 2), *_convolution(size, size, 1))
            for before, size in zip((3, *sizes), sizes, strict=False)
        )
        self.pyramid = FeaturePyramidNetwork(list(sizes[1:]), CHANNELS)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The feature maps, the finest first."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        features = images
        for number, stage in enumerate(self.stages):
            features = stage(features)
            if number:
                maps[str(number)] = features
        found: dict[str, Tensor] = self.pyramid(maps)
        return found


def backbone(name: str) -> nn.Module:
    """``small``, or a ResNet of torchvision with a feature pyramid, its weights drawn anew."""
    if name == "small":
        return SmallBackbone()
    made: nn.Module = resnet_fpn_backbone(
        backbone_name=name, weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5, returned_layers=[2, 3, 4]
    )
    return made


def _convolution(before: int, after: int, stride: int) -> Sequence[nn.Module]:
    return nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)


def _anchors(backbone: Any, height: int, width: int) -> tuple[Tensor, list[int]]:
    """Of each place the box ``(P, 4)`` around it whose side is the stride, as FCOS has it, and the places of each map."""
    images = torch.zeros(1, 3, height, width)
    training = backbone.training
    with torch.no_grad():
        maps: list[Any] = list(backbone.eval()(images).values())
    backbone.train(training)
    strides = tuple((round(height / one.shape[2]),) for one in maps)
    generator = AnchorGenerator(strides, ((1.0,),) * len(strides))
    (anchors,) = generator(ImageList(images, [(height, width)]), maps)
    return anchors, [one.shape[2] * one.shape[3] for one in maps]
