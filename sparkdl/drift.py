"""How far what a model sees and says now is from what it was trained on. No Spark.

A reference, made when the model is trained and kept in its bundle, holds for each feature (an element of an input, an
output; see ``sparkdl.features``) some edges and how many rows of a sample lie between them. Whoever scores counts with
the same edges. Two lists of counts give

- PSI, the population stability index: the sum over bins of ``(p - q) ln(p / q)``, which is Jeffreys' divergence, KL(p||q)
  + KL(q||p) (Jeffreys 1946; as an index of scorecards: Siddiqi, Credit Risk Scorecards, 2006, where below 0.1 is little
  change and above 0.25 is a lot). Two samples of one distribution, of n and m rows, give about ``(bins - 1)(1/n + 1/m)``
  (Yurdakul and Naranjo, Statistical properties of the population stability index, 2020): with few rows it says little.
- the Kolmogorov-Smirnov statistic: the largest distance of the two distribution functions, looked at where there are edges,
  so a lower bound of what the rows themselves would give. Its p is by Kolmogorov's limit distribution, with Stephens'
  correction for a finite number of rows (Use of the Kolmogorov-Smirnov, Cramér-von Mises and related statistics, 1970).

Sizes: K edges make K + 1 bins, up to and including the first edge, ..., above the last; and one for what is missing.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sparkdl import columns
from sparkdl.columns import BadRows
from sparkdl.errors import BundleError, SignatureError
from sparkdl.features import FEATURES_MOST, Watched, merge_counts, watched
from sparkdl.signature import Signature

if TYPE_CHECKING:
    from sparkdl.bundle import Bundle

__all__ = ["FEATURES_MOST", "KEY", "Counter", "Drift", "Reference", "compare", "merge_counts"]

KEY = "reference"  # in Bundle.training
FINE, COARSE, PSI_BINS = 100, 20, 10  # bins of a feature; where there are more than FINE_MOST features; for the PSI
FINE_MOST = 64
VALUES_MOST = 20  # distinct ones that have a bin each
CLASSES_MOST = 100
ROWS_A_VALUE = 10  # of the sample, at least, for its values to count as the only ones there are
FLOOR = 1e-4  # the share of an empty bin, for which the logarithm has none; Evidently's and others' choice too
NUMBERS_MOST, ROWS_LEAST = 500_000, 16  # of a batch, that are counted
PREDICT_S = 1.0  # the model is slow if it takes longer: then fewer rows have predictions
PREDICT_ROWS = 500
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Edges:
    """A feature of the reference. edges: ``(K,)`` ascending. counts: ``(K + 2,)``, missing last. by_value: a bin holds
    one value, or nothing."""

    edges: np.ndarray
    counts: np.ndarray
    by_value: bool

    @property
    def rows(self) -> int:
        """Of the sample."""
        return int(self.counts.sum())

    @cached_property
    def groups(self) -> np.ndarray:
        """``(K + 1,)``: which bin of the PSI a bin belongs to: about a tenth of the sample each, or one value."""
        counts = self.counts[:-1]
        if self.by_value:
            return np.arange(len(counts))
        before = (np.cumsum(counts) - counts) * PSI_BINS // max(int(counts.sum()), 1)
        return np.unique(np.minimum(before, PSI_BINS - 1), return_inverse=True)[1].reshape(-1)

    def coarse(self, counts: np.ndarray) -> np.ndarray:
        """``(K + 2,)`` counts as those of the PSI's bins, missing last."""
        return np.append(np.bincount(self.groups, weights=counts[:-1]), counts[-1]).astype(np.int64)

    def histogram(self, counts: Sequence[int]) -> dict[str, Any]:
        """``bounds`` between the PSI's bins, and the shares ``then`` (of the sample) and ``now``, missing rows last; and
        ``by_value``."""
        both = {"then": self.counts, "now": np.asarray(counts, dtype=np.int64)}
        shares = {name: (self.coarse(one) / max(int(one.sum()), 1)).tolist() for name, one in both.items()}
        return {"bounds": self.bounds(), "by_value": self.by_value, **shares}

    def bounds(self) -> list[float]:
        """Where one bin of the PSI ends and the next begins, one fewer than there are bins."""
        last = np.flatnonzero(np.diff(self.groups))
        return [float(edge) for edge in self.edges[last]]


@dataclass(frozen=True)
class Drift:
    """A feature's. psi: from 0, see the module. ks: from 0 to 1. p: the chance of such a ks, or a larger one, if nothing had
    changed; where there are many rows, a change too small to matter has a small one. rows: counted, missing ones too."""

    feature: str
    psi: float
    ks: float
    p: float
    rows: int


@dataclass(frozen=True)
class Reference:
    """What the training sample was like, by feature. rows: of the sample."""

    rows: int
    features: Mapping[str, Edges] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: pa.Table | pa.RecordBatch, bundle: Bundle) -> Reference:
        """Of rows that have the signature's columns, and of what the bundle says to them.

        Where the model takes longer than a second, its outputs are those of as many of the first rows as it manages:
        give them shuffled. Rows that the model cannot take count with their inputs alone.
        Raises ColumnNotFoundError, SignatureError for columns of another type or without rows, BundleError if the
        model fails.
        """
        bundle.signature.check_columns(rows.schema.names)
        if not len(rows):
            raise SignatureError("a reference needs rows, and there are none", column=None, expected="rows", got=0)
        names = list(bundle.signature.columns)
        table = pa.table([rows.column(name) for name in names], names=names).combine_chunks()
        batch = table.to_batches()[0]
        try:
            values = _by_feature(watched(bundle.signature), batch, _outputs(bundle, batch))
        except (pa.ArrowException, ValueError, TypeError, AttributeError) as error:
            if isinstance(error, (SignatureError, BundleError)):
                raise
            raise SignatureError(
                f"the columns {table.schema.names} are no {bundle.signature}: {error}",
                column=None,
                expected=str(bundle.signature),
                got=str(table.schema),
            ) from error
        classes = {spec.name: spec.shape[0] for spec in bundle.signature.outputs if spec.name == "probability"}
        bins = FINE if len(values) <= FINE_MOST else COARSE
        made = {}
        for name, numbers in values.items():
            known = classes.get("probability") if name == "prediction" else None
            made[name] = _edges(numbers, bins, known if known is None or known <= CLASSES_MOST else None)
        return cls(len(batch), made)

    @classmethod
    def in_bundle(cls, bundle: Bundle) -> Reference | None:
        """The one that the bundle keeps, or None."""
        return cls.understood(bundle.training.get(KEY))

    @classmethod
    def understood(cls, told: Any) -> Reference | None:
        """What ``to_json`` gave, or None; None too, with a warning in the log, for anything else: a model scores without
        a reference as well."""
        if told is None:
            return None
        try:
            return cls.from_json(told)
        except BundleError as error:
            logger.warning("drift is not told: %s", error)
            return None

    def to_json(self) -> dict[str, Any]:
        """As JSON values, about 1.5 kB a feature (0.4 kB where there are more than 64 of them). Edges are texts, for a
        manifest has each number of a list on a line of its own."""
        return {
            "rows": self.rows,
            "features": {
                name: {
                    "edges": " ".join(str(edge) for edge in one.edges),
                    "dtype": one.edges.dtype.name,
                    "counts": " ".join(map(str, one.counts.tolist())),
                    "by_value": one.by_value,
                }
                for name, one in self.features.items()
            },
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Reference:
        """What ``to_json`` gave. Raises BundleError if it is anything else."""
        try:
            features = {name: _from_json(one) for name, one in told["features"].items()}
            return cls(int(told["rows"]), features)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BundleError(f"the bundle's drift reference cannot be understood: {error!r}", uri=None) from error

    def counter(self, signature: Signature) -> Counter:
        """A counter for rows with the columns and the outputs of ``signature``."""
        return Counter(self, signature)


class Counter:
    """Counts rows between the edges of a reference. Not for several threads at once."""

    def __init__(self, reference: Reference, signature: Signature) -> None:
        self._features = reference.features
        self._watched = watched(signature)
        self._counts = {name: np.zeros(len(one.counts), np.int64) for name, one in reference.features.items()}

    def add(self, inputs: pa.RecordBatch, outputs: Mapping[str, pa.Array]) -> None:
        """Count a batch: its columns, and the columns that the model gave. What is not there is not counted.

        All rows, as long as they hold no more than NUMBERS_MOST numbers; else every second, third, … of them, ROWS_LEAST at
        least. So 5,000 rows of 50 floats are all counted, and images are not; ``docs/decisions/0021-drift.md`` has
        what it takes.
        """
        most = max(ROWS_LEAST, NUMBERS_MOST // max(1, sum(max(one.size, 1) for one in self._watched)))
        if len(inputs) > most:
            rows = pa.array(np.arange(0, len(inputs), -(-len(inputs) // most)))
            names = [one.column for one in self._watched if not one.is_output and one.column in inputs.schema.names]
            inputs = pa.RecordBatch.from_arrays([inputs.column(name).take(rows) for name in names], names)
            outputs = {name: column.take(rows) for name, column in outputs.items()}
        for name, numbers in _by_feature(self._watched, inputs, outputs).items():
            if name in self._features:
                self._counts[name] += _counted(np.sort(numbers), self._features[name].edges)

    @property
    def counts(self) -> dict[str, list[int]]:
        """By feature; those of several counters with one reference may be added up (``merge_counts``)."""
        return {name: numbers.tolist() for name, numbers in self._counts.items()}


def compare(reference: Reference, counts: Mapping[str, Sequence[int]]) -> list[Drift]:
    """The drift of each feature that has rows, by falling PSI. Counts of another reference's edges are left out."""
    from scipy.special import kolmogorov, rel_entr

    found, sizes = [], []
    for name, numbers in counts.items():
        one, now = reference.features.get(name), np.asarray(numbers, dtype=np.int64)
        if one is None or len(now) != len(one.counts) or not now.sum():
            continue
        p, q = (np.maximum(c / c.sum(), FLOOR) for c in (one.coarse(one.counts), one.coarse(now)))
        psi = float((rel_entr(p, q) + rel_entr(q, p)).sum())
        distance, size = _kolmogorov_smirnov(one.counts[:-1], now[:-1])
        found.append(Drift(name, psi, distance, math.nan, int(now.sum())))
        sizes.append(size)
    if not found:
        return []
    roots = np.sqrt(sizes)
    chances = kolmogorov((roots + 0.12 + 0.11 / roots) * [drift.ks for drift in found])
    found = [replace(drift, p=float(chance)) for drift, chance in zip(found, chances, strict=True)]
    return sorted(found, key=lambda drift: (-drift.psi, drift.feature))


def _kolmogorov_smirnov(then: np.ndarray, now: np.ndarray) -> tuple[float, int]:
    """The statistic at the edges; and the rows of one sample that would make it as likely as these two do."""
    n, m = int(then.sum()), int(now.sum())
    if not n or not m:
        return (0.0 if n == m else 1.0), 1
    distance = float(np.abs(np.cumsum(then) / n - np.cumsum(now) / m).max())
    return distance, max(1, round(n * m / (n + m)))


def _by_feature(many: list[Watched], inputs: pa.RecordBatch, outputs: Mapping[str, pa.Array]) -> dict[str, np.ndarray]:
    there = set(inputs.schema.names)
    found: dict[str, np.ndarray] = {}
    for one in many:
        if one.column in (outputs if one.is_output else there):
            column = outputs[one.column] if one.is_output else inputs.column(one.column)
            found.update(zip(one.names, one.values(column), strict=True))
    return found


def _counted(ascending: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """``(K + 2,)`` of sorted numbers, NaN last."""
    known = np.searchsorted(ascending, ascending.dtype.type(np.nan))
    places = np.searchsorted(ascending[:known], edges.astype(ascending.dtype, copy=False), side="right")
    return np.diff(np.concatenate([[0], places, [known, len(ascending)]]))


def _edges(numbers: np.ndarray, bins: int, classes: int | None) -> Edges:
    ascending = np.sort(numbers)
    known = ascending[: np.searchsorted(ascending, ascending.dtype.type(np.nan))]
    values = np.arange(classes, dtype=numbers.dtype) if classes else np.unique(known)
    by_value = classes is not None or (len(values) <= VALUES_MOST and len(known) >= ROWS_A_VALUE * max(len(values), 1))
    if by_value and (values == np.round(values)).all():
        edges = np.unique(np.concatenate([values - 0.5, values + 0.5]))
    elif by_value:
        edges = np.unique(np.concatenate([np.nextafter(values, -np.inf, dtype=values.dtype), values]))
    elif not len(known):
        edges = known
    else:  # a value of the sample each, so that equal ones lie in one bin
        edges = np.unique(known[np.linspace(0, len(known) - 1, bins + 1).astype(int)])
    edges = edges[np.isfinite(edges)].astype(numbers.dtype)
    return Edges(edges, _counted(ascending, edges), by_value)


def _from_json(told: Mapping[str, Any]) -> Edges:
    if told["dtype"] not in ("float32", "float64"):
        raise ValueError(f"edges of dtype {told['dtype']!r}")
    edges = np.array([float(text) for text in told["edges"].split()], dtype=told["dtype"])
    counts = np.array([int(text) for text in told["counts"].split()], dtype=np.int64)
    if len(counts) != len(edges) + 2 or (counts < 0).any() or not (np.diff(edges) > 0).all():
        raise ValueError(f"{len(counts)} counts and {len(edges)} edges")
    return Edges(edges, counts, bool(told["by_value"]))


def _outputs(bundle: Bundle, batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Of as many of the first rows as a second is enough for."""
    parts: list[dict[str, np.ndarray]] = []
    started = time.monotonic()
    for start in range(0, len(batch), PREDICT_ROWS):
        inputs = _inputs(bundle.signature, batch.slice(start, PREDICT_ROWS))
        if inputs:
            parts.append(bundle.predict(inputs))
        if time.monotonic() - started > PREDICT_S:
            break
    return {name: columns.to_arrow(np.concatenate([part[name] for part in parts])) for name in (parts or [{}])[0]}


def _inputs(signature: Signature, rows: pa.RecordBatch) -> dict[str, Any]:
    """Of the rows that are good; nothing if none is."""
    named = {name: rows.column(name) for name in signature.columns}
    count = len(rows)
    while count:
        try:
            return {spec.name: columns.read(named, spec) for spec in signature.inputs if spec.columns}
        except BadRows as error:
            rest = np.delete(np.arange(count), error.rows)
            named, count = {name: column.take(pa.array(rest)) for name, column in named.items()}, len(rest)
    return {}
