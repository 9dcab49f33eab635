"""What the driver writes down of a fit, read back with the tools' own readers."""

import json
import math
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from sparkdl.errors import InvalidParamError, StoreError
from sparkdl.train import loggers
from sparkdl.train.loggers import CSVLogger, JSONLinesLogger, Logger, Loggers, MLflowLogger, TensorBoardLogger, flat

FILES = {"csv": CSVLogger, "jsonl": JSONLinesLogger}


def entry(epoch, **more):
    phases = {"data": 0.25, "compute": 0.5, "all_reduce": 0.25, "validation": 0.0, "checkpoint": 0.0}
    return {"epoch": epoch, "loss": 1 / (epoch + 1), "lr": 0.1, "rows": 400, "seconds": 2.0, "phases": phases, **more}


def read(kind, path):
    """(epoch, loss) of each row."""
    frame = pd.read_csv(path) if kind == "csv" else pd.read_json(path, lines=True)
    return list(zip(frame["epoch"], frame["loss"], strict=True)) if len(frame) else []


def fit(logger, epochs, *, resume=False, error=None):
    """The hooks as a fit calls them."""
    one = Loggers([logger])
    one.on_fit_start({"resume": resume, "epochs": 3})
    for epoch in epochs:
        one.on_epoch_end(entry(epoch))
    one.on_fit_end(None, error)


@pytest.mark.parametrize("kind", FILES)
def test_a_row_an_epoch_readable_after_each(kind, tmp_path):
    path = tmp_path / "new folder" / "history"
    logger = FILES[kind](f"file://{path}").for_fit()
    logger.on_fit_start({})
    assert path.exists()  # what cannot be written is known before training
    for epoch in range(3):
        logger.on_epoch_end(entry(epoch))
        assert read(kind, path) == [(e, pytest.approx(1 / (e + 1))) for e in range(epoch + 1)]
    logger.on_fit_end(None, None)
    assert [file.name for file in path.parent.iterdir()] == ["history"]


@pytest.mark.parametrize("kind", FILES)
def test_no_epoch_is_there_twice(kind, tmp_path):
    path = tmp_path / "history"
    fit(FILES[kind](str(path)), [0, 1, 2, 1, 2, 3])  # ranks were lost, and went back
    assert [epoch for epoch, _ in read(kind, path)] == [0, 1, 2, 3]
    fit(FILES[kind](str(path)), [2, 3, 4, 0, 1], resume=True)  # the driver was; older epochs may be told again
    assert [epoch for epoch, _ in read(kind, path)] == [0, 1, 2, 3, 4]
    fit(FILES[kind](str(path)), [0])
    assert [epoch for epoch, _ in read(kind, path)] == [0]


@pytest.mark.parametrize("kind", FILES)
def test_resume_without_a_file_begins_one(kind, tmp_path):
    fit(FILES[kind](str(tmp_path / "history")), [3, 4], resume=True)
    assert [epoch for epoch, _ in read(kind, tmp_path / "history")] == [3, 4]


@pytest.mark.parametrize("kind", FILES)
def test_a_place_that_cannot_be_written_is_known_before_training(kind, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        Loggers([FILES[kind](str(tmp_path / "file" / "history"))]).on_fit_start({})
    with pytest.raises(StoreError):
        FILES[kind]("nosuchscheme://x/history")


def test_csv_has_a_column_a_figure_also_one_that_comes_later(tmp_path):
    logger = CSVLogger(str(tmp_path / "h.csv"))
    logger.on_fit_start({})
    logger.on_epoch_end(entry(0))
    logger.on_epoch_end(entry(1, val_loss=math.nan, f1=0.5))
    logger.on_epoch_end(entry(2, val_loss=0.5, f1=0.5))
    frame = pd.read_csv(tmp_path / "h.csv")
    assert list(frame) == [
        "epoch", "loss", "lr", "rows", "seconds", "data_s", "compute_s", "all_reduce_s", "validation_s", "checkpoint_s",
        "val_loss", "f1",
    ]  # fmt: skip
    assert frame["val_loss"].tolist()[2] == 0.5
    assert frame["val_loss"].isna().tolist() == [True, True, False]
    assert frame["data_s"].tolist() == [0.25] * 3


def test_json_lines_have_the_entries_as_they_are(tmp_path):
    logger = JSONLinesLogger(str(tmp_path / "h.jsonl"))
    logger.on_fit_start({})
    logger.on_epoch_end(entry(0, val_loss=math.inf))
    logger.on_epoch_end(entry(1, val_loss=0.5))
    lines = [json.loads(line) for line in (tmp_path / "h.jsonl").read_text().splitlines()]
    assert lines == [entry(0, val_loss=None), entry(1, val_loss=0.5)]  # JSON has no infinity


def test_tensorboard_shows_each_figure_once_an_epoch(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = Loggers([TensorBoardLogger(str(tmp_path))])
    logger.on_fit_start({"batchSize": 8})
    for epoch in (0, 1, 2, 1, 2):
        logger.on_epoch_end(entry(epoch, val_loss=epoch + 10, f1=0.25, val_f1=0.5))
    logger.on_fit_end(None, None)
    shown = EventAccumulator(str(tmp_path))
    shown.Reload()
    assert set(shown.Tags()["scalars"]) == {
        "loss/train", "loss/validation", "f1/train", "f1/validation", "lr", "rows_per_second",
        *(f"seconds/{phase}" for phase in entry(0)["phases"]),
    }  # fmt: skip
    assert [(event.step, event.value) for event in shown.Scalars("loss/validation")] == [(0, 10), (1, 11), (2, 12)]
    assert [event.value for event in shown.Scalars("rows_per_second")] == [200] * 3
    again = Loggers([TensorBoardLogger(str(tmp_path))])
    again.on_fit_start({"resume": True})
    again.on_epoch_end(entry(2, val_loss=99))
    again.on_epoch_end(entry(0, val_loss=-1))  # older epochs may be told again
    again.on_fit_end(None, None)
    shown = EventAccumulator(str(tmp_path))
    shown.Reload()
    assert [event.value for event in shown.Scalars("loss/validation")] == [10, 11, 99]


@pytest.fixture(scope="module")
def mlflow_store(tmp_path_factory):
    """A client of an SQLite tracking store with an experiment ``mine``, and its URI. Making its tables takes seconds."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    client.create_experiment("mine", artifact_location=(folder / "artifacts").as_uri())
    return client, uri


class Bundled:
    """As much of a TorchModel as a logger touches."""

    def __init__(self):
        self.bundle = SimpleNamespace(save=self._save)

    @staticmethod
    def _save(folder):
        Path(folder).mkdir()
        Path(folder, "manifest.json").write_text("{}")


def test_mlflow_has_params_metrics_and_the_bundle(mlflow_store):
    client, uri = mlflow_store
    mine = MLflowLogger("mine", "tonight", uri)
    one = Loggers([mine])
    one.on_fit_start({"batchSize": 8, "optimizerParams": {"momentum": 0.9}, "model": "x" * 9000, "epochs": 3})
    for epoch in (0, 1, 2, 1, 2):
        one.on_epoch_end(entry(epoch, **{"f1@5": 0.5}))
    assert client.get_run(mine.run_ids[0]).info.status == "RUNNING"
    one.on_fit_end(Bundled(), None)
    (run_id,) = mine.run_ids
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("tonight", "FINISHED")
    assert run.info.experiment_id == client.get_experiment_by_name("mine").experiment_id
    assert run.data.params.keys() == {"batchSize", "optimizerParams.momentum", "model", "epochs"}
    assert (run.data.params["batchSize"], run.data.params["optimizerParams.momentum"]) == ("8", "0.9")
    history = [(metric.step, metric.value) for metric in client.get_metric_history(run_id, "loss")]
    assert history == [(0, 1), (1, 1 / 2), (2, pytest.approx(1 / 3))]
    assert run.data.metrics["f1_5"] == 0.5
    assert run.data.metrics["data_s"] == 0.25
    assert [file.path for file in client.list_artifacts(run_id, "bundle")] == ["bundle/manifest.json"]
    assert Path(client.download_artifacts(run_id, "bundle/manifest.json")).read_text() == "{}"


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("the loss became NaN"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_mlflow_says_how_a_fit_failed_and_resume_goes_on_in_its_run(mlflow_store, error, status):
    client, uri = mlflow_store
    mine = MLflowLogger("mine", tracking_uri=uri)
    settings = {"checkpointDir": "/it's here", "resume": False}
    for _ in range(2):  # the second is the one that is taken up
        one = Loggers([mine])
        one.on_fit_start(settings)
        one.on_epoch_end(entry(0))
        one.on_epoch_end(entry(1))
        one.on_fit_end(None, error)
    run = client.get_run(mine.run_ids[-1])
    assert run.info.status == status
    assert type(error).__name__ in run.data.tags["sparkdl.error"]

    again = MLflowLogger("mine", tracking_uri=uri)
    one = Loggers([again])
    one.on_fit_start(settings | {"resume": True, "epochs": 9})
    for epoch in (1, 2):
        one.on_epoch_end(entry(epoch))
    one.on_fit_end(Bundled(), None)
    assert again.run_ids == mine.run_ids[1:]
    run = client.get_run(again.run_ids[0])
    assert (run.info.status, run.data.params["resume"], run.data.params["epochs"]) == ("FINISHED", "False", "9")
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == [0, 1, 2]


def test_mlflow_epochs_that_could_not_be_sent_are_sent_later(mlflow_store, monkeypatch):
    client, uri = mlflow_store
    mine = MLflowLogger("mine", tracking_uri=uri, log_model=False)
    one = mine.for_fit()
    one.on_fit_start({})

    def gone(*arguments, **named):
        raise ConnectionError("gone")

    for lost in (0, 2):
        with monkeypatch.context() as broken:
            broken.setattr(type(client), "log_batch", gone)
            with pytest.raises(ConnectionError):
                one.on_epoch_end(entry(lost))
        if not lost:
            one.on_epoch_end(entry(1))
    one.on_fit_end(Bundled(), None)
    assert [metric.step for metric in client.get_metric_history(mine.run_ids[0], "loss")] == [0, 1, 2]
    assert client.list_artifacts(mine.run_ids[0]) == []


def test_a_bundle_that_cannot_be_kept_does_not_leave_the_run_open(mlflow_store, caplog):
    client, uri = mlflow_store
    mine = MLflowLogger("mine", tracking_uri=uri)
    one = Loggers([mine])
    one.on_fit_start({})
    one.on_fit_end(SimpleNamespace(bundle=None), None)
    assert client.get_run(mine.run_ids[0]).info.status == "FINISHED"
    assert "MLflowLogger.on_fit_end failed" in caplog.text


def test_mlflow_makes_the_experiment_and_fits_side_by_side_have_a_run_each(mlflow_store):
    client, uri = mlflow_store
    mine = MLflowLogger("new", tracking_uri=uri)
    fits = [Loggers([mine]), Loggers([mine])]
    for one in fits:
        one.on_fit_start({})
    for epoch, one in enumerate(fits):
        one.on_epoch_end(entry(epoch))
        one.on_fit_end(None, None)
    assert len(set(mine.run_ids)) == 2
    steps = [[metric.step for metric in client.get_metric_history(run_id, "loss")] for run_id in mine.run_ids]
    assert steps == [[0], [1]]
    assert client.get_experiment_by_name("new") is not None


@pytest.mark.parametrize(
    ("make", "module", "said"),
    [
        (MLflowLogger, "mlflow", "MLflowLogger needs mlflow.*pip install mlflow-skinny"),
        (lambda: TensorBoardLogger("x"), "tensorboard", "TensorBoardLogger needs tensorboard.*pip install tensorboard"),
    ],
)
def test_a_package_that_is_missing_is_known_when_the_logger_is_made(make, module, said, monkeypatch):
    find = loggers.importlib.util.find_spec
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(InvalidParamError, match=said) as caught:
        make()
    assert caught.value.param == "callbacks"


def test_importing_loggers_imports_none_of_the_packages():
    import subprocess

    code = "import sys, sparkdl.train.loggers; print({'mlflow', 'tensorboard', 'pandas', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


class Noting(Logger):
    def __init__(self, fail=None):
        self.told, self.fail = [], fail

    def _hook(self, name, *arguments):
        self.told.append((name, *arguments))
        if self.fail == name:
            raise OSError(f"{name} failed")

    def on_fit_start(self, settings):
        self._hook("start", settings)

    def on_epoch_end(self, entry):
        self._hook("epoch", entry["epoch"])

    def on_fit_end(self, model, error):
        self._hook("end", model, error)


def test_a_users_own_logger_is_called_itself():
    mine = Noting()
    fit(mine, [0, 1])
    assert mine.told == [("start", {"resume": False, "epochs": 3}), ("epoch", 0), ("epoch", 1), ("end", None, None)]


def test_a_slow_logger_holds_up_neither_the_ranks_messages_nor_another_logger():
    server, other_done = threading.Event(), threading.Event()

    class Slow(Noting):
        def on_epoch_end(self, entry):
            assert server.wait(60)
            super().on_epoch_end(entry)

    class Other(Noting):
        def on_epoch_end(self, entry):
            super().on_epoch_end(entry)
            if entry["epoch"] == 1:
                other_done.set()

    slow, other = Slow(), Other()
    one = Loggers([slow, other])
    one.on_fit_start({})
    one.on_epoch_end(entry(0))
    one.on_epoch_end(entry(1))
    assert other_done.wait(60)
    assert slow.told == [("start", {})]
    server.set()
    one.on_fit_end(None, None)
    assert slow.told == other.told == [("start", {}), ("epoch", 0), ("epoch", 1), ("end", None, None)]


def test_an_error_at_the_start_ends_the_fit_and_the_loggers_that_began():
    first, second, third = Noting(), Noting("start"), Noting()
    with pytest.raises(OSError, match="start failed") as caught:
        Loggers([first, second, third]).on_fit_start({})
    assert [told[0] for told in first.told] == ["start", "end"]
    assert first.told[1][2] is caught.value
    assert third.told == []


@pytest.mark.parametrize("hook", ["epoch", "end"])
def test_an_error_later_is_told_and_the_others_go_on(hook, caplog):
    failing, other = Noting(hook), Noting()
    one = Loggers([failing, other])
    one.on_fit_start({})
    one.on_epoch_end(entry(0))
    one.on_epoch_end(entry(1))
    one.on_fit_end("model", None)
    assert other.told[1:] == failing.told[1:] == [("epoch", 0), ("epoch", 1), ("end", "model", None)]
    assert "Noting.on_" in caplog.text
    assert f"{hook} failed" in caplog.text


def test_an_entry_as_one_row():
    assert flat({"epoch": 0, "phases": {"data": 1.0}}) == {"epoch": 0, "data_s": 1.0}
    assert flat({"epoch": 0}) == {"epoch": 0}
