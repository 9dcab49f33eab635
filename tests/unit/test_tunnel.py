"""Ranks on several hosts meet through doors that ask for the launch's secret; here the hosts are addresses of the loopback."""

import errno
import multiprocessing
import os
import socket
import socketserver
import threading
from pathlib import Path

import psutil
import pytest
import torch

from sparkdl.train import messages, tunnel
from sparkdl.train.collective import Seat, horovod_problem, join
from sparkdl.train.world import World

pytestmark = pytest.mark.lane("latest")

OUTSIDE = "127.0.0.2"  # where a door is, as if it were the host's own address
SECRET = "known to both"


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


@pytest.fixture
def echo():
    """The port of a server on the loopback that says what it hears."""
    with socketserver.ThreadingTCPServer((tunnel.LOOPBACK, 0), Echo) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def said(port: int, text: bytes, host: str = tunnel.LOOPBACK) -> bytes:
    with socket.create_connection((host, port), timeout=10) as connection:
        try:
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            return connection.makefile("rb").read()
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EPIPE, errno.ECONNRESET):
                raise
            return b""  # it was closed from the other side before all was said


def test_what_goes_in_comes_out(echo):
    text = os.urandom(1 << 20).replace(b"\n", b"-") + b"\n"
    with tunnel.door(OUTSIDE, echo, SECRET) as outer, tunnel.way((OUTSIDE, outer), SECRET) as inner:
        for _ in range(3):
            assert said(inner, text) == text


def test_a_stranger_is_let_in_nowhere(echo, caplog):
    with tunnel.door(OUTSIDE, echo, SECRET) as outer:
        answer = said(outer, b"GET /global/0 HTTP/1.1\n", OUTSIDE)
        assert len(answer.strip()) == 64, "a challenge, and nothing of what is behind the door"
        with tunnel.way((OUTSIDE, outer), "guessed") as inner:
            assert said(inner, b"hello\n") == b""
    assert caplog.text.count("does not know the secret") == 2
    assert SECRET not in caplog.text


def test_a_door_that_was_too_busy_is_tried_again_and_nothing_is_printed_of_a_scan(echo, monkeypatch, capfd):
    admits, tries = messages.admits, []

    def busy(guest, secret):
        tries.append(guest)
        if len(tries) < 3:
            raise TimeoutError("busy")
        return admits(guest, secret)

    monkeypatch.setattr(messages, "admits", busy)
    with tunnel.door(OUTSIDE, echo, SECRET) as outer, tunnel.way((OUTSIDE, outer), SECRET) as inner:
        assert said(inner, b"hello\n") == b"hello\n"
    assert len(tries) == 3
    assert capfd.readouterr().err == ""


def test_a_door_that_is_closed_ends_the_guest_at_once(echo, caplog):
    with tunnel.door(OUTSIDE, echo, SECRET) as outer:
        pass
    with tunnel.way((OUTSIDE, outer), SECRET) as inner:
        assert said(inner, b"hello\n") == b""
    assert f"no way through the door at {OUTSIDE}:{outer}" in caplog.text


def test_nobody_comes_in_later_and_who_is_in_stays(echo):
    with tunnel.door(OUTSIDE, echo, SECRET) as outer, tunnel.way((OUTSIDE, outer), SECRET) as inner:
        guest = socket.create_connection((tunnel.LOOPBACK, inner), timeout=10)
        guest.sendall(b"one\n")
        assert guest.recv(4) == b"one\n"
    with guest:
        guest.sendall(b"two\n")
        assert guest.recv(4) == b"two\n"
    for place in ((OUTSIDE, outer), (tunnel.LOOPBACK, inner)):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(place, timeout=10)


def rank(number: int, backend: str, folder: str, met) -> None:
    """One of two ranks, each on a host of its own; writes down what it summed, and where it listens to others."""

    def exchange(text: str) -> list[str]:
        Path(folder, f"told-{number}").write_text(text)
        met.wait(180)
        return [Path(folder, f"told-{other}").read_text() for other in range(2)]

    def outside() -> set[str]:
        found = psutil.Process().net_connections("tcp")
        return {one.laddr.ip for one in found if one.status == "LISTEN"} - {tunnel.LOOPBACK}

    world = World(number, 2, 0, 1, number, 2)
    seat = Seat(world, ["one", "two"], OUTSIDE, torch.device("cpu"), exchange)
    with join(seat, backend, lambda: None) as (joined, _):
        total = torch.tensor([number + 1.0])
        joined.allreduce(total)
        Path(folder, f"found-{number}").write_text(f"{joined.backend} {total.item()} {sorted(outside())}")


@pytest.mark.parametrize("backend", ["horovod", "torch"])
def test_ranks_on_two_hosts_meet(backend, tmp_path):
    if backend == "horovod" and horovod_problem():
        pytest.skip("no Horovod here")
    spawn = multiprocessing.get_context("spawn")
    met = spawn.Barrier(2)
    ranks = [spawn.Process(target=rank, args=(number, backend, str(tmp_path), met)) for number in range(2)]
    for one in ranks:
        one.start()
    for one in ranks:
        one.join(180)
        one.kill()
    assert [one.exitcode for one in ranks] == [0, 0]
    assert [(tmp_path / f"found-{number}").read_text() for number in range(2)] == [f"{backend} 3.0 []"] * 2
