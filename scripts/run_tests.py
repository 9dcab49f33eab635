"""Run the tests of both lanes and add them up.

    python scripts/run_tests.py [--lane latest] [-- PYTEST ARGUMENTS]

The lanes run side by side, each line headed by its lane; their tests wait for JVMs more than they compute. tests/unit runs
first: it needs no JVM, so a mistake shows in seconds. The last lines printed are those that a log cut short still shows:
why tests were skipped, each lane's seconds, every failed test with the first line of its error, and `total: N passed,
N failed, N skipped` over both lanes; an error counts as failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LANES = ("latest", "spark35")
NO_TESTS = 5  # pytest's exit status when it collected none
WIDTH = 200  # characters of a line that tells of a skip or a failure


@dataclass(frozen=True)
class Result:
    """What one or several pytest runs came to. reasons: why tests were skipped. failures: a line for each."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    failures: tuple[str, ...] = ()

    def __add__(self, other: Result) -> Result:
        return Result(
            self.passed + other.passed,
            self.failed + other.failed,
            self.skipped + other.skipped,
            self.reasons + other.reasons,
            self.failures + other.failures,
        )

    @property
    def ran(self) -> int:
        """Tests that came to a verdict."""
        return self.passed + self.failed


def read_report(report: Path, status: int) -> Result:
    """The counts in a junit report. A run that died before it wrote one counts as one failure."""
    try:
        cases = list(ET.parse(report).iter("testcase"))
    except (OSError, ET.ParseError):
        return Result() if status in (0, NO_TESTS) else _broken(report, status)
    failed = [_told(c, bad) for c in cases for bad in c if bad.tag in ("failure", "error")]
    skipped = [found for c in cases if (found := c.find("skipped")) is not None]
    result = Result(
        passed=len(cases) - len(failed) - len(skipped),
        failed=len(failed),
        skipped=len(skipped),
        reasons=Counter(skip.get("message", "") for skip in skipped),
        failures=tuple(failed),
    )
    if status not in (0, NO_TESTS) and not failed:  # it broke outside a test: usage, interrupt
        return result + _broken(report, status)
    return result


def _broken(report: Path, status: int) -> Result:
    return Result(failed=1, failures=(f"{report.stem}: pytest ended with status {status}",))


def _told(case: ET.Element, bad: ET.Element) -> str:
    """The failed test as pytest names it, and the first line of its error."""
    file = case.get("classname", "").replace(".", "/")
    test = f"{file}.py::{case.get('name')}" if file else str(case.get("name"))
    return f"{test}: {(bad.get('message') or '').strip().partition(chr(10))[0]}"


def skips(lane: str, result: Result) -> list[str]:
    """Why tests were skipped, in a line, if any were."""
    why = "; ".join(f"{n} × {reason}" for reason, n in result.reasons.most_common())
    return [f"skipped on {lane}: {why}"[:WIDTH]] if why else []


def failures(lane: str, result: Result) -> list[str]:
    """A line for each failed test."""
    return [f"FAILED on {lane}: {one}"[:WIDTH] for one in result.failures]


def plan(extra: Sequence[str], root: Path = ROOT) -> list[tuple[str, list[str]]]:
    """The pytest runs of a lane, as (name, arguments): unit first, unless paths were asked for."""
    if any((root / word.split("::")[0]).exists() for word in extra):
        return [("asked", list(extra))]
    runs = [("unit", ["tests/unit", *extra]), ("rest", ["tests", "--ignore=tests/unit", *extra])]
    return [run for run in runs if (root / run[1][0]).is_dir()]


def run_lane(lane: str, extra: Sequence[str], head: str) -> tuple[Result, float]:
    """Run one lane's pytest, its output streamed, ``head`` before each line; what it came to, and its seconds."""
    start = time.monotonic()
    venv = ROOT / ".venv" / lane / "bin"
    python = str(venv / "python")
    env = os.environ | {
        "PYSPARK_PYTHON": python,
        "PYSPARK_DRIVER_PYTHON": python,
        "PATH": f"{venv}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    result = Result()
    for name, args in plan(extra):
        report = ROOT / ".reports" / f"{lane}-{name}.xml"
        report.unlink(missing_ok=True)
        print(f"== {lane}: {name}", flush=True)
        command = [python, "-m", "pytest", f"--junitxml={report}", "-o", "junit_family=xunit2", *args]
        status = _streamed(command, env, head)
        result += read_report(report, status)
        if status == 2:  # interrupted
            break
    return result, time.monotonic() - start


def _streamed(command: Sequence[str], env: dict[str, str], head: str) -> int:
    """Run it in the project's folder, to its end; its exit status."""
    told = subprocess.PIPE if head else None
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=told, stderr=told and subprocess.STDOUT
    ) as run:
        for line in run.stdout or ():
            sys.stdout.buffer.write(head.encode() + line)  # in one piece: the other lane writes too
            sys.stdout.flush()
    return run.returncode


def main(argv: Sequence[str] | None = None) -> int:
    """Run the lanes; 0 when tests ran and none failed."""
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--lane", choices=LANES, action="append", help="this lane only")
    lanes = parser.parse_args(words[:cut]).lane or list(LANES)
    with ThreadPoolExecutor(len(lanes)) as pool:
        heads = [f"{lane:<{max(map(len, lanes))}} | " if len(lanes) > 1 else "" for lane in lanes]
        runs = [pool.submit(run_lane, lane, words[cut + 1 :], head) for lane, head in zip(lanes, heads, strict=True)]
        done = [run.result() for run in runs]
    ended = list(zip(lanes, done, strict=True))
    lines = [line for lane, (result, _) in ended for line in skips(lane, result)]
    lines += [f"{lane}: {seconds:.0f} s" for lane, (_, seconds) in ended]
    lines += [line for lane, (result, _) in ended for line in failures(lane, result)]
    total = sum((result for result, _ in done), Result())
    print()
    print("\n".join(lines))
    if not total.ran:
        print("no test ran")
    print(f"total: {total.passed} passed, {total.failed} failed, {total.skipped} skipped", flush=True)
    return 0 if total.ran and not total.failed else 1


if __name__ == "__main__":
    sys.exit(main())
