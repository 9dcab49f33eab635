"""Boxes as tensors, a detector's outputs as boxes, and what is wrong with either."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch

pytest.importorskip("torchvision")
from shapes import picture

from sparkdl import decode, preprocess
from sparkdl.bundle import Bundle
from sparkdl.columns import BadRows
from sparkdl.decode.base import from_json as decoder_from_json
from sparkdl.decode.boxes import BoxDecoder
from sparkdl.errors import InvalidParamError, SignatureError
from sparkdl.preprocess.base import from_json
from sparkdl.preprocess.boxes import Boxes
from sparkdl.ready.detector import DetectionLoss, Detector, backbone
from sparkdl.signature import Signature, TensorSpec

pytestmark = pytest.mark.lane("spark35")

READ = Boxes(height=64, width=128, limit=3, values=("cat", "dog"))


def box(xmin=1.0, ymin=2.0, xmax=11.0, ymax=12.0, label="dog"):
    return {"xmin": xmin, "ymin": ymin, "xmax": xmax, "ymax": ymax, "label": label}


def read(preprocessor, rows):
    fields = [*((side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")), ("label", pa.string())]
    return preprocessor.read({"boxes": pa.array(rows, pa.list_(pa.struct(fields)))})


def test_boxes_are_padded():
    found = read(READ, [[box(), box(label="cat")], []])
    assert (found.dtype, found.shape) == (np.float32, (2, *READ.shape))
    assert found[0].tolist() == [[1, 2, 11, 12, 1], [1, 2, 11, 12, 0], [0, 0, 0, 0, -1]]
    assert (found[1, :, 4] == -1).all()


def test_shares_become_pixels():
    relative = READ.model_copy(update={"unit": "relative"})
    assert read(relative, [[box(0.25, 0.5, 0.5, 1.0)]])[0, 0].tolist() == [32, 32, 64, 64, 1]


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        (None, "null", "an array of boxes, which may be empty"),
        ([box()] * 4, "shape", "at most 3 boxes, got 4"),
        ([box(), box(label="cow")], "value", "labels out of .'cat', 'dog'., got 'cow'"),
        ([box(label=None)], "value", "got None"),
        ([box(xmax=1.0)], "value", "0 <= xmin < xmax <= 128"),
        ([box(xmin=-1.0)], "value", "0 <= xmin"),
        ([box(ymax=64.5)], "value", "ymax <= 64"),
        ([box(ymin=math.nan)], "value", "nan"),
        ([None], "value", "nan"),
    ],
)
def test_a_bad_row_is_told(row, kind, message):
    with pytest.raises(BadRows, match=message) as caught:
        read(READ, [[box()], row, [box()], row])
    assert caught.value.rows == [1, 3]
    assert all(reason.startswith(f"{kind}: column 'boxes'") for reason in caught.value.reasons)


@pytest.mark.parametrize("setting", ["height", "width", "limit"])
def test_sizes_have_bounds(setting):
    with pytest.raises(InvalidParamError, match=setting):
        Boxes(**{"height": 8, "width": 8, setting: 1 << 40})


@pytest.mark.parametrize("setting", ["height", "width", "candidates", "most"])
def test_a_decoders_sizes_have_bounds(setting):
    with pytest.raises(InvalidParamError, match=setting):
        BoxDecoder(**{"values": ("a",), "height": 8, "width": 8, setting: 1 << 40})


def test_structs_of_another_kind_are_refused():
    with pytest.raises(SignatureError, match="have no ymin, ymax"):
        READ.read({"boxes": pa.array([[{"xmin": 1.0, "xmax": 2.0, "label": "cat"}]])})


def test_they_are_json():
    assert from_json(READ.to_json()) == READ
    decoder = BoxDecoder(values=("cat", "dog"), height=64, width=128, unit="relative", score=0.2)
    assert decoder_from_json(decoder.to_json()) == decoder
    assert {"boxes"} <= set(preprocess.base.KINDS) & set(decode.base.KINDS)


def outputs(boxes, classes):
    boxes, classes = np.array([boxes], np.float32), np.array([classes], np.float32)
    return {"boxes": boxes, "classes": classes, "centerness": np.full((*boxes.shape[:2], 1), 50, np.float32)}


DECODER = BoxDecoder(values=("cat", "dog"), height=64, width=64, score=0.3)


def test_overlapping_boxes_of_a_class_are_one():
    near = [[10, 10, 30, 30], [11, 10, 31, 30], [10, 10, 30, 30], [40, 40, 90, 60], [5, 5, 9, 9]]
    logits = [[5, -9], [3, -9], [-9, 4], [6, -9], [-9, -9]]
    found = DECODER.decode(outputs(near, logits), {})["prediction"].to_pylist()[0]
    assert [(one["label"], one["xmin"], one["xmax"]) for one in found] == [
        ("cat", 40.0, 64.0), ("cat", 10.0, 30.0), ("dog", 10.0, 30.0),
    ]  # fmt: skip
    assert found[0]["score"] == pytest.approx(math.sqrt(1 / (1 + math.exp(-6))))


def test_shares_of_the_image():
    decoder = DECODER.model_copy(update={"unit": "relative"})
    (found,) = decoder.decode(outputs([[16, 32, 32, 64]], [[5, -9]]), {})["prediction"].to_pylist()[0]
    assert [found[side] for side in ("xmin", "ymin", "xmax", "ymax")] == [0.25, 0.5, 0.5, 1.0]


def test_no_box_is_an_empty_list():
    assert DECODER.decode(outputs([[1, 1, 2, 2]], [[-9, -9]]), {})["prediction"].to_pylist() == [[]]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Detector(backbone("small"), 3, 64, 64)


IMAGES = Signature((TensorSpec("image", "uint8", (3, 64, 64), ("image",), ("binary",)),))


def test_a_detector_is_exported(network):
    bundle = Bundle.from_module(network, IMAGES)
    assert bundle.program.kind == "export"
    assert {spec.name: spec.shape for spec in bundle.signature.outputs} == {
        "boxes": (336, 4), "classes": (336, 3), "centerness": (336, 1),
    }  # fmt: skip


def test_other_outputs_are_refused(network):
    with pytest.raises(SignatureError, match="boxes are made of the outputs"):
        DECODER.columns(Bundle.from_module(network, IMAGES).signature.outputs)


def test_the_loss_is_torchvisions(network):
    """Of torchvision's whole detector, made of the same parts, on the same pictures."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOS

    generator = np.random.default_rng(0)
    pictures = [picture(generator) for _ in range(3)]
    label = torch.from_numpy(
        read(Boxes(height=64, width=64, limit=4, values=("circle", "square", "triangle")), [p[1] for p in pictures])
    )
    label[2, :, 4] = -1  # a picture without a box
    images = torch.from_numpy(np.stack([p[0] for p in pictures]).transpose(0, 3, 1, 2).copy())
    whole = FCOS(
        network.backbone,
        3,
        64,
        64,
        head=network.head,
        anchor_generator=AnchorGenerator(((4,), (8,), (16,)), ((1.0,),) * 3),
    )
    targets = [{"boxes": row[row[:, 4] >= 0, :4], "labels": row[row[:, 4] >= 0, 4].long()} for row in label]
    network.eval()
    whole.eval().training = True  # its parts are in evaluation mode, as batch norm's statistics would differ
    whole.transform.train()
    expected = sum(whole([image.float() / 255 for image in images], targets).values())
    torch.testing.assert_close(DetectionLoss(network, 3)(network(images), label), expected)


def test_settings_are_checked():
    with pytest.raises(InvalidParamError, match="'limit' of Boxes"):
        Boxes(height=64, width=64, limit=0)
    with pytest.raises(InvalidParamError, match="'overlap' of BoxDecoder"):
        BoxDecoder(values=("cat",), height=64, width=64, overlap=0)
