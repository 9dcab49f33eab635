"""A packed environment on a standalone cluster whose workers have nothing but Python, Java and Spark."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
from importlib import metadata
from pathlib import Path

import pytest
import standalone
from standalone_jobs import check_jobs, train

ROOT = standalone.ROOT
pytestmark = pytest.mark.timeout(900)  # a packed torch is large, and both lanes run at a time
UV = ROOT / ".venv/tools/bin/uv"
VERSION = sysconfig.get_python_version()
SYSTEM = "/usr" if os.access(f"/usr/bin/python{VERSION}", os.X_OK) else None  # a Python that is not the lane's

WHERE = """
    import sys
    from pyspark.sql import SparkSession

    def here(_):
        import sparkdl.errors, tabulate
        return sys.executable, sparkdl.errors.__file__, tabulate.__file__

    spark = SparkSession.builder.getOrCreate()
    for place in sorted(set(spark.sparkContext.parallelize(range(8), 8).map(here).collect())):
        print("PLACE", *place)
"""


def pack(python: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-m", "sparkdl", "pack", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=600)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Of two workers with one core each."""
    with standalone.cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def scratch(tmp_path_factory):
    """A folder for gigabytes, which pytest would keep for three runs."""
    folder = tmp_path_factory.mktemp("scratch")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The Python of a virtual environment with sparkdl, installed for editing, and little else."""
    folder = tmp_path_factory.mktemp("small") / "venv"
    python = folder / "bin/python"
    packages = [
        f"{name}=={metadata.version(name)}" for name in ("venv-pack", "packaging", "tabulate", "six", "setuptools")
    ]
    with (ROOT / ".venv/.lock").open("a") as lock:  # of scripts/bootstrap.py: the last command writes into the project
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (
            ["venv", "--quiet", "--no-project", "--python", sys.executable, folder],
            ["pip", "install", "--quiet", "--python", python, "--no-deps", *packages],
            ["pip", "install", "--quiet", "--python", python, "--no-deps", "--no-build-isolation", "--editable", ROOT],
        ):
            subprocess.run([UV, *command], check=True, cwd=ROOT)
    return python


def test_a_small_environment_travels(small, cluster, tmp_path):
    """Packed by one command, shipped by --archives, unpacked and used by executors that have nothing of it."""
    archive = tmp_path / "environment.tar.gz"
    prefix = ["--python-prefix", SYSTEM] if SYSTEM else []
    done = pack(small, "--output", str(archive), "--only", "tabulate", *prefix)
    assert done.returncode == 0, done.stderr
    assert f"--archives {archive}#environment" in done.stdout
    with tarfile.open(archive) as content:
        names = content.getnames()
    assert f"lib/python{VERSION}/site-packages/sparkdl/score/udf.py" in names
    assert not [name for name in names if re.search("six|venv_pack/|__editable__", name)], "not asked for"
    small.parent.parent.rename(small.parent.parent.with_name("gone"))  # nothing leads back to it

    job = tmp_path / "where.py"
    job.write_text(textwrap.dedent(WHERE))
    ran = cluster.submit(
        job, options=["--archives", f"{archive}#environment"], conf={"spark.pyspark.python": "./environment/bin/python"}
    )
    assert ran.returncode == 0, ran.stderr
    places = [line.split()[1:] for line in ran.stdout.splitlines() if line.startswith("PLACE")]
    assert len(places) == 2, "an unpacked environment an executor"
    for found in places:
        assert all("/environment/" in path and str(cluster.folder) in path for path in found)


def test_an_executor_without_it_says_what_it_lacks(cluster, tmp_path):
    """On the driver, in one sentence: this is how one learns that packing is needed."""
    done = train(cluster, tmp_path, conf={"spark.pyspark.python": "python3"})
    assert done.returncode == 1
    assert "WorkerPythonError: the Spark workers' Python (on the executors) has no package" in done.stdout


@pytest.mark.soak
def test_jobs_in_a_packed_environment(cluster, tmp_path, scratch):
    """Train, score a table, score a stream; the environment is unpacked once, where both workers see it."""
    archive, unpacked = scratch / "environment.tar.gz", scratch / "environment"
    packed(archive)
    with tarfile.open(archive) as content:
        content.extractall(unpacked, filter="tar")
    archive.unlink()
    check_jobs(cluster, tmp_path, conf={"spark.pyspark.python": str(unpacked / "bin/python")})


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_jobs_with_the_archive_itself(cluster, tmp_path, scratch):
    """The same, each job shipping the whole archive; prints what that takes, for benchmarks/results."""
    archive = scratch / "environment.tar.gz"
    print(packed(archive))
    cluster.patience = 900
    options = ["--archives", f"{archive}#environment"]
    check_jobs(cluster, tmp_path, options=options, conf={"spark.pyspark.python": "./environment/bin/python"})


def test_a_driver_in_the_cluster_is_refused_for_python(cluster):
    """Spark's own rule for standalone; its words, and not a hang or a driver that fails elsewhere."""
    job = ["jobs/score_batch.py", "--conf-file", "conf/demo/score_batch.yaml"]
    done = cluster.submit(*job, options=["--deploy-mode", "cluster"])
    assert done.returncode == 1
    assert (
        "Cluster deploy mode is currently not supported for python applications on standalone clusters" in done.stderr
    )


def packed(archive: Path) -> str:
    prefix = ["--python-prefix", SYSTEM] if SYSTEM else []
    done = pack(
        Path(sys.executable), "--output", str(archive), "--only", "sparkdl", "--cpu", "--compress-level", "0", *prefix
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
