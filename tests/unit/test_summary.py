"""What a fit was like, from what its bundle remembers: frame, figures, table, picture."""

import math
import subprocess
import sys

import pandas as pd
import pytest

from sparkdl.train.summary import TrainingSummary


def entry(epoch, **more):
    phases = {"data": 0.5, "compute": 1.0, "all_reduce": 0.25, "validation": 0.5, "checkpoint": 0.25}
    return {
        "epoch": epoch, "loss": 1 / (epoch + 1), "accuracy": 0.5, "val_loss": 0.5 + abs(epoch - 2), "val_accuracy": 0.75,
        "val_f1": 0.25, "lr": 0.1, "rows": 400, "seconds": 2.0, "phases": phases, **more,
    }  # fmt: skip


TRAINING = {
    "history": [entry(epoch) for epoch in range(5)],
    "settings": {"epochs": 9},
    "rows": 400,
    "validation_rows": 100,
    "phases": {"materialise": 3.0, "launch": 5.0, "training": 14.0},
    "best_epoch": 2,
    "monitor": "val_loss",
    "attempts": [{"ranks": 2, "error": "rank 1 on b was lost"}, {"ranks": 2, "error": None}],
}
SHORT = {"history": [{"epoch": 0, "loss": 0.5, "rows": 40, "seconds": 0.5}], "rows": 40}  # as older bundles have it


@pytest.fixture
def summary():
    return TrainingSummary(TRAINING)


def test_the_history_is_a_frame_with_an_epoch_a_row(summary):
    history = summary.history
    assert isinstance(history, pd.DataFrame)
    assert history["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert list(history) == [
        "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "val_f1", "lr", "rows", "seconds",
        "data_s", "compute_s", "all_reduce_s", "validation_s", "checkpoint_s",
    ]  # fmt: skip
    assert history["compute_s"].sum() == 5.0
    assert history["val_loss"].idxmin() == summary.bestEpoch
    history["loss"] = 0  # is the caller's own
    assert summary.history["loss"][0] == 1.0


def test_the_phases_add_up_to_the_whole_fit(summary):
    assert summary.phases == {
        "materialise": 3.0, "launch": 5.0, "data": 2.5, "compute": 5.0, "all_reduce": 1.25, "validation": 2.5,
        "checkpoint": 1.25, "other": 1.5,
    }  # fmt: skip
    assert sum(summary.phases.values()) == sum(TRAINING["phases"].values())


def test_a_resumed_fit_has_epochs_of_the_one_before_and_no_negative_time():
    assert TrainingSummary({**TRAINING, "phases": {"training": 2.0}}).phases["other"] == 0.0


def test_figures(summary):
    assert summary.rowsPerSecond == 200.0
    assert (summary.bestEpoch, summary.totalEpochs) == (2, 5)
    assert [attempt["error"] for attempt in summary.attempts] == ["rank 1 on b was lost", None]


def test_a_bundle_that_remembers_less():
    short = TrainingSummary(SHORT)
    assert (short.bestEpoch, short.totalEpochs, short.attempts, short.phases) == (None, 1, [], {})
    assert short.rowsPerSecond == 80.0
    assert "1 epoch of 40 rows" in repr(short)
    assert len(short.plot().axes) == 1


def test_a_bundle_that_was_not_trained_here():
    empty = TrainingSummary({})
    assert (empty.bestEpoch, empty.totalEpochs, len(empty.history)) == (None, 0, 0)
    assert math.isnan(empty.rowsPerSecond)
    assert repr(empty) == "no history: this model was not trained by sparkdl"
    assert empty._repr_html_() == f"<p>{empty!r}</p>"
    assert empty.plot() is not None


def test_the_table(summary):
    head, columns, *rows, foot = repr(summary).split("\n")
    assert head == (
        "5 epochs of 400 rows, 100 rows for validation, 200 rows/s, best epoch 2 (val_loss 0.5), 2 attempts"
    )
    assert columns.split() == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "val_f1", "lr", "seconds"]
    assert [row.split()[:2] for row in rows] == [["0", "1"], ["1", "0.5"], ["2", "0.3333"], ["3", "0.25"], ["4", "0.2"]]
    assert foot == (
        "seconds: materialise 3.0, launch 5.0, data 2.5, compute 5.0, all_reduce 1.2, validation 2.5, checkpoint 1.2, "
        "other 1.5"
    )


def test_a_long_history_keeps_its_table_short():
    long = TrainingSummary({"history": [entry(epoch) for epoch in range(500)], "rows": 400})
    assert repr(long).count("\n") < 40
    assert "499" in repr(long)


def test_the_table_in_a_notebook(summary):
    text = TrainingSummary({**TRAINING, "history": [entry(e, **{"<b>": 0.5}) for e in range(3)]})._repr_html_()
    assert text.startswith("<p>3 epochs of 400 rows")
    assert "<table" in text
    assert "<b>" not in text
    assert "&lt;b&gt;" in text


def lines(axis):
    return {
        line.get_label(): list(line.get_ydata()) for line in axis.get_lines() if not line.get_label().startswith("_")
    }


def test_the_picture(summary, tmp_path):
    figure = summary.plot()
    losses, metrics, phases = figure.axes
    drawn = lines(losses)
    assert drawn.keys() == {"loss", "val_loss", "best: epoch 2"}
    assert drawn["val_loss"] == [2.5, 1.5, 0.5, 1.5, 2.5]
    assert drawn["best: epoch 2"] == [0.5]
    assert lines(metrics).keys() == {"accuracy", "val_accuracy", "val_f1"}
    seconds = {
        label.get_text(): bar.get_width() for label, bar in zip(phases.get_yticklabels(), phases.patches, strict=True)
    }
    assert seconds == {name.replace("_", " "): value for name, value in summary.phases.items()}
    figure.savefig(tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_epoch_is_marked_where_its_figure_is_drawn():
    losses, metrics, _ = TrainingSummary({**TRAINING, "monitor": "val_f1", "best_epoch": 3}).plot().axes
    assert "best: epoch 3" not in lines(losses)
    assert lines(metrics)["best: epoch 3"] == [0.25]


def test_the_losses_on_axes_of_ones_own(summary):
    from matplotlib.figure import Figure

    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert summary.plot(ax=right) is figure
    assert lines(right).keys() == {"loss", "val_loss", "best: epoch 2"}
    assert not left.get_lines()


PLOT = """
import os, sys
os.environ.pop("DISPLAY", None)
import matplotlib
before = matplotlib.rcParams._get("backend") if hasattr(matplotlib.rcParams, "_get") else None
from sparkdl.train.summary import TrainingSummary
TrainingSummary({"history": [{"epoch": 0, "loss": 0.5, "rows": 40, "seconds": 0.5}]}).plot().savefig("/dev/null", format="png")
after = matplotlib.rcParams._get("backend") if hasattr(matplotlib.rcParams, "_get") else None
print("matplotlib.pyplot" in sys.modules, before is after)
"""


def test_a_picture_needs_no_display_and_touches_no_backend():
    done = subprocess.run([sys.executable, "-c", PLOT], capture_output=True, text=True)
    assert done.stdout == "False True\n", done.stderr


def test_a_picture_without_matplotlib_says_what_to_install(summary, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        summary.plot()
