"""The scorer as a vectorised UDF: an Arrow UDF on Spark 4.1 and later, a pandas UDF below and by choice.

The bundle travels once a session: as a broadcast, or as an artifact over Spark Connect.
"""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Tuple  # noqa: UP035

import pyarrow as pa

from sparkdl import columns, session
from sparkdl.bundle import Bundle
from sparkdl.errors import InvalidParamError
from sparkdl.score.scorer import Files, Scored, Scorer
from sparkdl.score.scoring import Scoring
from sparkdl.signature import FLOATS, Signature, form, quoted

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

PROBLEM = "__problem__"


def scorer_of(spark: SparkSession, bundle: Bundle, scoring: Scoring, *, for_stream: bool = False) -> Scorer:
    """What scores with ``bundle`` in the workers of this session."""
    session.check_worker_python(spark)
    # a stream over Connect runs in a session of its own, which has no artifacts of ours
    carried = for_stream and session.is_connect(spark)
    fetch = _Carried(dict(bundle.files)) if carried else _shipped(spark, bundle)
    return Scorer(bundle.digest, fetch, bundle.signature, scoring, bundle.trusted)


def scoring_udf(scorer: Scorer, kind: str, fields: tuple[str, ...], *, alone: bool = False) -> Any:
    """A UDF of the signature's columns (``Signature.columns``, in that order).

    It gives a struct of ``fields``: names of outputs, and PROBLEM; or, if there is but one and ``alone``, that as it is.
    kind: one of UDF_TYPES.
    """
    types = {name: columns.ddl(told) for name, told in columns.answers(scorer.signature).items()} | {PROBLEM: "string"}
    only = fields[0] if alone and len(fields) == 1 else None
    returns = types[only] if only else f"struct<{', '.join(f'{quoted(name)}:{types[name]}' for name in fields)}>"
    several = len(scorer.signature.columns) > 1
    score = _Score(scorer, fields, only)
    if udf_type(kind) == "arrow":
        from pyspark.sql.functions import arrow_udf

        return arrow_udf(_hinted(score.arrow, pa.Array, several, pa.Array), returns)
    import pandas as pd
    from pyspark.sql.functions import pandas_udf

    return pandas_udf(_hinted(score.pandas, pd.Series, several, pd.Series if only else pd.DataFrame), returns)


def udf_type(asked: str) -> str:
    """``arrow`` or ``pandas``, of one of UDF_TYPES. Raises InvalidParamError for one that this Spark does not have."""
    import pyspark

    has_arrow = tuple(int(part) for part in pyspark.__version__.split(".")[:2]) >= (4, 1)
    if asked == "arrow" and not has_arrow:
        raise InvalidParamError(
            f"'udfType' is 'arrow', which Spark has from 4.1 on, and this is {pyspark.__version__}; say 'auto' or 'pandas'",
            param="udfType",
            value=asked,
        )
    return ("arrow" if has_arrow else "pandas") if asked == "auto" else asked


def _hinted(score: Callable[[Any], Any], takes: Any, several: bool, gives: Any) -> Callable[[Any], Any]:
    """``score`` as a plain function with the type hints by which Spark knows an iterator UDF."""

    def function(batches: Any) -> Any:
        return score(batches)

    batch = Tuple[takes, ...] if several else takes  # noqa: UP006  # Spark looks for this name
    function.__annotations__ = {"batches": Iterator[batch], "return": Iterator[gives]}  # type: ignore[valid-type]
    return function


@dataclass(frozen=True)
class _Score:
    """Runs in the workers. fields: of the struct that is returned; only: the output that is returned as it is."""

    scorer: Scorer
    fields: tuple[str, ...]
    only: str | None

    def arrow(self, batches: Iterator[Any]) -> Iterator[pa.Array]:
        for made in self._made(batch if isinstance(batch, tuple) else (batch,) for batch in batches):
            yield made[self.only] if self.only else pa.StructArray.from_arrays(list(made.values()), names=list(made))

    def pandas(self, batches: Iterator[Any]) -> Iterator[pd.DataFrame | pd.Series]:
        import pandas as pd

        told = self.scorer.signature.kinds.values()
        several = (batch if isinstance(batch, tuple) else (batch,) for batch in batches)
        for made in self._made(tuple(map(_from_pandas, batch, told)) for batch in several):
            series = {name: array.to_pandas(integer_object_nulls=True) for name, array in made.items()}
            yield series[self.only] if self.only else pd.DataFrame(series)

    def _made(self, batches: Iterator[tuple[pa.Array, ...]]) -> Iterator[dict[str, pa.Array]]:
        names = list(self.scorer.signature.columns)
        for batch, scored in self.scorer.score(pa.RecordBatch.from_arrays(list(arrays), names) for arrays in batches):
            made = scored.outputs
            if PROBLEM in self.fields:
                made = made | {PROBLEM: problem_column(scored, len(batch))}
            yield {name: made[name] for name in self.fields}


def exact_longs(signature: Signature) -> frozenset[str]:
    """The columns whose bigints must reach a pandas UDF as texts: it is given floats of numbers among which is a null,
    and these do not hold an id beyond 2^53."""
    return frozenset(
        column
        for spec in signature.inputs
        if spec.preprocess is not None or spec.dtype not in FLOATS
        for column in spec.columns
    )


def _from_pandas(series: pd.Series, kind: str) -> pa.Array:
    """pandas holds a null number as NaN, and one can no longer be told from the other; within an array it can.

    kind: of the column; objects that are all null do not tell it.
    """
    if not hasattr(series, "dtype"):  # a frame: the fields of a struct, whose kinds are not told
        return pa.StructArray.from_arrays([_from_pandas(series[name], "") for name in series], names=list(series))
    array = pa.array(series, from_pandas=series.dtype != object)
    told = columns.arrow_of_kind(kind)
    if told is not None and _is_untold(array.type):
        return array.cast(told)
    is_text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
    if is_text and kind and form(kind) == ("number", 0):
        return array.cast(pa.int64())  # of exact_longs
    return array


def _is_untold(kind: pa.DataType) -> bool:
    return bool(pa.types.is_null(kind) or (pa.types.is_list(kind) and _is_untold(kind.value_type)))


def problem_column(scored: Scored, rows: int) -> pa.Array:
    """What is wrong with each row; null: nothing."""
    return pa.array(
        [scored.problems.get(row) for row in range(rows)] if scored.problems else [None] * rows, pa.string()
    )


@dataclass(frozen=True)
class _Broadcast:
    broadcast: Any

    def __call__(self) -> Files:
        files: Files = self.broadcast.value
        return files


@dataclass(frozen=True)
class _Carried:
    files: dict[str, bytes]

    def __call__(self) -> Files:
        return self.files


@dataclass(frozen=True)
class _Artifact:
    name: str

    def __call__(self) -> Files:
        from pyspark import SparkFiles

        with zipfile.ZipFile(SparkFiles.get(self.name)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


_SHIPS = 8  # bundles that are kept sent, for the next query with them
_ships: OrderedDict[tuple[str, str], Callable[[], Files]] = OrderedDict()


def _shipped(spark: SparkSession, bundle: Bundle) -> Callable[[], Files]:
    """How a worker gets at the bundle's files; they are sent once a session."""
    connect = session.is_connect(spark)
    identity = spark.session_id if connect else spark.sparkContext.applicationId
    key = (identity, bundle.digest)
    ship = _ships.pop(key, None)
    if ship is None:
        ship = _add_artifact(spark, bundle) if connect else _Broadcast(spark.sparkContext.broadcast(dict(bundle.files)))
    _ships[key] = ship
    while len(_ships) > _SHIPS:
        _ships.popitem(last=False)  # Spark forgets the broadcast when no query refers to it
    return ship


def _add_artifact(spark: Any, bundle: Bundle) -> _Artifact:
    name = f"sparkdl-{bundle.digest[:16]}.zip"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file, content in bundle.files.items():
            archive.writestr(zipfile.ZipInfo(file), content)  # without the time: one name, the same bytes
    with tempfile.TemporaryDirectory(prefix="sparkdl-") as folder:
        path = os.path.join(folder, name)
        with open(path, "wb") as target:
            target.write(buffer.getvalue())
        spark.addArtifacts(path, file=True)
    return _Artifact(name)
