"""Where pieces are put: a paragraph of Zeppelin, a cell of Jupyter, a terminal. Nothing else knows of the places."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparkdl import notebook
from sparkdl.showing import fit, page, plain, values
from sparkdl.showing.pieces import Facts, Html, Marked, Piece, Table, Text

if TYPE_CHECKING:
    from rich.console import Console

ZEPPELIN_BYTES = 102_400  # that a paragraph prints at most; what is more is cut
JUPYTER_BYTES = 16_000_000
_OWN_BYTES = 2_000  # of these, for a user's own lines
_SHARE = 0.75  # of what is left of them, for one call: what is shown next needs some too
_LEAST_BYTES = 400
_FULL = "this paragraph has shown all that Zeppelin takes of one: show what follows in another"
_END = "%text "
_NOTHING = "\u200b"  # a letter without width
_spent: tuple[str, int] = ("", 0)  # by which run of a paragraph, and how much


def put(pieces: Sequence[Piece]) -> None:
    """Show them here."""
    here = notebook.place()
    if here == "zeppelin":
        _print_in_zeppelin(pieces)
    elif here == "jupyter":
        _show_in_jupyter(pieces)
    else:
        _print(pieces)


def zeppelin(pieces: Sequence[Piece], room: int = ZEPPELIN_BYTES) -> str:
    """What a paragraph prints, ``room`` bytes of it at most: tables to sort and plot by ``%table``, all else by ``%html``;
    behind it text is text again."""
    return "".join(map(_display, _groups(fit.fitted(pieces, room - len(_END), _zeppelin_size)))) + _END


def html(pieces: Sequence[Piece], room: int = JUPYTER_BYTES) -> str:
    """One block of HTML, ``room`` bytes at most."""
    return page.page(fit.fitted(pieces, room, lambda piece: len(page.part(piece).encode())))


class View:
    """What is drawn again and again in one place of a notebook."""

    def __init__(self) -> None:
        self._drawn = False
        self._id = uuid.uuid4().hex

    def draw(self, pieces: Sequence[Piece]) -> None:
        """Show them instead of what was drawn before; in Zeppelin instead of all that the paragraph has shown."""
        if notebook.place() == "jupyter":
            _show_in_jupyter(pieces, self._id, again=self._drawn)
        else:
            _clear_paragraph()
            put(pieces)
        self._drawn = True


def console() -> Console | None:
    """The terminal, if there is one, and rich."""
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return None
    found = Console(highlight=False)
    return found if found.is_terminal else None


def _clear_paragraph() -> None:
    global _spent
    if _is_ipython():
        from IPython.display import clear_output  # type: ignore[import-not-found]

        clear_output()
    else:
        from py4j.java_gateway import get_field  # type: ignore[import-untyped,import-not-found]

        context: Any = notebook.zeppelin_context()
        get_field(context.getInterpreterContext(), "out").clear()
    _spent = ("", 0)


def _print_in_zeppelin(pieces: Sequence[Piece]) -> None:
    global _spent
    run = _paragraph_run()
    before = _spent[1] if _spent[0] == run else 0
    room = int((ZEPPELIN_BYTES - _OWN_BYTES - before) * _SHARE)
    if before >= ZEPPELIN_BYTES:
        return  # which was told
    written = zeppelin(pieces, room) if room >= _LEAST_BYTES else zeppelin([Text(_FULL)])
    if _is_ipython():
        written = f"\n{written}\n"  # a display begins at the start of a line only
    _spent = (run, before + len(written.encode()) if room >= _LEAST_BYTES else ZEPPELIN_BYTES)
    print(written, end="", flush=True)


def _paragraph_run() -> str:
    """A name for this run of this paragraph."""
    context: Any = notebook.zeppelin_context()
    inside = context.getInterpreterContext()
    return f"{inside.getParagraphId()} {inside.hashCode()}"


def _is_ipython() -> bool:
    ask = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return ask is not None and ask() is not None


def _show_in_jupyter(pieces: Sequence[Piece], id: str | None = None, *, again: bool = False) -> None:
    from IPython.display import display

    told = "\n".join(plain.text([piece]) for piece in pieces if isinstance(piece, (Text, Facts, Table, Marked, Html)))
    named = {} if id is None else {"display_id": id, "update": again}
    display({"text/html": html(pieces), "text/plain": told or "a picture or sound"}, raw=True, **named)


def _print(pieces: Sequence[Piece]) -> None:
    terminal = console()
    if terminal is None:
        print(plain.text(pieces), flush=True)
    else:
        terminal.print(*plain.renderables(pieces), sep="\n")


def _groups(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Neighbours that are one display."""
    found: list[list[Piece]] = []
    for piece in pieces:
        if found and not _is_chart(piece) and not _is_chart(found[-1][0]):
            found[-1].append(piece)
        else:
            found.append([piece])
    return found


def _is_chart(piece: Piece) -> bool:
    return isinstance(piece, Table) and piece.chart and bool(piece.rows)


def _display(group: list[Piece]) -> str:
    first = group[0]
    if isinstance(first, Table) and _is_chart(first):
        note = f"%text {values.printable(first.note)}\n" if first.note else ""
        return f"{_tsv(first)}\n{note}"
    return f"%html {page.page(group)}\n"


def _tsv(table: Table) -> str:
    """Rows up to a blank line. A value that begins with % would be a display, or in a cell markup; a letter without width goes
    before it; a line is never blank."""
    lines = [table.columns, *(["null" if value is None else value for value in row] for row in table.rows)]
    return "%table " + "\n".join("\t".join(map(_tsv_cell, line)) for line in lines) + "\n"


def _tsv_cell(value: str) -> str:
    value = values.printable(value)
    return f"{_NOTHING}{value}" if value.lstrip().startswith("%") or not value else value


def _zeppelin_size(piece: Piece) -> int:
    return len(_display([piece]).encode())
