"""The scan way of ``score_table``, seen from the driver: pieces to tasks, a bar, the commit."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import pyarrow as pa

from sparkdl import bars, session, store
from sparkdl.errors import DataError, ScoringError, SparkdlError
from sparkdl.score.job import Job
from sparkdl.score.output import file_schema, folder_name, write_empty
from sparkdl.score.parquet import arrow_schema
from sparkdl.score.pieces import Piece, cut
from sparkdl.score.result import ScoredTable
from sparkdl.score.staging import Staging
from sparkdl.score.udf import scorer_of
from sparkdl.score.work import Work
from sparkdl.score.written import Told

_TOLD = "told string"
_EMPTY = "part-empty.parquet"
_SLOTS = 16  # where Spark does not tell
_MOST_LINES = 20  # of an error of Spark's


def score(job: Job, place: Staging | None, *, verbose: bool) -> ScoredTable:
    """Score the table and commit it. Raises NotScannable before anything is scored; else as ``score_table``."""
    job.source.check_scannable()
    spark = job.source.df.sparkSession
    table = arrow_schema(job.told)
    read = _read_schema(job)
    job.layout.check_texts(table)
    place, pieces = _planned(job, place, read)
    work = Work(
        scorer_of(spark, job.model.bundle, job.model.scoring),
        read,
        table,
        job.outputs,
        job.error_column,
        file_schema(table, job.told, spark.version, job.layout),
        job.layout,
        place,
    )
    before = _finished(place, len(pieces))
    left = {number: piece for number, piece in enumerate(pieces) if number not in before}
    told = [*before.values(), *_run(job, work, left, sum(piece.rows for piece in pieces), verbose=verbose)]
    problem = next((part["problem"] for part in told if "problem" in part), None)
    if problem:
        raise _data_error(problem, place)
    done = ScoredTable(
        job.sink,
        sum(part["rows"] for part in told),
        sum(part["written"] for part in told),
        dict(sum((Counter(part["invalid"]) for part in told), Counter[str]())),
        0.0,
        "scan",
        pieces=len(pieces),
        resumed=len(before),
    )
    if place:
        files = [file for part in told for file in part["files"]]
        if not files:
            files = ["/".join([*(folder_name(name, None) for name in job.layout.partition_by), _EMPTY])]
            write_empty(store.join(place.table, files[0]), work.files, job.layout)
        job.source.check_unchanged()
        sums = {file: digest for part in told for file, digest in part.get("sha256", {}).items()}
        job.guard()
        place.commit(done.to_json(), files=files, overwrite=job.overwrite, about=job.about, sums=sums)
    return done


def _read_schema(job: Job) -> pa.Schema:
    """Of the columns that are read. Raises NotScannable."""
    fields = {field["name"]: field for field in job.source.df.schema.jsonValue()["fields"]}
    return arrow_schema({"fields": [fields[name] for name in job.needed]})


def _planned(job: Job, place: Staging | None, read: pa.Schema) -> tuple[Staging | None, list[Piece]]:
    def plan() -> list[Piece]:
        slots = session.free_slots(job.source.df.sparkSession) or _SLOTS
        return cut(job.source.row_groups(read), slots)

    return place.planned(plan) if place else (None, plan())


def _finished(place: Staging | None, pieces: int) -> dict[int, Told]:
    """What is told of the pieces that an earlier run finished."""
    told = {number: place.finished(number) for number in place.markers() if number < pieces} if place else {}
    return {number: found for number, found in told.items() if found is not None}


def _run(job: Job, work: Work, pieces: Mapping[int, Piece], total: int, *, verbose: bool) -> list[Told]:
    """What the tasks tell, a piece each."""
    if not pieces:
        return []
    spark = job.source.df.sparkSession
    tasks = spark.range(0, len(pieces), 1, len(pieces)).mapInArrow(_Task(work, tuple(pieces.items())), _TOLD)
    place, bar = work.staging, None
    if place and verbose:
        bar = bars.of_rows(total, "scoring")
        bar.initial = bar.n = total - sum(piece.rows for piece in pieces.values())
    try:
        rows = session.collect(tasks, check=_checks(job.guard, _watch(place, pieces, bar)) if place else None)
    except SparkdlError:
        raise
    except Exception as error:  # Py4J's, PySpark's and gRPC's errors share no base
        raise_explained(error, place)
    else:
        if bar is not None:
            bar.update(bar.total - bar.n)
    finally:
        if bar is not None:
            bar.close()
    return [json.loads(row.told) for row in rows]


def _checks(*checks: Callable[[], None]) -> Callable[[], None]:
    def check() -> None:
        for each in checks:
            each()

    return check


def _watch(place: Staging, pieces: Mapping[int, Piece], bar: Any) -> Callable[[], None]:
    """Looks at what the tasks leave: moves the bar, and ends the job at the first row that does."""
    seen: set[int] = set()

    def check() -> None:
        problem = place.failure()
        if problem:
            raise _data_error(problem["problem"], place)
        if bar is None or bar.disable:
            return
        new = [number for number in place.markers() if number in pieces and number not in seen]
        seen.update(new)
        bar.update(sum(pieces[number].rows for number in new))

    return check


def _data_error(problem: dict[str, Any], place: Staging | None) -> DataError:
    fields = {name: value for name, value in problem.items() if name != "message"}
    return DataError(f"{problem['message']}{_kept(place)}", **fields)


def _kept(place: Staging | None) -> str:
    finished = len(place.markers()) if place else 0
    if not place or not finished:
        return ""
    return f"; {finished} finished pieces are kept in {place.folder!r}, and the same call takes up there"


def raise_explained(error: Exception, place: Staging | None) -> NoReturn:
    """Raise what ended the Spark job as an error of ours: a DataError if a task raised one."""
    session.raise_if_worker_lacks(error)
    refused = refused_row(error)
    if refused:
        raise DataError(f"{refused}{_kept(place)}", **dict.fromkeys(UNKNOWN)) from error
    message = f"the Spark job that scores the table failed{_kept(place)}:\n{last_lines(error)}"
    finished = len(place.markers()) if place else 0
    raise ScoringError(message, uri=place.sink if place else None, finished=finished) from error


UNKNOWN = ("column", "row", "file", "expected", "got")  # fields of a DataError that came as text


def refused_row(error: Exception) -> str | None:
    """The message of the DataError by which a task ended the Spark job, if that is what did."""
    found = re.search(r"^(?:sparkdl\.\w+\.)(?:DataError|BadRows): (.+)$", str(error), re.MULTILINE)
    return found[1] if found else None


def last_lines(error: Exception) -> str:
    """The end of what Spark says, without the JVM's stack."""
    return "\n".join(str(error).split("\n\tat ")[0].splitlines()[-_MOST_LINES:])


@dataclass(frozen=True)
class _Task:
    """Runs in the executors: the numbers of pieces in, what is told of each out."""

    work: Work
    pieces: tuple[tuple[int, Piece], ...]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            told = [json.dumps(self.work.do(*self.pieces[index])) for index in batch.column(0).to_pylist()]
            yield pa.RecordBatch.from_arrays([pa.array(told, pa.string())], names=["told"])
