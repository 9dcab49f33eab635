"""What ranks say reaches the driver, in order and whole; whoever does not know the secret is refused; a rank never
waits for, nor fails with, a driver that is gone."""

import contextlib
import json
import logging
import socket
import threading

import pytest

from sparkdl.train import messages
from sparkdl.train.messages import Mailbox, Sender, listening, log_to_driver, printed_lines_sent, send, sending

HOST = "127.0.0.1"


@pytest.fixture
def inbox():
    """(mailbox, the messages that arrived, a function that waits for so many)."""
    arrived, came = [], threading.Condition()

    def handler(message):
        with came:
            arrived.append(message)
            came.notify_all()

    def wait_for(count):
        with came:
            assert came.wait_for(lambda: len(arrived) >= count, timeout=10), f"only {len(arrived)} of {count} came"

    with listening(HOST, handler) as mailbox:
        yield mailbox, arrived, wait_for


def test_messages_arrive_in_order(inbox):
    mailbox, arrived, wait_for = inbox
    sender = Sender(mailbox)
    for number in range(500):
        sender.send("progress", number=number, text="ä\n" * 20)
    wait_for(500)
    assert [message["number"] for message in arrived] == list(range(500))
    assert arrived[0] == {"kind": "progress", "number": 0, "text": "ä\n" * 20}
    assert sender.undelivered == []
    sender.close()


def test_all_that_was_sent_has_arrived_when_the_driver_stops_listening():
    for _ in range(20):
        arrived = []
        with listening(HOST, arrived.append) as mailbox:
            sender = Sender(mailbox)
            for number in range(200):
                sender.send("log", number=number)
            sender.close()
        assert [message["number"] for message in arrived] == list(range(200))


def test_a_rank_that_never_closes_does_not_keep_the_driver_waiting():
    arrived = []
    with contextlib.closing(socket.socket()) as silent:
        with listening(HOST, arrived.append) as mailbox:
            sender = Sender(mailbox)
            sender.send("log", text="a")
            silent.connect((mailbox.host, mailbox.port))  # nor one that says nothing
        assert arrived == [{"kind": "log", "text": "a"}]
        sender.close()


def test_several_ranks_send_at_the_same_time_and_the_handler_is_called_one_at_a_time():
    arrived, busy = [], threading.Lock()

    def handler(message):
        assert busy.acquire(blocking=False)
        arrived.append((message["rank"], message["number"]))
        busy.release()

    def rank(number, mailbox):
        sender = Sender(mailbox)
        for i in range(100):
            sender.send("log", rank=number, number=i)
        sender.close()

    with listening(HOST, handler) as mailbox:
        ranks = [threading.Thread(target=rank, args=(number, mailbox)) for number in range(4)]
        for thread in ranks:
            thread.start()
        for thread in ranks:
            thread.join()
    for number in range(4):
        assert [i for who, i in arrived if who == number] == list(range(100))


@pytest.mark.parametrize("answer", ["wrong secret", "the secret itself", "nothing", "too long", "not text"])
def test_who_does_not_know_the_secret_is_refused_and_logged(inbox, caplog, answer):
    mailbox, arrived, wait_for = inbox
    told = {
        "wrong secret": messages._answer(b"x" * 32, "y"),
        "the secret itself": mailbox.secret.hex().encode(),
        "nothing": b"",
        "too long": b"a" * 100_000,
        "not text": b"\xff\x00\xfe",
    }[answer]
    with (
        caplog.at_level(logging.WARNING),
        socket.create_connection((mailbox.host, mailbox.port), timeout=10) as intruder,
    ):
        challenge = intruder.makefile("rb").readline().strip()
        assert len(challenge) == 64
        with contextlib.suppress(OSError):  # it may hang up while we speak
            intruder.sendall(told + b"\n" + b'{"kind": "log", "text": "let me in"}\n')
        with contextlib.suppress(ConnectionError):
            assert intruder.recv(1) == b""  # it hung up
    assert arrived == []
    assert "refused a connection from 127.0.0.1" in caplog.text
    sender = Sender(mailbox)  # and the others are served
    sender.send("log", text="a")
    wait_for(1)
    sender.close()


def test_each_connection_has_a_challenge_of_its_own(inbox):
    mailbox, *_ = inbox
    challenges = set()
    for _ in range(3):
        with socket.create_connection((mailbox.host, mailbox.port), timeout=10) as connection:
            challenges.add(connection.makefile("rb").readline())
    assert len(challenges) == 3


@pytest.mark.parametrize("line", [b"not JSON\n", b"\x80\x04K\x01.\n", b"{\n", b"[" * 100_000 + b"\n"])
def test_what_is_not_json_ends_that_connection_alone(inbox, line):
    mailbox, arrived, wait_for = inbox
    broken = Sender(mailbox)
    broken._socket.sendall(line)
    assert broken._socket.recv(1) == b""
    broken.close()
    sender = Sender(mailbox)
    sender.send("log", text="a")
    wait_for(1)
    assert arrived == [{"kind": "log", "text": "a"}]
    sender.close()


def test_the_secret_is_not_shown():
    mailbox = Mailbox(HOST, 1, b"a very secret secret")
    assert "secret secret" not in repr(mailbox)
    assert "secret=" not in repr(mailbox)


def test_the_secret_is_new_for_each_launch():
    secrets = set()
    for _ in range(3):
        with listening(HOST, lambda message: None) as mailbox:
            secrets.add(mailbox.secret)
    assert len(secrets) == 3
    assert all(len(secret) == 32 for secret in secrets)


def test_without_a_driver_messages_are_kept():
    for mailbox in (None, Mailbox(HOST, unused_port(), b"x")):
        sender = Sender(mailbox)
        sender.send("log", text="a")
        sender.send("log", text="b")
        assert sender.undelivered == [{"kind": "log", "text": "a"}, {"kind": "log", "text": "b"}]
        sender.close()


def unused_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def test_a_driver_that_goes_away_loses_nothing_sent_after_the_break_was_seen():
    arrived = []
    with listening(HOST, arrived.append) as mailbox:
        sender = Sender(mailbox)
        sender.send("log", number=0)
    number = 0
    while not sender.undelivered:  # the first few still go into the connection's buffer
        number += 1
        assert number < 1_000_000
        sender.send("log", number=number, text="x" * 1000)
    sender.send("log", number=number + 1)
    assert [message["number"] for message in sender.undelivered] == [number, number + 1]
    json.dumps(sender.undelivered)  # they travel with the rank's result
    sender.close()


def test_only_so_many_are_kept(monkeypatch):
    monkeypatch.setattr(messages, "_KEPT", 3)
    sender = Sender(None)
    for number in range(5):
        sender.send("log", number=number)
    assert len(sender.undelivered) == 3


@pytest.mark.parametrize("connected", [True, False])
def test_what_json_has_no_word_for_is_sent_as_text(inbox, connected):
    mailbox, arrived, wait_for = inbox
    sender = Sender(mailbox if connected else None)
    sender.send("log", value={1}, path=contextlib)
    if connected:
        wait_for(1)
    (message,) = arrived if connected else sender.undelivered
    assert message == {"kind": "log", "value": "{1}", "path": str(contextlib)}
    json.dumps(sender.undelivered)
    sender.close()


def test_a_handler_that_raises_ends_its_connection_and_the_rank_goes_on():
    def handler(message):
        raise KeyError("text")

    with listening(HOST, handler) as mailbox:
        sender = Sender(mailbox)
        sender.send("log")
        assert sender._socket.recv(1) == b""
        sender.send("log")
        sender.close()


def test_sending_outside_a_rank_does_nothing_and_logging_prints(capsys):
    send("log", text="a")
    log_to_driver("hello")
    assert capsys.readouterr().out == "hello\n"


def test_in_a_rank_logs_and_printed_lines_go_to_the_driver(inbox, capsys):
    mailbox, arrived, wait_for = inbox
    with sending(mailbox), printed_lines_sent():
        log_to_driver(3)
        print("one\ntwo")
        print("half", end="")
        print(" a line")
        print("10%\r20%\r30%")
    wait_for(5)
    assert [message["text"] for message in arrived] == ["3", "one", "two", "half a line", "30%"]
    assert capsys.readouterr().out == "one\ntwo\nhalf a line\n10%\r20%\r30%\n"
    log_to_driver("after")
    assert capsys.readouterr().out == "after\n"


def test_a_pulse_that_cannot_be_sent_is_not_kept_and_other_messages_are():
    with listening(HOST, lambda message: None) as mailbox:
        sender = Sender(mailbox)
    for _ in range(3):  # the first may go into a connection whose other end has just gone
        with contextlib.suppress(ConnectionRefusedError):
            sender.beat(rank=0)
    with pytest.raises(ConnectionRefusedError):
        sender.beat(rank=0)
    sender.send("log", text="a")
    assert sender.undelivered == [{"kind": "log", "text": "a"}]
    sender.close()


def test_a_pulse_without_a_driver_that_was_ever_reached_tries_nothing():
    with contextlib.closing(socket.create_server((HOST, 0))) as other:
        nobody = Mailbox(HOST, other.getsockname()[1], b"x" * 32)
    sender = Sender(nobody)
    sender.beat(rank=0)
    assert sender.undelivered == []


def test_a_failed_launch_waits_for_its_ranks_to_leave():
    arrived = []
    with pytest.raises(KeyError), listening(HOST, arrived.append) as mailbox:  # noqa: PT012
        sender = Sender(mailbox)
        leaving = threading.Timer(messages._DRAIN_S + 0.5, lambda: (sender.send("log", text="last"), sender.close()))
        leaving.start()
        raise KeyError
    assert arrived == [{"kind": "log", "text": "last"}]
