"""Made-up rows of a signature's columns, as tables hold them."""

from __future__ import annotations

from functools import singledispatch

import numpy as np
import pyarrow as pa

from sparkdl import columns
from sparkdl.columns import arrow_of_kind
from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.categories import Categories
from sparkdl.preprocess.dates import DateParts
from sparkdl.preprocess.hashed import Hashed
from sparkdl.preprocess.numbers import Numbers
from sparkdl.probe import example_inputs
from sparkdl.signature import Signature, TensorSpec


def of(signature: Signature, count: int) -> dict[str, pa.Array]:
    """So many rows, the same each time: what ``probe.example_inputs`` makes, and, of what a preprocessor reads, values that it
    knows, others, and nulls where they have a meaning."""
    made: dict[str, pa.Array] = {}
    for spec, tensor in zip(signature.inputs, example_inputs(signature, count), strict=True):
        cells = _of_tensor(spec, tensor.numpy()) if spec.preprocess is None else _of(spec.preprocess, spec.types, count)
        made = {**dict(zip(spec.columns, cells, strict=False)), **made}
    return made


def _of_tensor(spec: TensorSpec, values: np.ndarray) -> list[pa.Array]:
    if spec.is_stacked:
        return [_cast(columns.to_arrow(values[:, place]), kind) for place, kind in enumerate(spec.types)]
    if spec.mask_of:
        return []
    (kind,) = spec.types
    if kind == "binary":
        return [pa.array([row.tobytes() for row in values], pa.binary())]
    if kind == "string":
        return [pa.array(["a" * len(row) for row in values], pa.string())]
    depth = kind.count("array<") + (kind == "vector")
    flat = values if depth in (0, len(spec.shape)) else values.reshape(len(values), -1)
    return [_cast(columns.to_arrow(flat), kind)]


def _cast(values: pa.Array, kind: str) -> pa.Array:
    wanted = arrow_of_kind(kind)
    return values if wanted is None else values.cast(wanted, safe=False)


@singledispatch
def _of(preprocess: Preprocessor, kinds: tuple[str, ...], count: int) -> list[pa.Array]:
    """The columns that it reads."""
    raise TypeError(type(preprocess).__name__)


@_of.register
def _(preprocess: Numbers, kinds: tuple[str, ...], count: int) -> list[pa.Array]:
    chance = np.random.default_rng(0)
    made = []
    for place, kind in enumerate(kinds):
        low, high = preprocess.lows[place], preprocess.highs[place]
        beyond = 0.1 if preprocess.clip is not None else 0.0
        share = chance.uniform(-beyond, 1 + beyond, count)
        values = low * (1 - share) + high * share
        if preprocess.log:
            values = np.sign(values) * np.expm1(np.abs(values))
        is_null = (np.arange(count) % 5 == 4) & (preprocess.impute != "error")
        made.append(_cast(pa.array(values, mask=is_null), kind))
    return made


@_of.register
def _(preprocess: DateParts, kinds: tuple[str, ...], count: int) -> list[pa.Array]:
    first, last = (np.datetime64(f"{year}-06-15T12:34:56.789", "us") for year in preprocess.years)
    moments = first + np.arange(count) * ((last - first) // max(count - 1, 1))
    is_null = (np.arange(count) == 1) & (preprocess.missing == "zero")
    column = pa.array(moments, mask=is_null)
    (kind,) = kinds
    return [column.cast(pa.date32() if kind == "date" else pa.timestamp("us"), safe=False)]


@_of.register
def _(preprocess: Hashed, kinds: tuple[str, ...], count: int) -> list[pa.Array]:
    (kind,) = kinds
    values = pa.array([None if place == 1 else str(place % 2) for place in range(count)], pa.string())
    return [_cast(values, "double" if kind == "decimal" else kind)]


@_of.register
def _(preprocess: Categories, kinds: tuple[str, ...], count: int) -> list[pa.Array]:
    made = []
    for known, kind in zip(preprocess.vocabularies, kinds, strict=True):
        unknown = {"string": ["?", ""], "boolean": []}.get(kind, ["-1"])
        values = known[:3] if preprocess.unknown == "error" else [*known[:3], None, *unknown]
        asked = _cast(pa.array(values, pa.string()), "double" if kind == "decimal" else kind)
        made.append(asked.take(pa.array(np.arange(count) % len(asked))))
    return made
