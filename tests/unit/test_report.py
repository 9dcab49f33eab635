"""A report: whole, escaped, bounded, and without anything to fetch."""

import re

import numpy as np
import pytest

from sparkdl.errors import InvalidParamError, StoreError
from sparkdl.stream import report
from sparkdl.stream.run import BINS, LISTED, runs_of

ID = "a" * 32
EVIL = "<script>alert(1)</script>$\\frac{$"


def batch(number, **more):
    told = {"rows": 100, "versions": {"1": 98}, "dead": {"null": 2}, "seconds": {"model": 0.02, "total": 0.1}, **more}
    return {"event": "batch", "query": ID, "name": "fraud", "batch": number, "time": 1.7e9 + number, **told}


def everything(name="fraud", feature="amount"):
    """An event of each kind."""
    about = {"query": ID, "name": name}
    drift = {
        "event": "drift", **about, "version": "1",
        "features": [{"feature": feature, "psi": 0.5, "ks": 0.2, "p": 1e-9, "rows": 5000}],
        "histograms": {
            feature: {"bounds": [0.0, 1.0], "by_value": False, "then": [0.3, 0.3, 0.4, 0.0], "now": [0.1, 0.2, 0.6, 0.1]}
        },
    }  # fmt: skip
    progress = {"sources": [{"metrics": {"avgOffsetsBehindLatest": "5"}, "endOffset": {"t": {"0": 1}}}]}
    return [
        {"event": "started", **about, "time": 1.7e9 - 1, "model": name},
        {"event": "serves", **about, "time": 1.7e9, "version": "1"},
        *({**batch(number), "name": name, "nulls": {feature: 3}} for number in range(50)),
        {"event": "progress", **about, "time": 1.7e9 + 3, "progress": progress},
        {"event": "progress", **about, "time": 1.7e9 + 9, "progress": progress},
        {"event": "refused", **about, "time": 1.7e9 + 5, "version": "2", "reason": name},
        {**drift, "time": 1.7e9 + 10},
        {**drift, "time": 1.7e9 + 20},
        {"event": "alert", **about, "time": 1.7e9 + 6, "alert": "dead > 0.01", "value": 0.02, "detail": name},
        {"event": "alert over", **about, "time": 1.7e9 + 7, "alert": "dead > 0.01"},
        {"event": "something of later", **about, "time": 1.7e9 + 8},
        {**batch(50), "versions": {name: 90, "3": 5}, "compared": {"agreement": 0.9}, "name": name},
        {"event": "ended", **about, "time": 1.7e9 + 60, "error": name},
    ]


def written(tmp_path, events, name=None):
    report.write(str(tmp_path / "r.html"), events, name)
    return (tmp_path / "r.html").read_text()


def test_all_of_it_is_there(tmp_path):
    text = written(tmp_path, everything())
    for part in ("<h1>fraud</h1>", "5,100", "Drift against", "amount", "Dead letters", "Model versions", "What happened",
                 "dead &gt; 0.01: 0.02", "version 2: fraud", "p99 100 ms", "agreement 0.9"):  # fmt: skip
        assert part in text
    assert text.count("<img") == 7


def test_nothing_is_fetched_and_nothing_runs(tmp_path):
    text = written(tmp_path, everything())
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert "default-src 'none'" in text
    assert "<script" not in text
    assert "http" not in re.sub(r'src="[^"]*"|http-equiv', "", text)


def test_names_are_escaped_and_are_no_mathematics(tmp_path):
    text = written(tmp_path, everything(EVIL, EVIL))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_its_size_does_not_grow_with_the_batches(tmp_path):
    random = np.random.default_rng(0)
    many = [
        batch(number, dead={f"kind {number % 40}": int(random.integers(5))}, versions={str(number // 50): 90},
              seconds={"model": float(random.random()), "total": float(random.random())})
        for number in range(20_000)
    ]  # fmt: skip
    happened = [
        {"event": "refused", "query": ID, "time": 1.7e9 + n, "version": str(n), "reason": "x" * 9000}
        for n in range(500)
    ]
    text = written(tmp_path, [*many, *happened])
    assert len(text) < 2_000_000
    assert text.count(">refused</td>") == LISTED
    assert "450 earlier" in text
    assert len(runs_of(many)[ID].edges()) <= BINS + 1


@pytest.mark.parametrize(
    "events",
    [
        [{"event": "started", "query": ID, "time": 1.0}],
        [batch(0)],
        [batch(0, rows=0, versions={}, dead={}, seconds={})],
    ],
)
def test_of_little_there_is_a_report_too(tmp_path, events):
    assert "<h1>" in written(tmp_path, events)


def test_which_query_of_several(tmp_path):
    other = {**batch(0), "query": "b" * 32, "name": "other"}
    assert "<h1>other</h1>" in written(tmp_path, [batch(0), other])
    assert "<h1>fraud</h1>" in written(tmp_path, [batch(0), other], "fraud")
    assert "<h1>fraud</h1>" in written(tmp_path, [batch(0), other], ID)


def test_events_without_a_name_get_the_one_that_is_given(tmp_path):
    nameless = {key: value for key, value in batch(0).items() if key != "name"}
    assert "<h1>mine</h1>" in written(tmp_path, [nameless], "mine")


def test_bad_input(tmp_path):
    with pytest.raises(InvalidParamError, match="no events"):
        written(tmp_path, [])
    with pytest.raises(StoreError, match="cannot be read"):
        written(tmp_path, str(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        report.write(str(tmp_path / "file" / "r.html"), [batch(0)])


def test_bins_hold_the_same_number_of_batches():
    run = runs_of([batch(number) for number in range(1000)])[ID]
    rates = run.a_second(run.rows)
    assert rates[1:-1] == pytest.approx(np.full(len(rates) - 2, 100.0))
