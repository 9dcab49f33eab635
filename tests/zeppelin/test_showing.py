"""What paragraphs show, as a real interpreter answers: types and data of the messages, and how much of them."""

import pytest

LIMIT = 102_400


@pytest.fixture(scope="module")
def begun(zeppelin):
    paragraph = zeppelin.run(
        "import numpy as np, pandas as pd, sparkdl\nfrom sparkdl import zeppelin\nfrom sparkdl.showing import display"
    )
    assert paragraph.code == "SUCCESS", paragraph.text
    return zeppelin


def shown(begun, code):
    """The messages, as pairs of type and data."""
    paragraph = begun.run(code)
    assert paragraph.code == "SUCCESS", paragraph.text
    assert sum(len(data.encode()) for _, data in paragraph.messages) <= LIMIT
    return paragraph.messages


def test_a_table_is_one_and_text_is_text_again(begun):
    first, table, note, last = shown(begun, "print('before')\nsparkdl.show(spark.range(3000))\nprint('after\\nthat')")
    assert first == ("TEXT", "before\n")
    assert table[0] == "TABLE"
    assert table[1].splitlines() == ["id", *map(str, range(1_000))]
    assert note == ("TEXT", "the first 1,000 rows; there are more\n")
    assert last == ("TEXT", "after\nthat\n")


def test_a_value_begins_no_display(begun):
    hostile = ["%html <script>x</script>", "a\n\n%table x\ty", "\n%html z", "%", "", " ", "\t"]
    code = f"sparkdl.show(pd.DataFrame({{'a': {hostile!r}, '%html b': {hostile[::-1]!r}}}))\nsparkdl.show('text\\n%html <b>')\nprint('end')"
    table, text, last = shown(begun, code)
    assert (table[0], text[0], last) == ("TABLE", "HTML", ("TEXT", "end\n"))
    lines = table[1].splitlines()
    assert len(lines) == 1 + len(hostile)
    assert all(line.count("\t") == 1 for line in lines)
    assert not any(cell.startswith("%") for line in lines for cell in line.split("\t"))
    assert "&#37;html &lt;b&gt;" in text[1]


def test_two_large_tables_are_both_there_and_say_what_is_left_out(begun):
    code = "frame = pd.DataFrame({'a': ['x' * 190] * 1000})\nsparkdl.show(frame)\nsparkdl.show(frame)"
    messages = shown(begun, code)
    tables = [data for kind, data in messages if kind == "TABLE"]
    notes = [data for kind, data in messages if kind == "TEXT" and data.strip()]
    assert [len(table) > least for table, least in zip(tables, (70_000, 15_000), strict=True)] == [True, True]
    for table, note in zip(tables, notes, strict=True):
        assert f"{1_000 - (table.count(chr(10)) - 1):,} of these 1,000 rows are left out" in note


def test_a_sound_and_its_spectrogram_are_there(begun):
    code = "noise = np.random.default_rng(0).uniform(-1, 1, 400_000)\nzeppelin.audio(noise, 44_100)\nzeppelin.spectrogram(noise, 44_100)"
    (kind, sound), (_, picture) = [message for message in shown(begun, code) if message[1].strip()]
    assert kind == "HTML"
    assert "data:audio/wav;base64," in sound
    assert "of 9.1 s: there is no room for more here" in sound
    assert "data:image/png;base64," in picture


def test_a_view_takes_the_place_of_what_was_shown(begun):
    code = """
query = spark.readStream.format('rate').option('rowsPerSecond', 20).load().writeStream.format('noop').start()
print('before')
zeppelin.live(query, seconds=3, every=0.5)
query.stop()
print('over')
"""
    (kind, view), last = shown(begun, code)
    assert kind == "HTML"
    assert view.count("<th ") >= 5  # one drawing, not six
    assert view.count(">query</th>") == 1
    assert last == ("TEXT", "over\n")


def test_what_is_wrong_is_told(begun):
    told = begun.run("zeppelin.confusion_matrix(spark.range(3), labelCol='idd')")
    assert told.code == "ERROR"
    assert "'idd' is not in the DataFrame; did you mean 'id'?" in told.text
