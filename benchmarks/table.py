"""Write benchmarks/results/README.md from the JSON files beside it: the newest of each benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tabulate import tabulate

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def main() -> None:
    newest: dict[str, dict[str, Any]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        newest[result["benchmark"]] = {**result, "file": path.name}
    sections = [
        "# Results",
        "Made by `python benchmarks/table.py` from the files beside it. Each figure is the median of n runs, and in brackets "
        "the smallest and the largest. What a system is, the script says: `benchmarks/NAME.py`.",
    ]
    for name, result in sorted(newest.items()):
        sections += section(name, result)
    (RESULTS / "README.md").write_text("\n\n".join(sections) + "\n")


def section(name: str, result: dict[str, Any]) -> list[str]:
    """A heading, where the figures are from, and a table a work; a table a system where the works are one that grows."""
    versions = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
    found = [
        f"## {name}, {result['date']}",
        f"{result['hardware']}; {versions}. From [{result['file']}]({result['file']}).",
    ]
    picture = Path(result["file"]).with_suffix(".png")
    if (RESULTS / picture).exists():
        found.append(f"![{name}]({picture})")
    rows = result["rows"]
    works, names = ([*dict.fromkeys(row[key] for row in rows)] for key in ("work", "system"))
    if len(names) == 1:
        return [*found, table(rows, "work", "metric")]
    if len(works) > len(names) and not any(row["unit"] == "ratio" for row in rows):
        for name in names:
            found += [f"**{name}**", table([row for row in rows if row["system"] == name], "work", "metric")]
        return found
    for work in works:
        of = [row for row in rows if row["work"] == work]
        runs = sorted({row["n"] for row in of})
        found.append(f"**{work}** (n = {', '.join(map(str, runs))})")
        measured = [row for row in of if row["unit"] != "ratio"]
        systems, metrics = ({row[key] for row in measured} for key in ("system", "metric"))
        by = ("system", "metric") if len(systems) >= len(metrics) else ("metric", "system")
        found.append(table(measured, *by))
        ratios = [f"- {row['system']}, {row['metric']}: {figure(row)}" for row in of if row["unit"] == "ratio"]
        if ratios:
            found.append("\n".join(ratios))
    return found


def table(rows: list[Row], down: str, across: str) -> str:
    def named(row: Row, key: str) -> str:
        return f"{row['metric']} ({row['unit']})" if key == "metric" else str(row[key])

    columns = list(dict.fromkeys(named(row, across) for row in rows))
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        lines.setdefault(named(row, down), {})[named(row, across)] = figure(row)
    cells = [[name, *(line.get(column, "") for column in columns)] for name, line in lines.items()]
    align = ["left"] + ["right"] * len(columns)
    return tabulate(cells, [down, *columns], tablefmt="github", colalign=align, disable_numparse=True)


def figure(row: Row) -> str:
    median, low, high = (number(row[key]) for key in ("median", "min", "max"))
    return median if row["n"] == 1 else f"{median} ({low} – {high})"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"


if __name__ == "__main__":
    main()
