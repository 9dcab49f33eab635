"""The first rows of a DataFrame as a table. Long values are cut by Spark, before they travel to the driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sparkdl.errors import ColumnNotFoundError, InvalidParamError
from sparkdl.showing import cuts, values
from sparkdl.showing.pieces import Table

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

_NUMBERS = ("byte", "short", "integer", "long", "float", "double", "decimal")


def is_spark(x: Any) -> bool:
    """True for a DataFrame of Spark, classic or Connect; pyspark is not imported for it."""
    return any(kind.__name__ == "DataFrame" and kind.__module__.startswith("pyspark.sql") for kind in type(x).__mro__)


def is_pandas(x: Any) -> bool:
    """True for a DataFrame of pandas."""
    return any(kind.__name__ == "DataFrame" and kind.__module__.startswith("pandas") for kind in type(x).__mro__)


def checked_count(n: Any, param: str = "n", most: int | None = None) -> int:
    """``n`` if it is a count of 1 or more, and ``most`` at most. Raises InvalidParamError."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise InvalidParamError(f"'{param}' must be a whole number of 1 or more (got {n!r})", param=param, value=n)
    if most is not None and n > most:
        raise InvalidParamError(f"'{param}' must be at most {most} (got {n})", param=param, value=n)
    return int(n)


def types_of(df: Any) -> dict[str, Any]:
    """Each column's Spark type as JSON has it: a name, or a dictionary for what is nested."""
    return {field["name"]: field["type"] for field in df.schema.jsonValue()["fields"]}


def check_columns(df: Any, *named: str | None) -> None:
    """Raise InvalidParamError unless ``df`` is a batch DataFrame of Spark's, ColumnNotFoundError if it lacks a column."""
    if not is_spark(df):
        raise InvalidParamError(f"this takes a DataFrame of Spark (got {type(df).__name__})", param="df", value=df)
    check_batch(df)
    for name in named:
        if name is not None and name not in df.columns:
            raise ColumnNotFoundError(name, df.columns)


def check_batch(df: Any) -> None:
    """Raise InvalidParamError for a streaming DataFrame."""
    if df.isStreaming:
        raise InvalidParamError(
            "a streaming DataFrame has no rows to show before it runs: start a query, then show or live(query), or "
            "read what it wrote",
            param="df",
            value=df,
        )


def of_spark(df: DataFrame, n: int) -> Table:
    """The first ``n`` rows. Raises InvalidParamError for a streaming DataFrame."""
    check_batch(df)
    fields = df.schema.jsonValue()["fields"]
    alone = df.toDF(*(f"c{i}" for i in range(len(fields))))  # names may occur twice, or hold anything
    shown = alone.select(*(cuts.cut(alone[f"c{i}"], field["type"]).alias(f"c{i}") for i, field in enumerate(fields)))
    rows = shown.limit(n + 1).collect() if fields else []
    kinds = [field["type"] for field in fields]
    cells = tuple(tuple(_cell(value, kind) for value, kind in zip(row, kinds, strict=True)) for row in rows[:n])
    names = tuple(values.printable(field["name"]) for field in fields)
    return Table(names, cells, _numeric(kinds), _note(len(cells), more=len(rows) > n), chart=True)


def of_pandas(df: pd.DataFrame, n: int) -> Table:
    """The first ``n`` rows; with the index, if it is more than their numbers."""
    import pandas as pd

    head = df.head(n)
    plain = isinstance(df.index, pd.RangeIndex) and df.index.name is None
    columns = [] if plain else [(str(df.index.name or "index"), list(head.index))]
    columns += [(str(name), list(head.iloc[:, i])) for i, name in enumerate(head.columns)]
    cells = tuple(
        zip(*([None if _missing(v) else values.cell(v) for v in column] for _, column in columns), strict=True)
    )
    numeric = [pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind) for kind in df.dtypes]
    offset = 0 if plain else 1
    found = frozenset(i + offset for i, there in enumerate(numeric) if there)
    names = tuple(values.printable(name) for name, _ in columns)
    return Table(names, cells, found, _note(len(head), of=len(df)), chart=True)


def _missing(value: Any) -> bool:
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )


def _cell(value: Any, kind: Any) -> str | None:
    single = kind == "float" and value is not None
    return values.cell(np.float32(value) if single else cuts.whole(value, kind))


def _numeric(kinds: list[Any]) -> frozenset[int]:
    return frozenset(i for i, kind in enumerate(kinds) if isinstance(kind, str) and kind.split("(")[0] in _NUMBERS)


def _note(shown: int, *, of: int | None = None, more: bool = False) -> str:
    if not shown:
        return "no rows"
    if of is not None and of > shown:
        return f"the first {shown:,} of {values.count(of, 'row')}"
    return f"the first {values.count(shown, 'row')}; there are more" if more else ""
