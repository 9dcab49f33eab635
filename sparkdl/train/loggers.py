"""Where the driver writes down how a fit goes: CSV, JSON lines, TensorBoard, MLflow.

They run on the driver, where credentials and local paths are; what runs on every rank is in ``callbacks``.
"""

from __future__ import annotations

import copy
import csv
import importlib.util
import io
import json
import logging
import math
import os
import queue
import re
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from sparkdl import store
from sparkdl.errors import InvalidParamError

logger = logging.getLogger(__name__)
Entry = Mapping[str, Any]


class Logger:
    """Hooks that run on the driver; override those you need, and give objects to ``callbacks``.

    An error in ``on_fit_start`` ends the fit before it starts anything. One later does not end hours of training: it
    goes to the log as a warning, and the logger is called again with the next epoch. Nor does a slow one hold up
    training: each has a thread of its own for ``on_epoch_end``, and ``on_fit_end`` comes when that is through.
    """

    def on_fit_start(self, settings: dict[str, Any]) -> None:
        """Before the ranks are started. settings: the estimator's Params as JSON can say them."""

    def on_epoch_end(self, entry: dict[str, Any]) -> None:
        """After each epoch, with its history entry. An epoch comes again when ranks were lost and went back to a
        checkpoint before it; a fit with ``resume`` begins with the first epoch that its checkpoint does not have."""

    def on_fit_end(self, model: Any | None, error: BaseException | None) -> None:
        """At the end: the TorchModel, or what went wrong."""

    def for_fit(self) -> Logger:
        """The object whose hooks one fit calls: this one. A CrossValidator runs several fits at a time; a logger that
        keeps something of one fit gives a copy of itself for each."""
        return self


_Waiting = queue.SimpleQueue[dict[str, Any] | None]


class Loggers(Logger):
    """A fit's loggers as one. ``on_fit_start`` raises what any of them raises; the other hooks warn, and go on."""

    def __init__(self, loggers: Iterable[Logger]) -> None:
        self.loggers = [one.for_fit() for one in loggers]
        self._running: list[tuple[Logger, _Waiting, threading.Thread]] = []

    def on_fit_start(self, settings: dict[str, Any]) -> None:
        """See Logger. If one raises, those before it are told that the fit has ended."""
        for number, one in enumerate(self.loggers):
            try:
                one.on_fit_start(dict(settings))
            except BaseException as error:
                for started in self.loggers[:number]:
                    _try(started, "on_fit_end", None, error)
                raise
        for one in self.loggers:
            waiting: _Waiting = queue.SimpleQueue()
            thread = threading.Thread(target=_attend, args=(one, waiting), name="sparkdl-logger", daemon=True)
            thread.start()
            self._running.append((one, waiting, thread))

    def on_epoch_end(self, entry: dict[str, Any]) -> None:
        """See Logger. Returns at once: who calls it has the ranks' pulses to hear, and a tracking server may take
        minutes."""
        for _, waiting, _ in self._running:
            waiting.put(dict(entry))

    def on_fit_end(self, model: Any | None, error: BaseException | None) -> None:
        """See Logger. Returns when all that was to be written is."""
        for _, waiting, _ in self._running:
            waiting.put(None)
        for one, _, thread in self._running:
            thread.join()
            _try(one, "on_fit_end", model, error)


def _attend(one: Logger, waiting: _Waiting) -> None:
    while (entry := waiting.get()) is not None:
        _try(one, "on_epoch_end", entry)


def _try(one: Logger, hook: str, *arguments: Any) -> None:
    try:
        getattr(one, hook)(*arguments)
    except Exception:  # training must not be lost because the place it is written down to is gone
        logger.warning("%s.%s failed; the fit goes on without it", type(one).__name__, hook, exc_info=True)


def flat(entry: Entry) -> dict[str, Any]:
    """A history entry as one row: its phases as ``data_s``, ``compute_s``, …, in seconds."""
    row = {key: value for key, value in entry.items() if key != "phases"}
    return row | {f"{phase}_s": seconds for phase, seconds in entry.get("phases", {}).items()}


class _FileLogger(Logger):
    """Writes the whole file after each epoch, since stores as S3 have no append: after a kill, what the file has is
    whole up to the last epoch.

    A new fit replaces the file; one with ``resume`` goes on in it. No epoch is in it twice.
    """

    def __init__(self, uri: str) -> None:
        store.resolve(uri)
        self.uri = uri

    def for_fit(self) -> Logger:
        """See Logger."""
        return copy.copy(self)

    def on_fit_start(self, settings: dict[str, Any]) -> None:
        """Raises StoreError if the file cannot be written."""
        found = settings.get("resume") and store.exists(self.uri)
        rows = self._read(store.read_bytes(self.uri).decode()) if found else []
        self.rows = {int(row["epoch"]): row for row in rows}
        self._save()

    def on_epoch_end(self, entry: dict[str, Any]) -> None:
        """See Logger."""
        self.rows[entry["epoch"]] = entry
        self._save()

    def _save(self) -> None:
        store.write_bytes(self.uri, self._written([self.rows[epoch] for epoch in sorted(self.rows)]).encode())

    def _read(self, text: str) -> list[Entry]:
        raise NotImplementedError

    def _written(self, rows: list[Entry]) -> str:
        raise NotImplementedError


class CSVLogger(_FileLogger):
    """The history as a CSV file at ``uri`` (any that pyarrow.fs can write): a row an epoch, a column a figure.

    Written whole after each epoch, since stores such as S3 have no append; so a driver that is killed leaves it readable
    up to the last epoch. A new fit replaces the file, one with ``resume`` goes on in it, and no epoch is in it twice.
    """

    def _read(self, text: str) -> list[Entry]:
        return list(csv.DictReader(io.StringIO(text)))

    def _written(self, rows: list[Entry]) -> str:
        flattened = [flat(row) for row in rows]
        names = list(dict.fromkeys(key for row in flattened for key in row)) or ["epoch"]
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(flattened)
        return text.getvalue()


class JSONLinesLogger(_FileLogger):
    """The history at ``uri`` as JSON lines: an entry a line, as in ``TorchModel.summary``; NaN and infinite are null.

    Written as CSVLogger writes.
    """

    def _read(self, text: str) -> list[Entry]:
        return [json.loads(line) for line in text.splitlines() if line]

    def _written(self, rows: list[Entry]) -> str:
        return "".join(json.dumps(_finite(row), allow_nan=False, default=str) + "\n" for row in rows)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class TensorBoardLogger(Logger):
    """The history as TensorBoard shows it, under ``log_dir``, which ``torch.utils.tensorboard`` writes.

    ``loss/train`` and ``loss/validation`` share a chart, as each metric's two figures do; ``seconds/…`` has the phases.
    No epoch is in it twice; a fit with ``resume`` goes on in the directory.
    Raises InvalidParamError when it is made and tensorboard is not installed.
    """

    def __init__(self, log_dir: str) -> None:
        require("tensorboard", "tensorboard", self)
        self.log_dir = log_dir

    def for_fit(self) -> Logger:
        """See Logger."""
        return copy.copy(self)

    def on_fit_start(self, settings: dict[str, Any]) -> None:
        """See Logger."""
        self.writer, self.epochs = self._open(None), set[int]()
        self.first = None if settings.get("resume") else 0  # the epoch that a resumed fit begins with
        self.writer.add_text("settings", "\n".join(f"- {key}: `{value}`" for key, value in settings.items()))

    def on_epoch_end(self, entry: dict[str, Any]) -> None:
        """See Logger."""
        epoch = entry["epoch"]
        if self.first is None:  # what the fit before wrote of it and of later ones does not count
            self.first = epoch
            self.writer.close()
            self.writer = self._open(epoch)
        if epoch in self.epochs or epoch < self.first:
            return
        self.epochs.add(epoch)
        for key, value in entry.items():
            if key == "phases":
                for phase, seconds in value.items():
                    self.writer.add_scalar(f"seconds/{phase}", seconds, epoch)
            elif key not in ("epoch", "rows", "seconds"):
                self.writer.add_scalar(_chart(key, entry), value, epoch)
        self.writer.add_scalar("rows_per_second", entry["rows"] / max(entry["seconds"], 1e-9), epoch)
        self.writer.flush()

    def on_fit_end(self, model: Any | None, error: BaseException | None) -> None:
        """See Logger."""
        self.writer.close()

    def _open(self, purge_step: int | None) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(self.log_dir, purge_step=purge_step)


def _chart(key: str, entry: Entry) -> str:
    if key.startswith("val_"):
        return f"{key.removeprefix('val_')}/validation"
    return f"{key}/train" if key == "loss" or f"val_{key}" in entry else key


def require(module: str, package: str, of: Logger) -> None:
    """Raise InvalidParamError with what to install unless ``module`` is there."""
    if importlib.util.find_spec(module) is None:
        name = type(of).__name__
        raise InvalidParamError(
            f"{name} needs {module}, which the driver's Python does not have: pip install {package}",
            param="callbacks",
            value=name,
        )


class MLflowLogger(Logger):
    """A run of an MLflow experiment, by MLflow's own client: Params as its params, each figure as a metric with the
    epoch as its step, seconds by phase too, and the model's bundle as its artifact ``bundle``.

    experiment: its name, made if there is none; by default the one that MLflow has set, else ``Default``.
    tracking_uri: by default MLflow's own. log_model: whether the bundle is kept. A fit that fails marks its run FAILED,
    one that is interrupted KILLED; one with ``resume`` goes on in the last run of its ``checkpointDir``. run_ids: of the
    fits so far. Raises InvalidParamError when it is made and mlflow is not installed.
    """

    def __init__(
        self,
        experiment: str | None = None,
        run_name: str | None = None,
        tracking_uri: str | None = None,
        log_model: bool = True,
    ) -> None:
        require("mlflow", "mlflow-skinny", self)
        self.experiment, self.run_name, self.tracking_uri, self.log_model = (
            experiment,
            run_name,
            tracking_uri,
            log_model,
        )
        self.run_ids: list[str] = []

    def for_fit(self) -> Logger:
        """See Logger."""
        return copy.copy(self)  # with the same list run_ids

    def on_fit_start(self, settings: dict[str, Any]) -> None:
        """Begin the run. Raises what MLflow raises if its server cannot be reached."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = MlflowClient(tracking_uri=self.tracking_uri)
        self.unsent: dict[int, Entry] = {}
        run = self._begin(settings)
        self.run_id = run.info.run_id
        self.run_ids.append(self.run_id)
        history = self.client.get_metric_history(self.run_id, "loss") if run.data.metrics else []
        self.epochs = {metric.step for metric in history}
        params = [
            Param(_mlflow_key(key), str(value)[:_MLFLOW_PARAM])
            for key, value in _settings_apart(settings).items()
            if _mlflow_key(key) not in run.data.params
        ]
        for start in range(0, len(params), _MLFLOW_BATCH):
            self.client.log_batch(self.run_id, params=params[start : start + _MLFLOW_BATCH])

    def on_epoch_end(self, entry: dict[str, Any]) -> None:
        """Log an epoch, and those that could not be logged before; each once, though it may come again."""
        self.unsent[entry["epoch"]] = entry
        self._send()

    def _send(self) -> None:
        from mlflow.entities import Metric

        for epoch in sorted(self.unsent.keys() - self.epochs):
            now = int(time.time() * 1000)
            row = flat(self.unsent[epoch])
            metrics = [Metric(_mlflow_key(key), float(row[key]), now, epoch) for key in row if key != "epoch"]
            self.client.log_batch(self.run_id, metrics=metrics)
            self.epochs.add(epoch)
        self.unsent.clear()

    def on_fit_end(self, model: Any | None, error: BaseException | None) -> None:
        """Keep the bundle, and end the run as the fit ended."""
        status = "FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED"
        try:
            self._send()
            if error is not None:
                self.client.set_tag(self.run_id, "sparkdl.error", f"{type(error).__name__}: {error}"[:_MLFLOW_PARAM])
            if model is not None and self.log_model:
                with tempfile.TemporaryDirectory(prefix="sparkdl-mlflow-") as folder:
                    model.bundle.save(os.path.join(folder, "bundle"))
                    self.client.log_artifacts(self.run_id, os.path.join(folder, "bundle"), "bundle")
        finally:
            self.client.set_terminated(self.run_id, status)

    def _begin(self, settings: Mapping[str, Any]) -> Any:
        import sparkdl

        experiment, place = self._experiment_id(), settings.get("checkpointDir")
        tags = {"sparkdl.version": sparkdl.__version__}
        if place:
            tags["sparkdl.checkpointDir"] = str(place)
        if place and settings.get("resume"):
            quote = '"' if "'" in str(place) else "'"
            wanted = f"tags.`sparkdl.checkpointDir` = {quote}{place}{quote}"
            found = self.client.search_runs(
                [experiment], wanted, max_results=1, order_by=["attributes.start_time DESC"]
            )
            if found:
                self.client.update_run(found[0].info.run_id, status="RUNNING")
                return found[0]
        return self.client.create_run(experiment, run_name=self.run_name, tags=tags)

    def _experiment_id(self) -> str:
        name = self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        if not name:
            return os.environ.get("MLFLOW_EXPERIMENT_ID", "0")  # mlflow.set_experiment sets it too
        found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self.client.create_experiment(name))


_MLFLOW_BATCH = 100  # of params in a request, MLflow's limit
_MLFLOW_PARAM = 500  # characters of a value, the limit of MLflow's older servers


def _mlflow_key(key: str) -> str:
    """A name in the characters that MLflow allows."""
    return re.sub(r"[^\w\-. :/]", "_", key)


def _settings_apart(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those that are dictionaries, as ``optimizerParams``, a param a key: ``optimizerParams.momentum``."""
    apart: dict[str, Any] = {}
    for key, value in settings.items():
        apart |= {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, Mapping) else {key: value}
    return apart
