from __future__ import annotations

import os

import cloudpickle
import pytest
import signals as signals_module
from kafka import broker, own_broker, topic  # noqa: F401  fixtures
from signals import Signal


@pytest.fixture(scope="module", autouse=True)
def travel_by_value(request):
    """Functions and classes of a test module reach the workers as those of a notebook do: pickled by value."""
    for module in (request.module, signals_module):
        cloudpickle.register_pickle_by_value(module)
    yield
    for module in (request.module, signals_module):
        cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture
def signals(tmp_path):
    """A function that makes Signals."""
    made = []

    def make() -> Signal:
        made.append(str(tmp_path / f"signal-{len(made)}"))
        os.mkfifo(made[-1])
        return Signal(made[-1])

    return make
