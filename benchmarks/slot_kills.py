"""Backfills by two schedulers at once that are killed by -9 at random moments, and whether each slot was scored once: a dated table.

    python benchmarks/slot_kills.py [--kills 50] [--slots 20] [--seed 7] [--ledger URL] [--markdown PATH]

The scene and the rules are tests/e2e/slot_scene.py's. A backfill that is done before there were enough kills is followed by another, in
a new folder. The output is checked after each backfill, and while it goes on; the first that is wrong ends it.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import harness
from tabulate import tabulate

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "e2e")]
import slot_scene  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--slots", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--ledger", help="its URL; a SQLite file in the output by default")
    parser.add_argument("--markdown", type=Path, help="where the table is written")
    asked = parser.parse_args()
    drawn, lines, left = random.Random(asked.seed), [], asked.kills
    while left > 0:
        line, killed = a_backfill(drawn, left, asked.slots, asked.ledger)
        left -= killed
        lines.append({"backfill": len(lines) + 1, **line})
        text = told(lines, asked)
        print(text, flush=True)
        if asked.markdown:
            asked.markdown.write_text(text)
        if line["lost, twice, differing"] != "none":
            raise SystemExit(1)


def a_backfill(drawn: random.Random, kills: int, slots: int, ledger: str | None) -> tuple[dict[str, Any], int]:
    """A line of the table; how many kills there were."""
    started, problem = time.monotonic(), "none"
    with tempfile.TemporaryDirectory(prefix="sparkdl-slots-") as folder:
        more = {"ledger": ledger} if ledger else {}
        scene = slot_scene.Scene(Path(folder), slots, files=4, rows=4000, settings={"batchSize": 1}, **more)
        killed: list[str] = []
        try:
            slot_scene.killed_backfill(scene, drawn, kills, killed)
            scene.check()
            status = scene.start("--backfill", scene.range).wait()
            assert status == 0, f"a run after it ended with {status}"
        except Exception as error:  # of any kind: it is what this is run for
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
            print(error, file=sys.stderr, flush=True)
        attempts = scene.ledger.attempts()
    ended = Counter(attempt["state"] for attempt in attempts)
    kinds = Counter(killed)
    line = {
        "slots": slots,
        "kills": len(killed),
        **{f"of the {what}": kinds[what] for what in slot_scene.KILLS},
        "attempts": len(attempts),
        "taken over": ended["lost"],
        "failed": ended["failed"],
        "pieces taken up": sum(attempt["resumed"] or 0 for attempt in attempts),
        "lost, twice, differing": problem,
        "s": f"{time.monotonic() - started:.0f}",
    }
    return line, len(killed)


def told(lines: list[dict[str, Any]], asked: argparse.Namespace) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in harness.PACKAGES)
    kind = (asked.ledger or "sqlite").partition(":")[0]
    return (
        f"# Kills of two schedulers at random moments, {datetime.date.today().isoformat()}\n\n"
        f"`python benchmarks/slot_kills.py`, seed {asked.seed}, ledger {kind}; {harness.hardware()}; {versions}. Two schedulers backfill "
        f"{asked.slots} days; each is killed by -9 (its whole process group, its Python, or its JVM) within 8 s after it began its first slot, or 2 s after its second or third, "
        "and started again. Then every slot is there, whole, its rows once and with the model's own predictions, files have the sums of "
        "their manifests, and the ledger says what the manifests say; a further run finds nothing to do.\n\n"
        + tabulate(lines, headers="keys", tablefmt="github")
        + f"\n\nKills in all: {sum(line['kills'] for line in lines)}.\n"
    )


if __name__ == "__main__":
    main()
