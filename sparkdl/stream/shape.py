"""Which columns the workers get, the model reads and the sink keeps; what cannot be is refused."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sparkdl.columns import answers, spark_json
from sparkdl.errors import SignatureError
from sparkdl.payloads import PARSED, UNPARSABLE
from sparkdl.score.job import kept_columns
from sparkdl.signature import quoted
from sparkdl.stream.rows import ARRAY, EVENT, PASSED, ROW, SHARE, Shape

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.model import TorchModel
    from sparkdl.payloads import Payload


def parsed_events(events: DataFrame, payload: Payload | None) -> DataFrame:
    """``events`` with what is parsed of them."""
    if payload is None:
        return events
    from sparkdl import payloads

    return payloads.parse(events, payload)


def check_types(events: DataFrame) -> None:
    """Raise SignatureError for columns that do not travel to a Python worker, or whose names are not their own."""
    from pyspark.errors import PySparkException
    from pyspark.sql.pandas.types import to_arrow_type
    from pyspark.sql.types import UserDefinedType

    fields = _fields(events)
    names = [field.name for field in fields]
    _check_unique((name, f"column {number} of the events") for number, name in enumerate(names, 1))
    for name in names:
        if name in (PARSED, UNPARSABLE, SHARE, ROW) or name.startswith((ARRAY, EVENT, PASSED)):
            raise SignatureError(
                f"the events have a column {name!r}, a name that scoring needs; rename or drop it",
                column=name,
                expected="another name",
                got=name,
            )
    more = {"timezone": "UTC"} if "timezone" in inspect.signature(to_arrow_type).parameters else {}
    for field in fields:
        kind = field.dataType
        try:
            to_arrow_type(kind.sqlType() if isinstance(kind, UserDefinedType) else kind, **more)
        except (PySparkException, TypeError) as error:
            raise SignatureError(
                f"column {field.name!r} is {field.dataType.simpleString()}, which Spark does not give to Python as Arrow; "
                "cast it, or drop it from the events",
                column=field.name,
                expected="a type that Arrow has",
                got=field.dataType.simpleString(),
            ) from error


def _fields(events: DataFrame) -> list[Any]:
    """Of the schema, which Spark 3.5 does not give for every type that its JVM has."""
    from pyspark.errors import PySparkException

    try:
        return list(events.schema.fields)
    except PySparkException as error:
        raise SignatureError(
            f"a column of the events has a type that PySpark does not know ({error}); cast it, or drop it from the events",
            column=None,
            expected="a type that Arrow has",
            got=str(error),
        ) from error


def flat_events(parsed: DataFrame, payload: Payload | None, *, shadowing: bool = False) -> DataFrame:
    """The columns that the model reads and the sink may keep. shadowing: a column of the events that is called as a field
    of the payload is left out; else SignatureError is raised for it."""
    if payload is None:
        return parsed
    fields = parsed.schema[PARSED].dataType.names  # type: ignore[attr-defined]
    hidden = {name.lower() for name in fields} if shadowing else set()
    events = [
        name
        for name in parsed.columns
        if name not in (PARSED, UNPARSABLE, payload.column) and name.lower() not in hidden
    ]
    _check_unique(
        [*((name, "a column of the events") for name in events), *((name, "a field of the payload") for name in fields)]
    )
    return parsed.select(*map(quoted, events), f"{PARSED}.*")


def shape_of(
    events: DataFrame,
    flat: DataFrame,
    payload: Payload | None,
    model: TorchModel,
    columns: Sequence[str] | None,
    *,
    both: bool,
) -> Shape:
    """both: there is a challenger. Raises InvalidParamError, ColumnNotFoundError, SignatureError."""
    passed = kept_columns(columns, flat.columns)
    kinds = model.input_kinds(flat)
    outputs = model.output_columns(passed)
    others = {output: f"other_{name}" for output, name in outputs.items()} if both else None
    vectors = tuple(name for name, kind in kinds.items() if kind == "vector")
    shape = Shape(tuple(events.columns), passed, tuple(model.signature.columns), vectors, outputs, others)
    _check_unique(
        [
            *((name, "a column of the events") for name in passed),
            *((name, f"the model's output {output!r}") for output, name in outputs.items()),
            *((name, f"the other model's output {output!r}") for output, name in (others or {}).items()),
            *((name, "the version of the model") for name in shape.versions),
        ]
    )
    return shape


def _check_unique(columns: Iterable[tuple[str, str]]) -> None:
    """columns: names, and what they are. Raises SignatureError for two that Spark, which ignores case, takes for one."""
    taken: dict[str, tuple[str, str]] = {}
    for name, what in columns:
        if name.lower() in taken:
            other, first = taken[name.lower()]
            raise SignatureError(
                f"{what} would be column {name!r}, and there is {other!r} already, {first}; rename one of them, or drop "
                "the events' column",
                column=name,
                expected="names that differ by more than case",
                got=other,
            )
        taken[name.lower()] = name, what


def row_schema(flat: DataFrame, shape: Shape, model: TorchModel) -> dict[str, Any]:
    """Of the sink's rows, Spark's as JSON values."""
    fields = {field["name"]: field for field in flat.schema.jsonValue()["fields"]}
    types = {name: spark_json(kind) for name, kind in answers(model.signature).items()}
    made = {name: types[output] for models in (shape.outputs, shape.others or {}) for output, name in models.items()}
    made |= dict.fromkeys(shape.versions, "string")
    new = [{"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind in made.items()]
    return {"type": "struct", "fields": [*(fields[name] for name in shape.passed), *new]}


def for_workers(parsed: DataFrame, payload: Payload | None, shape: Shape, share_by: str | None) -> DataFrame:
    """What the workers get: the events, what was parsed of them, vectors as arrays, and each row's share; names
    are as ``Shape.named`` knows them."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as sf

    fields = parsed.schema[PARSED].dataType.names if payload is not None else []  # type: ignore[attr-defined]

    def column(name: str) -> Any:  # a field of the payload may have the name of the payload's column, and is meant then
        return sf.col(f"{PARSED}.{quoted(name)}" if name in fields else quoted(name))

    added = {f"{EVENT}{place}": sf.col(quoted(name)) for place, name in enumerate(shape.event)}
    added |= {name: sf.col(name) for name in parsed.columns if name in (PARSED, UNPARSABLE)}
    added |= {f"{ARRAY}{place}": vector_to_array(column(name)) for place, name in enumerate(shape.vectors)}
    if share_by is not None:
        added[SHARE] = sf.pmod(sf.xxhash64(column(share_by)), sf.lit(1_000_000)) / sf.lit(1_000_000.0)
    return parsed.select(*(made.alias(name) for name, made in added.items()))
