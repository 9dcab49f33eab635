"""How hypothesis runs here: reproducible, and without a clock, since two cores serve everyone."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "sparkdl",
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("sparkdl")
