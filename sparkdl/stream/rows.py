"""The columns of a stream's rows: as they come, as the model and the sink know them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkdl.errors import DataError
from sparkdl.payloads import PARSED
from sparkdl.stream.letters import struct_of

SHARE = "__share__"  # in [0, 1), by a row's key
ARRAY = "__array__"  # before a vector's name: it as an array
PASSED = "__passed__"  # before a column's name: it as the sink keeps it
EVENT = "__event__"  # before the place of an event's column, on its way: mapInArrow takes no name with a dot
ROW = "__row__"  # an event as it came
VERSION, OTHER_VERSION = "model_version", "other_version"


@dataclass(frozen=True)
class Shape:
    """event: columns as they come. passed: those the sink keeps, parsed ones among them. vectors: inputs that are
    pyspark.ml's vectors. outputs: the column of each output of the model that serves a row; others: the same of the
    other model, None if there is no challenger."""

    event: tuple[str, ...]
    passed: tuple[str, ...]
    inputs: tuple[str, ...]
    vectors: tuple[str, ...]
    outputs: Mapping[str, str]
    others: Mapping[str, str] | None = None

    @property
    def versions(self) -> tuple[str, ...]:
        """The columns that say which versions of the model scored a row."""
        return (VERSION,) if self.others is None else (VERSION, OTHER_VERSION)

    def named(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """What ``for_workers`` gave, with the columns' own names."""
        own = {f"{EVENT}{place}": name for place, name in enumerate(self.event)}
        own |= {f"{ARRAY}{place}": ARRAY + name for place, name in enumerate(self.vectors)}
        return pa.RecordBatch.from_arrays(batch.columns, names=[own.get(name, name) for name in batch.schema.names])

    def rows(self, batch: pa.RecordBatch) -> pa.StructArray:
        """The events as they came."""
        return struct_of(batch, self.event)

    def flat(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The columns that the sink keeps or the model reads, ``SHARE`` if it is there, and ``ROW``."""
        columns = {name: batch.column(i) for i, name in enumerate(batch.schema.names)}
        named = {name: column for name, column in columns.items() if name in self.event or name == SHARE}
        if PARSED in columns:
            parsed = columns[PARSED]
            named |= {parsed.type.field(i).name: part for i, part in enumerate(parsed.flatten())}
        wanted = {name: named[name] for name in dict.fromkeys([*self.passed, *self.inputs])}
        made = {PASSED + name: named[name] for name in self.passed}
        made |= {name: columns.get(ARRAY + name, wanted[name]) for name in self.inputs}
        made |= {SHARE: named[SHARE]} if SHARE in named else {}
        return pa.RecordBatch.from_arrays([*made.values(), self.rows(batch)], names=[*made, ROW])

    def table(
        self,
        batch: pa.RecordBatch,
        outputs: Mapping[str, pa.Array],
        others: Mapping[str, pa.Array],
        versions: Sequence[pa.Array],
    ) -> pa.RecordBatch:
        """The sink's rows, of what ``flat`` gave and the models' outputs, by their names; versions: see there."""
        passed = [batch.column(batch.schema.get_field_index(PASSED + name)) for name in self.passed]
        made = [outputs[name] for name in self.outputs]
        other = [others[name] for name in self.others or {}]
        names = [*self.passed, *self.outputs.values(), *(self.others or {}).values(), *self.versions]
        return pa.RecordBatch.from_arrays([*passed, *made, *other, *versions], names=names)


def refuse(reason: str) -> NoReturn:
    """Raise DataError, with the kind and the column of a dead letter's reason. What follows the second colon may be of the
    payload, and is not told: errors end up in logs."""
    told = ": ".join(reason.split(": ", 2)[:2])
    raise DataError(
        f"{told}; name a place for such rows (deadLetter), or say handleInvalid='skip'",
        column=None,
        row=None,
        file=None,
        expected="rows that can be read",
        got=told,
    )


def masked(which: np.ndarray, one: pa.Array, two: pa.Array) -> pa.Array:
    """``one`` where ``which`` is true, else ``two``."""
    if not which.any():
        return two
    both = pa.concat_arrays([one, two])
    places: Sequence[int] | np.ndarray = np.where(which, np.arange(len(one)), np.arange(len(one)) + len(one))
    return both.take(pa.array(places))


def compared(one: pa.Array, two: pa.Array) -> dict[str, float]:
    """How two models' outputs differ, nothing for nested ones: ``rows`` that both have, of them ``equal`` ones, and the sum
    of the ``distance``. In float64: Arrow subtracts no bools, and unsigned numbers wrap."""
    if pa.types.is_nested(one.type):
        return {}
    first, second = (column.cast(pa.float64(), safe=False) for column in (one, two))  # large integers lose digits
    apart = pc.abs(pc.subtract(first, second))
    made = {"rows": len(apart) - apart.null_count, "equal": pc.sum(pc.equal(one, two)), "distance": pc.sum(apart)}
    return {name: value if isinstance(value, int) else value.as_py() or 0 for name, value in made.items()}
