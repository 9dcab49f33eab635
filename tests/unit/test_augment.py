"""Augmentation: by chance for each image, in training only, and nothing that changes what an image is."""

import pytest
import torch

from sparkdl.errors import InvalidParamError
from sparkdl.preprocess.augment import Augment, checked

SHAPE = (3, 16, 16)


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randint(0, 256, (8, *SHAPE), dtype=torch.uint8)


def test_each_image_has_its_own_chance(images):
    same = images[:1].repeat(64, 1, 1, 1)
    flipped = Augment(["horizontal_flip"], SHAPE)(same)
    is_flipped = [bool((row == same[0].flip(-1)).all()) for row in flipped]
    assert 16 < sum(is_flipped) < 48
    assert all(was or (row == same[0]).all() for was, row in zip(is_flipped, flipped, strict=True))


def test_nothing_is_changed_when_it_is_not_training(images):
    augment = Augment(["horizontal_flip", {"color_jitter": {"brightness": 0.5}}], SHAPE)
    assert augment.eval()(images) is images
    assert Augment([], SHAPE).train()(images) is images


def test_it_is_the_same_again_after_the_same_seed(images):
    augment = Augment(["horizontal_flip", {"random_crop": {"padding": 4}}, "RandAugment"], SHAPE)
    torch.manual_seed(3)
    one = augment(images)
    torch.manual_seed(3)
    assert torch.equal(one, augment(images))
    assert (one.shape, one.dtype) == (images.shape, images.dtype)
    assert not torch.equal(one, images)


@pytest.mark.parametrize(
    "name", ["horizontal_flip", "random_horizontal_flip", "RandomHorizontalFlip", {"vertical_flip": None}]
)
def test_names(name):
    assert len(Augment([name], SHAPE).transforms) == 1


def test_what_is_written_in_one_of_several_ways_is_told_in_one():
    told = [{"horizontal_flip": {}}, {"random_crop": {"padding": 4}}]
    assert checked(["horizontal_flip", {"random_crop": {"padding": 4}}]) == checked(told) == told
    assert checked("horizontal_flip") == told[:1]


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (3, "a list of names"),
        ([3], "a list of names"),
        ([{"rotation": 3}], "the arguments of 'rotation' by name"),
        (["horizontal_flp"], "did you mean 'RandomHorizontalFlip'"),
        (["Transform"], "transforms in torchvision"),
        (["normalize"], "take their arguments; 'normalize'.*mean"),
        ([{"horizontal_flip": {"chance": 1}}], "'horizontal_flip'.*chance"),
        (["MixUp"], "take their arguments; 'MixUp'"),
        (["five_crop"], "'five_crop' gives tuple"),
        ([{"resize": {"size": [3, 3]}}], r"'resize' gives torch.uint8 of \(3, 3, 3\)"),
        (["ToPILImage"], "'ToPILImage' gives Image"),
        ([{"ToDtype": {"dtype": torch.float32}}], "'ToDtype' gives torch.float32"),
    ],
)
def test_what_is_refused(transforms, message):
    with pytest.raises(InvalidParamError, match=f"'augment' must be .*{message}"):
        Augment(transforms, SHAPE)
