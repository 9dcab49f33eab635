"""What is inside a binary column: image files, decoded to pixels. No Spark."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from sparkdl.columns import BadRows, bad_rows
from sparkdl.errors import SparkdlError
from sparkdl.signature import TensorSpec

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow knows more, some of which start other programs
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "La", "RGBa")


def decoded_images(column: pa.Array, spec: TensorSpec, name: str) -> np.ndarray:
    """The RGB pixels of a column of image files without nulls: uint8, ``(B, *spec.shape)``.

    Raises BadRows for those that are no images (``undecodable``), or of another size (``shape``).
    """
    open_image = _opener()
    channels, height, width = spec.shape
    pixels: np.ndarray = np.empty((len(column), height, width, channels), dtype=spec.dtype)
    problems: dict[int, BadRows] = {}

    def fill(row: int) -> None:
        try:
            with open_image(io.BytesIO(column[row].as_py()), formats=FORMATS) as image:
                if image.mode not in MODES:
                    raise ValueError(f"its pixels are of mode {image.mode}, which 8 bits a channel do not hold")
                found = (3, image.height, image.width)
                if found == spec.shape:
                    pixels[row] = image.convert("RGB")
                else:
                    problems[row] = bad_rows("shape", name, [row], f"an image of {spec.shape}", [found])
        except Exception as error:  # Pillow raises whatever a file makes it trip over: any is the finding
            why = f"{type(error).__name__}: {error}"
            problems[row] = bad_rows("undecodable", name, [row], f"one of {', '.join(FORMATS)}", [why])

    list(_threads().map(fill, range(len(column))))
    if problems:
        rows = sorted(problems)
        first = problems[rows[0]]
        first.rows, first.reasons = rows, [problems[row].reasons[0] for row in rows]
        first.rest = np.delete(pixels, rows, axis=0).transpose(0, 3, 1, 2)
        raise first
    return pixels.transpose(0, 3, 1, 2)  # their channels stay side by side, as convolutions on a CPU like them


@cache
def _opener() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise SparkdlError(
            f"columns of image files need Pillow ({error}); install it here and on the executors: "
            "pip install 'sparkdl[image]'"
        ) from error
    return Image.open


@cache
def _threads() -> ThreadPoolExecutor:
    """As many as torch computes with: the cores of the task. Decoding leaves Python's lock to others."""
    import torch

    return ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="sparkdl-decode")
