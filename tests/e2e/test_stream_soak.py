"""Memory stays flat under load: benchmarks/streaming_soak.py for ten minutes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_MB = {
    "driver's Python": 50,
    "JVM": 300,
    "workers": 150,
}  # that the median may grow; the JVM fills its heap of 1 GB


@pytest.mark.soak
def test_memory_is_flat_over_ten_minutes(tmp_path):
    command = [sys.executable, "benchmarks/streaming_soak.py", "--minutes", "10", "--json", tmp_path / "soak.json"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    print(ran.stdout)
    rows = json.loads((tmp_path / "soak.json").read_text())["rows"]
    grown = {row["system"]: row["median"] for row in rows if row["metric"] == "growth of the median"}
    assert grown.keys() == MOST_MB.keys()
    assert {kind: mb for kind, mb in grown.items() if mb > MOST_MB[kind]} == {}
