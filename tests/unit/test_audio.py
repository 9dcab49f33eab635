"""Recordings as waveforms, texts as numbers of characters."""

import io
import struct

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkdl.columns import BadRows
from sparkdl.errors import InvalidParamError
from sparkdl.preprocess import Audio, Characters
from sparkdl.preprocess.base import from_json

FORMATS = [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")]


def tone(rate, seconds, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def file(samples, rate=8_000, kind="WAV", subtype=None):
    written = io.BytesIO()
    soundfile.write(written, samples, rate, format=kind, subtype=subtype)
    return written.getvalue()


def read(audio, *values, kind=None):
    return audio.read({"sound": pa.array(values, kind or (pa.string() if isinstance(values[0], str) else pa.binary()))})


GOOD = {kind: file(tone(8_000, 0.5), kind=kind) for kind in ("WAV", "FLAC", "OGG")}
SHORT = Audio(rate=8_000, seconds=1.0)


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_same_sound_of_any_format_is_the_same_waveform(kind, subtype, rate, channels):
    samples = np.repeat(tone(rate, 0.5)[:, None], channels, axis=1)
    (wave,) = read(SHORT, file(samples, rate, kind, subtype))
    assert wave.dtype == np.float32
    assert wave.shape == (8_000,) == SHORT.shape
    inner = slice(200, 3_800)  # a resampler and a lossy codec ring at the ends
    assert np.abs(wave[inner] - tone(8_000, 0.5)[inner]).max() < (0.06 if kind == "OGG" else 2e-3)
    assert not wave[4_100:].any()


def test_channels_are_averaged():
    left, right = tone(8_000, 0.5), tone(8_000, 0.5, hertz=300)
    (wave,) = read(SHORT, file(np.stack([left, right], axis=1), subtype="FLOAT"))
    np.testing.assert_allclose(wave[:4_000], (left + right) / 2, atol=1e-6)


def test_a_longer_recording_is_cut_to_its_start():
    samples = tone(8_000, 2.5)
    (wave,) = read(SHORT, file(samples, subtype="FLOAT"))
    np.testing.assert_array_equal(wave, samples[:8_000])
    (resampled,) = read(SHORT, file(tone(44_100, 2.5), 44_100, subtype="FLOAT"))
    assert np.abs(resampled - samples[:8_000])[200:].max() < 2e-3  # up to its very end: it was read a little beyond


def test_paths_and_uris_are_read_where_the_row_is(tmp_path):
    (tmp_path / "one.flac").write_bytes(GOOD["FLAC"])
    from_path, from_uri = read(SHORT, str(tmp_path / "one.flac"), (tmp_path / "one.flac").as_uri())
    (from_bytes,) = read(SHORT, GOOD["FLAC"])
    np.testing.assert_array_equal(from_path, from_bytes)
    np.testing.assert_array_equal(from_uri, from_bytes)


def test_a_wav_out_of_a_pipe_does_not_know_its_length():
    piped = GOOD["WAV"].replace(b"data" + struct.pack("<I", 8_000), b"data\xff\xff\xff\xff")
    assert piped != GOOD["WAV"]
    np.testing.assert_array_equal(read(SHORT, piped), read(SHORT, GOOD["WAV"]))


def promising(samples):
    """A FLAC whose header tells of so many samples: the last 36 bits of 8 bytes in STREAMINFO."""
    (told,) = struct.unpack_from(">Q", GOOD["FLAC"], 18)
    return GOOD["FLAC"][:18] + struct.pack(">Q", told >> 36 << 36 | samples) + GOOD["FLAC"][26:]


def with_sample(value):
    samples = tone(8_000, 0.5)
    samples[100] = value
    return file(samples, subtype="FLOAT")


BAD = {
    "null": (None, "null", "expected a recording, got None"),
    "zero bytes": (b"", "undecodable", "an empty one"),
    "text": (b"this is no sound", "undecodable", "expected one of WAV, FLAC, OGG.*begins with b'this is '"),
    "an image": (b"\x89PNG\r\n\x1a\n" + bytes(64), "undecodable", "another format"),
    "another RIFF": (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "undecodable", "another format"),
    "an AIFF": (file(tone(8_000, 0.1), kind="AIFF"), "undecodable", "another format"),
    "half a WAV": (GOOD["WAV"][:4_000], "undecodable", "8,000 bytes of samples, got 3,956: it was cut short"),
    "a WAV's header": (GOOD["WAV"][:30], "undecodable", "cut short"),
    "half a FLAC": (GOOD["FLAC"][: len(GOOD["FLAC"]) // 2], "undecodable", "LibsndfileError|cut short"),
    "half an OGG": (GOOD["OGG"][: len(GOOD["OGG"]) // 2], "undecodable", "without its last page"),
    "no samples": (file(np.zeros(0)), "undecodable", "one without samples"),
    "NaN": (with_sample(np.nan), "non-finite", "NaN or infinity"),
    "infinity": (with_sample(-np.inf), "non-finite", "NaN or infinity"),
    "12 Hz": (file(tone(8_000, 0.1), rate=12), "undecodable", "4,000 to 192,000 Hz, got 12 Hz"),
    "1 MHz": (file(tone(8_000, 0.1), rate=1_000_000), "undecodable", "got 1,000,000 Hz"),
    "64 channels": (file(np.zeros((100, 64))), "undecodable", "at most 8 channels, got 64"),
    "a bomb": (promising(2**35), "undecodable", "at most 3,600 seconds, got a header that says 4,294,967"),
    "a small lie": (promising(20_000), "undecodable", "LibsndfileError|cut short"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_recording_is_one_bad_row(name):
    value, kind, message = BAD[name]
    with pytest.raises(BadRows, match=message) as caught:
        read(SHORT, GOOD["WAV"], value, kind=pa.binary())
    assert caught.value.rows == [1]
    assert caught.value.reasons[0].startswith(f"{kind}: column 'sound': expected ")
    np.testing.assert_array_equal(caught.value.rest, read(SHORT, GOOD["WAV"]))


def test_all_bad_rows_of_a_batch_are_told_at_once():
    values = [value for bad, _, _ in BAD.values() for value in (bad, GOOD["FLAC"])]
    with pytest.raises(BadRows) as caught:
        read(SHORT, *values, kind=pa.binary())
    assert caught.value.rows == list(range(0, len(values), 2))
    assert [reason.partition(":")[0] for reason in caught.value.reasons] == [kind for _, kind, _ in BAD.values()]
    assert caught.value.rest.shape == (len(BAD), 8_000)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (
            Audio(rate=8_000, seconds=0.2, longer="error"),
            "^column 'sound', row 0: expected at most 0.2 seconds, got 0.50",
        ),
        (Audio(rate=8_000, most_seconds=0.25), "at most 0.25 seconds, got a header that says"),
        (Audio(rate=8_000, most_bytes=1_000), "a file of at most 1,000 bytes, got 8,044 bytes"),
    ],
)
def test_what_is_too_large_is_refused(audio, message, tmp_path):
    (tmp_path / "one.wav").write_bytes(GOOD["WAV"])
    for value in (GOOD["WAV"], str(tmp_path / "one.wav")):
        with pytest.raises(BadRows, match=message):
            read(audio, value)


def test_what_a_path_leads_to_is_not_told(tmp_path):
    (tmp_path / "secret").write_bytes(b"password=1")
    with pytest.raises(BadRows) as error:
        read(SHORT, str(tmp_path / "secret"))
    assert "another format" in error.value.reasons[0]
    assert "passw" not in error.value.reasons[0]
    with pytest.raises(BadRows, match="it begins with b'password"):
        read(SHORT, b"password=1")


def test_a_path_that_none_can_be_is_one_bad_row(tmp_path):
    (tmp_path / "good.wav").write_bytes(GOOD["WAV"])
    with pytest.raises(BadRows) as error:
        read(SHORT, str(tmp_path / "good.wav"), "a\0b")
    assert error.value.rows == [1]
    assert error.value.reasons[0].startswith("failed: ")


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(BadRows, match="FileNotFoundError") as caught:
        read(SHORT, str(tmp_path / "none.wav"))
    assert caught.value.reasons[0].startswith("failed: ")


@given(kind=st.sampled_from(sorted(GOOD)), share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=150, deadline=None)
def test_a_recording_cut_anywhere_is_a_bad_row(kind, share):
    with pytest.raises(BadRows):
        read(SHORT, GOOD[kind][: int(share * len(GOOD[kind]))])


@given(
    kind=st.sampled_from(sorted(GOOD)), place=st.floats(0, 1, exclude_max=True), found=st.binary(min_size=1, max_size=8)
)
@settings(max_examples=200, deadline=None)
def test_whatever_is_in_a_file_gives_a_waveform_or_a_bad_row(kind, place, found):
    start = int(place * len(GOOD[kind]))
    try:
        wave = read(SHORT, GOOD[kind][:start] + found + GOOD[kind][start + len(found) :])
    except BadRows:
        return
    assert np.isfinite(wave).all()


def test_json_makes_it_again():
    audio = Audio(rate=8_000, seconds=2.5, longer="error")
    assert audio.to_json() == {"kind": "audio", "rate": 8_000, "seconds": 2.5, "longer": "error"}
    assert from_json(audio.to_json()) == audio


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 100}, "'rate' of Audio.*4000"),
        ({"seconds": 0}, "'seconds' of Audio"),
        ({"seconds": float("nan")}, "'seconds' of Audio"),
        ({"longer": "wrap"}, "'longer' of Audio.*'cut' or 'error'"),
        ({"secconds": 1}, "did you mean 'seconds'"),
    ],
)
def test_bad_settings_are_named(values, message):
    with pytest.raises(InvalidParamError, match=message):
        Audio(**values)


def written(characters, *texts):
    return characters.read({"said": pa.array(texts, pa.string())})


def test_characters_are_numbered_from_one():
    ids = written(Characters(alphabet=" abé😀", length=4), "ab", "", "é 😀a")
    assert ids.dtype == np.int64
    assert ids.tolist() == [[2, 3, 0, 0], [0, 0, 0, 0], [4, 1, 5, 2]]


def test_texts_that_cannot_be_written_are_bad_rows():
    with pytest.raises(BadRows) as caught:
        written(Characters(alphabet="ab", length=3), "ab", None, "abba", "ac", "Ab")
    assert caught.value.rows == [1, 2, 3, 4]
    assert caught.value.reasons == [
        "null: column 'said': expected a text, got None",
        "shape: column 'said': expected at most 3 characters, got 4",
        "value: column 'said': expected characters of 'ab', got 'c' too",
        "value: column 'said': expected characters of 'ab', got 'A' too",
    ]


def test_an_alphabet_has_each_character_once():
    with pytest.raises(InvalidParamError, match="'alphabet' of Characters: each character once, 'a' is there twice"):
        Characters(alphabet="aba")
    assert from_json(Characters(alphabet="ab", length=9).to_json()) == Characters(alphabet="ab", length=9)
