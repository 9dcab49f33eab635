"""What is learnt of numbers, in parts that are put together: moments, and a sketch of quantiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import reduce

import numpy as np
import pyarrow as pa

_GAMMA = 1.001 / 0.999  # (1 + a) / (1 - a): bins of values that are alike but for a = 0.1 %
_ABOVE = 400_000  # more than the bins of any float64, so that a bin's number has its values' sign


@dataclass(frozen=True)
class Moments:
    """Of some finite numbers: how many, their mean, the sum of their squared distances from it, their extremes."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0
    smallest: float = np.inf
    largest: float = -np.inf

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Of those of ``values``, float64, that are finite."""
        values = values[np.isfinite(values)]
        if not len(values):
            return cls()
        with np.errstate(over="ignore", invalid="ignore"):
            mean = values[0] + (values - values[0]).mean()  # large numbers that differ little keep what they differ by
            squares = np.square(values - mean).sum()
        return cls(float(len(values)), float(mean), float(squares), float(values.min()), float(values.max()))

    @classmethod
    def merged(cls, parts: Iterable[Sequence[float]]) -> Moments:
        """Of all, whose parts are given ``as_row``."""
        return reduce(cls.and_also, (cls(*part) for part in parts), cls())

    def and_also(self, other: Moments) -> Moments:
        """Of these numbers and those: T. F. Chan, G. H. Golub and R. J. LeVeque, Updating formulae and a pairwise algorithm
        for computing sample variances, 1982."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * (other.count / count),
            self.squares + other.squares + apart * apart * (self.count * other.count / count),
            min(self.smallest, other.smallest),
            max(self.largest, other.largest),
        )

    def as_row(self) -> tuple[float, ...]:
        """Its fields."""
        return astuple(self)

    @property
    def deviation(self) -> float:
        """The standard deviation, of the population."""
        return float(np.sqrt(self.squares / self.count))


def bins(values: np.ndarray) -> pa.Array:
    """The bin of each of ``values``, float64, as int64, ascending as they are; null for one that is not finite. How often
    each bin occurs is a sketch of the quantiles: C. Masson, J. E. Rim and H. K. Lee, DDSketch, VLDB 2019."""
    counts = np.isfinite(values) & (values != 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.sign(values) * (np.ceil(np.log(np.abs(values)) / np.log(_GAMMA)) + _ABOVE)
    numbers = np.where(counts, steps, 0).astype(np.int64)
    return pa.array(numbers, mask=~np.isfinite(values))


def quantiles(counts: Mapping[int, int], asked: Sequence[float]) -> list[float]:
    """The values below which these shares of all lie, each right to 0.1 % of itself. counts: of ``bins``, at least one."""
    ascending = sorted(counts)
    up_to = np.cumsum([counts[number] for number in ascending])
    places = np.searchsorted(up_to, np.ceil(np.asarray(asked) * up_to[-1]).clip(1))
    return [_middle(ascending[place]) for place in places]


def _middle(number: int) -> float:
    if not number:
        return 0.0
    return float(np.sign(number) * 2 * _GAMMA ** (abs(number) - _ABOVE) / (_GAMMA + 1))
