"""What a fit shows: a bar where someone looks, a line an epoch everywhere; what rank 0 sends of it."""

import subprocess
import sys

import pytest

from sparkdl import bars
from sparkdl.train import messages, progress
from sparkdl.train.progress import FitProgress, Report

ENTRY = {"epoch": 0, "loss": 0.5, "accuracy": 0.75, "val_loss": 0.25, "val_f1": 0.125, "lr": 0.1, "rows": 400,
         "seconds": 2.0, "phases": {"data": 1.0}}  # fmt: skip
LINE = "epoch 1/3  loss 0.5000  accuracy 0.7500  val_loss 0.2500  val_f1 0.1250  200 rows/s\n"


def step(epoch, rows, loss=0.5):
    return {"kind": "progress", "event": "step", "epoch": epoch, "step": 1, "loss": loss, "rows": rows}


def ended(epoch, **more):
    return {"kind": "progress", "event": "epoch", **ENTRY, "epoch": epoch, **more}


@pytest.fixture
def shown(monkeypatch):
    """A FitProgress of 3 epochs of 400 rows with a bar, as in a terminal."""
    monkeypatch.setattr(bars, "is_seen", lambda: True)
    bar = FitProgress(3, 400)
    yield bar
    bar.close()


@pytest.fixture
def logged(monkeypatch):
    monkeypatch.setattr(bars, "is_seen", lambda: False)
    return FitProgress(3, 400)


def test_a_log_gets_lines_alone(logged, capsys):
    logged({"kind": "joined", "backend": "horovod", "size": 2, "device": "cpu"})
    logged(step(0, 100))
    logged(ended(0))
    logged({"kind": "log", "text": "from rank 1"})
    logged({"kind": "retry", "attempt": 1, "of": 2, "ranks": 2, "reason": "rank 1 on b was lost"})
    logged({"kind": "pulse", "rank": 0})  # is for others
    logged.close()
    told = capsys.readouterr()
    assert told.out == (f"2 ranks, Horovod, cpu\n{LINE}from rank 1\nretry 1 of 2 with 2 ranks: rank 1 on b was lost\n")
    assert told.err == ""


def test_the_bar_is_where_the_rows_are(shown):
    places = []
    for message in (step(0, 100), step(0, 300), ended(0), step(1, 100), ended(1), ended(2)):
        shown(message)
        places.append(shown.bar.n)
    assert places == [100, 300, 400, 500, 800, 1200]
    assert shown.bar.total == 1200


def test_the_bar_says_epoch_and_loss_in_one_line(shown):
    shown(step(1, 100, loss=0.125))
    text = str(shown.bar)
    assert "\n" not in text
    assert text.startswith("epoch 2/3:")
    assert "loss 0.1250" in text


def test_a_fit_that_resumes_begins_where_it_was(shown):
    shown(step(2, 100))
    assert (shown.bar.initial, shown.bar.n) == (900, 900)  # so that its rate counts no row of the fit before
    shown(step(2, 200))
    assert (shown.bar.initial, shown.bar.n) == (900, 1000)


def test_ranks_that_are_started_again_go_back_to_their_checkpoint(shown):
    shown(step(0, 100))
    shown(step(2, 100))
    shown({"kind": "retry", "attempt": 1, "of": 2, "ranks": 1, "reason": "lost"})
    shown(step(1, 200))
    assert (shown.bar.initial, shown.bar.n) == (600, 600)


def test_a_line_is_written_beside_the_bar(shown, capsys):
    shown(step(0, 100))
    shown(ended(0))
    assert capsys.readouterr().out.replace("\r", "").endswith(LINE)


def test_of_many_figures_the_line_has_the_first(logged, capsys):
    logged(ended(0, **{f"recall_{c}": 0.5 for c in range(100)}))
    line = capsys.readouterr().out
    assert "recall_3 0.5000  …  200 rows/s" in line
    assert "recall_4" not in line


def test_rank_0_sends_every_epoch_and_few_steps(monkeypatch):
    sent, now = [], [100.0]
    monkeypatch.setattr(
        messages, "send", lambda kind, **content: sent.append((kind, content["event"], content["step"]))
    )
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    report = Report()
    for number in range(10):
        report({"event": "step", "step": number})
        now[0] += 0.04
    report({"event": "epoch", "step": None})
    assert sent == [("progress", "step", number) for number in (0, 3, 6, 9)] + [("progress", "epoch", None)]


NOTEBOOK = """
import sys, types
class Shell:
    config, kernel = {"IPKernelApp": {}}, object()
for name, content in {"IPython": {"get_ipython": Shell}, "ipykernel": {}, "ipykernel.zmqshell": {}}.items():
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(content)
sys.modules["ipywidgets"] = None  # is not installed
from sparkdl.train.progress import FitProgress
shown = FitProgress(3, 400)
shown({"kind": "progress", "event": "step", "epoch": 0, "step": 1, "loss": 0.5, "rows": 100})
shown.bar.refresh()
shown.close()
"""


def test_a_notebook_without_ipywidgets_gets_a_bar_of_text():
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", NOTEBOOK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "epoch 1/3:" in done.stderr
    assert "Warning" not in done.stderr
