"""Items come in order, one is made while the last is used, never two; the thread ends with the caller's loop."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkdl.data.ahead import ahead

WAIT_S = 30.0


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "sparkdl-ahead"]


def counting(items, made=None, closed=None):
    def make(stopped):
        try:
            for item in items:
                if made is not None:
                    made.put(item)
                yield item
        finally:
            if closed is not None:
                closed.append(threading.current_thread().name)

    return make


@given(st.lists(st.one_of(st.none(), st.integers()), max_size=20))
def test_the_same_items_in_the_same_order(items):
    assert list(ahead(counting(items))) == items
    assert threads() == []


def test_the_next_is_made_while_the_caller_has_one_and_no_more_than_that():
    import queue

    made: queue.Queue[int] = queue.Queue()
    items = ahead(counting(range(5), made))
    assert next(items) == 0
    assert [made.get(timeout=WAIT_S) for _ in range(2)] == [0, 1]  # without being asked
    assert next(items) == 1
    assert made.get(timeout=WAIT_S) == 2
    assert made.empty()
    items.close()
    assert made.empty()


def test_nothing_is_made_before_it_is_wanted():
    items = ahead(counting([1]))
    assert threads() == []
    assert next(items) == 1
    assert len(threads()) == 1
    items.close()
    assert threads() == []


def test_an_error_is_raised_in_its_place_and_the_thread_is_gone():
    def make(stopped):
        yield 1
        raise OSError("the disk is gone")

    items = ahead(make)
    assert next(items) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)
    assert threads() == []


def test_an_error_before_the_first_item():
    def make(stopped):
        raise OSError("not there")

    with pytest.raises(OSError, match="not there"):
        next(ahead(make))


def test_what_is_being_made_is_told_to_stop_and_closed_in_its_thread():
    begun, closed = threading.Event(), []

    def make(stopped):
        try:
            yield 0
            begun.set()
            assert stopped.wait(WAIT_S)
        finally:
            closed.append(threading.current_thread().name)

    items = ahead(make)
    assert next(items) == 0
    assert begun.wait(WAIT_S)
    items.close()
    assert closed == ["sparkdl-ahead"]
    assert threads() == []


def test_who_leaves_does_not_wait_for_an_item_that_takes_long(monkeypatch):
    """As when a model fails while the stream it scores is silent."""
    monkeypatch.setattr("sparkdl.data.ahead._PATIENCE_S", 0.01)
    arrives = threading.Event()

    def make(stopped):
        yield 1
        arrives.wait()
        yield 2

    items = ahead(make)
    assert next(items) == 1
    items.close()
    assert not arrives.is_set()
    arrives.set()
