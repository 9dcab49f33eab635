"""scripts/run_tests.py: what it counts, and its last line."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICK = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

spec = importlib.util.spec_from_file_location("run_tests", ROOT / "scripts/run_tests.py")
run_tests = importlib.util.module_from_spec(spec)
sys.modules["run_tests"] = run_tests  # dataclasses look their module up
spec.loader.exec_module(run_tests)
Result = run_tests.Result

REPORT = """<testsuites><testsuite name="pytest">
<testcase classname="a" name="passes"/>
<testcase classname="tests.a" name="fails"><failure message="x&#10;more">y</failure></testcase>
<testcase classname="tests.a" name="breaks"><error message="x">y</error></testcase>
<testcase classname="a" name="skips"><skipped message="no GPU"/></testcase>
<testcase classname="b" name="skips"><skipped message="no GPU"/></testcase>
</testsuite></testsuites>"""
GREEN = '<testsuites><testsuite name="pytest"><testcase classname="a" name="passes"/></testsuite></testsuites>'
EMPTY = '<testsuites><testsuite name="pytest"/></testsuites>'


@pytest.mark.parametrize(
    ("report", "status", "expected"),
    [
        (REPORT, 1, (1, 2, 2)),
        (GREEN, 0, (1, 0, 0)),
        (EMPTY, 5, (0, 0, 0)),  # an empty folder
        (GREEN, 2, (1, 1, 0)),  # interrupted
        (None, 4, (0, 1, 0)),  # a wrong argument
        (None, -11, (0, 1, 0)),  # the interpreter crashed
        ("<testsuites><testsu", -9, (0, 1, 0)),  # killed while writing
    ],
)
def test_a_report_is_counted(tmp_path, report, status, expected):
    path = tmp_path / "report.xml"
    if report is not None:
        path.write_text(report)
    result = run_tests.read_report(path, status)
    assert (result.passed, result.failed, result.skipped) == expected
    if report == REPORT:
        assert result.reasons == {"no GPU": 2}
        assert result.failures == ("tests/a.py::fails: x", "tests/a.py::breaks: x")
    assert len(result.failures) == result.failed


def test_results_add_up():
    one = Result(1, 2, 1, run_tests.Counter({"no GPU": 1}), ("a", "b"))
    two = Result(3, 1, 2, run_tests.Counter({"no GPU": 1, "no HDFS": 1}), ("c",))
    assert one + two == Result(4, 3, 3, run_tests.Counter({"no GPU": 2, "no HDFS": 1}), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("folders", "extra", "names"),
    [
        (["tests/unit", "tests/spark"], [], ["unit", "rest"]),
        (["tests/spark"], [], ["rest"]),
        (["tests/unit"], ["-k", "bundle"], ["unit", "rest"]),
        (["tests/unit"], ["tests/unit/test_x.py::test_y"], ["unit", "rest"]),  # no such file: pytest will say so
        (["tests/unit"], ["tests/unit"], ["asked"]),
    ],
)
def test_the_plan_of_a_lane(tmp_path, folders, extra, names):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    assert [name for name, _ in run_tests.plan(extra, tmp_path)] == names


@pytest.fixture
def tested_project(tmp_path):
    """A project with run_tests.py, both lanes' pythons, and tests as each test writes them."""
    for lane in run_tests.LANES:
        bin_dir = tmp_path / ".venv" / lane / "bin"
        bin_dir.mkdir(parents=True)
        (bin_dir / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (bin_dir / "python").chmod(0o755)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/run_tests.py", tmp_path / "scripts")
    (tmp_path / "tests/unit").mkdir(parents=True)
    (tmp_path / "tests/spark").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("unit", "spark", "args", "last", "status"),
    [
        ("def test_a(): pass", "def test_b(): pass", [], "total: 4 passed, 0 failed, 0 skipped", 0),
        ("def test_a(): pass", "", ["--lane", "latest"], "total: 1 passed, 0 failed, 0 skipped", 0),
        (
            "def test_a(): assert 0",
            "def test_b(): pass",
            ["--lane", "latest"],
            "total: 1 passed, 1 failed, 0 skipped",
            1,
        ),
        ("def test_a(nothing): pass", "", ["--lane", "latest"], "total: 0 passed, 1 failed, 0 skipped", 1),
        ("import nothing_such", "", ["--lane", "latest"], "total: 0 passed, 1 failed, 0 skipped", 1),
        ("import os\ndef test_a(): os._exit(9)", "", ["--lane", "latest"], "total: 0 passed, 1 failed, 0 skipped", 1),
        ("", "", [], "total: 0 passed, 0 failed, 0 skipped", 1),  # no test ran
        ("def test_a(): pass", "", ["--lane", "latest", "--", "-k", "none"], "total: 0 passed, 0 failed, 0 skipped", 1),
    ],
)
def test_the_last_line_is_the_total(tested_project, unit, spark, args, last, status):
    (tested_project / "tests/unit/test_unit.py").write_text(unit)
    (tested_project / "tests/spark/test_spark.py").write_text(spark)
    command = [sys.executable, "scripts/run_tests.py", *args]
    done = subprocess.run(command, cwd=tested_project, env=QUICK, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == last
    assert done.returncode == status


def test_the_last_lines_tell_what_was_skipped_and_what_failed(tested_project):
    (tested_project / "tests/unit/test_unit.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('why', ['no GPU', 'no GPU', 'no HDFS'])\ndef test_a(why): pytest.skip(why)\n"
        "def test_b(): raise ValueError('one\\ntwo')\n"
    )
    (tested_project / "tests/spark/test_spark.py").write_text("import nothing_such")
    command = [sys.executable, "scripts/run_tests.py"]
    done = subprocess.run(command, cwd=tested_project, env=QUICK, capture_output=True, text=True)
    lines = done.stdout.splitlines()[-9:]
    assert lines[:2] == [f"skipped on {lane}: 2 × no GPU; 1 × no HDFS" for lane in run_tests.LANES]
    assert [line.split(":")[0] for line in lines[2:4]] == list(run_tests.LANES)
    for lane, first, second in zip(run_tests.LANES, lines[4:8:2], lines[5:8:2], strict=True):
        assert first == f"FAILED on {lane}: tests/unit/test_unit.py::test_b: ValueError: one"
        assert second.startswith(f"FAILED on {lane}: tests.spark.test_spark: ")
    assert lines[-1] == "total: 0 passed, 4 failed, 6 skipped"


def test_the_lanes_python_is_the_workers_python(tested_project):
    seen = tested_project / "seen.json"
    (tested_project / "tests/unit/test_unit.py").write_text(
        "import json, os\ndef test_a():\n"
        f"    json.dump([os.environ[k] for k in ('PYSPARK_PYTHON', 'PYSPARK_DRIVER_PYTHON')], open({str(seen)!r}, 'w'))"
    )
    command = [sys.executable, "scripts/run_tests.py", "--lane", "spark35"]
    subprocess.run(command, cwd=tested_project, env=QUICK, capture_output=True, check=True)
    assert json.loads(seen.read_text()) == [str(tested_project / ".venv/spark35/bin/python")] * 2
