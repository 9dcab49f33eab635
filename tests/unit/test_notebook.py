"""Where this Python runs: Zeppelin in both its modes, Jupyter, a terminal. tests/zeppelin asks a real interpreter."""

import subprocess
import sys
import types

import pytest

from sparkdl import bars, notebook
from sparkdl.train.progress import FitProgress


class Bar:
    """What of Zeppelin's interpreter context takes the progress."""

    def __init__(self):
        self.seen = []

    def setProgress(self, percent):
        self.seen.append(percent)


class PyZeppelinContext:
    """As zeppelin_context.py has it."""

    def __init__(self):
        self.bar = Bar()

    def getInterpreterContext(self):
        return self.bar


class PySparkZeppelinContext(PyZeppelinContext):
    """As zeppelin_pyspark.py has it."""


@pytest.fixture
def main(monkeypatch):
    """An empty `__main__`."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


@pytest.fixture
def no_ipython(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)


def vanilla(module, context):
    module._zcUserQueryNameSpace = {"__zeppelin__": context}


def ipython(module, context):
    module.__zeppelin__ = context


@pytest.mark.parametrize("mode", [vanilla, ipython])
@pytest.mark.parametrize("kind", [PyZeppelinContext, PySparkZeppelinContext])
def test_a_paragraph_of_either_mode_is_zeppelin(main, mode, kind):
    context = kind()
    mode(main, context)
    assert notebook.place() == "zeppelin"
    assert notebook.zeppelin_context() is context


@pytest.mark.parametrize("mode", [vanilla, ipython])
def test_a_name_alone_is_not_zeppelin(main, no_ipython, mode):
    mode(main, object())
    assert notebook.zeppelin_context() is None
    assert notebook.place() == "terminal"


def test_progress_is_a_whole_number_from_0_to_100(main):
    context = PyZeppelinContext()
    vanilla(main, context)
    for percent in (-1, 0, 33.4, 99.7, 250):
        notebook.set_progress(percent)
    assert context.bar.seen == [0, 0, 33, 100, 100]
    assert all(type(percent) is int for percent in context.bar.seen)  # Py4J finds no setProgress(double)


def test_outside_zeppelin_there_is_no_progress_to_set(main, no_ipython):
    notebook.set_progress(50)
    assert notebook.zeppelin_context() is None


@pytest.mark.parametrize(("shell", "place"), [
    (types.SimpleNamespace(kernel=object()), "jupyter"), (types.SimpleNamespace(), "terminal"), (None, "terminal"),
])  # fmt: skip
def test_jupyter_is_ipython_with_a_kernel(main, monkeypatch, shell, place):
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert notebook.place() == place


def test_zeppelins_ipython_is_zeppelin_although_it_has_a_kernel(main, monkeypatch):
    kernel = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: kernel))
    ipython(main, PyZeppelinContext())
    assert notebook.place() == "zeppelin"


def test_a_script_runs_in_a_terminal():
    code = "from sparkdl import notebook; notebook.set_progress(1); print(notebook.place())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "terminal\n"


@pytest.mark.parametrize(("epochs", "lines"), [(1, 1), (20, 20), (21, 12), (1000, 21)])
def test_a_paragraph_is_told_of_some_twenty_epochs_the_first_and_the_last_among_them(main, capsys, epochs, lines):
    vanilla(main, PyZeppelinContext())
    shown = FitProgress(epochs, 10)
    for epoch in range(epochs):
        shown({"kind": "progress", "event": "epoch", "epoch": epoch, "loss": 0.5, "rows": 10, "seconds": 1.0})
    shown.close()
    told = capsys.readouterr()
    words = told.out.splitlines()
    assert len(words) == lines
    assert words[0].startswith(f"epoch 1/{epochs}  loss 0.5000")
    assert words[-1].startswith(f"epoch {epochs}/{epochs}  ")
    assert told.err == ""  # no bar of text


def test_the_paragraphs_bar_ends_where_the_work_does(main):
    context = PyZeppelinContext()
    vanilla(main, context)
    bar = bars.of_rows(400, "scoring")
    bar.update(100)
    bar.close()
    assert context.bar.seen[0] == 0
    assert context.bar.seen[-1] == 25
    whole = bars.of_rows(400, "scoring")
    whole.update(400)
    whole.close()
    assert context.bar.seen[-1] == 100
