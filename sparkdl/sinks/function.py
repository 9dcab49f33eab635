"""``foreach``: each micro-batch's rows go to a function of the user's, as a DataFrame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparkdl.errors import InvalidParamError, SinkError
from sparkdl.sinks import staged as files
from sparkdl.sinks.sink import Sink, Staged

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def foreach(function: Callable[[DataFrame, int], None]) -> Foreach:
    """A sink that calls ``function(df, batch_id)`` on the driver, once a micro-batch, in order; with no rows too.

    df: the batch's scored rows, read from the files that the workers wrote: it may be used as often as one likes without
    anything being scored again, but not after the function has returned, for the files go then. batch_id: Spark's number,
    from 0. A batch that was cut off comes again under the same number with the same content, so a function that keeps
    the numbers it has done (in the same transaction as the rows) takes each row once; else it is at least once.

    An exception of the function ends the query, as the cause of a SinkError. Raises InvalidParamError if ``function``
    cannot be called.
    """
    if not callable(function):
        raise InvalidParamError(
            f"foreach takes a function of a DataFrame and a batch's number (got {function!r})",
            param="function",
            value=function,
        )
    return Foreach(function)


@dataclass(frozen=True)
class Foreach(Sink):
    """See ``foreach``."""

    function: Callable[[DataFrame, int], None]

    @property
    def identity(self) -> dict[str, Any]:
        """Its kind and the function's name with its module's, all that tells one function from another."""
        named = self.function if hasattr(self.function, "__qualname__") else type(self.function)
        return {"kind": "foreach", "function": f"{named.__module__}.{named.__qualname__}"}

    def check(self, spark: SparkSession, schema: Mapping[str, Any]) -> None:
        """Nothing to refuse: what the function takes is its own affair."""

    def commit(self, spark: SparkSession, staged: Staged) -> None:
        """Call the function. Raises SinkError from what it raised."""
        name = self.identity["function"]
        files.checked(staged, f"foreach {name}")
        try:
            self.function(files.rows(spark, staged), staged.batch)
        except Exception as error:
            raise SinkError(
                f"the function {name} of the sink raised {type(error).__name__} on batch {staged.batch}: {error}",
                sink=f"foreach {name}",
                batch=staged.batch,
            ) from error
