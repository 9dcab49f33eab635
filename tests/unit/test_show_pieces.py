"""Pieces as HTML, as what Zeppelin prints and as text: nothing in a value becomes markup, and nothing is larger than it may be."""

import base64
import html.parser
import io
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import sparkdl
from sparkdl import notebook, zeppelin
from sparkdl.errors import InvalidParamError, SparkdlError
from sparkdl.showing import anything, display, encoding, figures, page, plain, tables, values
from sparkdl.showing.pieces import Facts, Html, Marked, Picture, Sound, Table, Text, Tile, Tiles

HOSTILE = [
    "%html <script>alert(1)</script>", "\n%html <b>x</b>", "a\n\n%table x\ty", "<img src=x onerror=alert(1)>", "a\tb\tc", "\x1b[31mred\x07",
    "%", " %html x", "%%html", "\r\n%text", "‮abc", "{{constructor.constructor('alert(1)')()}}", "$$\\href{javascript:alert(1)}{x}$$", "", " ",
    "</td></tr></table>", '" onload="x', "&lt;script&gt;", "\u2028%html", "\x85%html x",
]  # fmt: skip
NOISE = np.random.default_rng(0)


def displays(written):
    """What a paragraph shows of a print, by Zeppelin's rules: a display begins at the start of a line that begins with %; a table
    ends at a blank line."""
    found = re.split(r"(?:^|\n)%(\w+) ", written)
    assert not found[0].strip()
    return list(zip(found[1::2], found[2::2], strict=True))


def test_golden_table():
    table = Table(("a", "b"), (("1", "x"), (None, "%html y")), frozenset([0]), "the first 2 rows", chart=True)
    assert display.zeppelin([table]) == "%table a\tb\n1\tx\nnull\t\u200b%html y\n\n%text the first 2 rows\n%text "
    assert plain.text([table]) == "   a  b\n----  -------\n   1  x\nnull  %html y\nthe first 2 rows"


def test_golden_html():
    facts = page.part(Facts((("a<b", "1%\n2"),)))
    assert re.sub(' style="[^"]*"', "", facts) == (
        '<table><tr><th scope="col">a&lt;b</th><td>1&#37;&#10;2</td></tr></table>'
    )
    marked = page.part(Marked((("in ", False), ("<i>", True)), "where?"))
    assert re.sub(' style="[^"]*"', "", marked) == ("<div><div>where?</div><div>in <mark>&lt;i&gt;</mark></div></div>")
    assert page.part(Table(("n",), ((None,),))).count('<i style="opacity:.7">null</i>') == 1


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.texts = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_stays_a_value(value):
    frame = pd.DataFrame({value or "name": [value, "x"], "other": ["y", value]})
    pieces = [
        *anything.pieces_of(frame, 10), Text(value), Facts(((value, value),)), Table((value,), ((value,),), note=value),
        Tiles((Tile(value, None, None, value), Tile(value, np.zeros((2, 2, 3), np.uint8), True)), value),
        Marked(((value, True), (value, False)), value, value), Picture(b"x", value),
        Sound(np.zeros(4, np.float32), 8, value, value),
    ]  # fmt: skip
    written = display.zeppelin(pieces)
    assert [kind for kind, _ in displays(written)] == ["table", "html", "text"]
    lines = displays(written)[0][1].rstrip("\n").split("\n")
    assert [line.count("\t") for line in lines] == [1, 1, 1]
    assert not any(cell.lstrip().startswith("%") or not cell for line in lines for cell in line.split("\t"))
    assert displays(written)[-1] == ("text", "")
    tags = Tags()
    tags.feed(display.html(pieces))
    assert set(tags.tags) <= {"div", "table", "thead", "tbody", "tr", "th", "td", "i", "mark", "img", "audio"}
    assert tags.attributes <= {"class", "style", "scope", "alt", "src", "controls", "preload", "aria-label", "role"}
    shown = values.printable(value, lines=True).replace("\r", "").strip("\n")
    assert any(shown in text for text in tags.texts)
    assert "\x1b" not in plain.text(pieces[:6]) + written
    assert "\u202e" not in written


@pytest.mark.parametrize("value", HOSTILE)
def test_a_table_s_cell_is_one_cell_whoever_made_the_table(value):
    written = display.zeppelin([Table((value, "b"), ((value, "x"), ("y", value)), chart=True)])
    assert [kind for kind, _ in displays(written)] == ["table", "text"]
    lines = displays(written)[0][1].rstrip("\n").split("\n")
    assert [line.count("\t") for line in lines] == [1, 1, 1]
    assert not any(cell.lstrip().startswith("%") for line in lines for cell in line.split("\t"))


def test_html_that_others_made_cannot_begin_a_display():
    class Own:
        def _repr_html_(self):
            return "<p>50\n%html x</p>\n<pre>a\n%table b</pre>"

    (piece,) = anything.pieces_of(Own(), 5)
    (shown, end) = displays(display.zeppelin([piece]))
    assert shown[0] == "html"
    assert end == ("text", "")
    assert "&#37;table" in shown[1]


def test_a_style_of_others_stays_one():
    frame = pd.DataFrame({"50 %": [1]})
    styled = frame.style.set_table_styles([{"selector": "td", "props": "width: 40%"}]).set_caption(
        "a\n<pre>\n%html</pre>"
    )
    written = page.part(anything.pieces_of(styled, 5)[0])
    style = re.search("<style.*</style>", written)[0]
    assert "width: 40%" in style
    assert "&#" not in style
    assert "<pre>&#10;&#37;html</pre>" in written
    assert "\n" not in written


@pytest.mark.parametrize(
    "piece",
    [
        Table(("a", "b"), tuple((str(i), "é" * 50) for i in range(10_000)), chart=True),
        Table(("a", "b"), tuple((str(i), "<" * 50) for i in range(10_000))),
        Text("ü" * 300_000),
        Html("<p>" + "x" * 300_000 + "</p>", "short"),
        Facts(tuple((str(i), "y" * 90) for i in range(5_000))),
        Marked((("a" * 200_000, False), ("b", True))),
        Picture(encoding.png(NOISE.integers(0, 255, (300, 400, 3), dtype=np.uint8)), "noise"),
        Picture(b"<svg>" + b"x" * 200_000, "a drawing", media="image/svg+xml"),
        Tiles(tuple(Tile(str(i), NOISE.integers(0, 255, (200, 150, 3), dtype=np.uint8)) for i in range(100))),
        Sound(NOISE.uniform(-1, 1, (441_000, 2)).astype(np.float32), 44_100, "noise"),
    ],
    ids=lambda piece: type(piece).__name__,
)
def test_what_is_too_large_becomes_smaller_and_says_so(piece):
    for beside in ([], [Text("a word")], [piece]):
        pieces = [piece, *beside]
        written = display.zeppelin(pieces)
        assert len(written.encode()) <= display.ZEPPELIN_BYTES
        if isinstance(piece, (Table, Tiles, Sound, Html)):
            assert len(written.encode()) > 1_000 or "short" in written
        if beside and beside != [piece]:
            assert "a word" in written
        told = "left out|no room|more letter|more line|to be small enough|too large|short|noise"
        assert re.search(told, written)


@pytest.mark.parametrize(
    "piece",
    [
        Text("x" * 100),
        Text(""),
        Table(("a",), (("b" * 300,),), chart=True),
        Html("<p>" + "x" * 300 + "</p>", "x"),
        Marked((("long " * 80, False), ("answer", True))),
        Sound(np.zeros(8_000, np.float32), 8_000),
    ],
    ids=lambda piece: type(piece).__name__,
)
@pytest.mark.parametrize("many", [400, 3_000])
def test_of_many_pieces_the_first_are_shown_and_the_others_counted(piece, many):
    written = display.zeppelin([piece] * many, 75_000)
    assert len(written.encode()) <= 75_000
    assert f"{many - 187:,} more are left out: there is no room for more here" in written
    if piece == Text("x" * 100):
        assert written.count("x" * 100) == 187


def test_rows_that_are_left_out_are_counted():
    table = Table(("n",), tuple((str(i) * 20,) for i in range(1_000, 9_000)), note="all", chart=True)
    written = display.zeppelin([table])
    shown = displays(written)[0][1].count("\n") - 1  # the header
    assert len(written.encode()) > display.ZEPPELIN_BYTES - 200
    assert f"all; {8_000 - shown:,} of these 8,000 rows are left out" in written


def test_what_fits_is_not_touched():
    picture = Picture(encoding.png(NOISE.integers(0, 255, (20, 20, 3), dtype=np.uint8)), "noise")
    assert base64.b64encode(picture.data).decode() in display.zeppelin([picture])


def test_a_sound_that_is_cut_still_plays():
    import wave

    written = display.zeppelin([Sound(NOISE.uniform(-1, 1, 480_000).astype(np.float32), 48_000)])
    (data,) = re.findall(r"data:audio/wav;base64,([^\"]+)", written)
    with wave.open(io.BytesIO(base64.b64decode(data))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8_000, 1, 2)
        assert 4 < file.getnframes() / 8_000 < 5
    assert "here 8,000 Hz instead of 48,000" in written
    assert "of 10.0 s" in written


def test_pandas_frames_with_their_index_and_their_missing_values():
    frame = pd.DataFrame(
        {"x": [1.5, None], "t": [pd.Timestamp("2026-11-22"), pd.NaT]}, index=pd.Index(["a", "b"], name="key")
    )
    table = tables.of_pandas(frame, 1)
    assert table.columns == ("key", "x", "t")
    assert table.rows == (("a", "1.5", "2026-11-22 00:00:00"),)
    assert table.note == "the first 1 of 2 rows"
    assert table.numeric == {1}
    assert tables.of_pandas(frame, 5).rows[1] == ("b", None, None)
    assert tables.of_pandas(pd.DataFrame({"a": []}), 5).note == "no rows"


def test_bars_are_as_high_as_the_numbers():
    assert plain.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert plain.sparkline([5, 5]) == "▁▁"
    assert plain.sparkline([1, float("nan"), 2]) == "▁ █"
    assert plain.sparkline([]) == plain.sparkline([float("nan")]) == ""
    assert len(plain.sparkline(range(10_000))) == 40


def test_a_terminal_without_rich_gets_text_and_files(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    display.put(
        [Text("one"), Picture(encoding.png(np.zeros((3, 4, 3), np.uint8)), "a black one", "my picture", (Text("▁█"),))]
    )
    one, bars, saved = capsys.readouterr().out.splitlines()
    assert (one, bars) == ("one", "▁█")
    path = re.fullmatch(r"a black one: (.*/my-picture-\d+\.png)", saved).group(1)
    assert Image.open(path).size == (4, 3)


def test_a_terminal_with_rich_shows_values_as_they_are():
    from rich.console import Console

    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None)
    table = Table(("[bold]a[/bold]",), (("[red]x[/red]",), (None,), ("\x1b]0;title\x07",)), note="[note]")
    console.print(
        *plain.renderables([table, Facts((("[i]k[/i]", "v"),)), Marked((("is ", False), ("[b]it[/b]", True)))]),
        sep="\n",
    )
    shown = console.file.getvalue()
    for text in ("[bold]a[/bold]", "[red]x[/red]", "null", "\\x1b]0;title\\x07", "[note]", "[i]k[/i]", "is [b]it[/b]"):
        assert text in shown


def test_images_in_a_terminal_are_a_list_and_one_file(capsys):
    tiles = Tiles((Tile("7, is 1", np.full((8, 8, 3), 200, np.uint8), False), Tile("2", None, True, "null")))
    text = plain.text([tiles])
    assert "✗   7, is 1  8 × 8" in text
    assert "✓   2        null" in text
    path = re.search(r"the images: (.*\.png)", text).group(1)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (160, 260, 3)
    assert (sheet[60, 60] == 200).all()


def test_what_is_shown_of_a_figure_and_of_anything_else():
    figure = figures.new(2, 1)
    figure.subplots().set_title("a title")
    (picture,) = anything.pieces_of(figure, 5)
    assert picture.alt == "a figure: a title"
    assert Image.open(io.BytesIO(picture.data)).size == (200, 100)
    assert anything.pieces_of(figure.axes[0], 5) == [picture]
    assert anything.pieces_of([1, 2], 5) == [Text("[1, 2]")]
    assert anything.pieces_of(int, 5) == [Text("<class 'int'>")]
    assert [type(piece) for piece in anything.pieces_of([figure, "x"], 5)] == [Picture, Text]


def test_numbers_of_rows_and_what_curves_takes_are_checked():
    for n in (0, -1, True, 2.0, "5"):
        with pytest.raises(InvalidParamError, match="'n' must be a whole number of 1 or more"):
            sparkdl.show(pd.DataFrame({"a": [1]}), n=n)
    with pytest.raises(InvalidParamError, match=r"curves takes a TorchModel or its summary \(got int\)"):
        zeppelin.curves(5)


def test_a_picture_without_matplotlib_says_what_to_install(monkeypatch):
    from test_summary import TRAINING

    from sparkdl.train.summary import TrainingSummary

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    summary = TrainingSummary(TRAINING)
    with pytest.raises(SparkdlError, match=r"needs matplotlib, .* pip install 'sparkdl\[plot\]'"):
        zeppelin.curves(summary)
    table, said = anything.pieces_of(summary, 5)  # what can be shown is
    assert "<table" in table.html
    assert "pip install" in said.text


def test_curves_are_a_picture_and_bars():
    from test_summary import TRAINING

    from sparkdl.train.summary import TrainingSummary

    (picture,) = anything.curves(TrainingSummary(TRAINING))
    assert picture.alt == "training curves over 5 epochs: loss, accuracy, val_loss, val_accuracy, val_f1"
    assert dict(picture.sketch[0].lines)["val_loss"] == "2.5 █▅▁▅█ 2.5"
    assert len(picture.data) < 40_000
    (text,) = anything.curves(TrainingSummary({}))
    assert text.text.startswith("no history")


def test_importing_what_shows_imports_nothing_heavy():
    code = "import sys, sparkdl.zeppelin, sparkdl; sparkdl.show; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"matplotlib", "PIL", "scipy", "torch", "pyspark", "rich", "numpy", "pandas"}


class PyZeppelinContext:
    """As much of Zeppelin's context as a paragraph's run is told by: the real one is in tests/zeppelin."""

    def __init__(self, run):
        self.run = run

    def getInterpreterContext(self):
        return self

    def getParagraphId(self):
        return "paragraph_1"

    def hashCode(self):
        return self.run


def test_what_one_paragraph_shows_adds_up(capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__zeppelin__", PyZeppelinContext(1), raising=False)
    assert notebook.place() == "zeppelin"
    frame = pd.DataFrame({"a": ["x" * 150] * 1_000})
    sparkdl.show(frame.head(400))
    sparkdl.show(frame.head(400))
    both = capsys.readouterr().out
    assert len(both.encode()) <= display.ZEPPELIN_BYTES
    assert re.search("[0-9]+ of these 400 rows are left out", both)
    for _ in range(100):
        sparkdl.show(frame.head(400))
    full = both + capsys.readouterr().out
    assert len(full.encode()) <= display.ZEPPELIN_BYTES
    assert full.count("this paragraph has shown all that Zeppelin takes of one") == 1
    monkeypatch.setattr(sys.modules["__main__"], "__zeppelin__", PyZeppelinContext(2))
    sparkdl.show(frame.head(400))
    again = capsys.readouterr().out  # the paragraph runs again, with all of its room
    assert again.count("x" * 150) == 400
