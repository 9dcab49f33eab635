"""Networks that tell classes of images apart: a small one, torchvision's and timm's, with weights from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparkdl.errors import InvalidParamError, did_you_mean
from sparkdl.interop import state_dict
from sparkdl.interop.common import needed

_SEVERAL_OUTPUTS = ("googlenet", "inception_v3")  # while training, auxiliary ones beside


class ImageNetwork(nn.Module):
    """``uint8`` images, ``(B, C, H, W)``, to logits, ``(B, classes)``: augmented in training, then as numbers in [0, 1] with
    the mean taken off and divided by the deviation of each channel, then through the backbone."""

    def __init__(self, backbone: nn.Module, augment: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.augment = augment
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """See the class."""
        shown = self.augment(image_BCHW).to(self.mean.dtype) / 255
        logits: Tensor = self.backbone((shown - self.mean) / self.std)
        return logits


class SmallConvNet(nn.Sequential):
    """For images of 8 to 64 pixels a side: three pairs of convolutions with batch norm, each at half the size of the one
    before; 290 thousand parameters."""

    def __init__(self, channels: int, classes: int) -> None:
        layers: list[nn.Module] = []
        for stage, width in enumerate((32, 64, 128)):
            layers += [nn.MaxPool2d(2)] if stage else []
            for _ in range(2):
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels, classes))


def backbone(name: str, shape: Sequence[int], classes: int, weights: str | None = None) -> tuple[nn.Module, list[str]]:
    """The network of that name: ``small``, one of torchvision's (``resnet18``), or ``timm/`` and one of timm's; and its
    head: the names of the parameters whose shape the number of classes tells.

    shape: ``(C, H, W)`` of an image. weights: the URI of its state_dict, as ``.safetensors`` or by ``torch.save``; what
    belongs to other classes is left out of it. Nothing is downloaded.

    Raises InvalidParamError for a name that is not there or weights of another network; BundleError, StoreError for a
    file that holds none; SparkdlError without torchvision or timm.
    """
    network, other = (_made(name, shape[0], count) for count in (classes, classes + 1))
    theirs = other.state_dict()
    head = [key for key, value in network.state_dict().items() if value.shape != theirs[key].shape]
    if weights is not None:
        _load(network, head, weights)
    resized: Any = getattr(network, "set_input_size", None)  # timm's transformers know the places of their patches
    if resized is not None:
        resized(img_size=tuple(shape[1:]))
    return network, head


def below_head(network: nn.Module, head: Sequence[str], prefix: str = "") -> list[str]:
    """Patterns of the names of all parameters but the head's."""
    patterns = [f"{prefix}{name}" for name, _ in network.named_parameters(recurse=False) if prefix + name not in head]
    for name, child in network.named_children():
        inside = f"{prefix}{name}."
        if any(key.startswith(inside) for key in head):
            patterns += below_head(child, head, inside)
        elif next(child.parameters(), None) is not None:
            patterns.append(f"{inside}*")
    return patterns


def _made(name: str, channels: int, classes: int) -> nn.Module:
    if name == "small":
        return SmallConvNet(channels, classes)
    library, _, of_timm = name.rpartition("timm/")
    if of_timm != name and not library:
        timm = needed("timm", "image")
        _check_name(name, [f"timm/{known}" for known in timm.list_models()])
        network: nn.Module = timm.create_model(of_timm, pretrained=False, num_classes=classes, in_chans=channels)
        return network
    models: Any = needed("torchvision.models", "image")
    _check_name(name, ["small", *(one for one in models.list_models(models) if one not in _SEVERAL_OUTPUTS)])
    if channels != 3:
        raise InvalidParamError(
            f"the backbone {name!r} takes 3 channels (got {channels}); leave 'channels' at 3, gray images become RGB",
            param="channels",
            value=channels,
        )
    return models.get_model(name, weights=None, num_classes=classes)  # type: ignore[no-any-return]


def _check_name(name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise InvalidParamError(
            f"'backbone' must be 'small', a name in torchvision.models, or 'timm/' and a name in timm"
            f"{did_you_mean(name, known)} (got {name!r})",
            param="backbone",
            value=name,
        )


def _load(network: nn.Module, head: Sequence[str], uri: str) -> None:
    given: Mapping[str, Tensor] = state_dict.read(uri)
    ours = network.state_dict()
    kept = {key: value for key, value in given.items() if key not in head or value.shape == ours[key].shape}
    missing = [key for key in ours if key not in kept and key not in head]
    other = [key for key, value in kept.items() if key not in ours or ours[key].shape != value.shape]
    if missing or other:
        raise InvalidParamError(
            f"the weights in {uri!r} are not the backbone's: {len(missing)} are missing {missing[:3]}, "
            f"{len(other)} are not in it, or of another shape {other[:3]}",
            param="weights",
            value=uri,
        )
    network.load_state_dict({**ours, **kept})
