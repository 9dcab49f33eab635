"""What arrives in the streaming benchmark: files, given by a process of its own at the pace that is asked.

    python streaming_source.py TEMPLATES FOLDER FILES_A_SECOND SECONDS

The files are made beforehand and only get a further name (a hard link, in one step), so that a fast source costs next to
nothing beside the query that is measured. Ids therefore come back after ``TEMPLATES`` files.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FILES_A_SECOND = 4
TEMPLATES = 8


def main(templates: str, folder: str, pace: str, seconds: str) -> None:
    """Link a file every ``1 / pace`` seconds, by the clock: one that is late does not delay the next."""
    files = sorted(os.listdir(templates))
    started = time.monotonic()
    for number in range(int(float(seconds) * float(pace))):
        time.sleep(max(0.0, started + number / float(pace) - time.monotonic()))
        name = files[number % len(files)]
        os.link(os.path.join(templates, name), os.path.join(folder, f"{number:08d}-{name}"))


def made(folder: Path, form: str, rows: int, count: int = TEMPLATES) -> Path:
    """``count`` files of ``rows`` rows each, as ``parquet`` or ``json``; made once."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from scoring_works import MLP

    place = folder / f"{form}-{rows}"
    if place.exists():
        return place
    place.mkdir(parents=True)
    for i in range(count):
        columns = MLP.data(rows, np.random.default_rng(i))
        ids = np.arange(i * rows, (i + 1) * rows)
        if form == "parquet":
            pq.write_table(pa.table({"id": ids, **columns}), place / f"{i}.parquet")
        else:
            with open(place / f"{i}.json", "w", encoding="ascii") as file:
                file.writelines(lines(ids, columns["features"].flatten().to_numpy().reshape(rows, -1)))
    return place


def lines(ids: Any, features: Any) -> Iterator[str]:
    """JSON, a line a row."""
    for number, row in zip(ids, features, strict=True):
        yield f'{{"id":{number},"features":[{",".join(f"{value:.6g}" for value in row)}]}}\n'


@contextmanager
def arriving(templates: Path, folder: Path, seconds: float) -> Iterator[None]:
    """Files arrive while the block runs."""
    told = [str(templates), str(folder), str(FILES_A_SECOND), str(seconds)]
    source = subprocess.Popen([sys.executable, __file__, *told])
    try:
        yield
    finally:
        source.kill()
        source.wait()


def flood(templates: Path, folder: Path, files: int) -> None:
    """All at once."""
    names = sorted(os.listdir(templates))
    for number in range(files):
        name = names[number % len(names)]
        os.link(templates / name, folder / f"{number:08d}-{name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
