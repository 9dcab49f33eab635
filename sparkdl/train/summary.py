"""What a fit was like: ``TorchModel.summary``."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sparkdl.train.loggers import flat

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BESIDE = ("epoch", "loss", "val_loss", "lr", "rows", "seconds", "phases")
_MOST_LINES = 10  # of metrics in one panel, as many as there are colours
_MOST_ROWS = 30
_MOST_COLUMNS = 9


class TrainingSummary:
    """A fit's history and times, from what its bundle remembers of it. In a notebook it shows itself as a table."""

    def __init__(self, training: Mapping[str, Any]) -> None:
        self._training = training
        self._entries = list(training.get("history", []))

    @property
    def history(self) -> pd.DataFrame:
        """A row an epoch: ``epoch`` from 0, ``loss``, the metrics, ``val_…`` of the validation rows, ``lr``, ``rows``,
        ``seconds`` (of the training part), and the seconds of rank 0's phases: ``data_s``, ``compute_s``, ``all_reduce_s``,
        ``validation_s``, ``checkpoint_s``."""
        import pandas as pd

        return pd.DataFrame([flat(entry) for entry in self._entries])

    @property
    def phases(self) -> dict[str, float]:
        """Seconds in all of each phase, which add up to the fit's: ``materialise``, ``launch``, the phases of all epochs,
        and ``other``: what ranks did beside, and epochs that were lost with them."""
        whole: Mapping[str, float] = self._training.get("phases", {})
        found = {name: seconds for name, seconds in whole.items() if name != "training"}
        for entry in self._entries:
            for name, seconds in entry.get("phases", {}).items():
                found[name] = found.get(name, 0.0) + seconds
        if "training" in whole:
            epochs = sum(seconds for name, seconds in found.items() if name not in whole)
            found["other"] = max(0.0, whole["training"] - epochs)
        return found

    @property
    def rowsPerSecond(self) -> float:
        """Rows of all ranks to a second of training, over all epochs; validation and checkpoints apart. NaN if unknown."""
        seconds = sum(entry["seconds"] for entry in self._entries)
        return sum(entry["rows"] for entry in self._entries) / seconds if seconds else float("nan")

    @property
    def bestEpoch(self) -> int | None:
        """The epoch, from 0, whose weights the model has, if one was chosen by ``monitor``; None if they are the last's."""
        best = self._training.get("best_epoch")
        return None if best is None else int(best)

    @property
    def totalEpochs(self) -> int:
        """How many epochs were trained; fewer than asked if ``patience`` or a callback ended it."""
        return len(self._entries)

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """A dictionary a launch: ``ranks``, and ``error``, None for one that ended well."""
        return [dict(attempt) for attempt in self._training.get("attempts", [])]

    def plot(self, ax: Axes | None = None) -> Figure:
        """The losses over the epochs, the best one marked; the metrics; and the seconds of each phase. As a Figure, by
        matplotlib without pyplot: nothing of its state changes, and no display is needed. ``figure.savefig(path)`` saves it.

        ax: where to draw the losses, and nothing else; returns its figure.
        """
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "plot needs matplotlib, which this Python does not have: pip install matplotlib", name="matplotlib"
            ) from error
        from matplotlib.ticker import MaxNLocator

        history = self.history
        if ax is not None:
            self._plot_lines(ax, history, ["loss"])
            figure = ax.get_figure(root=True)
            assert isinstance(figure, Figure)  # axes have one as long as they are not removed
            return figure
        panels = [group for group in (["loss"], self._metrics()) if group]
        phases = self.phases
        figure = Figure(figsize=(4.2 * (len(panels) + bool(phases)), 3.4), layout="constrained")
        axes = figure.subplots(1, len(panels) + bool(phases), squeeze=False)[0]
        for axis, group in zip(axes, panels, strict=False):
            self._plot_lines(axis, history, group)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if phases:
            _plot_phases(axes[-1], phases)
        return figure

    def _plot_lines(self, axis: Axes, history: pd.DataFrame, names: list[str]) -> None:
        """Figures over the epochs: of the training rows dashed, of the validation rows solid, in one colour."""
        axis.set_xlabel("epoch")
        axis.set_title("loss" if names == ["loss"] else "metrics")
        best, monitor = self.bestEpoch, self._training.get("monitor")
        for number, name in enumerate(names):
            for column, style in ((name, "--"), (f"val_{name}", "-")):
                if column in history:
                    colour = f"C{number}"
                    axis.plot(
                        history["epoch"], history[column].astype(float), style, marker=".", color=colour, label=column
                    )
                    if column == monitor and best is not None:
                        value = float(history.loc[history["epoch"] == best, column].iloc[0])
                        axis.plot([best], [value], "*", color=colour, markersize=13, label=f"best: epoch {best}")
        if best is not None:
            axis.axvline(best, color="0.7", linewidth=1, zorder=0)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize="small")

    def __repr__(self) -> str:
        parts = [self._headline()]
        if self._entries:
            parts.append(self._table().to_string(index=False, float_format=_short, max_rows=_MOST_ROWS))
        if self.phases:
            parts.append("seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.phases.items()))
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        head, *rest = repr(self).split("\n")
        if not self._entries:
            return f"<p>{html.escape(head)}</p>"
        table = self._table().to_html(index=False, float_format=_short, max_rows=_MOST_ROWS, border=0)
        foot = f"<p>{html.escape(rest[-1])}</p>" if self.phases else ""
        return f"<p>{html.escape(head)}</p>\n{table}\n{foot}"

    def _metrics(self) -> list[str]:
        """The metrics' names, without ``val_``."""
        names = [name.removeprefix("val_") for entry in self._entries for name in entry if name not in _BESIDE]
        return list(dict.fromkeys(names))[:_MOST_LINES]

    def _table(self) -> pd.DataFrame:
        """As much of the history as a page is wide: the figures, then learning rate and seconds."""
        last = [name for name in ("lr", "seconds") if any(name in entry for entry in self._entries)]
        names = dict.fromkeys(
            name for entry in self._entries for name in entry if name not in ("rows", "phases", *last)
        )
        return self.history[[*list(names)[: _MOST_COLUMNS - len(last)], *last]]

    def _headline(self) -> str:
        if not self._entries:
            return "no history: this model was not trained by sparkdl"
        rows, apart = self._training.get("rows", self._entries[-1]["rows"]), self._training.get("validation_rows", 0)
        told = [f"{self.totalEpochs} epoch{'s' if self.totalEpochs > 1 else ''} of {rows:,} rows"]
        told += [f"{apart:,} rows for validation"] if apart else []
        told.append(f"{self.rowsPerSecond:,.0f} rows/s")
        best, monitor = self.bestEpoch, self._training.get("monitor")
        if best is not None:
            value = next((entry.get(monitor) for entry in self._entries if entry["epoch"] == best), None)
            told.append(f"best epoch {best}" + (f" ({monitor} {value:.4g})" if value is not None else ""))
        if len(self.attempts) > 1:
            told.append(f"{len(self.attempts)} attempts")
        return ", ".join(told)


def _short(value: float) -> str:
    return f"{value:.4g}"


def _plot_phases(axis: Axes, phases: Mapping[str, float]) -> None:
    names = list(phases)[::-1]  # the first on top
    bars = axis.barh([name.replace("_", " ") for name in names], [phases[name] for name in names], color="C7")
    axis.bar_label(bars, [f"{phases[name]:.1f}" for name in names], padding=2, fontsize="small")
    axis.margins(x=0.15)
    axis.set_title("seconds in all")
