"""matplotlib's part: figures as PNG files, in colours that colour-blind people tell apart, dark on white wherever they are."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkdl.showing import encoding

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sparkdl.showing.evaluation import Confusion, Roc

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")  # Okabe and Ito's
_LINES = ("-", "--", "-.", ":")
_DPI = 100
_WRITTEN = 12  # classes up to which counts are written into the cells


@contextmanager
def style() -> Iterator[None]:
    """How figures look, within. Raises SparkdlError if matplotlib is missing."""
    matplotlib = encoding.needed("matplotlib")
    cycler = encoding.needed("cycler")
    with matplotlib.rc_context({
        "axes.prop_cycle": cycler.cycler(color=COLOURS), "axes.spines.top": False, "axes.spines.right": False,
        "figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white", "text.parse_math": False,
        "font.size": 9, "axes.titlesize": 10,
    }):  # fmt: skip
        yield


def new(width: float, height: float) -> Figure:
    """A figure of so many inches, without pyplot."""
    figure: Figure = encoding.needed("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    return figure


def png(figure: Figure, dpi: int = _DPI) -> bytes:
    """The figure as a file, of few colours: a paragraph of Zeppelin has 100 kB for all it shows."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    return encoding.with_few_colours(drawn.getvalue())


def confusion(found: Confusion) -> bytes:
    """Labels down, predictions across; the darker, the larger the share of the label's rows."""
    with style():
        many = len(found.names)
        side = min(max(3.0, 0.45 * many + 1.5), 9.0)
        figure = new(side + 0.8, side)
        axis = figure.subplots()
        shares = found.counts / np.maximum(found.counts.sum(axis=1, keepdims=True), 1)
        image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axis.set_xticks(range(many), found.names, rotation=90 if max(map(len, found.names)) > 3 else 0)
        axis.set_yticks(range(many), found.names)
        axis.set_xlabel("predicted class")
        axis.set_ylabel("label")
        axis.spines[:].set_visible(False)
        if many <= _WRITTEN:
            for (row, column), share in np.ndenumerate(shares):
                if found.counts[row, column]:
                    colour = "white" if share > 0.6 else "black"
                    axis.text(
                        column, row, f"{found.counts[row, column]:,}", ha="center", va="center", color=colour, size=8
                    )
        figure.colorbar(image, ax=axis, label="share of the label's rows", shrink=0.8)
        return png(figure)


def roc(curves: Sequence[Roc]) -> bytes:
    """Share of positives found over share of negatives taken for positive."""
    with style():
        figure = new(4.6, 4.2)
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], ":", color="0.5", linewidth=1, label="chance")
        for i, curve in enumerate(curves):
            label = f"class {curve.name}: AUC {curve.auc:.4f}" if len(curves) > 1 else f"AUC {curve.auc:.4f}"
            axis.plot(curve.false_positive, curve.true_positive, _LINES[i // len(COLOURS) % 4], label=label)
        axis.set_xlabel("false positive rate")
        axis.set_ylabel("true positive rate")
        axis.set_aspect("equal")
        axis.set_title("ROC")
        axis.legend(fontsize="small", loc="lower right")
        return png(figure)


def spectrogram(sounds: Sequence[tuple[np.ndarray, int, str]]) -> bytes:
    """One below the other: samples ``(samples,)``, their rate, a caption."""
    signal = encoding.needed("scipy.signal")
    with style():
        figure = new(7.2, 2.6 * len(sounds))
        for axis, (samples, rate, caption) in zip(
            np.ravel(figure.subplots(len(sounds), squeeze=False)), sounds, strict=True
        ):
            window = min(512, len(samples))
            frequencies, _, power = signal.spectrogram(samples, rate, nperseg=window, noverlap=window // 2)
            decibels = 10 * np.log10(np.maximum(power, power.max(initial=0) * 1e-8 or 1e-12))
            extent = (0.0, len(samples) / rate, frequencies[0], frequencies[-1])
            image = axis.imshow(decibels, origin="lower", aspect="auto", extent=extent, cmap="cividis")
            axis.set_xlabel("time, s")
            axis.set_ylabel("frequency, Hz")
            axis.set_title(caption, loc="left")
            figure.colorbar(image, ax=axis, label="power, dB")
        return png(figure)


def of_figure(figure: Any) -> bytes:
    """A user's own figure, as it would be saved."""
    return png(figure, dpi=min(_DPI, int(1200 / max(figure.get_figwidth(), 1))))
