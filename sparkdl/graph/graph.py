"""The form of a graph, which Python and Java share: an ONNX model's bytes, and a description as JSON."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal

from pydantic import ConfigDict, FiniteFloat, TypeAdapter, ValidationError

from sparkdl.errors import BundleIntegrityError

FILE = "graph.onnx"
Dtype = Literal[
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "string"
]  # TensorSpec's, and texts
_CHECKS = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Text:
    """A text that stands for a null."""

    __pydantic_config__ = _CHECKS
    text: str


@dataclass(frozen=True)
class Buckets:
    """What ``preprocess.Hashed`` makes of a cell's text: its bucket's number; 0 of a null. ``count``: buckets."""

    __pydantic_config__ = _CHECKS
    count: int
    seed: int


@dataclass(frozen=True)
class Input:
    """An input of the ONNX model, and the columns that it is made of.

    name: the ONNX model's. dtype, shape: of one row; a batch of B rows has shape ``(B, *shape)``, and a first size of -1
        varies from row to row: then it is padded behind with zeros.
    columns, types: as TensorSpec has them: one column as it is, or several scalar ones, stacked in this order.
    A date is the days since 1970, a timestamp the microseconds since 1970 in UTC, one without a zone as its clock says.
    ``string``: each cell as the text that tells it from others: a text itself, ``2`` of 2 and of 2.0, ``true``; a number
        that is no whole one of 64 bits counts as a null.
    mask_of: of an input without columns: 1 where the input of this name has a value, 0 where it is padded.
    missing: what a null is in the tensor: ``nan``, or a text that is no known value; None: a row with a null is bad.
    refuses: of ``nan`` and ``inf``, those that make a row bad.
    hashed: a cell is not read as a number, but hashed as a text; int64 of shape ``()``.
    """

    __pydantic_config__ = _CHECKS
    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    mask_of: str = ""
    missing: Literal["nan"] | Text | None = None
    refuses: tuple[Literal["nan", "inf"], ...] = ()
    hashed: Buckets | None = None


@dataclass(frozen=True)
class Output:
    """An output of the ONNX model: a column of ``columns.answers``. dtype, shape: of one row."""

    __pydantic_config__ = _CHECKS
    name: str
    dtype: Dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Told:
    __pydantic_config__ = _CHECKS
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    tolerance: FiniteFloat
    sha256: str


@dataclass(frozen=True)
class Graph:
    """A bundle as one ONNX model that is complete in itself. See ``sparkdl.graph.build``.

    content: the ONNX model. inputs, outputs: all of its own, in its order.
    tolerance: how far, relative and absolute, its answers may be from those of the bundle.
    """

    content: bytes
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    tolerance: float

    @cached_property
    def sha256(self) -> str:
        """Of the content, in lower-case hex."""
        return hashlib.sha256(self.content).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As JSON values, but for the content; what is not used is not told. ``from_json`` takes them back."""
        return {
            "inputs": [_told(one) for one in self.inputs],
            "outputs": [_told(one) for one in self.outputs],
            "tolerance": self.tolerance,
            "sha256": self.sha256,
        }

    @classmethod
    def from_json(cls, told: Any, content: bytes) -> Graph:
        """The graph that ``to_json`` told of. Raises BundleIntegrityError for what is no description, or one of another
        content; the ONNX model itself is looked at by ``onnx_model.check``."""
        try:
            found = _FORM.validate_json(json.dumps(told))
        except (ValidationError, TypeError, ValueError) as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
            where = ".".join(str(part) for part in first["loc"])
            raise refused(f"{where or 'its description'}: {first['msg']}") from error
        graph = cls(content, found.inputs, found.outputs, found.tolerance)
        if graph.sha256 != found.sha256:
            raise refused(f"its sha256 is {graph.sha256}, the description says {found.sha256}")
        graph._check_sense()
        return graph

    def _check_sense(self) -> None:
        names = [one.name for one in self.inputs]
        for given in self.inputs:
            if len(given.columns) != len(given.types) or bool(given.columns) == bool(given.mask_of):
                raise refused(f"the input {given.name!r} has the columns {given.columns}, of the types {given.types}")
            if given.hashed and (
                given.dtype != "int64" or given.shape or given.hashed.count < 2 or given.hashed.seed < 0
            ):
                raise refused(f"the input {given.name!r} is hashed: {given}")
            if given.mask_of and given.mask_of not in names:
                raise refused(f"{given.name!r} is the mask of {given.mask_of!r}, which is no input")
        sizes = [size for given in self.inputs for size in (max(given.shape[:1], default=0) + 1, *given.shape[1:])]
        if min([*sizes, *(size for made in self.outputs for size in made.shape)], default=0) < 0:
            raise refused("a size below 0; only the first of an input may be -1, for one that varies")
        if self.tolerance < 0:
            raise refused(f"its tolerance is {self.tolerance}")


_FORM = TypeAdapter(_Told)


def _told(one: Input | Output) -> dict[str, Any]:
    told = {field.name: getattr(one, field.name) for field in fields(one)}
    kept = {name: value for name, value in told.items() if value or name in ("name", "dtype", "shape")}
    return {name: _plain(value) for name, value in kept.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (Text, Buckets)):
        return asdict(value)
    return list(value) if isinstance(value, tuple) else value


def refused(why: str) -> BundleIntegrityError:
    """The error for a graph that cannot be used."""
    return BundleIntegrityError(f"the graph is refused: {why}", uri=None, file=FILE)
