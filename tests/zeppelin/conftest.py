"""One Zeppelin interpreter for all tests of a run."""

import os
import re
import shutil

import kafka
import pytest
from paragraphs import Interpreter


@pytest.fixture(scope="session")
def zeppelin(tmp_path_factory):
    """A running Interpreter. Without its jars, or a Java compiler, the tests are skipped; with CI=true they fail."""
    folder, reason = kafka.fetched("zeppelin")
    if folder is None:
        reached = re.search(r"Could not find artifact|Maven gave", reason)
        reason = f"Maven Central {'does not serve the jars' if reached else 'cannot be reached'}: {reason}"
    elif shutil.which("javac") is None and not os.environ.get("JAVA_HOME"):
        folder, reason = None, "there is a Java, and no compiler of it (javac)"
    if folder is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    made = Interpreter(tmp_path_factory.mktemp("zeppelin") / "interpreter", folder)
    yield made
    made.stop()
