"""How a query in real time goes on: Spark's query and the publisher are stood in for, for their failures are what this is about."""

import threading
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from pyspark.errors import StreamingQueryException

from sparkdl import session
from sparkdl.errors import StreamError
from sparkdl.realtime import query as module
from sparkdl.realtime.query import RealtimeQuery
from sparkdl.realtime.tail import Latency
from sparkdl.showing import plain, streams


class Query:
    """Ends with ``failure``, if it has one, else when it is stopped."""

    name = None
    lastProgress = None

    def __init__(self, failure=None):
        self.failure, self.stopped = failure, threading.Event()

    def awaitTermination(self, timeout):
        if self.failure:
            raise StreamingQueryException(self.failure)
        return self.stopped.wait(timeout)

    def stop(self):
        self.stopped.set()


class Publisher:
    version, refused, models = "1", {}, SimpleNamespace(trouble=None)

    def __init__(self, error=None):
        self.error, self.looked = error, threading.Event()

    def look(self):
        self.looked.set()
        if self.error:
            raise self.error


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 0.01)
    monkeypatch.setattr(session, "is_there", lambda: True)


def started(*outcomes, publisher=None, held=None, lacking=None):
    """A query whose launches come to these: a Query, or what is raised; and the list of those that are left."""
    left = list(outcomes)

    def launch():
        made = left.pop(0)
        if isinstance(made, Exception):
            raise made
        return made

    return RealtimeQuery(
        launch,
        publisher or Publisher(),
        SimpleNamespace(lacking=lambda: lacking),
        SimpleNamespace(close=lambda: None, latency=lambda seconds: Latency.of([1, 2, 9], seconds)),
        "f" * 32,
        "checkpoint",
        held or ExitStack(),
    ), left


def until(condition):
    waited = threading.Event()
    for _ in range(2000):
        if condition():
            return
        waited.wait(0.01)
    raise AssertionError


def test_a_query_that_failed_runs_again_also_after_starts_that_failed():
    last = Query()
    query, left = started(Query("the broker is away"), OSError("HDFS is down"), OSError("HDFS is down"), last)
    until(lambda: query.query is last)
    assert (query.isActive, query.restarts, left) == (True, 1, [])
    assert "HDFS is down" in query.status().trouble
    query.stop()
    assert (query.isActive, query.exception()) == (False, None)


def test_it_is_given_up_where_no_restart_helps(monkeypatch):
    query, _ = started(Query("[STREAMING_REAL_TIME_MODE.OPERATOR] no"))
    with pytest.raises(StreamError, match="STREAMING_REAL_TIME_MODE"):
        query.awaitTermination(10)
    monkeypatch.setattr(module, "GIVE_UP_AFTER_S", -1.0)
    query, _ = started(Query("the broker is away"))
    with pytest.raises(StreamError, match="the broker is away"):
        query.awaitTermination(10)
    assert query.status().state == "failed"


def test_without_its_session_it_ends():
    query, _ = started(Query("the broker is away"), ConnectionRefusedError("no JVM"))
    with pytest.raises(StreamError, match="no JVM"):
        query.awaitTermination(10)


@pytest.mark.parametrize("error", [OSError("the store"), KeyError("model_version")])
def test_a_look_at_the_alias_that_fails_ends_nothing(error):
    publisher = Publisher(error)
    query, _ = started(Query(), publisher=publisher)
    publisher.looked.clear()
    assert publisher.looked.wait(10), "it looks again"
    assert query.isActive
    assert type(error).__name__ in query.status().trouble
    query.stop()


def test_a_lock_that_cannot_be_let_go_keeps_nobody_waiting():
    held = ExitStack()

    def close():
        raise OSError("HDFS is down")

    held.callback(close)
    query, _ = started(Query(), held=held)
    query.stop()
    assert not query.isActive
    assert query.status().trouble == "at the end: OSError: HDFS is down"


def test_slots_that_are_gone_are_told():
    query, _ = started(Query(), lacking="some partitions wait")
    until(lambda: query.status().trouble == "some partitions wait")
    query.stop()


def test_a_live_view_tells_the_latency():
    query, _ = started(Query())
    shown = plain.text(streams.pieces_of(streams.checked(query)))
    assert "p50 2 ms, p99 9 ms, largest 9 ms, of 3 records in 1.0 s" in shown
    query.stop()
    assert "p50" not in plain.text(streams.with_pictures(query))


def test_the_latency_of_no_record():
    assert str(Latency.of([], 0.5)) == "no record was answered within 0.5 s"
