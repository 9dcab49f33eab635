"""A way between hosts to a server that asks for no password: it listens on the loopback, and a door on the host's own address
lets in who knows the secret of this launch. What goes through is not encrypted."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from sparkdl.train import messages
from sparkdl.train.messages import Mailbox

LOOPBACK = "127.0.0.1"
_PATIENCE_S = 60.0  # with the other end, whose host may be busy
_AGAIN_S = 0.2
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def door(address: str, port: int, secret: str) -> Iterator[int]:
    """A listener on ``address`` for this host's loopback ``port``; its own port. No one comes in after the block; who is in
    stays until he leaves."""

    def connect(guest: socket.socket) -> socket.socket | None:
        guest.settimeout(_PATIENCE_S)
        if not messages.admits(guest, secret.encode()):
            return None
        return socket.create_connection((LOOPBACK, port), timeout=_PATIENCE_S)

    with _listening(address, connect) as opened:
        yield opened


@contextlib.contextmanager
def way(place: tuple[str, int], secret: str) -> Iterator[int]:
    """A listener on this host's loopback that leads through the door at ``place``; its port. It ends as ``door`` does."""
    mailbox = Mailbox(*place, secret.encode())
    with _listening(LOOPBACK, lambda guest: _through(mailbox)) as opened:
        yield opened


def _through(mailbox: Mailbox) -> socket.socket | None:
    """A connection that the door let in; None if it does not, or not in time."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return messages.connection(mailbox)
        except OSError as error:
            # a door that refuses is closed for good
            if isinstance(error, ConnectionRefusedError) or time.monotonic() >= deadline:
                logger.warning("no way through the door at %s:%d: %s", mailbox.host, mailbox.port, error)
                return None
            time.sleep(_AGAIN_S)


@contextlib.contextmanager
def _listening(address: str, connect: Callable[[socket.socket], socket.socket | None]) -> Iterator[int]:
    class Guest(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            other = connect(self.request)
            if other is None:
                return
            with other:
                for end in (self.request, other):
                    end.settimeout(None)
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = threading.Thread(target=_pass_on, args=(other, self.request), daemon=True)
                back.start()
                _pass_on(self.request, other)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128  # ranks come all at once

        def handle_error(self, request: Any, client_address: Any) -> None:
            logger.debug("a connection from %s ended early", client_address, exc_info=True)

    with served(Server((address, 0), Guest), "sparkdl-tunnel") as port:
        yield port


@contextlib.contextmanager
def served(server: socketserver.TCPServer, name: str) -> Iterator[int]:
    """While inside, a thread of this name answers whoever asks the server; its port."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name=name, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Until the source has no more to say, or either is gone."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
