"""What ``show`` makes of what it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sparkdl.errors import SparkdlError
from sparkdl.showing import facts, figures, plain, streams, tables, values
from sparkdl.showing.pieces import Facts, Html, Picture, Piece, Text

if TYPE_CHECKING:
    from sparkdl.train.summary import TrainingSummary

_MOST_CURVES = 8


def pieces_of(x: Any, n: int) -> list[Piece]:
    """The pieces; ``n`` rows of a table. What is not known is shown by its own HTML, or its repr."""
    if isinstance(x, (list, tuple)) and x and any(_is_known(one) for one in x):
        return [piece for one in x for piece in pieces_of(one, n)]
    if tables.is_spark(x):
        return [tables.of_spark(x, n)]
    if tables.is_pandas(x):
        return [tables.of_pandas(x, n)]
    if isinstance(x, str):
        return [Text(x)]
    for name in _known_names(x):
        return list(_MAKERS[name](x))
    own = getattr(x, "_repr_html_", None)
    markup = own() if callable(own) and not isinstance(x, type) else None
    return [Html(markup, repr(x)) if isinstance(markup, str) else Text(repr(x))]


def curves(summary: TrainingSummary) -> list[Piece]:
    """Losses, metrics and phases over the epochs, and lines of them for a terminal."""
    history = summary.history
    if not len(history):
        return [Text(repr(summary))]
    names = [name for name in history if name not in ("epoch", "rows", "seconds", "lr") and not name.endswith("_s")]
    lines = []
    for name in names[:_MOST_CURVES]:
        drawn = history[name].to_numpy(dtype=float)
        bars = plain.sparkline(drawn) if np.isfinite(drawn).any() else ""
        lines.append((name, f"{values.number(drawn[0])} {bars} {values.number(drawn[-1])}"))
    with figures.style():
        data = figures.png(summary.plot())
    alt = f"training curves over {values.count(len(history), 'epoch')}: {', '.join(map(str, names[:_MOST_CURVES]))}"
    return [Picture(data, alt, "curves", (Facts(tuple(lines)),))]


def _summary(summary: TrainingSummary) -> list[Piece]:
    told = Html(summary._repr_html_(), repr(summary))
    try:
        return [told, *curves(summary)] if len(summary.history) else [told]
    except SparkdlError as error:  # without matplotlib there is a table still
        return [told, Text(str(error))]


def _is_known(x: Any) -> bool:
    return tables.is_spark(x) or tables.is_pandas(x) or bool(_known_names(x))


def _known_names(x: Any) -> list[str]:
    homes = ("sparkdl.", "matplotlib.", "pyspark.sql.")
    return [kind.__name__ for kind in type(x).__mro__ if kind.__name__ in _MAKERS and kind.__module__.startswith(homes)]


def _figure(figure: Any) -> list[Piece]:
    titles = [axis.get_title() or axis.get_ylabel() for axis in figure.axes]
    alt = "a figure: " + ", ".join(filter(None, titles)) if any(titles) else "a figure"
    return [Picture(figures.of_figure(figure), alt, "figure")]


_MAKERS: dict[str, Any] = {
    "TorchModel": lambda x: [facts.of_model(x)],
    "Bundle": lambda x: [facts.of_bundle(x)],
    "ScoredTable": lambda x: [facts.of_table(x)],
    "TrainingSummary": _summary,
    "ScoreQuery": streams.with_pictures,
    "RealtimeQuery": streams.with_pictures,
    "StreamingQuery": streams.with_pictures,
    "StreamStatus": lambda x: [Facts(tuple(x.lines()))],
    "Figure": _figure,
    "Axes": lambda x: _figure(x.figure),
}
