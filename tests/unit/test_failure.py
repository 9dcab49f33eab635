"""Of several ranks that failed the one that caused it is named, with its own error and traceback."""

import pickle
import threading

import pytest

from sparkdl.errors import DataError, NonFiniteLossError, RankFailedError, SparkdlError
from sparkdl.train.failure import Failure, Loss, first, is_echo, loss_in


class HorovodInternalError(RuntimeError):
    """As Horovod's own, known by its name."""


class MineError(SparkdlError):
    """A user's subclass."""


def failure(rank=0, at=0.0, echo=False):
    return Failure(rank, "host", at, echo, "", None)


@pytest.mark.parametrize(
    ("failures", "rank"),
    [
        ([failure(1)], 1),
        ([failure(0, at=2), failure(1, at=1)], 1),  # the earlier
        ([failure(0, at=1, echo=True), failure(1, at=2)], 1),  # an echo is never the cause, however early
        ([failure(2, at=1), failure(1, at=1)], 1),  # at the same time: the lower rank
        ([failure(1, at=2, echo=True), failure(0, at=3, echo=True)], 1),  # all echoes: the first of them
    ],
)
def test_the_first_is_the_cause(failures, rank):
    assert first(failures).rank == rank
    assert first(iter(failures)).rank == rank


def test_without_failures_there_is_none():
    assert first([]) is None


@pytest.mark.parametrize(
    ("error", "echo"),
    [
        (HorovodInternalError("x"), True),
        (RuntimeError("[../gloo/transport/tcp/pair.cc] Connection closed by peer [127.0.0.1]:1"), True),
        (RuntimeError("[/gloo/rendezvous/context.cc:1] Gloo connectFullMesh failed with …"), True),
        (RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for recv"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ConnectionError("gloo connection"), False),  # the user's own
        (ValueError("HorovodInternalError"), False),
        (NonFiniteLossError("nan"), False),
    ],
)
def test_what_is_an_echo(error, echo):
    assert is_echo(error) is echo
    assert Failure.of(error, 0, "host").echo is echo


def caught(error):
    try:
        raise error
    except Exception as raised:
        return Failure.of(raised, 3, "host7")


def test_an_error_of_ours_comes_back_as_itself_with_the_rank_s_as_its_cause():
    travelled = pickle.loads(pickle.dumps(caught(NonFiniteLossError("the loss became nan", epoch=1, step=2))))
    error = travelled.exception()
    assert type(error) is NonFiniteLossError
    assert (error.epoch, error.step) == (1, 2)
    assert isinstance(error.__cause__, RankFailedError)
    assert error.__cause__.rank == 3


def test_any_other_error_comes_back_as_rank_failed_with_its_traceback():
    travelled = pickle.loads(pickle.dumps(caught(KeyError("patch"))))
    error = travelled.exception()
    assert type(error) is RankFailedError
    assert (error.rank, error.host) == (3, "host7")
    assert "rank 3 on host7 failed" in str(error)
    assert "KeyError: 'patch'" in error.traceback
    assert "in caught" in error.traceback


def test_a_cause_is_told_too():
    try:
        try:
            raise KeyError("patch")
        except KeyError as error:
            raise ValueError("no patch") from error
    except ValueError as error:
        told = Failure.of(error, 0, "host").traceback
    assert told.index("KeyError") < told.index("direct cause") < told.index("ValueError")


def test_an_error_that_cannot_be_pickled_is_told_by_its_traceback():
    travelled = pickle.loads(pickle.dumps(caught(DataError("bad row", got=threading.Lock()))))
    error = travelled.exception()
    assert type(error) is RankFailedError
    assert "bad row" in error.traceback


def test_a_subclass_of_ours_comes_back():
    assert type(caught(MineError("x", why=3)).exception()) is MineError


ABORTED = "Job aborted due to stage failure: Could not recover from a failed barrier ResultStage. Most recent failure reason: "
FAILED = ABORTED + "Stage failed because barrier task ResultTask(3, 1) finished unsuccessfully.\n"


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        (  # seen on Spark 4.3.0 and 3.5.9
            FAILED + "org.apache.spark.SparkException: Python worker exited unexpectedly (crashed). Consider setting …\n"
            "\tat org.apache.spark.api.python.BasePythonRunner.…\nCaused by: java.io.EOFException\n\t... 21 more\n",
            Loss(1, "its Python worker process exited unexpectedly (killed, out of memory, or crashed)"),
        ),
        (
            FAILED + "ExecutorLostFailure (executor 1 exited caused by one of the running tasks) Reason: Command exited "
            "with code 137\nDriver stacktrace:",
            Loss(1, "executor 1 is lost: Command exited with code 137"),
        ),
        (
            FAILED + "ExecutorLostFailure (executor 7 exited unrelated to the running tasks) Reason: worker lost",
            Loss(1, "executor 7 is lost: worker lost"),
        ),
        (FAILED + "java.net.SocketException: Connection reset\n\tat x", Loss(1, "java.net.SocketException: Connection reset")),
        (ABORTED + "something new", Loss(None, ABORTED.removeprefix("Job aborted due to stage failure: ") + "something new")),
        (  # SystemExit in a rank
            FAILED + "org.apache.spark.api.python.PythonException: [PYTHON_EXCEPTION] An exception was thrown from the "
            'Python worker: Traceback (most recent call last):\n  File "x"\nSystemExit: enough',
            None,
        ),
        ("Job aborted due to stage failure: Job 3 cancelled part of cancelled job tags", None),
        ("[CANCELLED] Job 3 cancelled because SparkContext was shut down", None),
        ("An error occurred while trying to connect to the Java server (127.0.0.1:4000)", None),  # the driver itself
        ("", None),
    ],
)  # fmt: skip
def test_what_spark_says_of_a_lost_rank(text, loss):
    assert loss_in(text) == loss
