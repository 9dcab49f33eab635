"""Pixels and samples as files in memory."""

from __future__ import annotations

import importlib
import io
import wave
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkdl.errors import SparkdlError

if TYPE_CHECKING:
    from sparkdl.showing.pieces import Sound

_COLOURS = 160
_LOSSLESS = 128 * 128  # pixels: beyond, JPEG is smaller and looks the same


def needed(module: str, package: str = "") -> Any:
    """The module. Raises SparkdlError with the command that installs what is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = package or module.split(".")[0]
        raise SparkdlError(
            f"this picture needs {missing}, which this Python does not have: pip install 'sparkdl[plot]'"
        ) from error


def of_pixels(pixels: np.ndarray) -> tuple[bytes, str]:
    """The file of an image ``(H, W, 3)`` uint8, and its media type: PNG, for large ones JPEG."""
    if pixels.shape[0] * pixels.shape[1] <= _LOSSLESS:
        return png(pixels), "image/png"
    return _file(pixels, "JPEG", quality=80), "image/jpeg"


def png(pixels: np.ndarray) -> bytes:
    """The file of an image ``(H, W, 3)`` uint8."""
    return _file(pixels, "PNG", optimize=True)


def _file(pixels: np.ndarray, form: str, **options: Any) -> bytes:
    written = io.BytesIO()
    needed("PIL.Image", "pillow").fromarray(pixels).save(written, form, **options)
    return written.getvalue()


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """The image with its longer side ``side`` pixels at most."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    image = needed("PIL.Image", "pillow")
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(image.fromarray(pixels).resize(size, image.Resampling.LANCZOS))


def with_few_colours(png: bytes, scale: float = 1.0) -> bytes:
    """A PNG again, with a palette, and so many times as wide and high."""
    image = needed("PIL.Image", "pillow")
    with image.open(io.BytesIO(png)) as opened:
        made = opened.convert("RGB")
    if scale != 1:
        made = made.resize([max(1, round(side * scale)) for side in made.size], image.Resampling.LANCZOS)
    written = io.BytesIO()
    made.quantize(_COLOURS, dither=image.Dither.NONE).save(written, "PNG", optimize=True)
    return written.getvalue()


def wav(sound: Sound) -> bytes:
    """A WAV file, of 16 bits a sample; what is beyond [-1, 1] is cut."""
    samples = np.clip(np.nan_to_num(sound.samples), -1.0, 1.0)
    frames = (samples * 32767).round().astype("<i2")
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(sound.rate)
        file.writeframes(frames.tobytes())
    return written.getvalue()
