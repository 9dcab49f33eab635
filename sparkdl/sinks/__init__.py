"""Where a stream's rows go: ``sparkdl.sinks.Parquet``, ``Delta``, ``Kafka``, ``foreach``.

``docs/streaming.md`` has the table of what each promises.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparkdl.sinks.delta import Delta
    from sparkdl.sinks.function import foreach
    from sparkdl.sinks.kafka import Kafka
    from sparkdl.sinks.parquet import Parquet
    from sparkdl.sinks.sink import Sink, Staged, StagedFile

__all__ = ["Delta", "Kafka", "Parquet", "Sink", "Staged", "StagedFile", "foreach"]

_HOME_OF = {
    "Delta": "delta",
    "Kafka": "kafka",
    "Parquet": "parquet",
    "Sink": "sink",
    "Staged": "sink",
    "StagedFile": "sink",
    "foreach": "function",
}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"sparkdl.sinks.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'sparkdl.sinks' has no attribute {name!r}")
