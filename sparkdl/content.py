"""What is inside a binary column: image files, decoded to pixels. No Spark."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sparkdl.columns import BadRows, bad_rows
from sparkdl.errors import SparkdlError
from sparkdl.signature import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor


def decoded_images(column: pa.Array, spec: TensorSpec, name: str) -> np.ndarray:
    """The RGB pixels of a column of image files without nulls: uint8, ``(B, *spec.shape)``.

    Raises BadRows for those that are no images (``undecodable``), or of another size (``shape``).
    """
    decode = _decoder()
    pixels: np.ndarray = np.empty((len(column), *spec.shape), dtype=spec.dtype)
    problems: dict[int, BadRows] = {}

    def fill(row: int) -> None:
        try:
            image = decode(column[row].as_py())
        except RuntimeError as error:  # torch's, for whatever libjpeg and libpng trip over
            why = str(error).split("\n")[0]
            problems[row] = bad_rows("undecodable", name, [row], "a JPEG, PNG, WebP or GIF file", [why])
            return
        if image.shape == spec.shape:
            pixels[row] = image.numpy()
        else:
            problems[row] = bad_rows("shape", name, [row], f"an image of {spec.shape}", [tuple(image.shape)])

    list(_threads().map(fill, range(len(column))))
    if problems:
        found = sorted(problems)
        error = problems[found[0]]
        error.rows, error.reasons = found, [problems[row].reasons[0] for row in found]
        error.rest = np.delete(pixels, found, axis=0)
        raise error
    return pixels


@cache
def _decoder() -> Any:
    try:
        from torchvision.io import ImageReadMode, decode_image
    except ImportError as error:
        raise SparkdlError(
            f"columns of image files need torchvision ({error}); install it here and on the executors: "
            "pip install 'sparkdl[image]'"
        ) from error
    import torch

    def decode(content: bytes) -> Tensor:
        if not content:
            raise RuntimeError("an empty file")
        image: Tensor = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
        return image

    return decode


@cache
def _threads() -> ThreadPoolExecutor:
    """As many as torch computes with: the cores of the task. Decoding leaves Python's lock to others."""
    import torch

    return ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="sparkdl-decode")
