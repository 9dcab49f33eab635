"""Images out of files, paths and Spark's rows; what is none of them is one bad row with a reason."""

import io
import struct
import zlib

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as pillow
from PIL import ImageOps

from sparkdl.columns import BadRows
from sparkdl.errors import InvalidParamError
from sparkdl.preprocess import Image
from sparkdl.preprocess.base import from_json
from sparkdl.signature import Signature

RNG = np.random.default_rng(0)


def pixels(height=6, width=10, channels=3):
    return RNG.integers(0, 256, (height, width, channels)[: 2 if channels == 1 else 3], dtype=np.uint8)


def file(image, kind="PNG", **options):
    stream = io.BytesIO()
    (image if isinstance(image, pillow.Image) else pillow.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def read(preprocess, *values, kind=None):
    return preprocess.read({"photo": pa.array(values, kind)})


def png_that_says(width, height):
    """A PNG of 100 bytes that claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    told = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(told)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.sampled_from(["PNG", "BMP", "TIFF", "WEBP"]))
@settings(max_examples=40, deadline=None)
def test_pixels_of_the_right_size_are_as_they_are(height, width, channels, kind):
    image = pixels(height, width, channels)
    options = {"lossless": True} if kind == "WEBP" else {}
    got = read(Image(height=height, width=width, channels=channels, resize="never"), file(image, kind, **options))
    assert (got.dtype, got.shape) == (np.uint8, (1, channels, height, width))
    np.testing.assert_array_equal(got[0], np.atleast_3d(image).transpose(2, 0, 1))


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (40, 90), (3, 3)])
def test_other_sizes_are_made_to_fit(resize, shape):
    image, size = pixels(*shape), (8, 4)
    got = read(Image(height=4, width=8, resize=resize), file(image))[0].transpose(1, 2, 0)
    made, how = pillow.fromarray(image), pillow.Resampling.BILINEAR
    expected = {
        "stretch": made.resize(size, how),
        "crop": ImageOps.fit(made, size, how),
        "pad": ImageOps.pad(made, size, how),
    }
    np.testing.assert_array_equal(got, np.asarray(expected[resize]))


def test_a_crop_is_the_middle_and_padding_is_black():
    image = np.zeros((4, 12, 3), np.uint8)
    image[:, 4:8] = 200
    assert (read(Image(height=4, width=4, resize="crop"), file(image)) == 200).all()
    padded = read(Image(height=12, width=12, resize="pad"), file(np.full((4, 12, 3), 200, np.uint8)))[0, 0]
    assert (padded[:4] == 0).all()
    assert (padded[4:8] == 200).all()
    assert (padded[8:] == 0).all()


def test_a_large_jpeg_that_is_read_at_a_fraction_looks_as_the_whole():
    ys, xs = np.mgrid[0:900, 0:1200]
    scene = np.stack([128 + 100 * np.sin(xs / 90), 128 + 100 * np.cos(ys / 70), (xs + ys) / 9], -1).clip(0, 255)
    content = file(scene.astype(np.uint8), "JPEG", quality=92)
    got = read(Image(height=64, width=64), content)[0].transpose(1, 2, 0).astype(int)
    whole = np.asarray(pillow.open(io.BytesIO(content)).resize((64, 64), pillow.Resampling.BILINEAR)).astype(int)
    assert np.abs(got - whole).mean() < 1
    assert np.abs(got - whole).max() <= 8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_modes(mode, channels):
    image = pillow.new("RGB", (4, 4), (250, 250, 250)).convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    got = read(Image(height=4, width=4, channels=channels), file(image, kind))
    assert got.shape == (1, channels, 4, 4)
    assert (got >= 245).all()


@pytest.mark.parametrize("orient", [True, False])
def test_exif_turns_a_photo(orient):
    exif = pillow.Exif()
    exif[0x112] = 6  # a quarter turn
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 8:] = 255
    preprocess = Image(height=16 if orient else 8, width=8 if orient else 16, resize="never", orient=orient)
    got = read(preprocess, file(image, "JPEG", exif=exif))[0, 0]
    assert got[-1].min() > 240 if orient else got[:, -1].min() > 240
    assert got[0].max() < 15 if orient else got[:, 0].max() < 15


BAD = {
    "null": (None, "null: column 'photo': expected an image, got None"),
    "zero bytes": (b"", "undecodable: column 'photo': expected a file, got an empty one"),
    "no image": (b"no image at all", "another kind of file, beginning with b'no image'"),
    "another format": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 8\n", "another kind of file"),
    "truncated PNG": (file(pixels(64, 64))[:2000], "OSError: "),
    "truncated JPEG": (file(pixels(64, 64), "JPEG")[:1500], "OSError: image file is truncated"),
    "corrupt": (bytes(b ^ 0x55 if i > 60 else b for i, b in enumerate(file(pixels(64, 64)))), "undecodable: "),
    "a bomb": (png_that_says(30_000, 30_000), "undecodable: "),
    "more pixels than allowed": (png_that_says(9_000, 9_000), "at most 64,000,000 pixels, got 9,000 x 9,000"),
    "16 bits": (file(pillow.new("I;16", (6, 8), 1000)), "its pixels are of mode I;16"),
    "animated": (
        file(pixels(), "GIF", save_all=True, append_images=[pillow.fromarray(pixels())]),
        "expected a file of one picture, got several in a GIF",
    ),
    "many bytes": (file(pixels(200, 200)) + bytes(200_000), "a file of at most 200,000 bytes, got "),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_row_with_a_reason_and_the_others_are_read(name):
    content, reason = BAD[name]
    good = file(pixels())
    preprocess = Image(height=6, width=10, most_bytes=200_000)
    with pytest.raises(BadRows) as caught:
        read(preprocess, good, content, good, kind=pa.binary())
    assert caught.value.rows == [1]
    (told,) = caught.value.reasons
    assert reason in told
    np.testing.assert_array_equal(caught.value.rest, read(preprocess, good, good))


def test_a_bomb_is_not_decoded(monkeypatch):
    monkeypatch.setattr(pillow.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(BadRows, match="at most 1,000 pixels, got 40 x 50"):
        read(Image(height=8, width=8, most_pixels=1000), file(pixels(50, 40)))


def test_the_first_picture_of_an_animation_if_it_is_asked_for():
    first, then = (pillow.new("RGB", (4, 4), (v, v, v)) for v in (255, 0))
    content = file(first, "GIF", save_all=True, append_images=[then])
    assert (read(Image(height=4, width=4, animated=True), content) == 255).all()


def test_all_bad_rows_of_a_batch_are_told_at_once():
    values = [b"", file(pixels()), None, b"x", file(pixels(3, 3))]
    with pytest.raises(BadRows) as caught:
        read(Image(height=6, width=10, resize="never"), *values)
    assert caught.value.rows == [0, 2, 3, 4]
    assert [why.partition(":")[0] for why in caught.value.reasons] == ["undecodable", "null", "undecodable", "shape"]
    assert caught.value.reasons[3].endswith("expected an image of (3, 6, 10), got (3, 3, 3)")
    assert caught.value.rest.shape == (1, 3, 6, 10)


def test_paths_are_read(tmp_path):
    image = pixels()
    (tmp_path / "a.png").write_bytes(file(image))
    (tmp_path / "no.png").write_bytes(b"text")
    preprocess = Image(height=6, width=10)
    for path in (str(tmp_path / "a.png"), (tmp_path / "a.png").as_uri()):
        np.testing.assert_array_equal(read(preprocess, path)[0], image.transpose(2, 0, 1))
    with pytest.raises(BadRows) as caught:
        read(preprocess, str(tmp_path / "none.png"), str(tmp_path / "no.png"), "s9://u:secret@b/a.png", None)
    reasons = caught.value.reasons
    assert "expected a file that can be read" in reasons[0]
    assert "another kind of file" in reasons[1]
    assert reasons[2].startswith("failed: ")
    assert "secret" not in reasons[2]


def spark_row(array, **changes):
    height, width, channels = array.shape
    mode = 8 * (channels - 1)
    row = {
        "origin": "file:/a",
        "height": height,
        "width": width,
        "nChannels": channels,
        "mode": mode,
        "data": array.tobytes(),
    }
    return {**row, **changes}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_rows_of_sparks_image_source(channels):
    image = pixels(5, 4, 3)
    given = np.concatenate([image[..., ::-1], np.full((5, 4, 1), 9, np.uint8)], axis=2)[..., :channels]
    got = read(Image(height=5, width=4), spark_row(given))[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(got, np.repeat(image[..., 2:], 3, 2) if channels == 1 else image)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mode": -1, "height": -1, "width": -1, "nChannels": -1, "data": b""}, "Spark could not decode 'file:/a'"),
        ({"mode": 21}, "mode 21 with 3 channels"),
        ({"data": b"abc"}, "3 bytes for 5 x 4 x 3"),
        ({"height": 100_000, "width": 100_000}, "at most 64,000,000 pixels"),
        ({"data": None}, "null: "),
    ],
)
def test_rows_of_sparks_that_are_no_images(changes, reason):
    with pytest.raises(BadRows) as caught:
        read(Image(height=5, width=4), spark_row(pixels(5, 4), **changes))
    assert reason in caught.value.reasons[0]


def test_a_slice_and_no_rows():
    images = [pixels() for _ in range(4)]
    column = pa.array([file(image) for image in images])
    got = Image(height=6, width=10).read({"photo": column.slice(1, 2)})
    np.testing.assert_array_equal(got, np.stack(images[1:3]).transpose(0, 3, 1, 2))
    assert Image(height=6, width=10).read({"photo": column.slice(0, 0)}).shape == (0, 3, 6, 10)


@pytest.mark.parametrize(
    "arguments",
    [
        {}, {"height": 0}, {"width": 1 << 20}, {"channels": 2}, {"resize": "squash"}, {"most_pixels": 0},
        {"most_pixels": 10**9}, {"heigth": 3},
    ],
)  # fmt: skip
def test_bad_settings(arguments):
    whole = {"height": 8, "width": 8, **arguments} if arguments else {}
    with pytest.raises(InvalidParamError, match="of Image"):
        Image(**whole)


def test_json_and_back():
    preprocess = Image(height=8, width=6, channels=1, resize="pad", orient=False)
    told = preprocess.to_json()
    assert told == {"kind": "image", "height": 8, "width": 6, "channels": 1, "resize": "pad", "orient": False}
    assert from_json(told) == preprocess


@pytest.mark.parametrize("decode", ["sound", 3])
def test_what_format_2_does_not_know(decode):
    told = {"name": "x", "dtype": "uint8", "shape": [3, 4, 4], "columns": ["x"], "types": ["binary"], "decode": decode}
    with pytest.raises(ValueError, match="'decode' is 'image'"):
        Signature.from_json({"inputs": [told], "outputs": []})


def test_pixels_become_a_tensor_without_a_copy():
    got = read(Image(height=6, width=10), file(pixels()), file(pixels()))
    assert torch.from_numpy(got).is_contiguous(memory_format=torch.channels_last)
