"""The parts of a date in a graph."""

from __future__ import annotations

import math

from sparkdl.graph.nodes import Nodes
from sparkdl.preprocess.dates import PERIODS, DateParts

_DAY = 24 * 3600 * 1_000_000  # microseconds
_HOUR = 3600 * 1_000_000
_BEFORE = 719_468  # days from 1 March of year 0 to 1970


def parts(preprocess: DateParts, nodes: Nodes, raw: str, *, is_day: bool) -> str:
    """What ``DateParts.read`` makes of ``(B, 1)`` numbers in float64: days since 1970, or microseconds; NaN of a null.
    Whole numbers to 2⁵³ are exact: microseconds of the years 1685 to 2254."""
    missing = nodes.add("IsNaN", raw)
    numbers = nodes.cast(nodes.add("Where", missing, nodes.constant(0.0, "float64"), raw), "int64")
    unit = 1 if is_day else _DAY
    moment = _Whole(nodes, numbers) + _BEFORE * unit
    days = moment // unit
    year, month, day = _civil(days)
    first, last = preprocess.years
    if preprocess.outside == "error":
        outside = nodes.add("Or", year.is_below(first), year.is_above(last))
        nodes.refuse(nodes.add("And", outside, nodes.add("Not", missing)), 1)
    counted = {"month": month, "day": day, "weekday": (days + 2) % 7, "hour": moment % unit}  # an hour in microseconds
    made = []
    for part in preprocess.parts:
        if part == "year":
            made.append((year.held(first, last) - first).share(last - first))
        else:
            period = PERIODS[part] * (1 if part != "hour" else _HOUR)
            share = counted[part].share(period)
            made += _circle(nodes, share) if preprocess.cyclic else [share]
    all_of_them = nodes.add("Concat", *made, axis=1)
    return nodes.add("Where", missing, nodes.constant(0.0, "float64"), all_of_them)


def _circle(nodes: Nodes, share: str) -> list[str]:
    """Sine and cosine. ONNX Runtime 1.23, which is Java's, has no Cos of float64."""
    angle = nodes.add("Mul", share, nodes.constant(2 * math.pi, "float64"))
    return [nodes.add("Sin", angle), nodes.add("Sin", nodes.add("Add", angle, nodes.constant(math.pi / 2, "float64")))]


class _Whole:
    """Whole numbers of 64 bits in a graph, ``(B, 1)``, from 0 where they are divided."""

    def __init__(self, nodes: Nodes, value: str) -> None:
        self.nodes, self.value = nodes, value

    def _with(self, operator: str, other: _Whole | int) -> str:
        second = other.value if isinstance(other, _Whole) else self.nodes.constant(other, "int64")
        return self.nodes.add(operator, self.value, second)

    def __add__(self, other: _Whole | int) -> _Whole:
        return _Whole(self.nodes, self._with("Add", other))

    def __sub__(self, other: _Whole | int) -> _Whole:
        return _Whole(self.nodes, self._with("Sub", other))

    def __mul__(self, other: int) -> _Whole:
        return _Whole(self.nodes, self._with("Mul", other))

    def __floordiv__(self, other: int) -> _Whole:
        return _Whole(self.nodes, self._with("Div", other))

    def __mod__(self, other: int) -> _Whole:
        return _Whole(self.nodes, self._with("Mod", other))

    def held(self, low: int, high: int) -> _Whole:
        """Between these."""
        return _Whole(self.nodes, _Whole(self.nodes, self._with("Max", low))._with("Min", high))

    def is_below(self, other: int) -> str:
        """Where it is."""
        return self._with("Less", other)

    def is_above(self, other: int) -> str:
        """Where it is."""
        return self._with("Greater", other)

    def share(self, whole: int) -> str:
        """Of the whole, in float64."""
        return self.nodes.add("Div", self.nodes.cast(self.value, "float64"), self.nodes.constant(whole, "float64"))


def _civil(days: _Whole) -> tuple[_Whole, _Whole, _Whole]:
    """Year, and month and day from 0, of days since 1 March of year 0 (H. Hinnant, chrono-compatible low-level date
    algorithms, 2013, ``civil_from_days``: years that begin in March have the leap day at their end)."""
    era = days // 146_097  # of 400 years
    day_of_era = days % 146_097
    leaps = day_of_era // 36_524 - day_of_era // 1_460 - day_of_era // 146_096
    year_of_era = (day_of_era + leaps) // 365
    day_of_year = day_of_era - (year_of_era * 365 + year_of_era // 4 - year_of_era // 100)
    march = (day_of_year * 5 + 2) // 153  # March is 0
    day = day_of_year - (march * 153 + 2) // 5
    is_next = march // 10  # January and February are of the next year
    return year_of_era + era * 400 + is_next, (march + 2) % 12, day
