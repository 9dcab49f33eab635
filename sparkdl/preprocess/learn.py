"""What preprocessors must know of the data before the model is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sparkdl.errors import EmptyDatasetError, SignatureError
from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.learner import Learner
from sparkdl.preprocess.statistics import Moments
from sparkdl.signature import preprocessed, quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_PARTS = pa.schema(
    {
        "learner": pa.int32(),
        "place": pa.int32(),
        "value": pa.string(),
        "n": pa.int64(),
        "moments": pa.list_(pa.float64()),
    }
)
_ROWS = -1  # the place of the number of rows
_DDL = "learner int, place int, value string, n bigint, moments array<double>"


def learn(df: DataFrame, preprocess: Mapping[Any, Preprocessor]) -> dict[Any, Preprocessor]:
    """Each preprocessor as it is once it has seen its columns: those of its key, a name or a tuple of names.

    All that learn of moments and counts (Learner) do so in one pass over the rows. Raises ColumnNotFoundError,
    SignatureError for columns that one does not take, before any of them looks at a row; and what ``fit`` of a
    preprocessor raises.
    """
    if df.isStreaming:
        raise SignatureError(
            "a preprocessor learns from a batch DataFrame, and this one is a stream; write it to a table and learn from that",
            column=None,
            expected="batch",
            got="stream",
        )
    columns = {key: (key,) if isinstance(key, str) else tuple(key) for key in preprocess}
    for key, one in preprocess.items():
        preprocessed(df, columns[key][0], columns[key], one)
    learners = {key: one for key, one in preprocess.items() if isinstance(one, Learner)}
    asking = [(columns[key], one) for key, one in learners.items() if not one.is_learnt]
    answers = iter(_in_one_pass(df, asking) if asking else ())
    return {
        key: one.fit(df, columns[key]) if key not in learners else one if learners[key].is_learnt else next(answers)
        for key, one in preprocess.items()
    }


def _in_one_pass(df: DataFrame, learners: Sequence[tuple[tuple[str, ...], Learner]]) -> list[Learner]:
    """The executors measure and count their rows in Arrow, and Spark adds that up."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sf

    names = dict.fromkeys(quoted(name) for columns, _ in learners for name in columns)
    parts = df.select(*names).mapInArrow(_Look(tuple(learners)), _DDL)
    added = parts.groupBy("learner", "place", "value").agg(
        sf.sum("n").alias("n"), sf.sort_array(sf.collect_list("moments")).alias("moments")
    )
    by_count = Window.partitionBy("learner", "place").orderBy(sf.col("n").desc(), "value")
    most = sf.array(*(sf.lit(one.frequent or 2**31 - 1) for _, one in learners))
    ranked = added.withColumn("rank", sf.row_number().over(by_count)).where(sf.col("rank") <= most[sf.col("learner")])
    moments: list[list[Moments]] = [[Moments()] * len(columns) for columns, _ in learners]
    counts: list[list[dict[str, int]]] = [[{} for _ in columns] for columns, _ in learners]
    rows = 0
    for row in ranked.orderBy("learner", "place", "rank").collect():
        if row.place == _ROWS:
            rows = row.n
        elif row.value is None:
            moments[row.learner][row.place] = Moments.merged(row.moments)
        else:
            counts[row.learner][row.place][row.value] = row.n
    if not rows:
        raise EmptyDatasetError()
    told = zip(learners, moments, counts, strict=True)
    return [one.learnt(columns, measured, counted) for (columns, one), measured, counted in told]


@dataclass(frozen=True)
class _Look:
    """Runs on the executors: what the learners ask for, of one partition."""

    learners: tuple[tuple[tuple[str, ...], Learner], ...]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        moments: dict[tuple[int, int], Moments] = {}
        rows = 0
        for batch in batches:
            rows += len(batch)
            arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
            for number, (columns, one) in enumerate(self.learners):
                own = {name: arrays[name] for name in columns}
                for place, values in enumerate(one.measured(own)):
                    known = moments.get((number, place), Moments())
                    moments[number, place] = known.and_also(Moments.of(values))
                for place, values in enumerate(one.counted(own)):
                    found = pc.value_counts(values.drop_null())
                    value, count = found.field("values").cast(pa.string()), found.field("counts")
                    yield _part(number, [place] * len(found), value, count, [None] * len(found))
        for (number, place), known in moments.items():
            yield _part(number, [place], [None], [None], [known.as_row()])
        if rows:
            yield _part(0, [_ROWS], [None], [rows], [None])


def _part(number: int, places: list[int], values: Any, counts: Any, moments: list[Any]) -> pa.RecordBatch:
    columns = [[number] * len(places), places, values, counts, moments]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, _PARTS.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=_PARTS)
