"""Spoken digits, synthetic: eSpeak NG says them, in many voices, with noise. The words are English, no person speaks."""

from __future__ import annotations

import ctypes
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyspark.sql import SparkSession

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = ("en", "en-us", "en-gb-scotland", "en-gb-x-rp")
VOICES = (
    "Alex", "Andy", "Annie", "Denis", "Gene", "Lee", "Michael", "Reed", "Storm", "adam", "aunty", "belinda", "boris", "caleb",
    "ed", "f1", "f3", "f5", "gustave", "john", "klatt2", "m1", "m2", "m4", "m5", "m6", "max", "quincy", "steph", "travis",
    "victor", "zac",
)  # fmt: skip
UNSEEN = ("Andrea", "Mike", "edward", "f2", "klatt4", "linda", "m3", "m7")  # voices of the held-out rows alone
ROWS = {"smallest": (400, 60), "small": (2400, 400)}  # to train on, held out
MOST_WORDS = {"smallest": 1, "small": 3}

SETTINGS = {
    "smallest": {
        "estimator.epochs": 16, "estimator.batchSize": 8, "estimator.seconds": 1.2, "estimator.mels": 24,
        "estimator.hidden": 48, "estimator.layers": 1, "estimator.schedulerParams": {"max_lr": 0.008, "pct_start": 0.2},
    },
}  # fmt: skip
FIGURE = "wer"
BARS = {"smallest": 0.6, "small": 0.05}
LABEL = "transcript"

_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1  # of espeak-ng's speak_lib.h
_RATE, _PITCH = 1, 3
_TAKES_SAMPLES = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Synthesiser:
    """eSpeak NG in this process, of which there is one, for one thread. rate: of its samples, in Hz."""

    library: ctypes.CDLL
    rate: int
    chunks: list[np.ndarray]
    callback: Any  # kept, for the library calls it

    def say(self, text: str, voice: str, words_a_minute: int = 160, pitch: int = 50) -> np.ndarray:
        """The text as samples in [-1, 1], float32. pitch: 0 to 99. Raises ValueError for a voice that is not there."""
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"eSpeak NG has no voice {voice!r}")
        self.library.espeak_SetParameter(_RATE, words_a_minute, 0)
        self.library.espeak_SetParameter(_PITCH, pitch, 0)
        self.chunks.clear()
        said = text.encode()
        if self.library.espeak_Synth(said, len(said) + 1, 0, 0, 0, _UTF8, None, None):
            raise RuntimeError(f"eSpeak NG could not say {text!r}")
        return np.concatenate(self.chunks).astype(np.float32) / 32_768


@cache
def synthesiser() -> Synthesiser:
    """Started, with the voices of the wheel espeakng-loader."""
    import espeakng_loader

    chunks: list[np.ndarray] = []

    def take(samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library, callback = ctypes.CDLL(espeakng_loader.get_library_path()), _TAKES_SAMPLES(take)
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), _DONT_EXIT)
    if rate <= 0:
        raise RuntimeError(f"eSpeak NG did not start, it says {rate}")
    library.espeak_SetSynthCallback(callback)
    return Synthesiser(library, rate, chunks, callback)


def spoken(count: int, voices: Sequence[str], most_words: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rows: one to ``most_words`` digits as a FLAC, and what is said. Voice, accent, speed, pitch, loudness and noise differ."""
    import soundfile

    speaker, draw = synthesiser(), np.random.default_rng(seed)
    for number in range(count):
        text = " ".join(draw.choice(WORDS, draw.integers(1, most_words + 1)))
        voice = draw.choice(voices)
        samples = speaker.say(
            text, f"{draw.choice(ACCENTS)}+{voice}", int(draw.integers(130, 200)), int(draw.integers(30, 70))
        )
        samples *= draw.uniform(0.2, 0.9) / np.abs(samples).max()
        samples += draw.normal(0, 10 ** draw.uniform(-3.5, -2), len(samples))  # 40 to 70 dB below full scale
        file = io.BytesIO()
        soundfile.write(file, samples.clip(-1, 1), speaker.rate, format="FLAC")
        yield {"id": number, "voice": str(voice), "audio": file.getvalue(), "transcript": text}


def write(folder: Path, size: str) -> None:
    """``train`` and ``test``, two files each."""
    for seed, (name, count, voices) in enumerate(zip(("train", "test"), ROWS[size], (VOICES, UNSEEN), strict=True)):
        table = pa.Table.from_pylist(list(spoken(count, voices, MOST_WORDS[size], seed)))
        (folder / name).mkdir(parents=True)
        for half in range(2):
            pq.write_table(table.slice(half * count // 2, count // 2), folder / name / f"part-{half}.parquet")


def picture(spark: SparkSession, folder: Path) -> Figure:
    """Spectrograms of two held-out recordings, with what was heard."""
    import matplotlib as mpl
    import soundfile
    from matplotlib.figure import Figure

    rows = spark.read.parquet(str(folder / "scored")).orderBy("id").limit(2).collect()
    figure = Figure(figsize=(8, 3), layout="constrained")
    for row, axes in zip(rows, figure.subplots(1, 2), strict=True):
        samples, rate = soundfile.read(io.BytesIO(row.audio))
        axes.specgram(
            samples,
            NFFT=512,
            noverlap=256,
            Fs=rate,
            interpolation="nearest",
            cmap=mpl.colormaps["magma"].resampled(12),
            vmin=-120,
        )
        axes.set(ylim=(0, 4_000), xlabel="seconds", ylabel="Hz")
        axes.set_title(f"heard: {row.prediction}\nsaid: {row.transcript} (voice {row.voice})", fontsize=10, loc="left")
    return figure
