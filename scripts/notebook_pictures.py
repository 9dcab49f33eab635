"""Pictures of what the notebooks of examples/zeppelin show: docs/zeppelin/NAME.png.

    make pictures                                  # or some of them:
    python scripts/notebook_pictures.py 1-first-notebook

Runs every paragraph in a real Zeppelin interpreter (as tests/zeppelin does), lays out what it answered as a page, and takes
a picture of that with Chromium. The page is not Zeppelin's: its code, tables and pictures are, and its titles.
"""

from __future__ import annotations

import html
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs/zeppelin"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT, COLOURS, ROWS = 980, 8000, 128, 8
STYLE = """
body {font: 14px/1.45 sans-serif; margin: 14px; color: #212121; background: #fff}
h1 {font-size: 22px; margin: 0 0 10px}
section {border: 1px solid #dbdbdb; border-radius: 3px; padding: 10px 14px; margin: 0 0 10px}
h2 {font-size: 15px; margin: 0 0 6px}
pre {font: 12px/1.4 monospace; margin: 6px 0; white-space: pre-wrap}
pre.code {background: #f6f8fa; padding: 8px 10px}
table {border-collapse: collapse; font-size: 12px; margin: 6px 0}
td, th {border-bottom: 1px solid #e6e6e6; padding: 2px 12px 2px 0; text-align: left}
p.more {color: #777; font-size: 12px; margin: 2px 0}
"""


def page(title: str, paragraphs: list[tuple[str, str, list[tuple[str, str]]]]) -> str:
    """A notebook as one page; of each paragraph its title, its text, and its messages as pairs of type and data."""
    parts = [
        f"<section><h2>{html.escape(title)}</h2><pre class=code>{html.escape(text)}</pre>"
        f"{''.join(shown(kind, data) for kind, data in messages)}</section>"
        for title, text, messages in paragraphs
    ]
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><h1>{html.escape(title)}</h1>{''.join(parts)}"


def shown(kind: str, data: str) -> str:
    """A message as Zeppelin shows it; of long tables the first rows."""
    if kind == "HTML":
        return data
    if kind == "IMG":
        return f"<img src='data:image/png;base64,{data}'>"
    if kind == "TABLE":
        head, *rows = [line.split("\t") for line in data.strip("\n").split("\n")]
        more = f"<p class=more>… {len(rows) - ROWS} rows more</p>" if len(rows) > ROWS else ""
        return f"<table>{row(head, 'th')}{''.join(row(cells, 'td') for cells in rows[:ROWS])}</table>{more}"
    return f"<pre>{html.escape(data)}</pre>" if data.strip() else ""


def row(cells: list[str], tag: str) -> str:
    """A row of a table."""
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"


def picture(browser: str, text: str, path: Path) -> None:
    """A PNG of a page, without the empty rest below it."""
    with tempfile.TemporaryDirectory() as folder:
        source, taken = Path(folder) / "page.html", Path(folder) / "page.png"
        source.write_text(text)
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
        ]
        command += [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={taken}", source.as_uri()]
        subprocess.run(command, check=True, timeout=120, capture_output=True)
        image = Image.open(io.BytesIO(taken.read_bytes())).convert("RGB")
    box = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox()
    bottom = min(image.height, box[3] + 14) if box else image.height
    path.parent.mkdir(parents=True, exist_ok=True)
    image.crop((0, 0, image.width, bottom)).quantize(COLOURS).save(path, optimize=True)


def main(names: list[str]) -> int:
    """Take the pictures of these notebooks, or of all; 1 without what it needs."""
    sys.path[:0] = [str(ROOT / "tests/zeppelin"), str(ROOT / "scripts")]
    import jars
    from paragraphs import Interpreter, written

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"a browser takes the pictures, and there is none of {', '.join(BROWSERS)} on the PATH", file=sys.stderr)
        return 1
    try:
        folder = jars.fetch("zeppelin")
    except jars.JarsError as error:
        print(error, file=sys.stderr)
        return 1
    notebooks = {path.name.partition("_")[0]: path for path in sorted((ROOT / "examples/zeppelin").glob("*.zpln"))}
    unknown = set(names) - set(notebooks)
    if unknown:
        print(f"no notebooks {sorted(unknown)}; there are {list(notebooks)}", file=sys.stderr)
        return 1
    for name in names or notebooks:
        path = notebooks[name]
        with tempfile.TemporaryDirectory() as work:
            interpreter = Interpreter(Path(work) / "interpreter", folder)
            try:
                ran = [
                    (one.title, f"{one.magic}\n{one.text}", interpreter.run(one.text, one.interpreter))
                    for one in written(path)
                ]
            finally:
                interpreter.stop()
        failed = [paragraph.text for *_, paragraph in ran if paragraph.code != "SUCCESS"]
        if failed:
            print(f"{path.name}: a paragraph failed:\n{failed[0]}", file=sys.stderr)
            return 1
        picture(
            browser,
            page(name, [(title, text, paragraph.messages) for title, text, paragraph in ran]),
            PICTURES / f"{name}.png",
        )
        print(PICTURES / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
