"""The Spark session of the tests: one JVM holds one SparkContext, so all of a run share this one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import kafka
import pytest

os.environ["PYSPARK_PYTHON"] = sys.executable  # workers would take the PATH's python3
os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # short-lived ones start in half the time without the second compiler
for name in ("SPARK_SUBMIT_OPTS", "SPARK_LAUNCHER_OPTS"):  # of those that tests start themselves
    os.environ.setdefault(name, JVM)

CONF = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "2",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": JVM,
    "spark.executor.extraJavaOptions": JVM,
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What is marked for the other lane is a soak test on this one."""
    here = kafka.lane()
    for item in items:
        if (mark := item.get_closest_marker("lane")) and mark.args != (here,):
            if mark.args not in (("latest",), ("spark35",)):
                raise pytest.UsageError(f"{item.nodeid}: lane takes 'latest' or 'spark35' (got {mark.args})")
            item.add_marker("soak")


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    """A classic session on local[2]."""
    from pyspark.sql import SparkSession

    paths = [str(Path(__file__).with_name("spark")), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # where the workers find warm_daemon
    store = tmp_path_factory.mktemp("store")
    builder = SparkSession.builder.master("local[2]").appName("sparkdl tests")
    for name, value in CONF.items():
        builder = builder.config(name, value)
    if connectors := kafka.session_jars():
        builder = builder.config("spark.jars", connectors)
    session = (
        builder.config("spark.python.daemon.module", "warm_daemon")
        .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse")))
        .config("spark.sparkdl.storePath", str(store))
        .getOrCreate()
    )
    yield session
    session.stop()
    assert os.listdir(store) == [], "a fit left its run's directory behind"


@pytest.fixture(scope="session")
def points(spark):
    """400 rows in 3 partitions, nothing random: ``id``; ``features`` array<float>[4], each in [-1, 1] and independent;
    and what can be learnt from them: ``target`` (linear), ``side`` (0 or 1 by target's sign), ``quadrant`` (0 to 3, by
    the signs of the first two features)."""
    return (
        spark.range(0, 400, 1, 3)
        .selectExpr(
            "id", "transform(array(12.9898d, 78.233d, 37.719d, 4.581d), f -> cast(sin((id + 1) * f) as float)) features"
        )
        .selectExpr("*", "cast(2 * features[0] - features[1] + 0.5 * features[2] + 0.25 as double) target")
        .selectExpr(
            "*",
            "cast(target > 0 as int) side",
            "2 * cast(features[0] > 0 as int) + cast(features[1] > 0 as int) quadrant",
        )
    )


@pytest.fixture
def jobs(spark):
    """A function that tells how many Spark jobs this test has started."""
    context, group = spark.sparkContext, f"test-{id(object())}-{os.urandom(4).hex()}"
    context.setJobGroup(group, "a test")
    yield lambda: len(context.statusTracker().getJobIdsForGroup(group))
    for name in ("spark.jobGroup.id", "spark.job.description", "spark.job.interruptOnCancel"):
        context.setLocalProperty(name, None)
