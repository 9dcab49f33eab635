"""The jobs' command line, log and exit statuses, as far as no Spark is needed."""

import contextlib
import io
import json
import logging
import re
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest

from sparkdl import conf as confs
from sparkdl import jobs
from sparkdl.conf import PublishConf
from sparkdl.errors import (
    BundleIntegrityError,
    BundleNotFoundError,
    ConfError,
    InvalidParamError,
    LedgerError,
    OverlapError,
    RanksLostError,
    RegistryError,
    RegistryUnreachableError,
    SignatureError,
    SinkError,
    SinkUnreachableError,
    SourceNotFoundError,
    StalledRankError,
    StoreError,
    StreamError,
    UntrustedBundleError,
)
from sparkdl.jobs import JOBS, command, log, models, signals, status
from sparkdl.jobs.run import Run, new_id

STATUSES = [
    (ConfError("x", path="p", key=None), 2),
    (InvalidParamError("x", param="p", value=1), 2),
    (SignatureError("x", column=None, expected=None, got=None), 2),
    (OverlapError("x", uri="u"), 2),
    (UntrustedBundleError("x", uri="u"), 2),
    (SourceNotFoundError("x", uri="u"), 3),
    (BundleNotFoundError("x", uri="u"), 3),
    (RegistryError("x", registry="r", name=None, version=None), 3),
    (RanksLostError("x", reason="r"), 75),
    (StalledRankError("x", reason="r"), 75),
    (LedgerError("x"), 75),
    (SinkUnreachableError("x", checkpoint="c", sink="s"), 75),
    (RegistryUnreachableError("x", registry="r", name=None, version=None), 75),
    (StoreError("x", uri="u"), 1),  # a full disk, say
    (BundleIntegrityError("x", uri="u", file="f"), 1),
    (StreamError("x", checkpoint="c"), 1),
    (SinkError("x", checkpoint="c", sink="s"), 1),
    (RuntimeError("x"), 1),
]


@pytest.mark.parametrize(("error", "expected"), STATUSES)
def test_exit_statuses(error, expected):
    assert status.of(error) == expected


def test_run_ids_say_when_and_differ():
    made = [new_id() for _ in range(100)]
    assert len(set(made)) == 100
    assert all(re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{8}", one) for one in made)


@pytest.mark.parametrize("name", JOBS)
def test_each_job_prints_its_schema(name, capsys):
    assert jobs.main(name, ["--print-schema"]) == 0
    assert json.loads(capsys.readouterr().out)["additionalProperties"] is False


@pytest.mark.parametrize(
    "argv", [[], ["--conf-file"], ["--conf-file", "x", "y"], ["--conf-file", "x", "--log-format", "xml"]]
)
def test_bad_arguments_are_exit_status_2(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        jobs.main("train", argv)
    assert ended.value.code == 2
    assert "usage: train" in capsys.readouterr().err


@pytest.mark.parametrize("name", JOBS)
def test_a_missing_conf_is_exit_status_2(name, tmp_path, capsys):
    assert jobs.main(name, ["--conf-file", str(tmp_path / "none.yaml")]) == 2
    assert "there is no conf at" in capsys.readouterr().err


def test_text_lines(capsys):
    with log.to_stderr("text", "train", "the-run"):
        logging.getLogger("sparkdl.x").info("some text")
        logging.getLogger("other").info("not told")
        warnings.warn("a warning", stacklevel=1)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO \[the-run\] some text", lines[0])
    assert "WARNING [the-run]" in lines[1]
    assert "a warning" in lines[1]
    assert "not told" not in "".join(lines)


def test_json_lines(capsys):
    run = Run("train", form="json")
    with log.to_stderr("json", "train", run.id):
        run.tell("epoch", "epoch 1 of 3\nis done", loss=0.5, run="not mine", name="a")
        warnings.warn("a warning", stacklevel=1)
        try:
            raise ValueError("of a library")
        except ValueError:
            logging.getLogger("other").exception("failed")
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["run"] for line in told] == [run.id] * 3
    assert (told[0]["event"], told[0]["loss"], told[0]["message"]) == ("epoch", 0.5, "epoch 1 of 3\nis done")
    assert (told[0]["level"], told[0]["job"]) == ("INFO", "train")
    assert "a warning" in told[1]["message"]
    assert "ValueError: of a library" in told[2]["error"]


def test_the_log_is_as_it_was_afterwards(capsys):
    handler = logging.StreamHandler(io.StringIO())
    root = logging.getLogger()
    before = root.handlers[:]
    root.addHandler(handler)
    try:
        with log.to_stderr("text", "train", "x"):
            assert handler not in root.handlers
        assert root.handlers == [*before, handler]
    finally:
        root.removeHandler(handler)


def test_the_first_signal_tells_and_interrupts():
    run = Run("train")
    with pytest.raises(KeyboardInterrupt), signals.taken(run.told_to_end, run.interrupt):
        signal.raise_signal(signal.SIGTERM)
    assert run.told_to_end.is_set()


def test_the_first_signal_only_tells_who_is_patient():
    run = Run("score_stream")
    before = signal.getsignal(signal.SIGTERM)
    with signals.taken(run.told_to_end, run.interrupt), run.patient() as told:
        assert not told.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert told.wait(60)
    assert signal.getsignal(signal.SIGTERM) is before


def test_sparks_own_handler_does_not_take_the_place_of_the_jobs():
    run = Run("score_stream")
    with signals.taken(run.told_to_end, run.interrupt), run.patient() as told:
        with signals.kept():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # as SparkContext.__init__ does
        signal.raise_signal(signal.SIGINT)
        assert told.wait(60)


class Received:
    def getNumber(self):
        return int(signal.SIGTERM)


def test_what_the_jvm_hands_on_late_is_the_first_signal_once_more(monkeypatch):
    sent = []
    monkeypatch.setattr("os.kill", lambda process, number: sent.append(number))
    with signals.taken(threading.Event()):
        signals._HandOn().handle(Received())
        assert sent == [signal.SIGTERM], "the JVM was told alone"
        signal.raise_signal(signal.SIGTERM)
        while signals._first is None:
            time.sleep(0.01)
        monkeypatch.setattr(signals, "_first", signals._first - signals.SAME_S - 1)  # as long ago
        signals._HandOn().handle(Received())
        assert sent == [signal.SIGTERM]
        monkeypatch.setattr(signals, "_first", signals._first - signals.HANDED_ON_S)
        signals._HandOn().handle(Received())
        assert sent == [signal.SIGTERM] * 2
    assert signals._first is None


SECRET = 'hun"ter 2/é'


@pytest.mark.parametrize("form", log.FORMS)
def test_no_secret_of_the_conf_is_told(form, tmp_path, capsys, monkeypatch):
    uri = "postgresql://me:${env:LEDGER_PASSWORD}@db/x?token=${env:OTHER}"
    monkeypatch.setenv("LEDGER_PASSWORD", SECRET)
    monkeypatch.setenv("OTHER", "hunter%33")
    conf = PublishConf(bundle="b", name="n", registry=uri)
    run = Run("publish", form=form)
    run.secrets = confs.secrets_of(conf)
    assert confs.filled(conf).registry == f"postgresql://me:{SECRET}@db/x?token=hunter%33"
    told = f"{SECRET} {confs.filled(conf).registry} hunter3"
    with log.to_stderr(form, "publish", run.id, run.hushed):
        run.tell("event", told, place=told, places=[told])
        run.show(told, place={"is": told})
        try:
            raise KeyError(told)
        except KeyError as error:
            command._failed(error)
    models.write_json(run, f"{tmp_path}/file.json", {"place": told})
    said = "".join(capsys.readouterr()) + (tmp_path / "file.json").read_text()
    assert "postgresql://me:***@db/x?token=***" in said
    assert "hun" not in said


@pytest.mark.parametrize("form", log.FORMS)
def test_the_place_of_an_error_that_nobody_foresaw_is_told(form, capsys):
    def crash():
        raise KeyError("x")

    with log.to_stderr(form, "train", "the-run"):
        for error in (InvalidParamError("said well", param="p", value=1), None):
            try:
                if error:
                    raise error
                crash()
            except Exception as caught:
                command._failed(caught)
    said = capsys.readouterr().err
    assert "in crash" in said
    assert "KeyError: 'x'" in said
    assert said.count("Traceback") == 1


def test_a_job_in_a_notebook_leaves_signals_and_the_programs_log_alone(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sparkdl.notebook.place", lambda: "jupyter")
    program, seen = logging.StreamHandler(io.StringIO()), []
    handlers = [signal.getsignal(number) for number in signals.NUMBERS]

    def start(run, conf, args):
        logging.getLogger("of the program").warning("its own")
        run.tell("event", "of the job")
        seen.append([signal.getsignal(number) for number in signals.NUMBERS])
        return 4

    monkeypatch.setattr("sparkdl.jobs.publish.start", start)
    (tmp_path / "conf.yaml").write_text("{bundle: b, name: n}")
    logging.getLogger().addHandler(program)
    try:
        assert jobs.main("publish", ["--conf-file", f"{tmp_path}/conf.yaml"]) == 4
    finally:
        logging.getLogger().removeHandler(program)
    assert seen == [handlers]
    assert program.stream.getvalue() == "its own\n"
    assert "of the job" in capsys.readouterr().err


def test_a_job_that_there_is_not():
    with pytest.raises(InvalidParamError, match="there is no job 'trian'; did you mean 'train'"):
        jobs.main("trian", [])


DEAF = """
import hashlib, threading
from sparkdl.jobs import signals
with signals.taken(threading.Event()):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 100_000_000)  # C code, for most of a minute
"""


@contextlib.contextmanager
def deaf():
    """A process that takes signals while its main thread is in C code."""
    process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once_whatever_it_does(second):
    with deaf() as process:
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(signals.SAME_S + 0.5)
        process.send_signal(second)
        assert process.wait(20) == 128 + second


def test_the_same_signal_to_jvm_and_python_is_one():
    with deaf() as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(signals.SAME_S + 1)
