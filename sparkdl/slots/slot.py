"""Slots: a date, an hour or a partition of a table, scored exactly once. Names, ranges, where each is read and written. Pure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparkdl.errors import InvalidParamError, did_you_mean
from sparkdl.score.output import folder_name

KINDS = {"day": "--date", "hour": "--hour", "partition": "--slot"}  # and the argument that names one
MOST = 10_000  # slots of a backfill
_PLACEHOLDER = re.compile(r"(?<!\$)\{([^{}:]*)(?::([^{}]*))?\}")  # ${env:NAME} is none
_FIELDS = {"day": ("date",), "hour": ("date", "hour"), "partition": ("partition",)}
_DATE, _HOUR = re.compile(r"\d{4}-\d{2}-\d{2}"), re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}")


@dataclass(frozen=True)
class Slot:
    """name: ``2026-11-20``, ``2026-11-20T05``, or a partition's value. folder: of its table, under the output:
    ``date=2026-11-20``, ``date=2026-11-20/hour=05``, ``region=eu``. start: when it begins, None of a partition."""

    name: str
    folder: str
    start: datetime.datetime | None = None

    @property
    def columns(self) -> list[str]:
        """That its folders tell."""
        return [part.split("=")[0] for part in self.folder.split("/")]

    def source(self, template: str) -> str:
        """The template with the slot in the place of its placeholders."""
        return _PLACEHOLDER.sub(lambda found: self._value(found[1], found[2]), template)

    def _value(self, name: str, form: str | None) -> str:
        if self.start is None:
            return self.name
        return self.start.strftime(form or {"date": "%Y-%m-%d", "hour": "%H"}[name])


def placeholders(template: str) -> list[tuple[str, str]]:
    """The name and the format of each."""
    return [(found[1], found[2] or "") for found in _PLACEHOLDER.finditer(template)]


def check_template(template: str, kind: str | None) -> None:
    """Raise ValueError if the placeholders are not those of such slots: each of them must be told apart by its place."""
    found = placeholders(template)
    if kind is None:
        if found:
            raise ValueError(f"{template!r} has a placeholder, so say which slots it is of: slot, one of {list(KINDS)}")
        return
    for name, form in found:
        if name not in _FIELDS[kind]:
            raise ValueError(
                f"{template!r} has a placeholder {{{name}}}{did_you_mean(name, _FIELDS[kind])}; those of slot: {kind} are "
                f"{['{' + field + '}' for field in _FIELDS[kind]]}"
            )
        if form and ("%" not in form or name != "date"):
            raise ValueError(f"{template!r}: only a date has a format, as in {{date:%Y/%m/%d}} (got {{{name}:{form}}})")
    _check_told_apart(template, kind)


def _check_told_apart(template: str, kind: str) -> None:
    """By trying: slots that differ must be read from places that do."""
    day = datetime.datetime(2026, 11, 20, 5)
    starts = [day + datetime.timedelta(days=days) for days in (0, 1, 31, 365)]
    if kind == "hour":
        starts.append(day + datetime.timedelta(hours=1))
    slots = (
        [Slot(text, "", None) for text in "ab"] if kind == "partition" else [Slot("", "", start) for start in starts]
    )
    if len({slot.source(template) for slot in slots}) < len(slots):
        example = {"day": "{date}", "hour": "{date}/{hour}", "partition": "{partition}"}[kind]
        raise ValueError(
            f"every slot needs a place of its own to be read from: write a placeholder, as in "
            f"events/{example} (got {template!r}, slot: {kind})"
        )


def parse(text: str, kind: str, partition: str | None = None) -> Slot:
    """The slot of that name. partition: the column of the output's folders, of slots that are partitions.

    Raises InvalidParamError for one that does not exist, or is of another kind.
    """
    return _PARSERS[kind](text, partition or kind)


def _day(text: str, _: str) -> Slot:
    start = _start(text, _DATE, "%Y-%m-%d", "--date", "a date, as 2026-11-20")
    return Slot(text, folder_name("date", text), start)


def _hour(text: str, _: str) -> Slot:
    start = _start(text, _HOUR, "%Y-%m-%dT%H", "--hour", "a date and an hour, as 2026-11-20T05")
    return Slot(text, f"{folder_name('date', text[:10])}/{folder_name('hour', text[11:])}", start)


def _start(text: str, shape: re.Pattern[str], form: str, argument: str, expected: str) -> datetime.datetime:
    if not shape.fullmatch(text):
        raise InvalidParamError(f"{argument} must be {expected} (got {text!r})", param=argument, value=text)
    try:
        return datetime.datetime.strptime(text, form)
    except ValueError as error:
        raise InvalidParamError(
            f"{argument}: there is no such time as {text!r} ({error})", param=argument, value=text
        ) from None


def _partition(text: str, column: str) -> Slot:
    if not text.strip() or "/" in text or text in (".", "..") or any(ord(letter) < 32 for letter in text):
        raise InvalidParamError(
            f"--slot must be a partition's value, a part of a path (got {text!r})", param="--slot", value=text
        )
    return Slot(text, folder_name(column, text))


_PARSERS: dict[str, Callable[[str, str], Slot]] = {"day": _day, "hour": _hour, "partition": _partition}


def between(text: str, kind: str) -> list[Slot]:
    """The slots of ``A..B``, both included. Raises InvalidParamError for a range that is none, backwards or too long."""
    ends = text.split("..")
    if kind == "partition":
        raise InvalidParamError(
            f"--backfill is for dates and hours; partitions have no order: name each with --slot (got {text!r})",
            param="--backfill",
            value=text,
        )
    if len(ends) != 2:
        raise InvalidParamError(
            f"--backfill must be A..B, as 2026-11-01..2026-11-20 (got {text!r})", param="--backfill", value=text
        )
    try:
        first, last = (_PARSERS[kind](end.strip(), "").start for end in ends)
    except InvalidParamError as error:
        raise InvalidParamError(f"--backfill {text}: {error}", param="--backfill", value=text) from error
    if first is None or last is None or last < first:
        raise InvalidParamError(
            f"--backfill runs from the earlier to the later: write {ends[1]}..{ends[0]} (got {text!r})",
            param="--backfill",
            value=text,
        )
    step = datetime.timedelta(days=1) if kind == "day" else datetime.timedelta(hours=1)
    count = (last - first) // step + 1
    if count > MOST:
        raise InvalidParamError(
            f"--backfill fills at most {MOST:,} slots at a time (got {text!r}, which are {count:,}); do it in parts",
            param="--backfill",
            value=text,
        )
    form = "%Y-%m-%d" if kind == "day" else "%Y-%m-%dT%H"
    return [_PARSERS[kind]((first + i * step).strftime(form), "") for i in range(count)]


def asked(
    kind: str,
    partition: str | None,
    *,
    date: str | None = None,
    hour: str | None = None,
    slot: Sequence[str] = (),
    backfill: str | None = None,
) -> list[Slot]:
    """The slots that a job's arguments name, in order. Raises InvalidParamError, naming the right argument."""
    told = {"--date": [date] if date else [], "--hour": [hour] if hour else [], "--slot": list(slot)}
    given = [name for name, values in told.items() if values] + (["--backfill"] if backfill else [])
    right = KINDS[kind]
    if len(given) != 1:
        found = " and ".join(given) if given else "none of them"
        range_ = "" if kind == "partition" else " or --backfill A..B"
        raise InvalidParamError(
            f"the conf says slot: {kind}; name one with {right}{range_} (got {found})", param=right, value=found
        )
    if backfill:
        return between(backfill, kind)
    if given[0] not in (right, "--slot"):
        raise InvalidParamError(
            f"the conf says slot: {kind}, whose slots are named by {right} (got {given[0]} {told[given[0]][0]})",
            param=given[0],
            value=told[given[0]][0],
        )
    return [parse(text, kind, partition) for text in dict.fromkeys(told[given[0]])]
