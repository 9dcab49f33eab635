"""How hypothesis runs here: reproducible, and without a clock, since two cores serve everyone. And a small heap."""

import gc

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "sparkdl",
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("sparkdl")


@pytest.fixture(scope="session", autouse=True)
def thawed_at_the_end():
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def small_heap(thawed_at_the_end):
    """What modules before imported is not looked at by each `gc.collect()` of a model that gives way: nothing of it would
    go. Code under test that freezes something itself unfreezes all."""
    gc.collect()
    gc.freeze()
    hidden, unfreeze = gc.get_freeze_count(), gc.unfreeze
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "unfreeze", lambda: unfreeze() if gc.get_freeze_count() > hidden else None)
        yield
