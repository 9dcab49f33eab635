"""How long until two ranks have met: sparkdl's launcher beside horovod.spark.run.

``first``: the first launch of a session, whose workers have imported nothing yet. ``warm``: the launches after it.
Each sample is a process of its own, with a session of its own, made before the clock starts.
"""

from __future__ import annotations

import functools
import json
import sys
import time

import harness

SYSTEMS = ["sparkdl", "horovod.spark.run"]
WARM_LAUNCHES = 3


def launches(system: str) -> dict[str, float]:
    spark = harness.session()
    spark.range(2).count()
    times = []
    for _ in range(1 + WARM_LAUNCHES):
        started = time.monotonic()
        assert LAUNCH[system](spark) == 2
        times.append(time.monotonic() - started)
    spark.stop()
    return {"first s": times[0], "warm s": sum(times[1:]) / WARM_LAUNCHES}


def main_of_rank() -> int:
    import horovod.torch as hvd

    hvd.init()
    hvd.barrier()
    return hvd.size()


def by_sparkdl(spark) -> int:
    from sparkdl import HorovodRunner

    return HorovodRunner(np=2).run(main_of_rank)


def by_horovod(spark) -> int:
    import horovod.spark

    return horovod.spark.run(main_of_rank, num_proc=2, use_gloo=True, verbose=0)[0]


LAUNCH = {"sparkdl": by_sparkdl, "horovod.spark.run": by_horovod}


def main() -> None:
    if "--sample" in sys.argv:
        print(json.dumps(launches(sys.argv[-1])))
        return
    asked = harness.arguments(__doc__, SYSTEMS)
    systems = {name: functools.partial(harness.apart, name) for name in asked.only or SYSTEMS}
    rows = harness.interleaved(systems, 1 if asked.quick else 5, "2 ranks meet")
    harness.report("launch", rows, asked.json)


if __name__ == "__main__":
    main()
