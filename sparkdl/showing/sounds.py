"""Sounds out of a table's rows or an array: samples to play, and their spectrograms."""

from __future__ import annotations

import io
import wave
from typing import Any

import numpy as np

from sparkdl.errors import DataError, InvalidParamError, SignatureError
from sparkdl.showing import values
from sparkdl.showing.pieces import Picture, Piece, Sound, Text
from sparkdl.showing.tables import check_columns, checked_count, is_spark, types_of
from sparkdl.signature import quoted

MOST_SOUNDS = 20
_LEAST_SAMPLES = 16


class _NotASound(Exception):
    """Why a value cannot be played; told in its place."""


def sounds(x: Any, rate: int | None, column: str, caption: str | None, n: int) -> list[Sound | Text]:
    """Of an array, bytes of a WAV file, or the first ``n`` rows of a DataFrame; a Text where a row holds no sound.

    Raises as ``sparkdl.zeppelin.audio``.
    """
    checked_count(n, most=MOST_SOUNDS)
    if rate is not None:
        checked_count(rate, "rate")
    if not is_spark(x):
        try:
            return [samples_of(x, rate)]
        except _NotASound as problem:
            raise DataError(
                f"this is no sound: {problem}",
                column=None,
                row=None,
                file=None,
                expected="samples or a WAV file",
                got=type(x),
            ) from problem
    check_columns(x, column, caption)
    _check_type(column, types_of(x)[column])
    from pyspark.sql import functions as sf

    names = [column] if caption is None else [column, caption]
    rows = x.select(*(sf.col(quoted(name)).alias(f"c{i}") for i, name in enumerate(names))).head(n)
    found: list[Sound | Text] = []
    for i, row in enumerate(rows):
        told = f"row {i + 1}" if caption is None else values.cell(row[1]) or "null"
        try:
            sound = samples_of(row[0], rate)
            found.append(Sound(sound.samples, sound.rate, told))
        except _NotASound as problem:
            found.append(Text(f"{told}: no sound: {problem}"))
    return found or [Text("no rows")]


def samples_of(value: Any, rate: int | None) -> Sound:
    """float32 samples in [-1, 1]: of floats as they are, of whole numbers by their type's or, in lists, 16 bits' range.
    Raises _NotASound; InvalidParamError where the rate is not known."""
    if value is None:
        raise _NotASound("null")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _of_wav(bytes(value))
    if hasattr(value, "toArray"):
        value = value.toArray()
    try:
        array = np.asarray(value)
        whole = array.dtype.kind in "iu"
        full = float(np.iinfo(array.dtype).max) if whole and isinstance(value, np.ndarray) else 32767.0
        samples = np.atleast_1d(array.astype(np.float32) / (full if whole else 1.0))
    except (TypeError, ValueError) as error:
        raise _NotASound("it holds what is no number") from error
    if rate is None:
        raise InvalidParamError(
            "say the rate of the samples, 16_000 a second say: rate=16_000", param="rate", value=None
        )
    if samples.ndim == 2 and samples.shape[0] <= 2 < samples.shape[1]:
        samples = samples.T  # (channels, samples), as torchaudio has it
    if samples.ndim > 2 or (samples.ndim == 2 and samples.shape[1] > 2):
        raise _NotASound(f"shape {samples.shape}; (samples,) or (channels, samples), 1 or 2 channels, can be played")
    return _checked(Sound(samples.astype(np.float32), rate))


def spectrograms(found: list[Sound | Text]) -> list[Piece]:
    """One picture of all sounds, and the texts. Raises SparkdlError if matplotlib or scipy is missing."""
    from sparkdl.showing import figures

    heard = [(_mono(sound), sound.rate, sound.caption) for sound in found if isinstance(sound, Sound)]
    texts: list[Piece] = [text for text in found if isinstance(text, Text)]
    if not heard:
        return texts
    named = ", ".join(filter(None, (caption for *_, caption in heard)))
    alt = f"spectrogram{'s' if len(heard) > 1 else ''}: power by time and frequency" + (f" of {named}" if named else "")
    return [Picture(figures.spectrogram(heard), alt, "spectrogram"), *texts]


def _mono(sound: Sound) -> np.ndarray:
    return sound.samples if sound.samples.ndim == 1 else sound.samples.mean(axis=1)


def _of_wav(data: bytes) -> Sound:
    try:
        with wave.open(io.BytesIO(data)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            frames = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise _NotASound(
            f"no WAV file of plain samples ({error or 'it ends early'}; {values.nbytes(len(data))})"
        ) from error
    if rate < 1 or width > 4:
        raise _NotASound(f"a WAV file of {8 * width} bits a sample at {rate:,} Hz; 8 to 32 bits can be played")
    if width == 1:
        samples = (np.frombuffer(frames, "u1").astype(np.float32) - 128) / 128
    elif width == 3:
        raw = np.frombuffer(frames[: len(frames) // 3 * 3], "u1").reshape(-1, 3)
        padded = np.concatenate([np.zeros((len(raw), 1), "u1"), raw], axis=1)
        samples = padded.view("<i4")[:, 0].astype(np.float32) / 2**31
    else:
        samples = np.frombuffer(frames[: len(frames) // width * width], f"<i{width}").astype(np.float32) / 2 ** (
            8 * width - 1
        )
    whole = samples[: len(samples) // channels * channels]
    return _checked(Sound(whole.reshape(-1, channels)[:, :2] if channels > 1 else whole, rate))


def _checked(sound: Sound) -> Sound:
    if len(sound.samples) < _LEAST_SAMPLES:
        raise _NotASound(f"{values.count(len(sound.samples), 'sample')} only")
    if not np.isfinite(sound.samples).all():
        raise _NotASound("it holds NaN or infinite samples")
    return sound


def _check_type(name: str, kind: Any) -> None:
    inner = kind["elementType"] if isinstance(kind, dict) and kind["type"] == "array" else kind
    if isinstance(inner, dict) and inner["type"] == "array":
        inner = inner["elementType"]
    vector = isinstance(inner, dict) and inner["type"] == "udt" and "Vector" in str(inner.get("class"))
    numbers = (
        inner is not kind
        and isinstance(inner, str)
        and inner not in ("string", "binary", "boolean", "date", "timestamp")
    )
    if not (kind == "binary" or vector or numbers):
        raise SignatureError(
            f"column {name!r} is no sound: WAV files (binary) or samples (array of numbers) can be played (got "
            f"{kind if isinstance(kind, str) else kind['type']})",
            column=name,
            expected="a sound",
            got=kind,
        )
