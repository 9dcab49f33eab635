"""What the ranks tell the driver while they run: lines of JSON over one authenticated TCP connection a rank.

The driver listens on the address executors reach it at already. Whoever connects must answer a random challenge with
the HMAC of a secret made for this one launch, so the secret itself never goes over the wire, and nothing that arrives
is ever unpickled. A rank that cannot connect keeps its messages; they come back with its result. Pulses are worth
nothing later and are not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import json
import logging
import secrets
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
Handler = Callable[[Message], None]
logger = logging.getLogger(__name__)
_TIMEOUT_S = 3.0
_DRAIN_S = 1.0
_LEAVE_S = 8.0  # Spark ends the tasks of a failed job within about 4 s: it asks, waits for 2 s twice, and kills
_KEPT = 10_000


@dataclass(frozen=True)
class Mailbox:
    """Where the driver listens, and the secret that lets a rank in. Its repr does not show the secret."""

    host: str
    port: int
    secret: bytes = field(repr=False)


@contextlib.contextmanager
def listening(host: str, handler: Handler) -> Iterator[Mailbox]:
    """Call ``handler`` with each message that ranks send, one at a time, until the block ends; never after."""
    secret = secrets.token_bytes(32)
    lock = threading.Lock()

    class Connection(socketserver.StreamRequestHandler):
        timeout = _TIMEOUT_S

        def handle(self) -> None:
            if not admits(self.connection, secret):
                return
            self.connection.settimeout(None)
            for line in self.rfile:
                message = json.loads(line)
                with lock:
                    handler(message)

    connections: list[tuple[threading.Thread, socket.socket]] = []

    class Server(socketserver.ThreadingTCPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def process_request(self, request: Any, client_address: Any) -> None:
            thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
            connections.append((thread, request))
            thread.start()

        def handle_error(self, request: Any, client_address: Any) -> None:
            logger.debug("a connection from %s ended early", client_address, exc_info=True)

    with Server((host, 0), Connection) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="sparkdl-messages", daemon=True)
        thread.start()
        patience = _DRAIN_S
        try:
            yield Mailbox(host, server.server_address[1], secret)
        except Exception:
            patience = _LEAVE_S  # so that no rank of this launch is left when the next one begins
            raise
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
            _drain(connections, patience)


def _drain(connections: list[tuple[threading.Thread, socket.socket]], seconds: float) -> None:
    """Wait for what was sent already; a rank that keeps its connection open is cut off."""
    deadline = time.monotonic() + seconds
    for thread, connection in connections:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)  # what has arrived is still read
            thread.join(_TIMEOUT_S)


class Sender:
    """A rank's end. Messages that could not be delivered are in ``undelivered``."""

    def __init__(self, mailbox: Mailbox | None) -> None:
        self.undelivered: list[Message] = []
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._mailbox: Mailbox | None = None  # None as long as the driver could not be reached
        if mailbox is None:
            return
        try:
            self._socket = connection(mailbox)
            self._mailbox = mailbox
        except OSError as error:
            logger.warning("no live messages: the driver at %s cannot be reached: %s", mailbox.host, error)

    def beat(self, **content: Any) -> None:
        """Send a pulse if that is possible, over a new connection if the last one broke.

        Raises ConnectionRefusedError if the driver, which could be reached once, listens no more.
        """
        if self._socket is None and self._mailbox is not None:
            try:
                again = connection(self._mailbox)
            except ConnectionRefusedError:
                raise
            except OSError:
                return  # the network is down; the next pulse tries again
            with self._lock:
                self._socket = again
        self._deliver(json.dumps({"kind": "pulse", **content}))

    def send(self, kind: str, **content: Any) -> None:
        """Send one message; never raises, never waits longer than the connection's timeout."""
        line = json.dumps({"kind": kind, **content}, default=str)
        if not self._deliver(line) and len(self.undelivered) < _KEPT:
            self.undelivered.append(json.loads(line))

    def _deliver(self, line: str) -> bool:
        with self._lock:
            if self._socket is None:
                return False
            try:
                self._socket.sendall(line.encode() + b"\n")
            except OSError as error:  # half a line may have gone: this connection is of no more use
                logger.warning("the connection to the driver broke: %s", error)
                self._socket.close()
                self._socket = None
                return False
            return True

    def close(self) -> None:
        """End the connection; what was sent still arrives."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None


def admits(guest: socket.socket, secret: bytes) -> bool:
    """True when who has connected answers a random challenge with its HMAC by the secret."""
    challenge = secrets.token_hex(32)
    guest.sendall(challenge.encode() + b"\n")
    if hmac.compare_digest(_line(guest), _answer(secret, challenge)):
        return True
    logger.warning("refused a connection from %s: it does not know the secret", guest.getpeername()[0])
    return False


def connection(mailbox: Mailbox) -> socket.socket:
    """A socket that ``admits`` has let in. Raises OSError."""
    made = socket.create_connection((mailbox.host, mailbox.port), timeout=_TIMEOUT_S)
    try:
        challenge = _line(made).decode()
        if not challenge:
            raise ConnectionAbortedError("the connection was closed before its challenge")
        made.sendall(_answer(mailbox.secret, challenge) + b"\n")
    except OSError:
        made.close()
        raise
    return made


def _line(end: socket.socket, limit: int = 256) -> bytes:
    """What comes before the end of the line, byte for byte, so that nothing behind it is taken away."""
    found = b""
    while len(found) < limit and not found.endswith(b"\n"):
        more = end.recv(1)
        if not more:
            break
        found += more
    return found.strip()


_current: Sender | None = None


@contextlib.contextmanager
def sending(mailbox: Mailbox | None) -> Iterator[Sender]:
    """Make this process's messages go to ``mailbox`` until the block ends."""
    global _current
    sender = _current = Sender(mailbox)
    try:
        yield sender
    finally:
        _current = None
        sender.close()


def send(kind: str, **content: Any) -> None:
    """Send a message from a rank; does nothing outside one."""
    if _current is not None:
        _current.send(kind, **content)


def beat(**content: Any) -> None:
    """Send a pulse from a rank, as Sender.beat does; does nothing outside one."""
    if _current is not None:
        _current.beat(**content)


def log_to_driver(message: str) -> None:
    """Show ``message`` on the driver at once. Call it in a function that HorovodRunner runs; elsewhere it prints."""
    if _current is None:
        print(message)
    else:
        _current.send("log", text=str(message))


@contextlib.contextmanager
def printed_lines_sent() -> Iterator[None]:
    """Send each line printed to stdout or stderr to the driver too, until the block ends."""
    import sys

    with contextlib.redirect_stdout(_Lines(sys.stdout)), contextlib.redirect_stderr(_Lines(sys.stderr)):
        yield


class _Lines(io.TextIOBase):
    """Passes text on, and sends each whole line as a message."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.pending = ""

    def write(self, text: str) -> int:
        self.target.write(text)
        *lines, self.pending = (self.pending + text).split("\n")
        for line in lines:
            send("log", text=line.rsplit("\r", 1)[-1])
        return len(text)

    def flush(self) -> None:
        self.target.flush()

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return int(self.target.fileno())


def _answer(secret: bytes, challenge: str) -> bytes:
    return hmac.new(secret, challenge.encode(), hashlib.sha256).hexdigest().encode()
