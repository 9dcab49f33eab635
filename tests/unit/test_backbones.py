"""Networks for images: by name, exported, with weights from a file, and what of them is the head."""

from fnmatch import fnmatchcase

import numpy as np
import pytest
import safetensors.torch
import torch

from sparkdl.bundle import Bundle
from sparkdl.errors import BundleError, InvalidParamError, StoreError
from sparkdl.preprocess import Image
from sparkdl.preprocess.augment import Augment
from sparkdl.ready.backbones import ImageNetwork, SmallConvNet, backbone, below_head
from sparkdl.signature import Signature, TensorSpec

pytestmark = pytest.mark.lane("latest")


def network(name, side, classes=5, channels=3):
    torch.manual_seed(0)
    shape = (channels, side, side)
    inside, _ = backbone(name, shape, classes)
    return ImageNetwork(inside, Augment(["horizontal_flip"], shape), [0.5] * channels, [0.25] * channels)


@pytest.mark.parametrize(
    ("name", "side", "channels"),
    [
        ("small", 8, 1), ("small", 64, 3), ("resnet18", 64, 3), ("mobilenet_v3_small", 32, 3), ("regnet_y_400mf", 64, 3),
        ("timm/vit_tiny_patch16_224", 32, 3), ("timm/resnet10t", 32, 1),
    ],
)  # fmt: skip
def test_they_are_exported_and_give_the_same(name, side, channels):
    module = network(name, side, channels=channels)
    image = Image(height=side, width=side, channels=channels)
    spec = TensorSpec("photo", "uint8", image.shape, ("photo",), ("binary",), preprocess=image)
    bundle = Bundle.from_module(module, Signature((spec,)), task="multiclass")
    assert bundle.program.kind == "export"
    again = Bundle.from_files(bundle.files)
    assert again.signature == bundle.signature
    images = np.random.default_rng(0).integers(0, 256, (3, *image.shape), dtype=np.uint8)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(images)).softmax(1)
    np.testing.assert_allclose(again.predict({"photo": images})["probability"], expected, atol=1e-5)


def test_numbers_in_the_network_are_normalised():
    class Seen(torch.nn.Module):
        def forward(self, x):
            return x

    module = ImageNetwork(Seen(), torch.nn.Identity(), [0.5, 0.0, 1.0], [0.5, 1.0, 2.0])
    got = module(torch.tensor([0, 255, 255], dtype=torch.uint8).view(1, 3, 1, 1))
    assert got.flatten().tolist() == [-1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("small", ["23.weight", "23.bias"]),
        ("resnet18", ["fc.weight", "fc.bias"]),
        ("mobilenet_v3_small", ["classifier.3.weight", "classifier.3.bias"]),
        ("timm/vit_tiny_patch16_224", ["head.weight", "head.bias"]),
    ],
)
def test_the_head_and_all_below_it(name, head):
    made, found = backbone(name, (3, 32, 32), 4)
    assert found == head
    patterns = below_head(made, found)
    assert len(patterns) < 20
    left = [key for key, _ in made.named_parameters() if not any(fnmatchcase(key, one) for one in patterns)]
    assert left == head


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_weights_of_other_classes_are_taken_but_for_the_head(tmp_path, ending):
    torch.manual_seed(1)
    given = SmallConvNet(3, 1000).state_dict()
    path = tmp_path / f"weights.{ending}"
    safetensors.torch.save_file(given, path) if ending == "safetensors" else torch.save(given, path)
    state = backbone("small", (3, 16, 16), 4, str(path))[0].state_dict()
    same = [key for key in state if state[key].shape == given[key].shape and torch.equal(state[key], given[key])]
    assert set(state) - set(same) == {"23.weight", "23.bias"}
    state = backbone("small", (3, 16, 16), 1000, str(path))[0].state_dict()
    assert all(torch.equal(state[key], given[key]) for key in state)


def test_a_transformers_weights_fit_another_size_of_images(tmp_path):
    torch.manual_seed(1)
    given = backbone("timm/vit_tiny_patch16_224", (3, 224, 224), 7)[0].state_dict()
    torch.save(given, tmp_path / "weights.pth")
    made, _ = backbone("timm/vit_tiny_patch16_224", (3, 32, 32), 3, str(tmp_path / "weights.pth"))
    assert made.state_dict()["pos_embed"].shape == (1, 5, 192)
    assert torch.equal(made.state_dict()["blocks.0.mlp.fc1.weight"], given["blocks.0.mlp.fc1.weight"])


def test_weights_that_are_none_of_its_own(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(InvalidParamError, match=r"are not the backbone's: .* are missing .*, 1 are not in it"):
        backbone("small", (3, 16, 16), 4, str(tmp_path / "a.pth"))
    (tmp_path / "b.safetensors").write_bytes(b"text")
    with pytest.raises(BundleError, match="not a state dict"):
        backbone("small", (3, 16, 16), 4, str(tmp_path / "b.safetensors"))
    with pytest.raises(StoreError, match="cannot read"):
        backbone("small", (3, 16, 16), 4, str(tmp_path / "none.pth"))


@pytest.mark.parametrize(
    ("name", "channels", "message"),
    [
        ("resnet81", 3, "did you mean 'resnet18'"),
        ("googlenet", 3, "'backbone' must be"),
        ("timm/vit_tiny_patch16", 3, "did you mean 'timm/vit_tiny_patch16_"),
        ("", 3, "'backbone' must be"),
        ("resnet18", 1, "takes 3 channels"),
    ],
)
def test_names_that_are_not_there(name, channels, message):
    with pytest.raises(InvalidParamError, match=message):
        backbone(name, (channels, 32, 32), 4)
