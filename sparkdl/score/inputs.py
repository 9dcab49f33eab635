"""A model's inputs as a caller gives them, checked against its signature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sparkdl.columns import Ragged
from sparkdl.errors import SignatureError
from sparkdl.signature import Signature, TensorSpec

Inputs = dict[str, "np.ndarray | Ragged"]


def checked(inputs: Mapping[str, Any], signature: Signature) -> Inputs:
    """The inputs of the signature, but for its masks, in the dtypes that it says, all of the same number of rows.

    Raises SignatureError for a missing name, a wrong shape, or a dtype that would lose values.
    """
    given = {spec.name: _checked(inputs, spec) for spec in signature.inputs if not spec.mask_of}
    (first, *others) = given
    for name in others:
        if len(given[name]) != len(given[first]):
            raise SignatureError(
                f"input {name!r} has {len(given[name])} rows, {first!r} has {len(given[first])}",
                column=name,
                expected=len(given[first]),
                got=len(given[name]),
            )
    return given


def _checked(inputs: Mapping[str, Any], spec: TensorSpec) -> np.ndarray | Ragged:
    if spec.name not in inputs:
        raise SignatureError(
            f"input {spec.name!r} is missing; given are {sorted(inputs)}",
            column=spec.name,
            expected=str(spec),
            got=sorted(inputs),
        )
    if spec.is_ragged:
        ragged = _ragged(inputs[spec.name], spec)
        return Ragged(_cast(ragged.values, spec), ragged.offsets)
    array, got = _fixed(inputs[spec.name])
    if array.ndim == 0 or array.shape[1:] != spec.shape:
        raise SignatureError(
            f"input {spec.name!r} must have shape (B, {', '.join(map(str, spec.shape))}) (got {got})",
            column=spec.name,
            expected=spec.shape,
            got=got,
        )
    return _cast(array, spec)


def _fixed(value: Any) -> tuple[np.ndarray, Any]:
    """As an array, and what to tell of its shape."""
    try:
        array = np.asarray(None if isinstance(value, Ragged) else value)
    except ValueError:
        return np.empty(()), "rows of different shapes"
    return array, "rows of varying length" if isinstance(value, Ragged) else array.shape


def _ragged(rows: Any, spec: TensorSpec) -> Ragged:
    """``rows`` is a Ragged, or has an array (or list) for each row."""
    if isinstance(rows, Ragged):
        _check_row(rows.values.shape, spec)
        return rows
    if not isinstance(rows, Iterable):
        raise _wrong_row(spec, rows)
    arrays = [_as_array(row, spec) for row in rows]
    kinds = [array.dtype for array in arrays if array.size]
    return Ragged.of(arrays, str(np.result_type(*kinds)) if kinds else spec.dtype, spec.shape)


def _as_array(row: Any, spec: TensorSpec) -> np.ndarray:
    try:
        array = np.asarray(row)
    except ValueError as error:  # lists of different lengths within
        raise _wrong_row(spec, row) from error
    if array.shape != (0,):  # an empty list tells no more of its shape
        _check_row(array.shape, spec)
    return array


def _check_row(shape: tuple[int, ...], spec: TensorSpec) -> None:
    if len(shape) != len(spec.shape) or shape[1:] != spec.shape[1:]:
        raise _wrong_row(spec, shape)


def _wrong_row(spec: TensorSpec, got: Any) -> SignatureError:
    return SignatureError(
        f"input {spec.name!r} must have an array of shape (L, {', '.join(map(str, spec.shape[1:]))}) for each row "
        f"(got {got!r})",
        column=spec.name,
        expected=spec.shape,
        got=got,
    )


def _cast(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    if not np.can_cast(array.dtype, spec.dtype, "same_kind"):
        raise SignatureError(
            f"input {spec.name!r} must be {spec.dtype} (got {array.dtype}, which it cannot hold)",
            column=spec.name,
            expected=spec.dtype,
            got=str(array.dtype),
        )
    cast = array.astype(spec.dtype, copy=False)
    if array.dtype.kind in "iu" and spec.dtype.startswith(("int", "uint")) and not np.array_equal(cast, array):
        raise SignatureError(
            f"input {spec.name!r} must be {spec.dtype} (got {array.dtype} values that it cannot hold)",
            column=spec.name,
            expected=spec.dtype,
            got=str(array.dtype),
        )
    return cast
