"""Images out of a table's rows, as pixels to look at. One that cannot be decoded says why, and the others are shown.

Shapes: H rows of pixels, W pixels a row, C channels: 1 (grey), 3 (RGB) or 4 (RGBA).
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparkdl.errors import InvalidParamError, SignatureError
from sparkdl.showing import encoding, values
from sparkdl.showing.pieces import Tile, Tiles
from sparkdl.showing.tables import check_columns, checked_count, is_pandas, types_of
from sparkdl.signature import quoted

MOST_IMAGES = 400
_MOST_SIDE = 256  # pixels: what is shown, whatever the file has
_SHEET_SIDE, _SHEET_ACROSS = 120, 8
_SPARK_IMAGE = {"origin", "height", "width", "nChannels", "mode", "data"}


class _NotAnImage(Exception):
    """Why a value cannot be shown; told on its tile."""


def tiles(df: Any, image: str, prediction: str | None, label: str | None, n: int, shape: Sequence[int] | None) -> Tiles:
    """The first ``n`` rows of a DataFrame of Spark's or pandas'. Raises as ``sparkdl.zeppelin.images``."""
    checked_count(n, most=MOST_IMAGES)
    size = _checked_shape(shape)
    names = [image, *(name for name in (prediction, label) if name is not None)]
    if is_pandas(df):
        rows = [dict(zip(names, row, strict=True)) for row in _pandas_rows(df, names, n)]
    else:
        check_columns(df, *names)
        _check_type(image, types_of(df)[image])
        chosen = df.select(*(_col(name).alias(f"c{i}") for i, name in enumerate(names)))
        rows = [dict(zip(names, row, strict=True)) for row in chosen.head(n)]
    shown: list[np.ndarray | str] = []
    ranges: list[tuple[float, float]] = []
    for row in rows:
        try:
            array = pixels(row[image], size)
        except _NotAnImage as problem:
            shown.append(str(problem))
        else:
            ranges += [(float(array.min()), float(array.max()))] if array.dtype != np.uint8 else []
            shown.append(_small(array))  # at once: a file of a megabyte may be many of pixels
    scale = _white(ranges)
    return Tiles(
        tuple(_tile(array, row, prediction, label, scale) for array, row in zip(shown, rows, strict=True)),
        "" if rows else "no rows",
    )


def pixels(value: Any, shape: Sequence[int] | None = None) -> np.ndarray:
    """``(H, W, C)``: uint8 of image files, bytes and Spark's images, else the numbers as they are. Raises _NotAnImage."""
    if value is None:
        raise _NotAnImage("null")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _decoded(bytes(value), shape)
    if hasattr(value, "asDict") or isinstance(value, Mapping):
        return _of_spark_image(value.asDict() if hasattr(value, "asDict") else value)
    if hasattr(value, "toArray"):
        value = value.toArray()
    try:
        array = np.array(value.tolist() if isinstance(value, np.ndarray) and value.dtype == object else value)
        array = array if array.dtype == np.uint8 else array.astype(float)
    except (TypeError, ValueError) as error:
        raise _NotAnImage("its rows differ in length, or it holds what is no number") from error
    if not np.isfinite(array).all():
        raise _NotAnImage("it holds NaN, null or infinite numbers")
    return _channels_last(array, shape)


def sheet(shown: Sequence[Tile]) -> np.ndarray:
    """All tiles in one image ``(H, W, 3)``, with their captions, for who has only a file."""
    image, draw, font = (encoding.needed(f"PIL.{name}", "pillow") for name in ("Image", "ImageDraw", "ImageFont"))
    across = min(_SHEET_ACROSS, len(shown))
    down = math.ceil(len(shown) / across)
    cell, text = _SHEET_SIDE + 10, 30
    made = image.new("RGB", (across * cell, down * (cell + text)), "white")
    pen, letters = draw.Draw(made), font.load_default(11)
    for i, tile in enumerate(shown):
        left, top = (i % across) * cell + 5, (i // across) * (cell + text) + 5
        if tile.pixels is not None:
            one = image.fromarray(tile.pixels)
            factor = _SHEET_SIDE / max(one.size)
            way = image.Resampling.NEAREST if factor > 1 else image.Resampling.LANCZOS
            made.paste(
                one.resize((max(1, round(one.width * factor)), max(1, round(one.height * factor))), way), (left, top)
            )
        else:
            pen.rectangle((left, top, left + _SHEET_SIDE, top + _SHEET_SIDE), outline="black")
            pen.text((left + 4, top + 4), values.shortened(tile.problem, 18), fill="black", font=letters)
        if tile.right is False:
            pen.rectangle(
                (left - 3, top - 3, left + _SHEET_SIDE + 2, top + _SHEET_SIDE + 2), outline="#d55e00", width=3
            )
        sign = {True: "", False: "wrong: ", None: ""}[tile.right]
        pen.text((left, top + _SHEET_SIDE + 4), values.shortened(sign + tile.caption, 26), fill="black", font=letters)
    return np.asarray(made)


def _tile(
    array: np.ndarray | str,
    row: Mapping[str, Any],
    prediction: str | None,
    label: str | None,
    white: tuple[float, float],
) -> Tile:
    told = _class(row[prediction]) if prediction else None
    real = _class(row[label]) if label else None
    right = None if told is None or real is None else told == real
    caption = f"{told}, is {real}" if right is False else told or real or ""
    if isinstance(array, str):
        return Tile(caption, None, right, array)
    return Tile(caption, _as_rgb(array, white), right)


def _class(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return values.shortened(values.cell(value) or "", 24) or None


def _decoded(data: bytes, shape: Sequence[int] | None) -> np.ndarray:
    if shape is not None and len(data) == math.prod(shape):
        return _channels_last(np.frombuffer(data, np.uint8), shape)
    image = encoding.needed("PIL.Image", "pillow")
    try:
        with image.open(io.BytesIO(data)) as opened:
            opened.draft("RGB", (_MOST_SIDE, _MOST_SIDE))
            found: np.ndarray = np.asarray(opened.convert("RGB"))
            return found
    except (OSError, ValueError, SyntaxError, image.DecompressionBombError) as error:
        why = values.printable(str(error)).split("<")[0].strip()
        raise _NotAnImage(f"cannot be decoded: {why or type(error).__name__} ({values.nbytes(len(data))})") from error


def _of_spark_image(told: Mapping[str, Any]) -> np.ndarray:
    if not set(told) >= _SPARK_IMAGE - {"origin"}:
        raise _NotAnImage("a struct that is no image of Spark's")
    shape = (told["height"], told["width"], told["nChannels"])
    data = np.frombuffer(bytes(told["data"] or b""), np.uint8)
    if told["mode"] < 0 or None in shape or math.prod(shape) != len(data):
        raise _NotAnImage(f"Spark could not decode {values.shortened(str(told.get('origin')), 60)!r}")
    array = data.reshape(shape)
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(shape[2])  # OpenCV's: blue, green, red, alpha
    if order is None:
        raise _NotAnImage(f"{shape[2]} channels; 1, 3 or 4 can be shown")
    return array[:, :, order]


def _channels_last(array: np.ndarray, shape: Sequence[int] | None) -> np.ndarray:
    if shape is not None:
        if array.size != math.prod(shape):
            raise _NotAnImage(f"{array.size:,} numbers, and the shape {tuple(shape)} has {math.prod(shape):,}")
        array = array.reshape(shape)
    if not array.size:
        raise _NotAnImage("no pixels")
    if array.ndim == 1:
        side = math.isqrt(array.size)
        if side * side != array.size:
            raise _NotAnImage(f"{array.size:,} numbers in a row, and no square; say shape=(H, W) or (C, H, W)")
        array = array.reshape(side, side)
    if array.ndim == 2:
        return array[:, :, None]
    channels = [axis for axis in (0, 2) if array.ndim == 3 and array.shape[axis] in (1, 3, 4)]
    if channels:  # of two axes that may be it the smaller; torch's if they are alike
        return np.moveaxis(array, min(channels, key=lambda axis: array.shape[axis]), 2)
    raise _NotAnImage(f"shape {array.shape}; (H, W), (C, H, W) or (H, W, C) with 1, 3 or 4 channels can be shown")


def _small(array: np.ndarray) -> np.ndarray:
    """``(H, W, C)``, as large as it is shown: bytes as RGB, numbers as they are."""
    if array.dtype == np.uint8:
        return encoding.resized(_as_rgb(array, (0.0, 255.0)), _MOST_SIDE)
    if max(array.shape[:2]) <= _MOST_SIDE:
        return array
    channels = np.moveaxis(array.astype(np.float32), 2, 0)
    return np.stack([encoding.resized(channel, _MOST_SIDE) for channel in channels], axis=2)


def _white(ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The numbers that are black and white: 0 and 1, or 0 and 255, if all are within and reach beyond half of it; else the
    least and the greatest. ranges: each image's."""
    if not ranges:
        return 0.0, 255.0
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if low >= 0:
        for white in (1.0, 255.0):
            if white / 2 < high <= white:
                return 0.0, white
    return min(low, 0.0), max(high, low + 1e-12)


def _as_rgb(array: np.ndarray, white: tuple[float, float]) -> np.ndarray:
    if array.dtype != np.uint8:
        array = np.clip((array - white[0]) / (white[1] - white[0]) * 255, 0, 255).round().astype(np.uint8)
    if array.shape[2] == 4:
        alpha = array[:, :, 3:].astype(float) / 255
        array = (array[:, :, :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    return np.ascontiguousarray(np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array)


def _checked_shape(shape: Sequence[int] | None) -> tuple[int, ...] | None:
    if shape is None:
        return None
    found = tuple(shape) if isinstance(shape, (list, tuple)) else ()
    if len(found) not in (2, 3) or not all(isinstance(size, int) and size > 0 for size in found):
        raise InvalidParamError(
            f"'shape' must be (H, W), (C, H, W) or (H, W, C), whole numbers above 0 (got {shape!r})",
            param="shape",
            value=shape,
        )
    return found


def _check_type(name: str, kind: Any) -> None:
    """Raise SignatureError for a column that holds no image, whatever is in it."""
    inner = kind
    while isinstance(inner, dict) and inner["type"] == "array":
        inner = inner["elementType"]
    if isinstance(inner, dict):
        fields = {field["name"] for field in inner.get("fields", [])}
        fits = (inner["type"] == "udt" and "Vector" in str(inner.get("class"))) or fields >= _SPARK_IMAGE - {"origin"}
    else:
        fits = inner == "binary" if inner is kind else inner not in ("string", "binary", "date", "timestamp")
    if not fits:
        raise SignatureError(
            f"column {name!r} is no image: image files or bytes (binary), numbers (array or vector), or Spark's image struct "
            f"(got {kind if isinstance(kind, str) else kind['type']})",
            column=name,
            expected="an image",
            got=kind,
        )


def _pandas_rows(df: Any, names: Sequence[str], n: int) -> list[tuple[Any, ...]]:
    from sparkdl.errors import ColumnNotFoundError

    for name in names:
        if name not in df.columns:
            raise ColumnNotFoundError(name, map(str, df.columns))
    return list(df[list(names)].head(n).itertuples(index=False, name=None))


def _col(name: str) -> Any:
    from pyspark.sql import functions as sf

    return sf.col(quoted(name))
