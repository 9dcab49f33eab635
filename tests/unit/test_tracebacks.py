"""What a paragraph shows of an error: the user's frames and the error's words, all of it when asked."""

import os
import subprocess
import sys
import textwrap

import pytest

from sparkdl import tracebacks
from sparkdl.errors import DataError, LaunchError, SignatureError, did_you_mean

JVM = (
    "An error occurred while calling o65.collectToPython.\n: org.apache.spark.SparkException: Job aborted due to stage failure: "
    "Task 0 in stage 3.0 failed 1 times\nDriver stacktrace:\n"
    + "\tat org.apache.spark.scheduler.DAGScheduler.$anonfun$abortStage$2(DAGScheduler.scala:2972)\n" * 150
    + "Caused by: org.apache.spark.SparkException: Task 0 in stage 3.0 failed 1 times\n\tat org.apache.spark.A.b(A.scala:1)\n"
    + "Caused by: java.io.IOException: No space left on device\n\t... 12 more\n"
)


def raised(function):
    """What `function` raises, with its traceback."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        function()
    return caught.value


def test_a_cause_from_the_jvm_is_left_out():
    def fail():
        try:
            raise RuntimeError(JVM)
        except RuntimeError as error:
            raise LaunchError("the Spark job that ran the 2 ranks failed: gone") from error

    told = tracebacks.shortened(raised(fail))
    assert "sparkdl.errors.LaunchError: the Spark job that ran the 2 ranks failed: gone" in told
    assert "\tat " not in told
    assert len(told.splitlines()) < 30


def test_the_jvms_stack_is_left_out_of_an_error_of_sparks_own():
    told = tracebacks.shortened(RuntimeError(JVM))
    assert "Job aborted due to stage failure: Task 0" in told
    assert "DAGScheduler" not in told
    assert "more" not in told
    causes = [line for line in told.splitlines() if line.startswith("Caused by")]
    assert causes == ["Caused by: java.io.IOException: No space left on device"]  # the other one was told already


def test_frames_of_the_user_stay_and_those_of_libraries_go():
    code = compile("def mine(call):\n    call()\n", "<stdin>", "exec")
    names = {}
    exec(code, names)

    told = tracebacks.shortened(raised(lambda: names["mine"](lambda: did_you_mean("a", None))))
    assert 'File "<stdin>", line 2, in mine' in told
    assert "errors.py" not in told


def test_a_cause_in_the_users_code_is_told_after_the_error():
    names = {}
    exec(compile("def forward(x):\n    raise ValueError('oh no')\n", "<stdin>", "exec"), names)

    def fail():
        try:
            names["forward"](1)
        except ValueError as error:
            raise SignatureError(
                "the model does not take these inputs", column=None, expected=None, got=None
            ) from error

    told = tracebacks.shortened(raised(fail))
    assert told.index("SignatureError: the model") < told.index("because of") < told.index("ValueError: oh no")


def test_what_a_worker_says_is_shortened_too():
    worker = textwrap.dedent("""\
        An exception was thrown from the Python worker:
        Traceback (most recent call last):
          File "/env/lib/python3.11/site-packages/pyspark/python/lib/pyspark.zip/pyspark/worker.py", line 1, in main
            process()
            ^^^^^^^^^
          File "/env/lib/python3.11/site-packages/sparkdl/score/udf.py", line 2, in score
            raise
          File "<stdin>", line 3, in decode
            open(path)
        sparkdl.errors.DataError: row 3: no image
        """)
    told = tracebacks.shortened(RuntimeError(worker))
    assert 'File "<stdin>", line 3, in decode\n    open(path)' in told
    assert "DataError: row 3: no image" in told
    assert "worker.py" not in told
    assert "udf.py" not in told
    assert "^^^" not in told


def test_a_traceback_of_libraries_alone_leaves_no_head():
    error = RuntimeError(
        'a worker failed:\nTraceback (most recent call last):\n  File "/a/site-packages/pyspark/w.py", line 1, in x\n    y()\nE: bad'
    )
    assert tracebacks.shortened(error).startswith("RuntimeError: a worker failed:\nE: bad\n")


def test_a_cancelled_paragraph_says_so_however_pyspark_stumbles_over_it():
    names = {}
    exec(
        compile("def stumble():\n    None.shutdown_socket()\n", "/x/site-packages/py4j/java_gateway.py", "exec"), names
    )

    def fail():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            names["stumble"]()

    for error in (raised(fail), KeyboardInterrupt()):
        told = tracebacks.shortened(error)
        assert "KeyboardInterrupt: the paragraph was cancelled" in told
        assert "AttributeError" not in told


def test_an_error_while_the_paragraph_was_cancelled_keeps_its_words():
    def fail():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ValueError("could not clean up the table t_7")  # noqa: B904

    told = tracebacks.shortened(raised(fail))
    assert told.index("ValueError: could not clean up the table t_7") < told.index(
        "KeyboardInterrupt: the paragraph was cancelled"
    )


def test_no_more_than_60_lines():
    told = tracebacks.shortened(
        DataError("\n".join(map(str, range(1000))), column=None, row=None, file=None, expected=None, got=None)
    )
    assert len(told.splitlines()) <= 62
    assert "\n…\n" in told


PARAGRAPH = """
import os, sys, traceback
sys.modules["__main__"]._zcUserQueryNameSpace = {{}}
class PyZeppelinContext: pass
_zcUserQueryNameSpace["__zeppelin__"] = PyZeppelinContext()
import sparkdl
try:
    {fails}
except BaseException:
    print(traceback.format_exc())
print("LAST", "frame_of_error" in sparkdl.tracebacks.last_error())
"""


def in_zeppelin(fails, **environment):
    code = PARAGRAPH.format(fails=fails)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_in_zeppelin_an_error_of_ours_is_short_and_the_whole_is_kept():
    told = in_zeppelin("def frame_of_error(): raise sparkdl.SparkdlError('bad')\n    frame_of_error()")
    assert "SparkdlError: bad" in told
    assert "sparkdl.tracebacks.last_error()" in told
    assert "LAST True" in told


@pytest.mark.parametrize("environment", [{}, {"SPARKDL_TRACEBACK": "full"}])
def test_other_errors_and_all_errors_where_asked_are_as_ever(environment):
    told = in_zeppelin("1 / 0" if not environment else "raise sparkdl.SparkdlError('bad')", **environment)
    assert "last_error()" not in told
    assert "Traceback (most recent call last)" in told
    assert "LAST False" in told


IPYTHON = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.set_custom_exc((ZeroDivisionError,), lambda shell, kind, *rest, tb_offset=None: print("THEIRS", kind.__name__))
from sparkdl import tracebacks
tracebacks._shorten_in_ipython(shell)
shell.run_cell("{cell}")
"""


@pytest.mark.parametrize(
    ("cell", "said", "most"),
    [
        ("1 / 0", "THEIRS ZeroDivisionError", 1),
        ("import sparkdl; raise sparkdl.SparkdlError('bad')", "SparkdlError: bad", 6),
        ("raise KeyboardInterrupt", "KeyboardInterrupt: the paragraph was cancelled", 5),
        ("int('x')", "ValueError", 20),
    ],
)
def test_ipython_shows_ours_in_short_and_the_rest_as_it_did(cell, said, most):
    code = IPYTHON.format(cell=cell)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said in done.stdout
    assert len(done.stdout.splitlines()) <= most


def test_outside_zeppelin_nothing_changes():
    code = "import traceback; before = traceback.format_exc; import sparkdl, __main__; print(__main__.traceback is traceback)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
