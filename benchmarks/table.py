"""Write benchmarks/results/README.md from the JSON files beside it: the newest of each benchmark."""

from __future__ import annotations

import json
from pathlib import Path

from tabulate import tabulate

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    newest: dict[str, dict] = {}
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        newest[result["benchmark"]] = {**result, "file": path.name}
    sections = ["# Results", "Made by `python benchmarks/table.py` from the files beside it; medians of n runs."]
    for name, result in sorted(newest.items()):
        versions = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
        rows = [
            [line["work"], line["system"], f"{line['metric']} ({line['unit']})", line["n"]]
            + [figure(line[key]) for key in ("median", "min", "max")]
            for line in result["rows"]
        ]
        headers = ["work", "system", "metric", "n", "median", "min", "max"]
        sections += [
            f"## {name}, {result['date']}",
            f"{result['hardware']}; {versions}. From [{result['file']}]({result['file']}).",
            tabulate(rows, headers, tablefmt="github", colalign=["left"] * 3 + ["right"] * 4, disable_numparse=True),
        ]
    (RESULTS / "README.md").write_text("\n\n".join(sections) + "\n")


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.2f}"


if __name__ == "__main__":
    main()
