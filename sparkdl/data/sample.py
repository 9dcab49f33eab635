"""Some rows of training data, as columns again: what a drift reference is made of. No Spark."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkdl import columns
from sparkdl.data.fragments import Footers, read_fragment
from sparkdl.data.manifest import Dataset
from sparkdl.data.petastorm import PetastormDataset, PetastormReader
from sparkdl.data.shard import Fragment
from sparkdl.signature import TensorSpec
from sparkdl.train.world import World

if TYPE_CHECKING:
    from sparkdl.bundle import Bundle

logger = logging.getLogger(__name__)
SAMPLE_ROWS = 10_000
ROW_GROUPS = 8  # that are read, of about 16 MiB each
SECONDS, MEMORY = 1.0, 64 << 20  # for which Petastorm is read; bytes of its pools


def sample(data: Dataset | PetastormDataset, rows: int, seed: int = 0) -> pa.Table:
    """Up to ``rows`` training rows, shuffled, with the columns of ``data.signature``.

    They come from up to ROW_GROUPS row groups, drawn by ``seed``. Raises DataError if these cannot be read.
    """
    inputs = data.signature.inputs
    arrays = _of_row_groups(data, rows, seed) if isinstance(data, Dataset) else _of_reader(data, rows, seed)
    order = np.random.default_rng(seed).permutation(len(arrays[0]))[:rows]
    named: dict[str, pa.Array] = {}
    for spec, array in zip(inputs, arrays, strict=False):
        named.update(_columns(spec, array[order]))
    return pa.table(named)


def with_reference(bundle: Bundle, rows: Callable[[], pa.Table]) -> Bundle:
    """The bundle with a reference of some of the rows it was trained on; without one, and a warning in the log, if
    none can be made: hours of training are not lost for it."""
    try:
        return bundle.with_reference(rows())
    except Exception as error:  # whatever reading, or a model, raises
        logger.warning("the bundle has no drift reference: %s: %s", type(error).__name__, error)
        return bundle


def _of_row_groups(data: Dataset, rows: int, seed: int) -> list[np.ndarray]:
    groups = [Fragment(file.path, i, 0, count) for file in data.files for i, count in enumerate(file.row_groups)]
    chosen = random.Random(seed).sample(groups, min(ROW_GROUPS, len(groups)))
    footers: Footers = {}
    there = sum(group.rows for group in chosen)
    parts: list[list[np.ndarray]] = []
    for group in chosen:
        wanted = -(-rows * group.rows // there)
        places = np.random.default_rng((seed, len(parts))).permutation(group.rows)[:wanted]
        parts.append([array[places] for array in read_fragment(data, group, footers)])
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def _of_reader(data: PetastormDataset, rows: int, seed: int) -> list[np.ndarray]:
    started, parts, count = time.monotonic(), [], 0
    batches = PetastormReader(data, World(), batch_size=256, seed=seed, memory_budget=MEMORY).epoch(0)
    for batch in batches:
        parts.append([tensor[: batch.rows].numpy() for tensor in batch.inputs])
        count += batch.rows
        if count >= rows or time.monotonic() - started > SECONDS:
            break
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def _columns(spec: TensorSpec, array: np.ndarray) -> dict[str, pa.Array]:
    """The columns that the tensor was made of, as Spark would give them to a scorer."""
    if spec.is_stacked:
        return {name: pa.array(np.ascontiguousarray(array[:, i])) for i, name in enumerate(spec.columns)}
    (name,), (kind,) = spec.columns, spec.types
    if kind == "string":
        return {name: pc.cast(pa.array(_ended(array), pa.binary()), pa.string())}
    if kind == "binary":
        return {name: pa.array([row.tobytes() for row in array], pa.binary())}
    return {name: columns.to_arrow(array)}


def _ended(texts: np.ndarray) -> Sequence[bytes]:
    """UTF-8 bytes without the zeros that fill them up."""
    return [row.tobytes().rstrip(b"\0") for row in texts.astype(np.uint8)]
