"""`make demo-realtime`, as short as it goes."""

import re
import subprocess
import sys
from pathlib import Path

import kafka
import pyspark
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(pyspark.__version__ < "4.3", reason="real time needs Spark 4.3")


def test_all_transactions_are_answered(tmp_path):
    for jars in ("kafka", "latest", "onnx"):
        kafka.require_jars(jars)
    command = [sys.executable, ROOT / "scripts/demo_realtime.py", "--seconds", "4", "--rate", "100"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-3000:]
    scored, dead = re.search(r"(?m)^([\d,]+) scored .* ([\d,]+) dead letters, 0 lost$", ran.stdout).groups()
    assert int(scored) + int(dead) == 400
    assert int(dead) > 0
