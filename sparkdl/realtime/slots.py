"""Task slots that queries in real time keep for themselves, one for each partition that they read."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING

from sparkdl import session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_held: Counter[str] = Counter()  # by application


class Slots:
    """Those of one query, held within the block."""

    def __init__(self, spark: SparkSession, needed: int) -> None:
        self._spark, self._needed = spark, needed

    def __enter__(self) -> Slots:
        _held[_application(self._spark)] += self._needed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _held[_application(self._spark)] -= self._needed

    def lacking(self) -> str | None:
        """What is wrong if executors were lost and not replaced; None if nothing."""
        slots, held = session.free_slots(self._spark), held_in(self._spark)
        if slots is None or slots >= held:
            return None
        return f"the session has {slots} task slots, and its queries in real time need {held}: some partitions wait"


def held_in(spark: SparkSession) -> int:
    """How many this process's queries hold in the session's application."""
    return _held[_application(spark)]


def _application(spark: SparkSession) -> str:
    return str(spark.sparkContext.applicationId)
