"""What paragraphs show, as a real interpreter answers: types and data of the messages, and how much of them; in both of
Zeppelin's modes."""

import pyspark
import pytest

LIMIT = 102_400
BEGIN = "import numpy as np, pandas as pd, sparkdl\nfrom sparkdl import zeppelin"


@pytest.fixture(scope="module", params=["pyspark", "ipyspark"])
def shown(request, zeppelin):
    """A function that runs a paragraph and returns its messages that are not blank, as pairs of type and data."""
    if request.param == "ipyspark" and pyspark.__version__ >= "4":
        pytest.skip("the gRPC of Zeppelin's IPython mode does not talk through Spark 4's netty")

    def run(code):
        paragraph = zeppelin.run(code, request.param)
        assert paragraph.code == "SUCCESS", paragraph.text
        assert sum(len(data.encode()) for _, data in paragraph.messages) <= LIMIT
        return [(kind, data.strip("\n")) for kind, data in paragraph.messages if data.strip("\n")]

    assert run(BEGIN) == []
    return run


def test_a_table_is_one_and_text_is_text_again(shown):
    first, table, note, last = shown("print('before')\nsparkdl.show(spark.range(3000))\nprint('after\\nthat')")
    assert first == ("TEXT", "before")
    assert table[0] == "TABLE"
    assert table[1].splitlines() == ["id", *map(str, range(1_000))]
    assert note == ("TEXT", "the first 1,000 rows; there are more")
    assert last == ("TEXT", "after\nthat")


def test_a_value_begins_no_display(shown):
    hostile = ["%html <script>x</script>", "a\n\n%table x\ty", "\n%html z", "%", "", " ", "\t"]
    code = f"sparkdl.show(pd.DataFrame({{'a': {hostile!r}, '%html b': {hostile[::-1]!r}}}))\nsparkdl.show('text\\n%html <b>')\nprint('end')"
    table, text, last = shown(code)
    assert (table[0], text[0], last) == ("TABLE", "HTML", ("TEXT", "end"))
    lines = table[1].splitlines()
    assert len(lines) == 1 + len(hostile)
    assert all(line.count("\t") == 1 for line in lines)
    assert not any(cell.startswith("%") for line in lines for cell in line.split("\t"))
    assert "&#37;html &lt;b&gt;" in text[1]


def test_two_large_tables_are_both_there_and_say_what_is_left_out(shown):
    messages = shown("frame = pd.DataFrame({'a': ['x' * 190] * 1000})\nsparkdl.show(frame)\nsparkdl.show(frame)")
    assert [kind for kind, _ in messages] == ["TABLE", "TEXT", "TABLE", "TEXT"]
    for (_, table), (_, note), least in zip(messages[::2], messages[1::2], (70_000, 15_000), strict=True):
        assert len(table) > least
        assert note.startswith(f"{1_000 - table.count('x' * 190):,} of these 1,000 rows are left out")


def test_a_sound_and_its_spectrogram_are_there(shown):
    code = "noise = np.random.default_rng(0).uniform(-1, 1, 400_000)\nzeppelin.audio(noise, 44_100)\nzeppelin.spectrogram(noise, 44_100)"
    (kind, sound), (_, picture) = shown(code)
    assert kind == "HTML"
    assert "data:audio/wav;base64," in sound
    assert "of 9.1 s: there is no room for more here" in sound
    assert "data:image/png;base64," in picture


def test_a_view_takes_the_place_of_what_was_shown(shown):
    code = """
query = spark.readStream.format('rate').option('rowsPerSecond', 20).load().writeStream.format('noop').start()
print('before')
zeppelin.live(query, seconds=3, every=0.5)
query.stop()
print('over')
"""
    (kind, view), last = shown(code)
    assert kind == "HTML"
    assert view.count(">query</th>") == 1  # one drawing, not six
    assert last == ("TEXT", "over")
