"""What test_supervisor.py runs in a process of its own: python supervised_job.py MASTER|here FOLDER

On MASTER: a run whose executor is killed, one whose Python daemon is killed, and one that goes on until the driver is;
``here``: HorovodRunner's processes on the driver's machine. Its findings are lines of JSON.
"""

from __future__ import annotations

import json
import os
import sys

import cloudpickle
import counting as counting_module
import psutil
from cluster_job import CONF
from counting import counting, kill, once, sleep

from sparkdl import HorovodRunner
from sparkdl.train import messages
from sparkdl.train.supervisor import supervise


def say(**found: object) -> None:
    print("\n" + json.dumps(found), flush=True)


def on_spark(master: str, folder: str) -> None:
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master(master)
    for name, value in CONF.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    for what, generation in (("executor", 2), ("daemon", 1)):
        place = os.path.join(folder, what)
        os.makedirs(place)
        told: list[dict] = []

        def disturb(rank, step, place=place, generation=generation):
            if step == 0:
                messages.send("process", rank=rank, pid=os.getpid())
            if rank == 1 and step == 5 and once(place, "killed"):
                kill(psutil.Process().parents()[generation - 1].pid)
                sleep()

        answer, attempts = supervise(spark, counting(place, disturb), 2, on_message=told.append)
        say(
            killed=what,
            answer=answer,
            attempts=attempts,
            begun=[m["step"] for m in told if m["kind"] == "begins" and m["rank"] == 0],
            orphans=[m["pid"] for m in told if m["kind"] == "process" and m["rank"] == 1][:1],
        )

    def until_killed(collective):
        collective.barrier()
        if collective.world.rank == 0:
            messages.send("log", text="up")
        sleep()

    supervise(spark, until_killed, 2, on_message=lambda m: say(all="up") if m["kind"] == "log" else None)


def here() -> None:
    def until_killed():
        import horovod.torch as hvd

        hvd.init()
        hvd.barrier()
        if hvd.rank() == 0:
            say(all="up")
        sleep()

    HorovodRunner(np=-2).run(until_killed)


if __name__ == "__main__":
    cloudpickle.register_pickle_by_value(counting_module)
    here() if sys.argv[1] == "here" else on_spark(*sys.argv[1:])
