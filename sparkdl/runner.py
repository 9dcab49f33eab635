"""HorovodRunner: a user's own training function on the executors, as Databricks' API documents it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sparkdl.errors import InvalidParamError
from sparkdl.train import messages
from sparkdl.train.local import run_here

if TYPE_CHECKING:
    from sparkdl.train.messages import Message
    from sparkdl.train.world import World

_VERBOSITIES = ("all", "log_callback_only")


class HorovodRunner:
    """Runs a function on several ranks with Horovod; ``import horovod.torch as hvd`` inside it works unchanged.

    np: ``> 0`` ranks on the executors, started together; ``< 0`` that many processes on the driver's machine, for
        debugging; ``0`` one rank a task slot.
    driver_log_verbosity: ``all`` shows what rank 0 prints on the driver while it runs; ``log_callback_only`` only what
        it passes to ``sparkdl.log_to_driver``.
    """

    def __init__(self, *, np: int, driver_log_verbosity: str = "all") -> None:
        if isinstance(np, bool) or not isinstance(np, int):
            raise InvalidParamError(f"np must be a whole number (got {np!r})", param="np", value=np)
        if driver_log_verbosity not in _VERBOSITIES:
            raise InvalidParamError(
                f"driver_log_verbosity must be one of {_VERBOSITIES} (got {driver_log_verbosity!r})",
                param="driver_log_verbosity",
                value=driver_log_verbosity,
            )
        self.np = np
        self.driver_log_verbosity = driver_log_verbosity

    def run(self, main: Callable[..., Any], **kwargs: Any) -> Any:
        """Call ``main(**kwargs)`` on every rank; returns what rank 0 returned.

        main: pickled by cloudpickle; it calls ``hvd.init()`` itself. Raises as ``sparkdl.train.launcher.launch``.
        """
        if not callable(main):
            raise InvalidParamError(f"main must be a function (got {main!r})", param="main", value=main)
        if self.np < 0:
            return run_here(main, kwargs, -self.np)
        from pyspark.sql import SparkSession

        from sparkdl.session import free_slots
        from sparkdl.train.launcher import launch

        spark = SparkSession.active()
        size = self.np or free_slots(spark)
        if size is None:
            raise InvalidParamError(
                "np=0 needs to know the cluster's slots, which Spark Connect does not tell; give np a number",
                param="np",
                value=0,
            )
        show_prints = self.driver_log_verbosity == "all"

        def rank(world: World) -> Any:
            if world.is_chief and show_prints:
                with messages.printed_lines_sent():
                    return main(**kwargs)
            return main(**kwargs)

        return launch(spark, rank, size, backend="environment", on_message=_show)


def _show(message: Message) -> None:
    if message["kind"] == "log":
        print(message["text"], flush=True)
