"""Thresholds on how a query does, and what happens when one is passed."""

from __future__ import annotations

import json
import logging
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sparkdl.errors import InvalidParamError, did_you_mean
from sparkdl.stream.status import StreamStatus

logger = logging.getLogger(__name__)
METRICS = {
    "dead": "share of the rows in the window that went to the dead letters, from 0 to 1",
    "nulls": "share of the rows in the window with a null in the column that has most of them, from 0 to 1",
    "rows_per_second": "rows read a second over the window",
    "p50": "milliseconds that half of the batches in the window took less than",
    "p99": "milliseconds that 99 % of the batches in the window took less than",
    "lag": "rows behind the end of the source",
    "late": "seconds by which the last micro-batch took longer than the trigger",
    "silent": "seconds since the last batch was done",
    "psi": "the largest PSI of a feature or a prediction over the drift window",
    "ks": "the largest Kolmogorov-Smirnov distance over the drift window",
    "refused": "model versions that were refused since the query was started",
}
ACTIONS = ("log", "webhook", "stop")
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Alert:
    """A threshold on a query's figures.

    metric: one of METRICS. above or below: one of the two; the figure must be beyond it. over: for so many seconds on end
    before the alert fires; 0: at once. It fires once, and again only after the figure was within bounds.
    action: ``log``, a warning; ``webhook``, which also sends an HTTP POST of JSON to ``url``; ``stop``, which ends
    the query (and sends the POST, if there is a ``url``). url: may hold a secret, and is in no log, file or repr.

    Raises InvalidParamError.
    """

    metric: str
    above: float | None = None
    below: float | None = None
    over: float = 0.0
    action: str = "log"
    url: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check(
            self.metric in METRICS, "metric", self.metric, f"one of {list(METRICS)}{did_you_mean(self.metric, METRICS)}"
        )
        _check((self.above is None) != (self.below is None), "above", self.above, "a number, or 'below' one; not both")
        for name in ("above", "below", "over"):
            value = getattr(self, name)
            fine = value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
            _check(fine and not (value is not None and math.isnan(value)), name, value, "a number")
        _check(self.over >= 0, "over", self.over, "a number of seconds, 0 or more")
        _check(self.action in ACTIONS, "action", self.action, f"one of {list(ACTIONS)}")
        _check(self.action != "webhook" or bool(self.url), "url", self.url, "given where action is 'webhook'")
        parts = urllib.parse.urlsplit(self.url or "http://host")
        _check(parts.scheme in ("http", "https") and bool(parts.netloc), "url", "(hidden)", "an http or https URL")

    @classmethod
    def of(cls, told: Alert | Mapping[str, Any]) -> Alert:
        """One of a job's conf: ``{metric: dead, above: 0.01, action: stop}``. Raises InvalidParamError."""
        if isinstance(told, Alert):
            return told
        if not isinstance(told, Mapping):
            raise InvalidParamError(
                f"an alert is a sparkdl.stream.alerts.Alert or a map of its fields (got {type(told).__name__})",
                param="alerts", value=told,
            )  # fmt: skip
        fields = list(cls.__dataclass_fields__)
        for name in told:
            _check(name in fields, "alerts", name, f"one of the fields {fields}{did_you_mean(name, fields)}")
        _check("metric" in told, "alerts", sorted(told), "a map with 'metric'")
        return cls(**told)

    @property
    def text(self) -> str:
        """``dead > 0.01``."""
        beyond = f"> {self.above:g}" if self.above is not None else f"< {self.below:g}"
        return f"{self.metric} {beyond}" + (f" for {self.over:g} s" if self.over else "")

    def is_beyond(self, value: float) -> bool:
        """True if the figure is out of bounds."""
        return value > self.above if self.above is not None else value < float(self.below or 0.0)


@dataclass(frozen=True)
class Fired:
    """An alert that fired. value: the figure then. detail: the feature of a drift, the reason of a refusal."""

    alert: Alert
    query: str
    name: str
    time: float
    value: float
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON values, without the URL."""
        return {
            "query": self.query, "name": self.name, "time": self.time, "alert": self.alert.text,
            "metric": self.alert.metric, "value": self.value, "action": self.alert.action, "detail": self.detail,
        }  # fmt: skip

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"alert: {self.alert.text}: {self.value:.4g}{detail}, query {self.name or self.query}"


class Alerts:
    """Which alerts of one query have fired. Not for several threads."""

    def __init__(self, alerts: Iterable[Alert]) -> None:
        self._alerts = list(alerts)
        self._since: dict[int, float] = {}
        self._fired: set[int] = set()

    def look(self, status: StreamStatus, at: float) -> tuple[list[Fired], list[Alert]]:
        """Those that fire now, ``at`` seconds since 1970, and those that had fired and are over."""
        firing, over = [], []
        for number, alert in enumerate(self._alerts):
            value, detail = figure(alert.metric, status)
            if value is None:
                continue
            if not alert.is_beyond(value):
                self._since.pop(number, None)
                if number in self._fired:
                    self._fired.remove(number)
                    over.append(alert)
            elif number not in self._fired and at - self._since.setdefault(number, at) >= alert.over:
                self._fired.add(number)
                firing.append(Fired(alert, status.id, status.name, at, value, detail))
        return firing, over


def figure(metric: str, status: StreamStatus) -> tuple[float | None, str]:
    """The metric's figure, or None if it is not known (yet), and what to say with it."""
    if metric in ("psi", "ks"):
        worst = max(status.drift, key=lambda drift: getattr(drift, metric), default=None)
        return (getattr(worst, metric), worst.feature) if worst else (None, "")
    if metric == "refused":
        return len(status.refused), "; ".join(f"{version}: {reason}" for version, reason in status.refused.items())
    name = {"dead": "dead_share", "nulls": "null_share", "silent": "last"}.get(metric, metric)
    value = getattr(status, name)
    shares = {"dead": status.dead, "nulls": status.nulls}.get(metric, {})
    return value, max(shares, key=lambda kind: shares[kind], default="")


def post(url: str, content: Mapping[str, Any], timeout: float = TIMEOUT_S) -> None:
    """Send JSON by HTTP. Raises OSError, whose text does not show the URL."""
    data = json.dumps(content).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"}, method="POST")
    try:
        with _no_redirects.open(request, timeout=timeout) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        raise OSError(f"the webhook answered {error.code}") from None
    except urllib.error.URLError as error:
        raise OSError(f"the webhook cannot be reached: {type(error.reason).__name__}") from None
    except Exception as error:  # a bad answer, as http.client raises it, may quote what was asked for
        raise OSError(f"the webhook failed: {type(error).__name__}") from None


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A redirect would turn the POST into a GET somewhere else."""
        return None


_no_redirects = urllib.request.build_opener(_Stay)


def _check(fine: bool, param: str, value: Any, expected: str) -> None:
    if not fine:
        raise InvalidParamError(f"{param!r} of an alert must be {expected} (got {value!r})", param=param, value=value)
