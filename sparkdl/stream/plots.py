"""The pictures of a report, as SVG."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkdl.stream.run import Run, totals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = 8  # of a picture, the largest; what remains goes together
PSI_LITTLE, PSI_MUCH = 0.1, 0.25
_COLOURS = ("#3b6fb6", "#e08a2e", "#4c9f70", "#c4504f", "#8a6bb1", "#7d6b5d", "#d182b4", "#8d8d8d")
_STYLE: Any = {
    "font.size": 9, "font.family": "sans-serif", "svg.fonttype": "none", "svg.hashsalt": "sparkdl", "axes.spines.top": False,
    "axes.spines.right": False, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.edgecolor": "#999999", "xtick.color": "#444444", "ytick.color": "#444444", "axes.grid": True, "axes.axisbelow": True,
    "grid.color": "#e8e8e8", "legend.frameon": False, "legend.fontsize": 8, "text.parse_math": False,
}  # fmt: skip


def pictures(run: Run, wanted: Collection[str] | None = None) -> dict[str, str]:
    """SVG by name: ``throughput``, ``latency``, ``dead``, ``versions``, ``lag``, ``psi``, ``histograms``; without those that
    there is nothing for, or that are not among the ``wanted``."""
    there: list[tuple[str, Any, Callable[[], str]]] = [
        ("throughput", run.times, lambda: _throughput(run)),
        ("latency", any(run.seconds), lambda: _latency(run)),
        ("dead", any(run.dead), lambda: _over_time(run, run.dead, "rows/s among the dead letters, by kind")),
        ("versions", any(run.versions), lambda: _over_time(run, run.versions, "rows/s scored, by model version")),
        ("lag", run.lag, lambda: _lag(run)),
        ("psi", len(run.drift) > 1, lambda: _psi(run)),
        ("histograms", run.drift and run.drift[-1].get("histograms"), lambda: histograms(run.drift[-1]["histograms"])),
    ]
    return {name: draw() for name, known, draw in there if known and (wanted is None or name in wanted)}


@contextmanager
def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> Iterator[tuple[Any, io.StringIO]]:
    import matplotlib
    from matplotlib.figure import Figure

    written = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots(rows, columns, squeeze=False), written
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})


def _times(axis: Axes, run: Run) -> np.ndarray:
    """The middles of the bins as dates; the axis is laid out for them."""
    from matplotlib import dates

    edges = run.edges()
    locator = dates.AutoDateLocator(tz=timezone.utc, maxticks=8)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=timezone.utc))
    axis.set_xlim(*(_date(at) for at in run.span))
    return np.array([_date(at) for at in (edges[:-1] + edges[1:]) / 2])


def _date(at: float) -> Any:
    from matplotlib import dates

    return dates.date2num(datetime.fromtimestamp(at, timezone.utc))


def _throughput(run: Run) -> str:
    with _figure(9, 2.4) as (axes, written):
        axis = axes[0, 0]
        x = _times(axis, run)
        axis.fill_between(x, run.a_second(run.rows), step="mid", color=_COLOURS[0], alpha=0.25, linewidth=0)
        axis.plot(x, run.a_second(run.rows), drawstyle="steps-mid", color=_COLOURS[0], label="in")
        out = [sum(one.values()) for one in run.versions]
        if sum(out) != sum(run.rows):
            axis.plot(x, run.a_second(out), drawstyle="steps-mid", color=_COLOURS[2], linewidth=1, label="out")
            axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        axis.set_ylim(bottom=0)
        axis.set_title("rows/s")
        _marks(axis, run)
    return written.getvalue()


def _latency(run: Run) -> str:
    with _figure(9, 2.8) as (axes, written):
        axis = axes[0, 0]
        x = _times(axis, run)
        parts = {
            name: np.nan_to_num(run.by_bin(run.milliseconds(name), np.mean)) for name in run.stages if name != "total"
        }
        if parts:
            colours = [_COLOURS[i % len(_COLOURS)] for i in range(len(parts))]
            axis.stackplot(x, *parts.values(), labels=list(parts), colors=colours, alpha=0.75, step="mid", linewidth=0)
        total = run.milliseconds("total")
        for how, style, label in ((np.median, "-", "total, p50"), (_p99, ":", "total, p99")):
            axis.plot(
                x, run.by_bin(total, how), style, color="#222222", linewidth=1.1, marker=".", markersize=2, label=label
            )
        axis.set_ylim(bottom=0)
        axis.set_title("milliseconds of a batch, by stage (means)")
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        _marks(axis, run)
    return written.getvalue()


def _p99(values: np.ndarray) -> float:
    return float(np.quantile(values, 0.99))


def _over_time(run: Run, counts: Sequence[Mapping[str, int]], title: str) -> str:
    """Stacked areas of rows a second."""
    names = list(totals(counts))
    series = {name: run.a_second(one.get(name, 0) for one in counts) for name in names[:SERIES]}
    if len(names) > SERIES:
        rest = [sum(one.get(name, 0) for name in names[SERIES:]) for one in counts]
        series[f"{len(names) - SERIES} others"] = run.a_second(rest)
    with _figure(9, 2.1) as (axes, written):
        axis = axes[0, 0]
        x = _times(axis, run)
        colours = [_COLOURS[i % len(_COLOURS)] for i in range(len(series))]
        axis.stackplot(
            x, *series.values(), labels=[_short(name) for name in series], colors=colours, step="mid", linewidth=0
        )
        axis.set_ylim(bottom=0)
        axis.set_title(title)
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return written.getvalue()


def _lag(run: Run) -> str:
    with _figure(9, 1.8) as (axes, written):
        axis = axes[0, 0]
        _times(axis, run)
        step = max(1, len(run.lag) // 1000)
        axis.plot([_date(at) for at, _ in run.lag[::step]], [rows for _, rows in run.lag[::step]], color=_COLOURS[3])
        axis.set_ylim(bottom=0)
        axis.set_title("rows behind the end of the source")
    return written.getvalue()


def _psi(run: Run) -> str:
    """Over time, of the features that are worst at the end."""
    names = [one["feature"] for one in run.drift[-1]["features"][:6]]
    step = max(1, len(run.drift) // 500)
    with _figure(9, 2.2) as (axes, written):
        axis = axes[0, 0]
        _times(axis, run)
        for number, name in enumerate(names):
            told = [
                (_date(event["time"]), one["psi"])
                for event in run.drift[::-1][::step][::-1] for one in event["features"] if one["feature"] == name
            ]  # fmt: skip
            axis.plot(*zip(*told, strict=True), marker=".", markersize=3, color=_COLOURS[number], label=_short(name))
        for level, style in ((PSI_LITTLE, ":"), (PSI_MUCH, "--")):
            axis.axhline(level, color="#999999", linestyle=style, linewidth=1)
        axis.set_ylim(bottom=0)
        axis.set_title(f"PSI against the training sample (lines: {PSI_LITTLE:g}, {PSI_MUCH:g})")
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return written.getvalue()


def histograms(told: Mapping[str, Mapping[str, Sequence[float]]], most: int = 6) -> str:
    """Shares of the rows by bin, in training and now, a feature a picture; told: see ``drift.Edges.histogram``."""
    names = list(told)[:most]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with _figure(3.1 * columns, 1.9 * rows, rows, columns) as (axes, written):
        for axis in axes.flat[len(names) :]:
            axis.set_axis_off()
        for number, name in enumerate(names):
            axis, then, now = axes.flat[number], told[name]["then"], told[name]["now"]
            kept = len(then) if then[-1] or now[-1] else len(then) - 1  # missing rows, if there are some
            shown = [i for i in range(kept) if then[i] or now[i]]
            x = np.arange(len(shown))
            axis.bar(x - 0.2, [then[i] for i in shown], 0.4, color="#b9c3cf", label="training")
            axis.bar(x + 0.2, [now[i] for i in shown], 0.4, color=_COLOURS[1], label="now")
            labels = _bins(told[name]["bounds"], by_value=bool(told[name].get("by_value")))
            every = max(1, -(-len(shown) // 4))
            ticks = sorted({*range(0, len(shown), every), len(shown) - 1})
            axis.set_xticks(ticks, [labels[shown[i]] for i in ticks], fontsize=7)
            axis.grid(axis="x", visible=False)
            axis.set_title(_short(name))
            if not number:
                axis.legend(loc="upper left")
    return written.getvalue()


def _bins(bounds: Sequence[float], *, by_value: bool) -> list[str]:
    """A label for each bin, missing rows last."""
    texts = [f"{bound:.3g}" for bound in bounds]
    if not texts:
        return ["all", "missing"]
    if by_value:
        values = (f"{(low + high) / 2:.3g}" for low, high in pairwise(bounds))
        return [f"<{texts[0]}", *values, f">{texts[-1]}", "missing"]
    return [f"≤{texts[0]}", *(f"≤{text}" for text in texts[1:]), f">{texts[-1]}", "missing"]


def _marks(axis: Axes, run: Run) -> None:
    """Where the model changed, and where something was wrong."""
    colours = {"serves": "#4c9f70", "refused": "#c4504f", "alert": "#c4504f", "started": "#999999"}
    for at, what, _ in run.happened[-200:]:
        if what in colours and run.span[0] < at < run.span[1]:
            axis.axvline(
                _date(at), color=colours[what], linewidth=0.8, linestyle="--" if what == "alert" else "-", zorder=0
            )


def _short(name: str) -> str:
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    return name if len(name) <= 28 else f"{name[:18]}…{name[-9:]}"
