"""Monitor: events in the file, figures over HTTP, alerts that fire once, and nothing that reaches the query."""

import json
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pyarrow as pa
import pytest

from sparkdl.columns import to_arrow
from sparkdl.drift import Edges, Reference
from sparkdl.errors import InvalidParamError, StoreError, StreamError
from sparkdl.signature import Signature, TensorSpec
from sparkdl.stream import events
from sparkdl.stream.alerts import Alert, Alerts, post
from sparkdl.stream.background import Background
from sparkdl.stream.monitor import Monitor
from sparkdl.stream.reports import BatchReport
from sparkdl.stream.status import Status, lag_of

ID = "0123456789abcdef0123456789abcdef"
TOKEN = "a token of enough characters"


def report(batch=0, rows=100, dead=0, at=None, version="1", **more):
    kinds = {"null": dead} if dead else {}
    told = {"seconds": {"decode": 0.01, "model": 0.02, "total": 0.1}, **more}
    return BatchReport(ID, batch, time.time() if at is None else at, rows, {version: rows - dead}, kinds, **told)


def started(monitor, **info):
    monitor.started({"query": ID, "name": "fraud", **info})
    return monitor


def lines(path):
    return list(events.read(str(path)))


def fetched(port, token=None, path="/metrics"):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def drifting(rows=1000):
    x = np.linspace(0, 1, 1001)
    edges = np.linspace(0, 1, 11)
    return Reference(1001, {"x": Edges(edges, np.append(np.histogram(x, [-1, *edges, 2])[0], 0), False)})


def counts_at(reference, value, rows=1000):
    counter = reference.counter(Signature((TensorSpec("x", "float64", (), ("x",), ("double",)),)))
    counter.add(pa.table({"x": to_arrow(np.full(rows, float(value)))}).to_batches()[0], {})
    return counter.counts


def test_events_are_lines_in_the_order_of_what_happened(tmp_path):
    monitor = started(Monitor(jsonl=str(tmp_path / "new" / "e.jsonl")), sink="delta")
    monitor.serves("1")
    for number in range(3):
        monitor.batch(report(number, counts={"x": [1, 2, 3]}))
    monitor.progress({"id": ID, "batchId": 2, "sources": []})
    monitor.refused("2", "NaN outputs")
    monitor.ended(ValueError("over"))
    told = lines(tmp_path / "new" / "e.jsonl")
    assert [one["event"] for one in told] == [
        "started", "serves", "batch", "batch", "batch", "progress", "refused", "ended",
    ]  # fmt: skip
    assert all(one["query"] == ID and one["name"] == "fraud" and one["time"] for one in told)
    assert events.report_of(told[2]) == report(0, at=told[2]["time"])
    assert told[0]["sink"] == "delta"
    assert told[-1]["error"] == "ValueError: over"
    assert monitor.trouble == {"dropped": 0, "failed": 0}


def test_the_file_is_rotated_and_read_whole(tmp_path):
    path = tmp_path / "e.jsonl"
    monitor = started(Monitor(jsonl=str(path), maxBytes=3000, backups=50))
    for number in range(100):
        monitor.batch(report(number))
    monitor.ended()
    assert len(list(tmp_path.iterdir())) > 5
    assert all(file.stat().st_size <= 3000 for file in tmp_path.iterdir())
    assert [one["batch"] for one in lines(path) if one["event"] == "batch"] == list(range(100))


def test_lines_that_are_not_whole_are_left_out(tmp_path):
    (tmp_path / "e.jsonl").write_text('{"event": "started"}\n{"event": "bat\n[]\n{"x": 1}\n\n{"event": "ended"}\n{"ev')
    assert [one["event"] for one in lines(tmp_path / "e.jsonl")] == ["started", "ended"]
    with pytest.raises(StoreError, match="cannot be read"):
        lines(tmp_path / "nothing.jsonl")


def test_a_full_disk_does_not_reach_the_query(caplog):
    monitor = started(Monitor(jsonl="/dev/full"))
    for number in range(5):
        monitor.batch(report(number))
    monitor.ended()
    assert monitor.trouble["failed"] == 7
    assert caplog.text.count("OSError: [Errno 28] No space left on device") == 1, "once a minute"
    assert monitor.status().batches == 5


def test_status_of_an_ended_query(tmp_path):
    monitor = started(Monitor())
    monitor.batch(report(0, dead=3))
    monitor.ended(ValueError("over"))
    assert monitor.status().state == "failed"
    assert monitor.status().dead == {"null": 3}


def test_prometheus_tells_it_all_on_loopback():
    monitor = started(Monitor(prometheus=0, alerts=[Alert("dead", above=0.5)]))
    try:
        reference = drifting()
        monitor.serves("1", reference)
        monitor._work.do(monitor._look)  # as when nothing happens for a second
        monitor.batch(report(0, dead=60, counts=counts_at(reference, 0.5), nulls={"x": 7}))
        monitor.refused("2", "bad")
        monitor.progress(
            {"id": ID, "sources": [{"metrics": {"avgOffsetsBehindLatest": "12"}, "endOffset": {"t": {"0": 1}}}]}
        )
        monitor.serves("3")
        _drained(monitor)
        text = fetched(monitor.port)
        for line in (
            'sparkdl_stream_rows_total{direction="in",query="fraud"} 100.0',
            'sparkdl_stream_rows_total{direction="out",query="fraud"} 40.0',
            'sparkdl_stream_dead_rows_total{kind="null",query="fraud"} 60.0',
            'sparkdl_stream_null_rows_total{column="x",query="fraud"} 7.0',
            'sparkdl_stream_batches_total{query="fraud"} 1.0',
            'sparkdl_stream_batch_seconds_bucket{le="0.1",query="fraud",stage="total"} 1.0',
            'sparkdl_stream_model_info{query="fraud",version="3"} 1.0',
            'sparkdl_stream_refused_total{query="fraud"} 1.0',
            'sparkdl_stream_lag_rows{query="fraud"} 12.0',
            'sparkdl_stream_alerts_total{alert="dead > 0.5",query="fraud"} 1.0',
            'sparkdl_stream_drift_psi{feature="x",query="fraud"}',
        ):
            assert line in text
        assert 'model_info{query="fraud",version="1"}' not in text
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetched(monitor.port, path="/other")
    finally:
        port = monitor.port
        monitor.ended()
    with pytest.raises(urllib.error.URLError):
        fetched(port)


def test_with_a_token_requests_need_it():
    monitor = started(Monitor(prometheus="0.0.0.0:0", token=TOKEN))
    try:
        for wrong in (None, "x" + TOKEN):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                fetched(monitor.port, wrong)
        assert "sparkdl_stream" in fetched(monitor.port, TOKEN)
    finally:
        monitor.ended()


def test_a_port_that_is_taken_is_an_error_before_the_query_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monitor = Monitor(jsonl=str(tmp_path / "e"), prometheus=taken.getsockname()[1])
        with pytest.raises(StreamError, match="Prometheus cannot be served on 127"):
            started(monitor)


def test_a_file_that_cannot_be_written_is_an_error_before_the_query_starts(tmp_path):
    with pytest.raises(StoreError, match="events cannot be written"):
        started(Monitor(jsonl=str(tmp_path)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prometheus": "0.0.0.0:9464"}, "on this machine alone"),
        ({"prometheus": "example.org:9464"}, "on this machine alone"),
        ({"prometheus": ":::9464"}, "on this machine alone"),
        ({"prometheus": "x"}, "a port"),
        ({"prometheus": 70000}, "a port"),
        ({"prometheus": True}, "a port"),
        ({"prometheus": 0, "token": "short"}, "16 ASCII"),
        ({"window": 0}, "'window'"),
        ({"driftWindow": float("inf")}, "'driftWindow'"),
        ({"alerts": {"metric": "dead", "above": 1}}, "must be a list"),
        ({"alerts": [1]}, "an alert is"),
        ({"alerts": [{"above": 1}]}, "a map with 'metric'"),
        ({"alerts": [{"metric": "dead", "abov": 1}]}, "did you mean 'above'"),
        ({"alerts": [{"metric": "ded", "above": 1}]}, "did you mean 'dead'"),
        ({"alerts": [{"metric": "dead"}]}, "not both"),
        ({"alerts": [{"metric": "dead", "above": 1, "below": 1}]}, "not both"),
        ({"alerts": [{"metric": "dead", "above": float("nan")}]}, "a number"),
        ({"alerts": [{"metric": "dead", "above": 1, "over": -1}]}, "'over'"),
        ({"alerts": [{"metric": "dead", "above": 1, "action": "mail"}]}, "'action'"),
        ({"alerts": [{"metric": "dead", "above": 1, "action": "webhook"}]}, "'url'"),
        ({"alerts": [{"metric": "dead", "above": 1, "url": "file:///secret"}]}, r"\(hidden\)"),
    ],
)
def test_bad_settings(settings, said):
    with pytest.raises(InvalidParamError, match=said):
        Monitor(**settings)


def test_an_alert_fires_once_and_again_after_it_was_over():
    alerts, calm = Alerts([Alert("dead", above=0.1, over=2.0)]), Status(ID).now()
    fired, over = [], []
    for second, share in enumerate([0.0, 0.5, 0.5, 0.5, 0.5, 0.0, 0.5, 0.5, 0.5]):
        now, past = alerts.look(replace(calm, dead_share=share), 1000.0 + second)
        fired += [second] * len(now)
        over += [second] * len(past)
    assert fired == [3, 8]
    assert over == [5]


def test_alerts_see_each_figure(tmp_path):
    told = {
        "dead": {"above": 0.1}, "nulls": {"above": 0.1}, "rows_per_second": {"above": 1}, "p99": {"above": 50},
        "p50": {"above": 50}, "lag": {"above": 10}, "late": {"above": 0.1}, "refused": {"above": 0}, "psi": {"above": 0.25},
        "ks": {"above": 0.25}, "silent": {"above": -1},
    }  # fmt: skip
    monitor = started(
        Monitor(jsonl=str(tmp_path / "e"), alerts=[{"metric": name, **one} for name, one in told.items()]), trigger=0.5
    )
    reference = drifting()
    monitor.serves("1", reference)
    monitor.progress({
        "id": ID, "durationMs": {"triggerExecution": 900},
        "sources": [{"metrics": {"avgOffsetsBehindLatest": "12"}, "endOffset": {"t": {"0": 1, "1": 1}}}],
    })  # fmt: skip
    monitor.batch(report(0, dead=20, nulls={"x": 30}, counts=counts_at(reference, 3)))
    monitor.refused("2", "bad")
    _drained(monitor)
    monitor._queries[ID].looked = 0.0  # as after five seconds
    monitor.batch(report(1, dead=20, nulls={"x": 30}))
    monitor.ended()
    fired = [one for one in lines(tmp_path / "e") if one["event"] == "alert"]
    assert {one["metric"] for one in fired} == set(told)
    assert len(fired) == len(told)
    by = {one["metric"]: one for one in fired}
    assert by["lag"]["value"] == 24
    assert by["dead"]["detail"] == "null"
    assert by["psi"]["detail"] == "x"
    drift = next(one for one in lines(tmp_path / "e") if one["event"] == "drift")
    assert drift["features"][0]["feature"] == "x"
    assert sum(drift["histograms"]["x"]["now"]) == pytest.approx(1)


class Hook:
    """A real server that keeps what it was sent."""

    def __init__(self, status=200):
        got = self.got = []
        self.came = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler):
                got.append((handler.path, json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))))
                handler.send_response(status)
                handler.send_header("Location", "/elsewhere")
                handler.end_headers()
                self.came.set()

            def do_GET(handler):
                got.append(("a redirect was followed", {}))
                handler.send_response(200)
                handler.end_headers()

            def log_message(handler, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/secret-path"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.mark.parametrize("status", [200, 500, 302])
def test_a_webhook_gets_the_alert_and_its_url_is_nowhere(tmp_path, caplog, status):
    caplog.set_level(logging.DEBUG)
    hook = Hook(status)
    alert = Alert("dead", above=0.1, action="webhook", url=hook.url)
    assert "secret" not in repr(alert)
    monitor = started(Monitor(jsonl=str(tmp_path / "e"), alerts=[alert]))
    monitor.batch(report(0, dead=50))
    assert hook.came.wait(10)
    monitor.ended()
    ((path, content),) = hook.got
    assert path == "/secret-path"
    assert content["alert"] == "dead > 0.1"
    assert content["value"] == 0.5
    assert "secret" not in caplog.text + (tmp_path / "e").read_text()
    assert monitor.trouble["failed"] == (status != 200)
    hook.server.shutdown()


def test_a_webhook_that_is_down_is_no_trouble_for_the_query(caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OSError, match="cannot be reached") as error:
        post(f"http://127.0.0.1:{port}/secret", {})
    assert "secret" not in str(error.value)
    monitor = started(Monitor(alerts=[Alert("dead", above=0.1, action="webhook", url=f"http://127.0.0.1:{port}/x")]))
    monitor.batch(report(0, dead=50))
    monitor.ended()
    assert monitor.trouble["failed"] == 1


def test_stop_names_the_alert_that_asked(tmp_path):
    monitor = Monitor(alerts=[Alert("dead", above=0.1), Alert("dead", above=0.2, action="stop")])
    asked = threading.Event()
    monitor.started({"query": ID, "name": "fraud"}, stop=asked.set)
    monitor.batch(report(0, dead=15))
    _drained(monitor)
    assert monitor.failed is None
    monitor.batch(report(1, dead=90))
    assert asked.wait(10)
    assert monitor.failed.alert.action == "stop"
    assert monitor.failed.value == pytest.approx(105 / 200)
    monitor.ended()


def test_a_queue_that_is_full_drops_and_counts(caplog):
    hold, done = threading.Event(), []
    work = Background("slow", most=3)
    work.do(hold.wait)
    while work._steps.qsize():  # until the thread has the first
        time.sleep(0.001)
    for number in range(10):
        work.do(lambda number=number: done.append(number))
    assert work.dropped == 7
    hold.set()
    assert work.close()
    assert done == [0, 1, 2]
    assert "is behind" in caplog.text


def test_telling_takes_no_time():
    monitor = started(Monitor(jsonl="/dev/full"))
    began = time.perf_counter()
    for number in range(1000):
        monitor.batch(report(number))
    assert (time.perf_counter() - began) / 1000 < 1e-3
    monitor.ended()


def test_two_queries_with_one_monitor(tmp_path):
    monitor = started(Monitor(jsonl=str(tmp_path / "e")))
    monitor.started({"query": "b" * 32, "name": "other"})
    monitor.batch(report(0))
    monitor.ended(query="b" * 32)
    monitor.batch(report(1))
    assert monitor.status("b" * 32).state in ("starting", "stopped")
    monitor.ended(query=ID)
    assert [one["event"] for one in lines(tmp_path / "e")] == [
        "started", "started", "batch", "ended", "batch", "ended",
    ]  # fmt: skip
    started(monitor)  # and again
    monitor.ended()


def test_status_reads_well():
    status = Status(ID, "fraud <b>", trigger=1.0)
    status.serves("2", drifting())
    status.batch(report(0, dead=2, counts=counts_at(drifting(), 2)))
    status.batch(report(1, version="2", refused={"3": "NaN outputs"}, replayed=True, compared={"agreement": 0.9}))
    text = str(status.now())
    for part in (
        "fraud <b> (01234567), running since", "200 in, 198 out, 2 dead (null 2)", "2, 1 of them replayed",
        "version 2 (1 98, 2 100)", "version 3: NaN outputs", "p50 100 ms", "decode 10 ms, model 20 ms", "agreement 0.9",
        "x ", "(PSI)",
    ):  # fmt: skip
        assert part in text
    assert "fraud &lt;b&gt;" in status.now()._repr_html_()
    assert json.loads(json.dumps(status.now().to_json()))["rows"] == 200


def test_status_looks_at_the_window_only():
    status = Status(ID, window=60.0)
    status.batch(report(0, rows=1000, dead=900, at=time.time() - 100, seconds={"total": 9.0}))
    status.batch(report(1, rows=100))
    now = status.now()
    assert now.rows == 1100
    assert now.dead_share == 0
    assert now.p99 == pytest.approx(100)


def test_status_before_the_first_batch():
    now = Status(ID).now()
    assert now.state == "starting"
    assert now.rows_per_second is None
    assert Status(ID).now(active=False).state == "stopped"
    assert "0 in, 0 out, 0 dead" in str(now)


def test_drift_window_begins_anew_with_another_version():
    status, reference = Status(ID), drifting()
    status.serves("1", reference)
    status.batch(report(0, counts=counts_at(reference, 2)))
    assert status.now().drift[0].psi > 1
    status.serves("2", reference)
    assert status.now().drift == ()
    status.serves("3", None)
    status.batch(report(0, counts=counts_at(reference, 2)))
    assert status.now().drift == ()


def test_drift_of_few_rows_is_not_told():
    status, reference = Status(ID), drifting()
    status.serves("1", reference)
    status.batch(report(0, counts=counts_at(reference, 2, rows=100)))
    assert status.now().drift == ()


@pytest.mark.parametrize(
    ("progress", "lag"),
    [
        ({}, None),
        ({"sources": [{"description": "file", "metrics": {}}]}, None),
        ({"sources": [{"metrics": None}]}, None),
        ({"sources": [{"metrics": {"avgOffsetsBehindLatest": "2.5"}, "endOffset": {"t": {"0": 5, "1": 6}}}]}, 5),
        ({"sources": [{"metrics": {"avgOffsetsBehindLatest": "3.0"}, "endOffset": "x"}, {"metrics": {}}]}, 3),
    ],
)
def test_lag_is_what_the_sources_tell(progress, lag):
    assert lag_of(progress) == lag


def _drained(monitor):
    """Until the monitor's thread has done what it was given."""
    done = threading.Event()
    monitor._work.do(done.set)
    assert done.wait(10)
