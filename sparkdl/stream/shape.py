"""Which columns the workers get, the model reads and the sink keeps; what cannot be is refused."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparkdl.errors import ColumnNotFoundError, InvalidParamError, SignatureError
from sparkdl.payloads import PARSED, UNPARSABLE
from sparkdl.score.job import told_type
from sparkdl.signature import quoted
from sparkdl.stream.rows import ARRAY, OTHER_VERSION, SHARE, VERSION, Shape

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
    """Raise SignatureError for a column that does not travel to a Python worker."""
    from pyspark.errors import PySparkException
    from pyspark.sql.pandas.types import to_arrow_type
    from pyspark.sql.types import UserDefinedType

    more = {"timezone": "UTC"} if "timezone" in inspect.signature(to_arrow_type).parameters else {}
    for field in events.schema.fields:
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


def flat_events(parsed: DataFrame, payload: Payload | None) -> DataFrame:
    """The columns that the model reads and the sink may keep. Raises SignatureError."""
    if payload is None:
        return parsed
    fields = parsed.schema[PARSED].dataType.names  # type: ignore[attr-defined]
    events = [name for name in parsed.columns if name not in (PARSED, UNPARSABLE, payload.column)]
    taken = {name.lower(): name for name in events}
    for field in fields:
        if field.lower() in taken:
            raise SignatureError(
                f"the payload has a field {field!r}, and the events a column {taken[field.lower()]!r}; rename or drop the "
                "column of the events",
                column=field,
                expected="names that differ by more than case",
                got=taken[field.lower()],
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
    if columns is not None and (isinstance(columns, str) or not all(isinstance(name, str) for name in columns)):
        raise InvalidParamError(
            f"'columns' must be a list of column names, or None for all (got {columns!r})",
            param="columns",
            value=columns,
        )
    kinds = model.input_kinds(flat)
    passed = tuple(flat.columns if columns is None else dict.fromkeys(columns))
    for name in passed:
        if name not in flat.columns:
            raise ColumnNotFoundError(name, flat.columns, role="in columns, column")
    outputs = model.output_columns(passed)
    if both:
        outputs |= {f"other_{output}": f"other_{name}" for output, name in outputs.items()}
    taken = [*passed, *outputs.values()]
    for name in (VERSION, *([OTHER_VERSION] if both else [])):
        if name in taken:
            raise SignatureError(
                f"the events have a column {name!r}, which is to hold the model's version; rename or drop it",
                column=name,
                expected="a new name",
                got=name,
            )
    vectors = tuple(name for name, kind in kinds.items() if kind == "vector")
    return Shape(tuple(events.columns), passed, tuple(model.signature.columns), vectors, outputs)


def row_schema(flat: DataFrame, shape: Shape, model: TorchModel) -> dict[str, Any]:
    """Of the sink's rows, Spark's as JSON values."""
    fields = {field["name"]: field for field in flat.schema.jsonValue()["fields"]}
    types = {spec.name: told_type(spec) for spec in model.signature.outputs}
    made = {name: types[output.removeprefix("other_")] for output, name in shape.outputs.items()}
    made[VERSION] = "string"
    if len(shape.outputs) > len(types):
        made[OTHER_VERSION] = "string"
    new = [{"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind in made.items()]
    return {"type": "struct", "fields": [*(fields[name] for name in shape.passed), *new]}


def for_workers(parsed: DataFrame, payload: Payload | None, shape: Shape, share_by: str | None) -> DataFrame:
    """What the workers get: the events, what was parsed of them, vectors as arrays, and each row's share."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as sf

    def column(name: str) -> Any:
        is_parsed = payload is not None and name not in parsed.columns
        return sf.col(f"{PARSED}.{quoted(name)}") if is_parsed else sf.col(quoted(name))

    added = {ARRAY + name: vector_to_array(column(name)) for name in shape.vectors}
    if share_by is not None:
        added[SHARE] = sf.pmod(sf.xxhash64(column(share_by)), sf.lit(1_000_000)) / sf.lit(1_000_000.0)
    return parsed.select("*", *(made.alias(name) for name, made in added.items())) if added else parsed
