"""What a slot is called, where it is read and written, and which slots a job's arguments name."""

import pytest

from sparkdl.errors import InvalidParamError
from sparkdl.slots.slot import MOST, asked, between, check_template, parse


@pytest.mark.parametrize(
    ("kind", "name", "template", "source", "folder"),
    [
        ("day", "2026-11-20", "events/day={date}", "events/day=2026-11-20", "date=2026-11-20"),
        ("day", "2028-02-29", "e/{date:%Y/%m/%d}/x", "e/2028/02/29/x", "date=2028-02-29"),
        ("day", "2026-01-02", "e/{date:%Y}-{date:%j}", "e/2026-002", "date=2026-01-02"),
        ("day", "2026-01-02", "hdfs://nn/${env:LAKE}/{date}", "hdfs://nn/${env:LAKE}/2026-01-02", "date=2026-01-02"),
        ("hour", "2026-11-20T05", "e/{date}/{hour}", "e/2026-11-20/05", "date=2026-11-20/hour=05"),
        ("hour", "2026-11-20T23", "e/{date:%Y%m%d%H}", "e/2026112023", "date=2026-11-20/hour=23"),
        ("partition", "eu", "e/region={partition}", "e/region=eu", "region=eu"),
        ("partition", "a b:c", "e/{partition}", "e/a b:c", "region=a b%3Ac"),
    ],
)
def test_where_a_slot_is_read_and_written(kind, name, template, source, folder):
    check_template(template, kind)
    slot = parse(name, kind, "region" if kind == "partition" else None)
    assert (slot.name, slot.source(template), slot.folder) == (name, source, folder)


@pytest.mark.parametrize(
    ("kind", "template", "says"),
    [
        (None, "events/{date}", "has a placeholder, so say which slots it is of"),
        ("day", "events", "every slot needs a place of its own"),
        ("day", "events/{date:%Y-%m}", "every slot needs a place of its own"),
        ("day", "events/{date:%d}", "every slot needs a place of its own"),
        ("hour", "events/{date}", "every slot needs a place of its own"),
        ("hour", "events/{hour}", "every slot needs a place of its own"),
        ("partition", "events", "every slot needs a place of its own"),
        ("day", "events/{dat}", r"\{dat\}; did you mean 'date'"),
        ("day", "events/{date}/{hour}", r"a placeholder \{hour\}"),
        ("day", "events/{}", "a placeholder"),
        ("day", "events/{date:x}", "only a date has a format"),
        ("hour", "events/{date}/{hour:%H}", "only a date has a format"),
    ],
)
def test_a_template_that_does_not_tell_slots_apart(kind, template, says):
    with pytest.raises(ValueError, match=says):
        check_template(template, kind)


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("day", "2026-02-29", r"there is no such time as '2026-02-29'"),
        ("day", "2026-13-01", "there is no such time"),
        ("day", "20261120", "--date must be a date, as 2026-11-20"),
        ("day", "2026-11-20T05", "--date must be a date"),
        ("day", "yesterday", "--date must be a date"),
        ("day", "", "--date must be a date"),
        ("hour", "2026-11-20", "--hour must be a date and an hour"),
        ("hour", "2026-11-20T24", "there is no such time"),
        ("partition", "../../etc", "a part of a path"),
        ("partition", "..", "a part of a path"),
        ("partition", " ", "a part of a path"),
        ("partition", "a\nb", "a part of a path"),
    ],
)
def test_a_slot_that_is_none(kind, name, says):
    with pytest.raises(InvalidParamError, match=says):
        parse(name, kind)


@pytest.mark.parametrize(
    ("kind", "text", "names"),
    [
        ("day", "2026-11-20..2026-11-20", ["2026-11-20"]),
        ("day", "2026-02-27..2026-03-02", ["2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02"]),
        ("day", "2026-12-31 .. 2027-01-01", ["2026-12-31", "2027-01-01"]),
        ("hour", "2026-11-20T22..2026-11-21T01", ["2026-11-20T22", "2026-11-20T23", "2026-11-21T00", "2026-11-21T01"]),
    ],
)
def test_a_range_has_both_its_ends(kind, text, names):
    assert [slot.name for slot in between(text, kind)] == names


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("day", "2026-11-20..2026-11-01", r"write 2026-11-01\.\.2026-11-20"),
        ("day", "2026-11-20", r"must be A\.\.B"),
        ("day", "2026-11-01..2026-11-02..2026-11-03", r"must be A\.\.B"),
        ("day", "2026-11-01...2026-11-02", r"--backfill 2026-11-01\.\.\.2026-11-02: "),
        ("day", "2026-11-31..2026-12-01", "no such time as '2026-11-31'"),
        ("day", "2026-11-20T00..2026-11-20T05", "a date, as 2026-11-20"),
        ("day", "1900-01-01..2026-11-20", f"at most {MOST:,} slots"),
        ("partition", "a..b", "name each with --slot"),
    ],
)
def test_a_range_that_is_none(kind, text, says):
    with pytest.raises(InvalidParamError, match=says):
        between(text, kind)


def test_what_a_job_is_asked_for():
    assert [slot.name for slot in asked("day", None, date="2026-11-20")] == ["2026-11-20"]
    assert [slot.name for slot in asked("day", None, slot=["2026-11-20", "2026-11-21", "2026-11-20"])] == [
        "2026-11-20",
        "2026-11-21",
    ]
    assert [slot.folder for slot in asked("partition", "region", slot=["eu", "us"])] == ["region=eu", "region=us"]


@pytest.mark.parametrize(
    ("kind", "told", "says"),
    [
        ("day", {}, r"name one with --date or --backfill A\.\.B \(got none of them\)"),
        ("partition", {}, r"name one with --slot \(got none of them\)"),
        ("day", {"date": "2026-11-20", "backfill": "2026-11-01..2026-11-20"}, "got --date and --backfill"),
        ("day", {"hour": "2026-11-20T05"}, "the conf says slot: day, whose slots are named by --date"),
        ("partition", {"date": "2026-11-20"}, "whose slots are named by --slot"),
    ],
)
def test_arguments_of_another_kind(kind, told, says):
    with pytest.raises(InvalidParamError, match=says):
        asked(kind, "region" if kind == "partition" else None, **told)
