"""`python -m sparkdl top` and `report`: what they show of real files of events."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from sparkdl.stream.events import Lines, batch_event
from sparkdl.stream.monitor import Monitor
from sparkdl.stream.reports import BatchReport
from sparkdl.stream.top import View, picture

ID, OTHER = "a" * 32, "b" * 32


def report(batch, query=ID, **more):
    told = {"dead": {"shape": 3}, "versions": {"7": 97}, "seconds": {"model": 0.02, "total": 0.1}, **more}
    return BatchReport(query, batch, time.time(), 100, **told)


def monitored(path, *, end=True, batches=3, query=ID, name="fraud", **settings):
    monitor = Monitor(jsonl=str(path), alerts=[{"metric": "dead", "above": 0.01}], **settings)
    monitor.started({"query": query, "name": name})
    for number in range(batches):
        monitor.batch(report(number, query))
    monitor.refused("8", "NaN outputs")
    if end:
        monitor.ended()
    return monitor


def command(*arguments):
    return [sys.executable, "-m", "sparkdl", *map(str, arguments)]


def shown(views, width=140):
    console = Console(width=width, record=True, file=io.StringIO(), force_terminal=True)
    console.print(picture(views))
    return console.export_text()


def test_once_prints_what_there_is_and_ends(tmp_path):
    monitored(tmp_path / "a")
    monitored(tmp_path / "b", query=OTHER, name="[red]other[/red]")
    done = subprocess.run(
        command("top", tmp_path / "a", tmp_path / "b", "--once"), capture_output=True, text=True, check=True
    )
    for part in ("fraud (aaaaaaaa), stopped since", "300 in, 291 out, 9 dead (shape 9)", "[red]other[/red] (bbbbbbbb)",
                 "version 8: NaN outputs", "alert", "dead > 0.01: 0.03 shape", "p50 100 ms"):  # fmt: skip
        assert part in done.stdout
    assert "\x1b" not in done.stdout


def test_a_pipe_gets_it_once_without_being_asked(tmp_path):
    monitored(tmp_path / "a")
    done = subprocess.run(command("top", tmp_path / "a"), capture_output=True, text=True, check=True, timeout=60)
    assert "fraud" in done.stdout


@pytest.mark.parametrize("which", ["top", "report"])
def test_a_file_that_is_not_there(tmp_path, which):
    done = subprocess.run(command(which, tmp_path / "none"), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot be read: No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_report_is_written(tmp_path):
    monitored(tmp_path / "a")
    arguments = command("report", tmp_path / "a", "-o", tmp_path / "r.html")
    subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "<h1>fraud</h1>" in (tmp_path / "r.html").read_text()


def test_a_view_follows_the_file_over_its_rotation(tmp_path):
    """Once is seen as often as a second passes; a file is not rotated more often than that."""
    lines = Lines(str(tmp_path / "a"), max_bytes=2000, backups=50)
    view, written = View(str(tmp_path / "a")), 0
    lines.write({"event": "started", "query": ID, "name": "fraud", "time": time.time()})
    view.begin()
    for _ in range(12):
        for _ in range(3):
            lines.write(batch_event(report(written), "fraud"))
            written += 1
        view.follow()
        assert view.queries[ID].now().batches == written
    assert len(list(tmp_path.iterdir())) > 4
    lines.close()


def test_half_a_line_is_taken_when_it_is_whole(tmp_path):
    path = tmp_path / "a"
    path.write_text("")
    view = View(str(path))
    view.begin()
    line = json.dumps({"event": "batch", "name": "n", **report(0).to_json()}) + "\n"
    with path.open("a") as file:
        file.write(line[:40])
        file.flush()
        view.follow()
        assert not view.queries
        file.write(line[40:])
        file.flush()
        view.follow()
    assert view.queries[ID].now().rows == 100


def test_the_table_has_a_row_a_query(tmp_path):
    monitored(tmp_path / "a")
    monitored(tmp_path / "b", query=OTHER, name="other")
    views = [View(str(tmp_path / name)) for name in ("a", "b")]
    for view in views:
        view.begin()
    text = shown(views)
    for part in ("fraud", "other", "stopped", "300", "100 ms", "7", "refused: version 8: NaN outputs"):
        assert part in text
    assert "no queries yet" in str(picture([], plain=True))


def test_live_in_a_terminal_until_it_is_interrupted(tmp_path):
    monitor = monitored(tmp_path / "a", end=False)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "150", "LINES": "30"}
    shows = subprocess.Popen(
        command("top", tmp_path / "a"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),  # a shell's job in the background ignores it
    )
    os.close(theirs)
    try:
        assert "fraud" in until(ours, "fraud")
        for number in range(3, 10):
            monitor.batch(report(number))
        until(ours, "1,000")  # rows: the file is followed
        shows.send_signal(signal.SIGINT)
        until(ours, None)
        assert shows.wait(30) == 0
    finally:
        shows.kill()
        os.close(ours)
        monitor.ended()


def until(terminal, text):
    """What the terminal shows until it is ``text``, or the end."""
    seen = ""
    while text is None or text not in seen:
        try:
            seen += os.read(terminal, 1 << 16).decode(errors="replace")
        except OSError:  # the other side is closed
            assert text is None, seen[-3000:]
            break
    return seen
