"""Recordings as waveforms. No Spark."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from math import ceil
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from sparkdl.interop.common import needed
from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.cells import BadCell
from sparkdl.preprocess.files import content, filled

RATES = (4_000, 192_000)  # Hz
CHANNELS = 8
_FORMATS = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "OGG"}  # by how a file begins; libsndfile knows more
_EXPECTED = f"one of {', '.join(_FORMATS.values())}"
_UNKNOWN = 0xFFFFFFFF  # bytes of samples, of a WAV that was written to a pipe
_LAST_PAGE = 0x04  # of an Ogg stream, RFC 3533, section 6


class Audio(Preprocessor):
    """A column of recordings as mono waveforms: float32 of shape ``(rate * seconds,)``, zeros behind the end.

    The column holds the files' bytes, or paths or URIs of files, read where the row is: WAV, FLAC, OGG, of 4 to 192 kHz
    and of up to 8 channels, of which the mean is taken. Samples are in [-1, 1]. A model sees by the zeros where a recording
    ends: zeros at its own end are none of it.

    rate: samples a second of the tensor. seconds: its length. longer: what becomes of a recording that is longer: ``cut``,
    or ``error``: a bad row. most_bytes, most_seconds: of a file; one that says it is larger is a bad row, and is not
    decoded.
    """

    kind: Literal["audio"] = "audio"
    rate: int = Field(default=16_000, ge=RATES[0], le=RATES[1])
    seconds: float = Field(default=10.0, ge=0.1, le=600)
    longer: Literal["cut", "error"] = "cut"
    most_bytes: int = Field(default=500_000_000, ge=1)
    most_seconds: float = Field(default=3_600.0, gt=0)
    takes: ClassVar[tuple[str, ...]] = ("binary", "string")

    @property
    def dtype(self) -> str:
        """Of a sample."""
        return "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        """``(rate * seconds,)``."""
        return (round(self.rate * self.seconds),)

    def read(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """See Preprocessor."""
        needed("soundfile", "audio")
        needed("soxr", "audio")
        ((name, column),) = columns.items()
        return filled(name, column, np.empty((len(column), *self.shape), np.float32), self._wave)

    def _wave(self, value: Any) -> np.ndarray:
        """Of one file. Raises BadCell."""
        if value is None:
            raise BadCell("null", "a recording", None)
        found = content(value, self.most_bytes)
        _check_whole(found, is_cell=isinstance(value, bytes))
        try:
            samples, rate = self._samples(found)
        except BadCell:
            raise
        except Exception as error:  # soundfile raises whatever a file makes it trip over: any is the finding
            raise BadCell("undecodable", _EXPECTED, f"{type(error).__name__}: {error}") from error
        return self._fitted(samples, rate)

    def _samples(self, found: bytes) -> tuple[np.ndarray, int]:
        """As many frames as are needed, ``(frames, channels)``, and their rate."""
        import soundfile

        with soundfile.SoundFile(io.BytesIO(found)) as file:
            if not RATES[0] <= file.samplerate <= RATES[1]:
                raise BadCell("undecodable", "4,000 to 192,000 Hz", f"{file.samplerate:,} Hz")
            if file.channels > CHANNELS:
                raise BadCell("undecodable", f"at most {CHANNELS} channels", file.channels)
            if not file.frames:
                raise BadCell("undecodable", "a recording", "one without samples")
            said = file.frames / file.samplerate
            if said > self.most_seconds:
                raise BadCell(
                    "undecodable", f"at most {self.most_seconds:,g} seconds", f"a header that says {said:,.0f}"
                )
            if self.longer == "error" and said > self.seconds:
                raise BadCell("shape", f"at most {self.seconds:g} seconds", f"{said:.2f}")
            file.seek(file.frames - 1)  # which there must be, whatever the header says
            if not len(file.read(1)):
                raise BadCell("undecodable", f"{file.frames:,} samples", "a file that ends before: it was cut short")
            file.seek(0)
            wanted = min(file.frames, ceil((self.seconds + 0.1) * file.samplerate))  # resampling looks ahead
            return file.read(wanted, dtype="float32", always_2d=True), file.samplerate

    def _fitted(self, samples: np.ndarray, rate: int) -> np.ndarray:
        import soxr

        if not np.isfinite(samples).all():
            raise BadCell("non-finite", "finite samples", "NaN or infinity among them")
        mono = samples.mean(axis=1)
        wave = mono if rate == self.rate else soxr.resample(mono, rate, self.rate)
        fitted = np.zeros(self.shape, np.float32)
        fitted[: len(wave)] = wave[: len(fitted)]
        return fitted


def _check_whole(found: bytes, *, is_cell: bool) -> None:
    """Raise BadCell for what is no recording, and for one that ends before it should; libsndfile reads what is left.

    is_cell: the bytes are the row's own, and may be told; what a path leads to may be anybody's file.
    """
    kind = _FORMATS.get(found[:4])
    if kind is None or (kind == "WAV" and found[8:12] != b"WAVE"):
        begins = f", it begins with {found[:8]!r}" if is_cell else ""
        raise BadCell("undecodable", _EXPECTED, f"a file of another format{begins}")
    if kind == "WAV":
        _check_wav(found)
    if kind == "OGG":
        last = found.rfind(b"OggS")
        if last + 5 >= len(found) or not found[last + 5] & _LAST_PAGE:
            raise BadCell("undecodable", "a whole OGG", "one without its last page: it was cut short")


def _check_wav(found: bytes) -> None:
    place = 12
    while place + 8 <= len(found):
        name, size = struct.unpack_from("<4sI", found, place)
        place += 8
        if name == b"data":
            left = len(found) - place
            if size != _UNKNOWN and size > left:
                raise BadCell("undecodable", f"{size:,} bytes of samples", f"{left:,}: it was cut short")
            return
        place += size + size % 2
    raise BadCell("undecodable", "a whole WAV", "one without samples: it was cut short")
