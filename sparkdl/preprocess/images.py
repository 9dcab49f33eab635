"""Images as pixels: files, paths of files, and Spark's own image rows. No Spark."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from sparkdl.errors import InvalidParamError
from sparkdl.interop.common import needed
from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.cells import BadCell
from sparkdl.preprocess.files import content, filled

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow knows more, some of which start other programs
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "La", "RGBa")
RESIZE = Literal["stretch", "crop", "pad", "never"]
_GAP = 2  # a JPEG is read at no less than this multiple of the size wanted, as Image.thumbnail of Pillow does
_PILLOWS_MOST = 89_478_485  # pixels, beyond which Pillow warns of a decompression bomb: Image.MAX_IMAGE_PIXELS
_FROM_OPENCV = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0]}  # its channels are blue, green, red, alpha


class Image(Preprocessor):
    """A column of images as ``uint8`` of shape ``(channels, height, width)``: RGB, or with one channel their luma.

    The column holds the bytes of image files (JPEG, PNG, WebP, GIF, BMP, TIFF), paths or URIs of such files, read where
    the row is, or rows of Spark's ``image`` source. Normalise inside of the model.

    resize: how an image of another size is made to fit: ``stretch``; ``crop``, the middle of it by the shorter side;
    ``pad``, the whole of it with black beside; ``never``: it is a bad row. Bilinear, with antialiasing.
    orient: turn photos as their EXIF data say. animated: take the first picture of a file with several, else a bad row.
    most_bytes, most_pixels: of a file; one that says it is larger is a bad row, and is not decoded.
    """

    kind: Literal["image"] = "image"
    height: int = Field(ge=1, le=1 << 14)
    width: int = Field(ge=1, le=1 << 14)
    channels: Literal[1, 3] = 3
    resize: RESIZE = "stretch"
    orient: bool = True
    animated: bool = False
    most_bytes: int = Field(default=100_000_000, ge=1)
    most_pixels: int = Field(default=64_000_000, ge=1, le=_PILLOWS_MOST)
    takes: ClassVar[tuple[str, ...]] = ("binary", "string", "struct")

    @classmethod
    def of_format_2(cls, decode: str, shape: Sequence[int]) -> Image:
        """What bundles of format 2 mean by ``decode: image`` and the tensor's shape. Raises InvalidParamError."""
        if decode != "image" or len(shape) != 3 or shape[0] != 3:
            raise InvalidParamError(
                f"'decode' is 'image', of shape (3, height, width) (got {decode!r}, {tuple(shape)})",
                param="decode",
                value=decode,
            )
        return cls(height=shape[1], width=shape[2], resize="never", orient=False, animated=True)

    @property
    def dtype(self) -> str:
        """Of a pixel."""
        return "uint8"

    @property
    def shape(self) -> tuple[int, ...]:
        """``(channels, height, width)``."""
        return (self.channels, self.height, self.width)

    def read(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """See Preprocessor. The channels of a pixel lie side by side in memory, as convolutions on a CPU like them."""
        needed("PIL.Image", "image")
        ((name, column),) = columns.items()
        pixels: np.ndarray = np.empty((len(column), self.height, self.width, self.channels), np.uint8)
        return filled(name, column, pixels.transpose(0, 3, 1, 2), self._pixels)

    def _pixels(self, value: Any) -> np.ndarray:
        """``(channels, height, width)``. Raises BadCell."""
        if value is None or (isinstance(value, dict) and value.get("data", b"") is None):
            raise BadCell("null", "an image", None)
        try:
            with self._opened(value) as image:
                found = self._fitted(image)
        except BadCell:
            raise
        except Exception as error:  # Pillow raises whatever a file makes it trip over: any is the finding
            raise BadCell("undecodable", _EXPECTED, _why(error, value)) from error
        return np.asarray(found).reshape(self.height, self.width, self.channels).transpose(2, 0, 1)

    def _opened(self, value: Any) -> Any:
        """The image, not decoded yet, that is one and no larger than it may be."""
        from PIL import Image as pillow

        if isinstance(value, dict):
            return _of_spark(value, self.most_pixels)
        image = pillow.open(io.BytesIO(content(value, self.most_bytes)), formats=FORMATS)
        _check_pixels(image.width, image.height, self.most_pixels)
        if image.mode not in MODES:
            raise ValueError(f"its pixels are of mode {image.mode}, which 8 bits a channel do not hold")
        several = getattr(image, "is_animated", False) and image.format != "MPO"  # a JPEG with a preview behind it
        if several and not self.animated:
            raise BadCell("undecodable", "a file of one picture", f"several in a {image.format}; see 'animated'")
        return image

    def _fitted(self, image: Any) -> Any:
        from PIL import Image as pillow
        from PIL import ImageOps

        size, mode = (self.width, self.height), "L" if self.channels == 1 else "RGB"
        if self.resize != "never":
            image.draft(None, (_GAP * max(size), _GAP * max(size)))
        if self.orient:
            image = ImageOps.exif_transpose(image)
        if self.resize == "never" and image.size != size:
            raise BadCell("shape", f"an image of {self.shape}", (self.channels, image.height, image.width))
        image = image.convert(mode)
        if image.size == size:
            return image
        fits: dict[str, Any] = {"stretch": pillow.Image.resize, "crop": ImageOps.fit, "pad": ImageOps.pad}
        return fits[self.resize](image, size, pillow.Resampling.BILINEAR)


_EXPECTED = f"one of {', '.join(FORMATS)}"


def _why(error: Exception, value: Any) -> str:
    from PIL import UnidentifiedImageError

    if not isinstance(error, UnidentifiedImageError):
        return f"{type(error).__name__}: {error}"
    return "another kind of file" + (f", beginning with {value[:8]!r}" if isinstance(value, bytes) else "")


def _check_pixels(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise BadCell("undecodable", f"at most {most:,} pixels", f"{width:,} x {height:,}")


def _of_spark(row: Mapping[str, Any], most: int) -> Any:
    """A row of Spark's ``image`` source: ``origin, height, width, nChannels, mode, data``, as OpenCV lays them out."""
    from PIL import Image as pillow

    missing = {"height", "width", "nChannels", "mode", "data"} - set(row)
    if missing:
        raise ValueError(f"a struct without {sorted(missing)}, which is no row of Spark's image source")
    height, width, channels, mode = (int(row[name]) for name in ("height", "width", "nChannels", "mode"))
    if mode < 0 or height < 1 or width < 1:
        raise ValueError(f"Spark could not decode {row.get('origin')!r}")
    _check_pixels(width, height, most)
    if mode % 8 or channels not in _FROM_OPENCV:  # an OpenCV type is the depth, 0 for 8 bits, and 8 * (channels - 1)
        raise ValueError(f"mode {mode} with {channels} channels, which 8 bits a channel do not hold")
    data = np.frombuffer(row["data"], np.uint8)
    if data.size != height * width * channels:
        raise ValueError(f"{data.size:,} bytes for {height} x {width} x {channels}")
    array = data.reshape(height, width, channels)[:, :, _FROM_OPENCV[channels]]
    return pillow.fromarray(np.ascontiguousarray(array if channels > 1 else array[:, :, 0]))
