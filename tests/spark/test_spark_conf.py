"""conf/spark: each key is one that Spark, or sparkdl, knows."""

import re
from pathlib import Path

import pytest

from sparkdl.estimator import STORE_CONF

FOLDER = Path(__file__).resolve().parents[2] / "conf/spark"
FILES = sorted(path.name for path in FOLDER.glob("*.conf"))
ENTRIES = (  # Scala's objects that hold Spark's settings; one that is loaded has told Spark of them
    "org.apache.spark.internal.config.package$", "org.apache.spark.internal.config.Python$",
    "org.apache.spark.internal.config.UI$", "org.apache.spark.internal.config.Network$",
    "org.apache.spark.deploy.yarn.config.package$", "org.apache.spark.deploy.k8s.Config$",
)  # fmt: skip
OPEN = (  # what Spark keeps in no table, because a part of the name is the user's
    r"spark\.executorEnv\.\w+",
    r"spark\.yarn\.appMasterEnv\.\w+",
    r"spark\.kubernetes\.(driver|executor)\.secretKeyRef\.\w+",
    r"spark\.(worker|driver|executor|task)\.resource\.\w+\.(amount|discoveryScript|vendor)",
)
ALSO = {"spark.master", "spark.submit.deployMode", "spark.driver.host", STORE_CONF}  # Spark reads these by name


def settings(file: str) -> dict[str, str]:
    lines = [line.split(None, 1) for line in (FOLDER / file).read_text().splitlines() if line and line[0] != "#"]
    return {name: value.strip() for name, value in lines}


def unknown(spark, name: str) -> bool:
    entry = spark._jvm.org.apache.spark.internal.config.ConfigEntry.findEntry(name)
    return entry is None and name not in ALSO and not any(re.fullmatch(form, name) for form in OPEN)


@pytest.fixture(scope="module")
def knowing(spark):
    """The session, once Spark has told itself of all its settings."""
    for entries in ENTRIES:
        spark._jvm.java.lang.Class.forName(entries)
    return spark


@pytest.mark.parametrize("file", FILES)
def test_spark_knows_every_key(knowing, file):
    found = settings(file)
    assert found
    assert [name for name in found if unknown(knowing, name)] == []


def test_a_misspelt_key_is_noticed(knowing):
    assert unknown(knowing, "spark.executor.memoryOverheads")
    assert unknown(knowing, "spark.executor.resource.gpu.amounts")
    assert unknown(knowing, "spark.authenticated")


@pytest.mark.parametrize("file", FILES)
def test_each_line_says_why(file):
    lines = (FOLDER / file).read_text().splitlines()
    said = [i for i, line in enumerate(lines) if line.startswith("#")]
    for i, line in enumerate(lines):
        if line.startswith("spark."):
            before = max(n for n in said if n < i)
            assert all(between.startswith("spark.") for between in lines[before + 1 : i]), f"{file}, line {i + 1}"


def test_a_gpu_has_one_task(knowing):
    found = settings("gpu.conf")
    assert found["spark.task.resource.gpu.amount"] == "1"
    slots = int(found["spark.executor.cores"]) / int(found["spark.task.cpus"])
    assert slots == int(found["spark.executor.resource.gpu.amount"])


def test_clusters_differ_where_they_must_and_nowhere_else():
    files = [settings(file) for file in FILES if file != "local.conf"]
    shared = set.intersection(*map(set, files))
    differ = {name for name in shared if len({found[name] for found in files}) > 1}
    assert "spark.authenticate" in shared
    assert differ == {
        "spark.executor.cores", "spark.executor.memory", "spark.pyspark.python", "spark.sparkdl.storePath",
        "spark.submit.deployMode", "spark.task.cpus",
    }  # fmt: skip
