"""The jobs in this process, by their command line: what they write, say and end with; what is refused, before any work."""

import json
import re

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from sklearn import metrics

from sparkdl import Bundle, Registry
from sparkdl.jobs import main
from sparkdl.signature import Signature, TensorSpec

RUN = r"\d{8}T\d{6}-[0-9a-f]{8}"


def bundle_of(points, task, seed=0, outputs=1, with_reference=True):
    """A small model of ``features``, as it is made."""
    torch.manual_seed(seed)
    signature = Signature((TensorSpec("features", "float32", (4,), ("features",), ("array<float>",)),))
    made = Bundle.from_module(torch.nn.Linear(4, outputs), signature, task=task)
    return (
        made.with_reference(points.select("features").toArrow() if hasattr(points, "toArrow") else _arrow(points))
        if with_reference
        else made
    )


def _arrow(points):
    import pyarrow as pa

    return pa.Table.from_batches(points.select("features")._collect_as_arrow())


@pytest.fixture(scope="module")
def place(points, tmp_path_factory):
    """Tables and bundles: ``table``, ``binary``, ``multiclass``, ``regression``, ``plain`` (no task, no reference)."""
    made = tmp_path_factory.mktemp("jobs")
    points.coalesce(2).write.parquet(str(made / "table"))
    for task, outputs in (("binary", 1), ("multiclass", 4), ("regression", 1)):
        bundle_of(points, task, outputs=outputs).save(str(made / task))
    bundle_of(points, None, with_reference=False).save(str(made / "plain"))
    return made


@pytest.fixture
def job(place, tmp_path, capfd):
    """Runs a job with this conf, in the folder's own words; its status, stdout and stderr."""

    def job(name, conf, *argv):
        path = tmp_path / "conf.yaml"
        path.write_text(yaml.safe_dump(conf))
        capfd.readouterr()
        status = main(name, ["--conf-file", str(path), *argv])
        return (status, *capfd.readouterr())

    return job


LABELS = {"binary": "side", "multiclass": "quadrant", "regression": "target"}


@pytest.mark.parametrize("task", LABELS)
def test_evaluate_agrees_with_scikit_learn(spark, job, place, tmp_path, task):
    conf = {"model": f"{place}/{task}", "data": f"{place}/table", "label": LABELS[task], "output": f"{tmp_path}/e.json"}
    status, out, _ = job("evaluate", conf)
    assert status == 0
    told = json.loads((tmp_path / "e.json").read_text())
    assert re.fullmatch(RUN, told["run"])
    assert (told["rows"], told["invalid"], told["task"]) == (400, 0, task)
    assert told["digest"] == Bundle.load(f"{place}/{task}").digest
    rows = pq.read_table(place / "table")
    given = Bundle.load(f"{place}/{task}").predict({"features": torch.tensor(rows["features"].to_pylist()).numpy()})
    label, predicted = rows[LABELS[task]].to_numpy(), given["prediction"]
    if task == "regression":
        expected = {
            "rmse": metrics.root_mean_squared_error(label, predicted),
            "mae": metrics.mean_absolute_error(label, predicted),
            "r2": metrics.r2_score(label, predicted),
        }
    else:
        expected = {
            "accuracy": metrics.accuracy_score(label, predicted),
            "f1": metrics.f1_score(label, predicted, average="weighted"),
            "precision": metrics.precision_score(label, predicted, average="weighted", zero_division=0),
            "recall": metrics.recall_score(label, predicted, average="weighted"),
            "log_loss": metrics.log_loss(label, given["probability"].astype("float64")),
        }
    if task == "binary":
        expected["auroc"] = metrics.roc_auc_score(label, given["probability"][:, 1])
        assert told["figures"].pop("auprc") == pytest.approx(
            metrics.average_precision_score(label, given["probability"][:, 1]), abs=0.02
        )  # Spark's is by the trapezoidal rule
    assert told["figures"] == pytest.approx(expected, abs=1e-5)
    assert all(name in out for name in expected)


def test_a_figure_below_its_threshold_is_exit_status_4(spark, job, place):
    conf = {"model": f"{place}/binary", "data": f"{place}/table", "label": "side"}
    status, out, _ = job("evaluate", {**conf, "thresholds": {"accuracy": 0.999, "log_loss": 50}})
    assert status == 4
    assert re.search(r"accuracy .*0\.9990  too bad", out)
    assert len(re.findall("too bad", out)) == 1
    status, _, err = job("evaluate", {**conf, "thresholds": {"rmse": 1}})
    assert status == 2
    assert "there is no figure 'rmse' here" in err
    status, _, err = job("evaluate", {**conf, "thresholds": {"acuracy": 1}})
    assert status == 2
    assert "did you mean 'accuracy'" in err


def test_what_cannot_be_evaluated(spark, job, place, points, tmp_path):
    conf = {"model": f"{place}/binary", "data": f"{place}/table", "label": "side"}
    for changed, expected, said in (
        ({"model": f"{place}/plain"}, 2, "has no task"),
        ({"label": "sid"}, 2, "did you mean 'side'"),
        ({"data": f"{place}/none"}, 3, "there is nothing at"),
        ({"model": f"{place}/none"}, 3, "bundle"),
    ):
        status, _, err = job("evaluate", {**conf, **changed})
        assert (status, said in err) == (expected, True), err
    gaps = f"{tmp_path}/gaps"
    points.selectExpr("features", "if(id % 8 = 0, null, side) side").write.parquet(gaps)
    status, _, err = job("evaluate", {**conf, "data": gaps})
    assert status == 1
    assert "50 of 400 rows have no number in the label column 'side'" in err


def test_rows_that_the_model_does_not_take_are_counted(spark, job, place, points, tmp_path):
    gaps = f"{tmp_path}/gaps"
    points.selectExpr("if(id % 8 = 0, null, features) features", "side").write.parquet(gaps)
    conf = {"model": f"{place}/binary", "data": gaps, "label": "side", "output": f"{tmp_path}/e.json"}
    assert job("evaluate", conf)[0] == 1  # handleInvalid is error
    for way in ("keep", "skip"):
        assert job("evaluate", {**conf, "settings": {"handleInvalid": way}})[0] == 0
        told = json.loads((tmp_path / "e.json").read_text())
        assert (told["rows"], told["invalid"]) == (400, 50)


def test_publish_is_done_once(spark, job, place, tmp_path):
    conf = {"bundle": f"{place}/binary", "name": "m", "registry": f"{tmp_path}/r", "alias": "champion"}
    status, out, _ = job("publish", conf)
    assert status == 0
    assert "published: m version 1, champion" in out
    status, out, _ = job("publish", conf)
    assert status == 0
    assert "version 1, as it was before" in out
    assert len(Registry(f"{tmp_path}/r").versions("m")) == 1
    assert len(Registry(f"{tmp_path}/r").history("m")) == 1


def test_only_what_is_better_is_published(spark, job, place, points, tmp_path):
    registry = Registry(f"{tmp_path}/r")
    right = torch.nn.Linear(4, 1)
    with torch.no_grad():  # the rule by which the column was made
        right.weight.copy_(torch.tensor([[2.0, -1.0, 0.5, 0.0]]) * 9)
        right.bias.fill_(0.25 * 9)
    good = Bundle.from_module(
        right,
        Bundle.load(f"{place}/binary").signature.__class__(Bundle.load(f"{place}/binary").signature.inputs),
        task="binary",
    )
    good.save(f"{tmp_path}/good")
    registry.publish("m", f"{place}/binary")
    registry.set_alias("m", "champion", 1)
    for name, model in (("now", "registry://m@champion"), ("good", f"{tmp_path}/good")):
        told = {"model": model, "data": f"{place}/table", "label": "side", "output": f"{tmp_path}/{name}.json"}
        assert job("evaluate", {**told, "registry": registry.uri})[0] == 0
    beats = {"evaluation": f"{tmp_path}/good.json", "champion": f"{tmp_path}/now.json", "figure": "accuracy"}
    conf = {"bundle": f"{tmp_path}/good", "name": "m", "registry": registry.uri, "alias": "champion", "beats": beats}
    status, out, _ = job("publish", {**conf, "beats": {**beats, "by": 0.99}})
    assert status == 4
    assert "it must be better by 0.99" in out
    assert registry.aliases("m") == {"champion": 1}
    assert len(registry.versions("m")) == 1

    status, out, _ = job("publish", conf, "--dry-run")
    assert status == 0
    assert "beats: accuracy 1, version 1 has" in out
    assert len(registry.versions("m")) == 1

    assert job("publish", conf)[0] == 0
    assert registry.aliases("m") == {"champion": 2}
    status, _, err = job("publish", {**conf, "bundle": f"{place}/multiclass"})
    assert status == 2
    assert "evaluate it anew" in err
    status, _, err = job("publish", {**conf, "beats": {**beats, "evaluation": f"{tmp_path}/none.json"}})
    assert status == 3
    status, _, err = job("publish", {key: value for key, value in conf.items() if key != "alias"})
    assert status == 2
    assert "takes an alias" in err


def test_drift_of_a_table_scored_or_not(spark, job, place, points, tmp_path):
    conf = {
        "model": f"{place}/binary",
        "source": f"{place}/table",
        "output": f"{tmp_path}/d.html",
        "json": f"{tmp_path}/d.json",
    }
    status, out, _ = job("drift_report", {**conf, "threshold": 0.25})
    assert status == 0
    told = json.loads((tmp_path / "d.json").read_text())
    assert (told["rows"], told["above"]) == (400, [])
    assert {one["feature"] for one in told["features"]} == {
        "features[0]", "features[1]", "features[2]", "features[3]", "prediction", "probability[0]", "probability[1]",
    }  # fmt: skip
    assert all(one["psi"] < 1e-9 for one in told["features"])  # it is what the reference was made of
    page = (tmp_path / "d.html").read_text()
    assert "features[0]" in page
    assert "data:image/svg+xml" in page
    assert told["run"] in page
    assert "features[0]" in out

    scored = {"source": f"{place}/table", "model": f"{place}/binary", "output": f"{tmp_path}/scored"}
    assert job("score_batch", scored)[0] == 0
    assert job("drift_report", {**conf, "source": f"{tmp_path}/scored"})[0] == 0
    again = json.loads((tmp_path / "d.json").read_text())
    assert again["features"] == told["features"]


def test_a_table_that_moved_is_exit_status_4(spark, job, place, points, tmp_path):
    moved = f"{tmp_path}/moved"
    points.selectExpr("transform(features, (x, i) -> if(i = 2, x + 1f, x)) features").write.parquet(moved)
    conf = {"model": f"{place}/regression", "source": moved, "threshold": 0.25, "json": f"{tmp_path}/d.json"}
    assert job("drift_report", conf)[0] == 4
    told = json.loads((tmp_path / "d.json").read_text())
    assert "features[2]" in told["above"]
    assert not {"features[0]", "features[1]", "features[3]"} & set(told["above"])
    status, _, err = job("drift_report", {**conf, "model": f"{place}/plain"})
    assert status == 2
    assert "no reference" in err


TRACE = """
from pathlib import Path
import os
Path(__file__).with_suffix(".trace").touch()
from torch import nn
def model(): return nn.Linear(4, 1)
"""


@pytest.fixture
def tracer(tmp_path, monkeypatch):
    """A module on Python's path whose import is seen; a conf that names it."""
    (tmp_path / "tracer_of_jobs.py").write_text(TRACE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "tracer_of_jobs.trace"


def train_of(place, tmp_path, **more):
    estimator = {"task": "regression", "featuresCol": "features", "labelCol": "target", "numProc": 1}
    told = {
        "data": f"{place}/table",
        "model": "tracer_of_jobs:model",
        "bundle": f"{tmp_path}/b",
        "estimator": estimator,
    }
    return {**told, **more}


def test_code_of_a_conf_is_not_imported_unless_it_is_allowed(spark, job, place, tmp_path, tracer):
    status, _, err = job("train", train_of(place, tmp_path), "--dry-run")
    assert status == 2
    assert "neither came with this job nor is allowed; ship it with --py-files, or say --allow tracer_of_jobs" in err
    assert not tracer.exists()
    status, _, err = job("train", train_of(place, tmp_path), "--dry-run", "--allow", "other")
    assert (status, tracer.exists()) == (2, False)
    status, _, err = job(
        "train", train_of(place, tmp_path, model="tracer_of_jobs:os.system"), "--dry-run", "--allow", "tracer_of_jobs"
    )
    assert status == 2
    assert "not a function or class of the trusted packages" in err
    status, out, _ = job("train", train_of(place, tmp_path), "--dry-run", "--allow", "tracer_of_jobs")
    assert status == 0
    assert tracer.exists()
    assert "model: tracer_of_jobs:model, task regression" in out


@pytest.mark.parametrize("path", ["tracer_of_jobs", "os.path", "a:b c", ":", "a..b:c"])
def test_an_import_path_of_another_form(spark, job, place, tmp_path, path):
    status, _, err = job("train", train_of(place, tmp_path, model=path))
    assert status == 2
    assert "must be written 'package.module:name'" in err


def test_what_is_trained_names_its_run(spark, job, place, tmp_path, tracer):
    status, out, err = job(
        "train", train_of(place, tmp_path, test=f"{place}/table", graph=True), "--allow", "tracer_of_jobs",
        "--log-format", "json",
    )  # fmt: skip
    assert status == 0
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    (run,) = {line["run"] for line in lines}
    assert re.fullmatch(RUN, run)
    assert {"epoch", "joined", "held out"} <= {line.get("event") for line in lines}
    told = json.loads(out.splitlines()[-1])
    bundle = Bundle.load(f"{tmp_path}/b")
    assert (told["event"], told["run"], told["digest"]) == ("result", run, bundle.digest)
    assert bundle.training["run"] == run
    assert bundle.graph.content == bundle.files["graph.onnx"]
    assert bundle.metrics["test_rmse"] > 0
    status, _, err = job("train", train_of(place, tmp_path), "--allow", "tracer_of_jobs")
    assert status == 1
    assert "say overwrite: true" in err


OVERLAPS = [
    ("train", {"bundle": "{place}/table/b"}, "'bundle'"),
    ("score_batch", {"source": "{place}/table", "model": "{place}/binary", "output": "{place}/table/out"}, "lie in one another"),
    ("score_stream", {"sink": {"kind": "parquet", "uri": "{place}/x"}, "checkpoint": "{place}/x/c"}, "lie in one another"),
]  # fmt: skip


def filled(value, place):
    return json.loads(json.dumps(value).replace("{place}", str(place)))


@pytest.mark.parametrize(("name", "changed", "said"), OVERLAPS)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_an_output_that_overlaps(spark, job, place, tmp_path, tracer, name, changed, said, dry):
    source = {"format": "parquet", "path": f"{place}/table", "columns": "features array<float>"}
    conf = {"train": train_of(place, tmp_path), "score_stream": {"source": source, "model": f"{place}/binary"}}
    status, _, err = job(name, {**conf.get(name, {}), **filled(changed, place)}, *dry, "--allow", "tracer_of_jobs")
    assert status == 2, err
    assert said in err


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize("name", ["train", "score_batch", "score_stream", "drift_report"])
def test_an_input_that_is_not_there_is_exit_status_3(spark, job, place, tmp_path, tracer, name, dry):
    none, model = f"{tmp_path}/none", f"{place}/binary"
    conf = {
        "train": train_of(place, tmp_path, data=none),
        "score_batch": {"source": none, "model": model, "output": f"{tmp_path}/out"},
        "score_stream": {
            "source": {"format": "parquet", "path": none, "columns": "features array<float>"},
            "model": model, "sink": {"kind": "parquet", "uri": f"{tmp_path}/out"}, "checkpoint": f"{tmp_path}/c",
        },
        "drift_report": {"source": none, "model": model},
    }[name]  # fmt: skip
    status, _, err = job(name, conf, *dry, "--allow", "tracer_of_jobs")
    assert status == 3, err
    assert "there is nothing at" in err
    assert sorted(p.name for p in tmp_path.iterdir()) in (
        ["conf.yaml", "tracer_of_jobs.py"],
        sorted(["__pycache__", "conf.yaml", "tracer_of_jobs.py", "tracer_of_jobs.trace"]),
    )


def test_an_empty_folder_is_no_input(spark, job, place, tmp_path):
    (tmp_path / "empty").mkdir()
    conf = {"source": f"{tmp_path}/empty", "model": f"{place}/binary", "output": f"{tmp_path}/out"}
    status, _, err = job("score_batch", conf)
    assert status == 3
    assert "there is no Parquet table at" in err


@pytest.mark.parametrize("name", ["evaluate", "score_batch", "score_stream", "drift_report"])
def test_a_model_that_does_not_fit_the_table(spark, job, place, points, tmp_path, name):
    other, model = f"{tmp_path}/other", f"{place}/binary"
    points.selectExpr("id", "id as features", "side").write.parquet(other)
    conf = {
        "evaluate": {"data": other, "model": model, "label": "side"},
        "score_batch": {"source": other, "model": model, "output": f"{tmp_path}/out"},
        "score_stream": {
            "source": {"format": "parquet", "path": other, "columns": "id bigint, features bigint"},
            "model": model, "sink": {"kind": "parquet", "uri": f"{tmp_path}/out"}, "checkpoint": f"{tmp_path}/c",
        },
        "drift_report": {"source": other, "model": model},
    }[name]  # fmt: skip
    for dry in ((), ("--dry-run",)):
        status, _, err = job(name, conf, *dry)
        assert status == 2, err
        assert "column 'features' is long; the model takes array<float>" in err
        assert not (tmp_path / "out").exists()


def test_a_dry_run_of_a_stream_says_what_would_be_and_does_nothing(spark, job, place, tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK", "https://hooks/very-secret")
    conf = {
        "source": {"format": "parquet", "path": f"{place}/table", "columns": "id bigint, features array<float>"},
        "model": f"{place}/binary",
        "sink": {"kind": "parquet", "uri": f"{tmp_path}/out"},
        "deadLetter": f"{tmp_path}/dead",
        "checkpoint": f"{tmp_path}/c",
        "monitor": {"alerts": [{"metric": "dead", "above": 0.1, "action": "webhook", "url": "${env:HOOK}"}]},
    }
    status, out, _ = job("score_stream", conf, "--dry-run", "--set", "trigger=available now")
    assert status == 0
    assert "columns ['id', 'features', 'prediction', 'probability', 'model_version']" in out
    assert "trigger: available now" in out
    assert "url: ${env:HOOK}" in out
    assert "very-secret" not in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf.yaml"]
    status, out, _ = job("score_stream", conf, "--dry-run", "--log-format", "json")
    told = json.loads(out)
    assert told["conf"]["monitor"]["alerts"][0]["url"] == "${env:HOOK}"
    assert [one["what"] for one in told["plan"]] == ["source", "model", "sink", "deadLetter", "checkpoint"]


def test_a_stream_that_ends_by_itself_names_its_run(spark, job, place, tmp_path):
    conf = {
        "source": {"format": "parquet", "path": f"{place}/table", "columns": "id bigint, features array<float>"},
        "model": f"{place}/binary",
        "sink": {"kind": "parquet", "uri": f"{tmp_path}/out"},
        "checkpoint": f"{tmp_path}/c",
        "trigger": "available now",
        "monitor": {"jsonl": f"{tmp_path}/events.jsonl"},
    }
    status, out, _ = job("score_stream", conf, "--log-format", "json")
    assert status == 0
    told = json.loads(out.splitlines()[-1])
    assert (told["rows"], told["scored"]) == (400, 400)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert {event["run"] for event in events} == {told["run"]}
    assert sorted(pq.read_table(tmp_path / "out")["id"].to_pylist()) == list(range(400))


def test_what_the_environment_has_is_filled_in_everywhere_and_its_secrets_are_told_nowhere(
    spark, job, place, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name, value in {"LAKE": str(place), "OUT": str(tmp_path), "PW": "hunter2"}.items():
        monkeypatch.setenv(name, value)
    model, table = "${env:LAKE}/binary", "${env:LAKE}/table"
    conf = {"model": model, "data": table, "label": "side", "output": "${env:OUT}/e.json"}
    status, _, err = job("evaluate", conf)
    assert status == 0, err
    assert json.loads((tmp_path / "e.json").read_text())["data"] == f"{place}/table"
    drift = {"source": table, "model": model, "output": "${env:OUT}/drift.html", "json": "${env:OUT}/drift.json"}
    assert job("drift_report", drift)[0] == 0
    scored = {"source": table, "model": model, "output": "${env:OUT}/scored"}
    assert job("score_batch", scored)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "conf.yaml", "drift.html", "drift.json", "e.json", "scored",
    ]  # fmt: skip
    place_of_no_kind = "nowhere://me:${env:PW}@host/table?token=${env:PW}"
    for name, told in (("evaluate", {**conf, "data": place_of_no_kind}), ("evaluate", {**conf, "model": place_of_no_kind}),
                       ("drift_report", {**drift, "source": place_of_no_kind}), ("publish", {"bundle": model, "name": "n", "registry": place_of_no_kind})):  # fmt: skip
        for argv in (["--log-format", "text"], ["--log-format", "json", "--dry-run"]):
            status, out, err = job(name, told, *argv)
            assert status, out
            assert "me:***@host" in err
            assert "hunter2" not in out + err
