"""A query's figures for Prometheus to fetch, from this machine alone unless there is a token."""

from __future__ import annotations

import hmac
import ipaddress
import socketserver
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from sparkdl.drift import Drift
from sparkdl.errors import InvalidParamError, StreamError
from sparkdl.stream.reports import BatchReport

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds
FEATURES = 20  # with the largest PSI
TOKEN_LEAST = 16  # characters


def address_of(where: Any, token: str | None) -> tuple[str, int]:
    """Host and port out of ``9464``, ``"9464"`` or ``"host:port"``. Raises InvalidParamError; for a host that others can
    reach unless there is a token of at least 16 characters."""
    host, _, port = str(where).rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if isinstance(where, bool) or not port.isdigit() or not 0 <= int(port) < 65536:
        raise _refuse("prometheus", "a port, 9464 say, or 'host:port'", where)
    if token is not None and (not isinstance(token, str) or len(token) < TOKEN_LEAST or not token.isascii()):
        raise _refuse("token", f"{TOKEN_LEAST} ASCII characters or more", "(hidden)")
    if token is None and not _is_loopback(host):
        raise _refuse(
            "prometheus",
            "on this machine alone (127.0.0.1) unless 'token' is given, which requests then send as "
            "'Authorization: Bearer …'",
            where,
        )
    return host, int(port)


class Exporter:
    """Serves ``/metrics`` over HTTP in threads of its own until it is closed. ``port``: the one it has, if 0 was asked
    for. Raises StreamError if it cannot have the port."""

    def __init__(self, host: str, port: int, token: str | None) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

        self._registry = registry = CollectorRegistry()

        def made(kind: Any, name: str, text: str, *labels: str, **more: Any) -> Any:
            return kind(f"sparkdl_stream_{name}", text, ("query", *labels), registry=registry, **more)

        self.rows = made(Counter, "rows", "Rows, read (in) and given to the sink (out)", "direction")
        self.dead = made(Counter, "dead_rows", "Rows given to the dead letters, by kind", "kind")
        self.nulls = made(Counter, "null_rows", "Rows with a null, by column", "column")
        self.batches = made(Counter, "batches", "Micro-batches done")
        self.seconds = made(Histogram, "batch_seconds", "Seconds of a micro-batch, by stage", "stage", buckets=BUCKETS)
        self.versions = made(Counter, "version_rows", "Rows scored, by model version", "version")
        self.model = made(Gauge, "model_info", "1 for the model version that serves", "version")
        self.refusals = made(Counter, "refused", "Model versions refused")
        self.psi = made(Gauge, "drift_psi", f"PSI of the {FEATURES} features that drift most", "feature")
        self.behind = made(Gauge, "lag_rows", "Rows behind the end of the source")
        self.late = made(Gauge, "late_seconds", "Seconds by which the last micro-batch took longer than the trigger")
        self.fired = made(Counter, "alerts", "Alerts that fired", "alert")
        self._serving: dict[str, str] = {}
        self._shown: dict[str, set[str]] = {}
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as error:
            raise StreamError(
                f"Prometheus cannot be served on {host}:{port}: {error.strerror}; give the monitor another port",
                checkpoint="",
            ) from error
        self.port = int(self._server.server_address[1])
        self._server.set_app(_guarded(make_wsgi_app(registry), token))
        self._thread = threading.Thread(target=self._server.serve_forever, name="sparkdl-prometheus", daemon=True)
        self._thread.start()

    def batch(self, query: str, report: BatchReport) -> None:
        """A micro-batch of the query of this name is done."""
        self.rows.labels(query, "in").inc(report.rows)
        self.rows.labels(query, "out").inc(report.scored)
        self.batches.labels(query).inc()
        for kind, count in report.dead.items():
            self.dead.labels(query, kind).inc(count)
        for column, count in report.nulls.items():
            self.nulls.labels(query, column).inc(count)
        for stage, seconds in report.seconds.items():
            self.seconds.labels(query, stage).observe(seconds)
        for version, count in report.versions.items():
            self.versions.labels(query, version).inc(count)

    def serves(self, query: str, version: str) -> None:
        """The version that scores from now on."""
        before = self._serving.get(query)
        if before is not None and before != version:
            self.model.remove(query, before)
        self._serving[query] = version
        self.model.labels(query, version).set(1)

    def drift(self, query: str, found: Sequence[Drift]) -> None:
        """Of its features, worst first."""
        now = {one.feature: one.psi for one in found[:FEATURES]}
        for feature in self._shown.get(query, set()) - set(now):
            self.psi.remove(query, feature)
        self._shown[query] = set(now)
        for feature, psi in now.items():
            self.psi.labels(query, feature).set(psi)

    def lag(self, query: str, rows: int | None, late: float | None) -> None:
        """What is known of it."""
        if rows is not None:
            self.behind.labels(query).set(rows)
        if late is not None:
            self.late.labels(query).set(late)

    def close(self) -> None:
        """Give the port back."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True

    def server_bind(self) -> None:
        """Without the look-up of the host's name, which takes seconds where DNS is slow."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(WSGIRequestHandler):
    timeout = 10.0  # for a client that says nothing

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


Environ = Mapping[str, Any]
Start = Callable[..., Any]


def _guarded(
    app: Callable[[Any, Start], Iterable[bytes]], token: str | None
) -> Callable[[Any, Start], Iterable[bytes]]:
    """Only GET of /metrics, and only with the token if there is one."""

    def answer(environ: Environ, start: Start) -> Iterable[bytes]:
        given = str(environ.get("HTTP_AUTHORIZATION", ""))
        if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return _said(start, "401 Unauthorized", [("WWW-Authenticate", "Bearer")])
        if environ["REQUEST_METHOD"] != "GET" or environ["PATH_INFO"] not in ("/metrics", "/"):
            return _said(start, "404 Not Found", [])
        return app(environ, start)

    return answer


def _said(start: Start, status: str, headers: list[tuple[str, str]]) -> Iterable[bytes]:
    start(status, [("Content-Type", "text/plain"), *headers])
    return [status.encode()]


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse(param: str, expected: str, value: Any) -> InvalidParamError:
    return InvalidParamError(f"{param!r} of a monitor must be {expected} (got {value!r})", param=param, value=value)
