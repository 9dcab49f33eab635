"""One Zeppelin interpreter for all tests of a run, and the paragraphs that they begin with."""

import os
import shutil

import kafka
import pytest
from paragraphs import FRAME, Interpreter

from sparkdl import system


@pytest.fixture(scope="session")
def zeppelin(tmp_path_factory):
    """A running Interpreter. Without its jars, or a Java compiler, the tests are skipped; with CI=true they fail."""
    folder, reason = kafka.fetched("zeppelin")
    if folder is None:
        reason = f"no jars of Zeppelin: {reason}"
    elif shutil.which("javac", path=system.java_path(os.environ)) is None:
        folder, reason = None, "there is a Java, and no compiler of it (javac)"
    if folder is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    made = Interpreter(tmp_path_factory.mktemp("zeppelin") / "interpreter", folder)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def begun(zeppelin):
    """The interpreter, with `df`, a class `Net` and `estimator` of paragraphs before."""
    paragraph = zeppelin.run(FRAME)
    assert paragraph.code == "SUCCESS", paragraph.text
    assert paragraph.text == ""  # nothing is told by an import
    return zeppelin


@pytest.fixture(scope="session")
def trained(begun):
    """The paragraph that trained `model` in 25 epochs, with a line of its own before and after."""
    return begun.run("print('before')\nmodel = estimator(epochs=25).fit(df)\nprint('after')")
