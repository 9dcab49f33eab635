"""What the driver of a stream knows of its model: which version a micro-batch gets, and what may take over."""

from __future__ import annotations

import re
import shutil
import threading
import time

import numpy as np
import pyarrow as pa
import pytest
import torch
from making import spec
from torch import nn

from sparkdl.bundle import Bundle
from sparkdl.decode import LabelDecoder
from sparkdl.errors import (
    BundleError,
    BundleNotFoundError,
    ColumnNotFoundError,
    InvalidParamError,
    RegistryError,
    StreamError,
)
from sparkdl.model import TorchModel
from sparkdl.preprocess import Labels
from sparkdl.registry.registry import Registry
from sparkdl.score.scoring import Scoring
from sparkdl.signature import Signature, TensorSpec
from sparkdl.stream import proving, reload
from sparkdl.stream.versions import Models

TOKENS = TensorSpec("tokens", "int64", (-1,), ("tokens",), ("array<long>",))
MASK = TensorSpec("mask", "bool", (-1,), mask_of="tokens")


class Scaled(nn.Module):
    """Its output tells which one it is."""

    def __init__(self, by, features=2):
        super().__init__()
        self.by = nn.Parameter(torch.full((features,), float(by)))

    def forward(self, x):
        return {"y": x @ self.by}


class LogOf(nn.Module):
    """NaN for a negative sum, an infinity for none."""

    def forward(self, x):
        return {"y": torch.log(x.sum(dim=1))}


class Named(nn.Module):
    def __init__(self, **made):
        super().__init__()
        self.made = made

    def forward(self, x):
        return {
            name: x.sum(dim=1) if how == "sum" else x * 1 if how == "row" else (x.sum(dim=1) > 0)
            for name, how in self.made.items()
        }


class Table(nn.Module):
    """Raises for a key that it does not hold."""

    def __init__(self, keys):
        super().__init__()
        self.table = nn.Embedding(keys, 1)

    def forward(self, x):
        return {"y": self.table(x)[:, 0]}


X = spec("x", shape=(2,))
KEY = spec("x", "int64", type="long")


def bundled(module, *inputs, task=None):
    return Bundle.from_module(module, Signature(inputs or (X,)), task=task)


@pytest.fixture(scope="module")
def good():
    """Versions 1, 2, 3: the sum, twice it, three times it."""
    return [bundled(Scaled(by)) for by in (1, 2, 3)]


@pytest.fixture
def registry(tmp_path, good):
    found = Registry(tmp_path / "registry")
    for bundle in good:
        found.publish("fraud", bundle)
    found.set_alias("fraud", "champion", 1)
    return found


def until(models, is_so, seconds=30.0):
    """Micro-batches, one after the other, until something is the case; the versions that they got."""
    deadline, seen = time.monotonic() + seconds, []
    while not is_so():
        assert time.monotonic() < deadline
        seen.append(models.now().version)
        time.sleep(0.01)  # a batch
    return seen


def rows(*values):
    return pa.RecordBatch.from_arrays([pa.array(values, pa.list_(pa.float32()))], names=["x"])


# which version


def test_a_batch_gets_what_the_alias_names(registry):
    models = Models("registry://fraud@champion", registry=registry)
    assert models.first().version == "1"
    assert models.now().version == models.now().version == "1"
    assert models.identity == {"registry": registry.uri, "name": "fraud"}
    assert models.now().model.bundle.digest == registry.load("fraud", 1).digest == models.now().digest


def test_a_new_version_takes_over_once_workers_have_it(registry):
    models = Models("registry://fraud", registry=registry)
    models.first()
    registry.set_alias("fraud", "champion", 2)
    assert models.now().version == "1"  # it does not wait for the load
    until(models, lambda: models.candidate is not None)
    assert models.candidate.version == "2"
    assert [models.now().version for _ in range(3)] == ["1"] * 3
    models.warmed([models.now().digest])  # of the old one
    assert models.now().version == "1"
    models.warmed(["another", models.candidate.digest])
    assert models.now().version == "2"
    assert models.candidate is None
    assert models.refusals() == {}
    np.testing.assert_array_equal(models.now().model.bundle.predict({"x": [[1.0, 2.0]]})["y"], [6.0])


def test_a_candidate_is_on_its_way_to_the_workers_before_it_is_one(registry, monkeypatch):
    monkeypatch.setattr(reload, "AGAIN_S", 0.05)
    models = Models("registry://fraud", registry=registry)
    models.first()
    shipped, is_down = [], [True]

    def ship(served):
        assert models.candidate is None
        if is_down:
            raise RuntimeError("the cluster is away")
        shipped.append(served.version)

    models.ship = ship
    registry.set_alias("fraud", "champion", 2)
    until(models, lambda: models.trouble is not None)
    assert "cannot be sent to the workers: RuntimeError: the cluster is away" in models.trouble
    is_down.clear()
    until(models, lambda: models.candidate is not None)
    assert (shipped, models.trouble, models.refusals()) == (["2"], None, {})


def test_workers_that_tell_nothing_are_waited_for_a_while_only(registry, monkeypatch):
    monkeypatch.setattr(reload, "WARM_S", 0.2)
    models = Models("registry://fraud", registry=registry)
    models.first()
    registry.set_alias("fraud", "champion", 2)
    until(models, lambda: models.candidate is not None)
    started = time.monotonic()
    until(models, lambda: models.now().version == "2")
    assert 0.1 < time.monotonic() - started < 5


def test_the_alias_moves_on_and_back_while_a_version_is_loaded(registry):
    models = Models("registry://fraud", registry=registry)
    models.first()
    registry.set_alias("fraud", "champion", 2)
    until(models, lambda: models.candidate is not None)
    registry.set_alias("fraud", "champion", 3)
    models.now()
    assert models.candidate is None
    until(models, lambda: models.candidate is not None)
    assert models.candidate.version == "3"
    registry.set_alias("fraud", "champion", 1)
    assert models.now().version == "1"
    assert models.candidate is None
    models.warmed([models.now().digest])
    assert models.now().version == "1"


def test_what_is_loaded_when_the_alias_has_moved_on_is_not_taken(registry, monkeypatch):
    models = Models("registry://fraud", registry=registry)
    models.first()
    may_load, load = threading.Event(), registry.load
    monkeypatch.setattr(registry, "load", lambda *args, **how: may_load.wait(30) and load(*args, **how))
    registry.set_alias("fraud", "champion", 2)
    models.now()
    registry.set_alias("fraud", "champion", 1)
    models.now()
    may_load.set()
    until(models, lambda: models._reload._loading is None)
    assert models.candidate is None
    assert models.now().version == "1"


def test_a_version_by_number_stays(registry):
    models = Models("registry://fraud/2", registry=registry)
    assert models.first().version == "2"
    registry.set_alias("fraud", "champion", 3)
    assert models.now().version == "2"
    assert models.identity == {"registry": registry.uri, "name": "fraud"}


def test_another_model_has_one_version(good, tmp_path):
    digest = good[0].digest
    good[0].save(str(tmp_path / "bundle"))
    for given, identity in (
        (good[0], {"digest": digest}), (TorchModel(good[0]), {"digest": digest}),
        (str(tmp_path / "bundle"), {"uri": str(tmp_path / "bundle")}), (tmp_path / "bundle", {"uri": str(tmp_path / "bundle")}),
    ):  # fmt: skip
        models = Models(given)
        assert models.identity == identity
        assert models.first().version == models.now().version == models.at(digest[:12]).version == digest[:12]
        assert (models.candidate, models.trouble, models.refusals()) == (None, None, {})
        models.warmed([digest])
        with pytest.raises(
            StreamError, match=f"version 'abc' of the model, .*the model that is given now is {digest[:12]}"
        ):
            models.at("abc")


def test_params_are_those_that_were_given(good, registry):
    given = TorchModel(good[0]).setParams(handleInvalid="keep", batchSize=7)
    model = Models(given, settings={"batchSize": 9, "predictionCol": "p"}).first().model
    assert (model.getHandleInvalid(), model.getBatchSize(), model.getPredictionCol()) == ("keep", 9, "p")
    assert given.getBatchSize() == 7
    models = Models("registry://fraud", registry=registry, settings={"handleInvalid": "skip"})
    assert models.first().model.getHandleInvalid() == "skip"
    registry.set_alias("fraud", "champion", 2)
    until(models, lambda: models.candidate is not None)
    assert models.candidate.model.getHandleInvalid() == "skip"
    assert not models.candidate.model.isSet("batchSize")


# replays


def test_a_batch_that_was_begun_gets_its_version_again(registry):
    registry.set_alias("fraud", "champion", 3)
    models = Models("registry://fraud", registry=registry)
    assert models.at("1").version == "1"  # whatever the alias names by now
    assert models.at("1") is models.at("1")
    assert models.first().version == "3"
    assert models.at("3") is models.first() or models.at("3").version == "3"
    assert models.now().version == "3"


def test_a_version_that_is_gone_is_said_so(registry, tmp_path):
    models = Models("registry://fraud", registry=registry)
    with pytest.raises(StreamError, match=r"begun with version '9' of the model, .* has no version '?9"):
        models.at("9")
    with pytest.raises(
        StreamError, match="begun with version '0123456789ab'"
    ):  # of a stream with another kind of model
        models.at("0123456789ab")
    shutil.rmtree(tmp_path / "registry/bundles" / registry.versions("fraud")[1].digest)
    with pytest.raises(StreamError, match="Put that version back where it was") as caught:
        models.at("2")
    assert isinstance(caught.value.__cause__, BundleNotFoundError)
    assert caught.value.checkpoint is None


# a restart


def test_what_was_refused_is_not_served_after_a_restart(registry):
    number = published(registry, bundled(Scaled(np.nan)))
    models = Models("registry://fraud", registry=registry)
    assert models.first("1").version == "1"
    told = {}
    until(models, lambda: told.update(models.refusals()) or told)
    assert "output 'y' is nan" in told[number]
    assert models.now().version == "1"
    registry.set_alias("fraud", "champion", 2)
    until(models, lambda: models.candidate is not None)
    models.warmed([models.candidate.digest])
    assert models.now().version == "2"


@pytest.mark.parametrize("version", [None, "9", "0123456789ab", "champion", "-1", "", "²"])
def test_without_the_version_that_it_ended_with_a_stream_starts_with_the_alias_s(registry, version):
    registry.set_alias("fraud", "champion", 3)
    assert Models("registry://fraud", registry=registry).first(version).version == "3"


def test_a_version_that_does_not_load_any_more_is_not_what_a_restart_begins_with(registry, tmp_path, caplog):
    place = tmp_path / "registry/bundles"
    (place / registry.versions("fraud")[1].digest / "weights.safetensors").write_bytes(b"other")
    assert Models("registry://fraud", registry=registry).first("2").version == "1"
    assert "starts with what it names now, for version 2, with which the stream ended, is not to be had" in caplog.text


def test_a_version_that_is_asked_for_by_number_is_the_one_after_a_restart_too(registry, good):
    assert Models("registry://fraud/3", registry=registry).first("1").version == "3"
    assert Models(good[0]).first("1").version == good[0].digest[:12]


# what is refused


def published(registry, bundle):
    number = registry.publish("fraud", bundle)
    registry.set_alias("fraud", "champion", number)
    return str(number)


REFUSED = {
    "another task": (lambda: bundled(nn.Linear(2, 1), task="regression"), "its task is 'regression', and that of the running one None"),
    "more features": (lambda: bundled(Scaled(1, features=3), spec("x", shape=(3,))), r"its input 'x' has shape \(3,\)"),
    "another column": (lambda: bundled(Scaled(1), spec("x", shape=(2,), columns=("z",))), r"its input 'x' has columns \('z',\)"),
    "another dtype": (lambda: bundled(Scaled(1).double(), spec("x", "float64", (2,))), "its input 'x' has dtype 'float64'"),
    "another input": (lambda: bundled(Scaled(1), spec("z", shape=(2,), columns=("x",))), r"its inputs are \['z'\]"),
    "bytes": (lambda: bundled(Scaled(1), spec("x", shape=(2,), type="binary")), r"its input 'x' reads \('binary',\)"),
    "another output": (lambda: bundled(Named(z="sum")), r"its outputs are \['z'\], and those of the running one \['y'\]"),
    "an output more": (lambda: bundled(Named(y="sum", z="sum")), r"its outputs are \['y', 'z'\]"),
    "an output's shape": (lambda: bundled(Named(y="row")), r"its output 'y' has shape \(2,\)"),
    "an output's dtype": (lambda: bundled(Named(y="bool")), "its output 'y' has dtype 'bool'"),
    "NaN": (lambda: bundled(Scaled(np.nan)), r"it fails on 3 of made-up rows that the running one scores; the first, row 0: output 'y' is nan"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_fit_is_refused_and_the_old_one_goes_on(registry, caplog, why):
    make, reason = REFUSED[why]
    models = Models("registry://fraud", registry=registry)
    models.first()
    number = published(registry, make())
    told = {}
    until(models, lambda: told.update(models.refusals()) or told)
    assert list(told) == [number]
    assert re.search(reason, told[number])
    assert f"version {number} of registry://fraud@champion is refused, and 1 goes on: " in caplog.text
    assert models.now().version == "1"
    assert models.candidate is None
    assert models.refusals() == {}


def test_a_damaged_bundle_and_one_that_cannot_be_loaded_are_refused(registry, tmp_path, good):
    models = Models("registry://fraud", registry=registry, settings={"precision": "int8"})
    models.first()
    place = tmp_path / "registry/bundles"
    (place / registry.versions("fraud")[1].digest / "weights.safetensors").write_bytes(b"other")
    registry.set_alias("fraud", "champion", 2)
    told = {}
    until(models, lambda: told.update(models.refusals()) or told)
    assert "BundleIntegrityError: weights.safetensors of the bundle" in told["2"]
    registry.set_alias("fraud", "champion", 3)
    until(models, lambda: told.update(models.refusals()) or "3" in told)
    assert "it cannot be loaded: InvalidParamError: 'precision' int8" in told["3"]
    assert models.now().version == "1"


def test_code_that_is_not_trusted_is_refused(registry):
    class Choosing(nn.Module):
        def forward(self, x):
            return {"y": x.sum(dim=1) if x.sum() > 0 else x.sum(dim=1) * 1}

    models = Models("registry://fraud", registry=registry)
    models.first()
    number = published(registry, Bundle.from_module(Choosing(), Signature((X,)), trusted=True))
    told = {}
    until(models, lambda: told.update(models.refusals()) or told)
    assert "UntrustedBundleError" in told[number]


def test_a_refused_version_is_tried_again_when_the_alias_comes_back_to_it(registry, monkeypatch):
    models = Models("registry://fraud", registry=registry)
    models.first()
    loads, load = [], registry.load
    monkeypatch.setattr(registry, "load", lambda name, at, **how: loads.append(at) or load(name, at, **how))
    number = published(registry, bundled(Scaled(np.inf)))
    told = {}
    until(models, lambda: told.update(models.refusals()) or told)
    for _ in range(20):
        models.now()
    assert loads == [int(number)]
    registry.set_alias("fraud", "champion", 1)
    models.now()
    registry.set_alias("fraud", "champion", int(number))
    told = {}
    until(models, lambda: told.update(models.refusals()) or told)
    assert loads == [int(number)] * 2
    registry.set_alias("fraud", "champion", 2)
    until(models, lambda: models.candidate is not None)
    assert models.candidate.version == "2"


def test_the_canary_is_rows_of_the_stream_once_there_are_some(registry):
    models = Models("registry://fraud", registry=registry)
    models.first()
    models.canary = rows([1.0, 2.0], None, [3.0, 1.0])
    number = published(registry, bundled(LogOf()))
    until(models, lambda: models.candidate is not None)  # made-up rows would have negative sums
    models.warmed([models.candidate.digest])
    assert models.now().version == number
    registry.set_alias("fraud", "champion", 1)
    until(models, lambda: models.candidate is not None)
    models.warmed([models.candidate.digest])
    assert models.now().version == "1"
    models.canary = rows(None, [1.0, 2.0], [-3.0, 1.0], [0.0, 0.0])
    registry.set_alias("fraud", "champion", int(number))
    told = {}
    until(models, lambda: told.update(models.refusals()) or told)
    assert (
        told[number]
        == "it fails on 2 of 4 rows of the stream that the running one scores; the first, row 2: output 'y' is nan"
    )


def test_a_canary_is_few_rows_of_the_columns_that_are_read(registry):
    models = Models("registry://fraud", registry=registry)
    batch = pa.RecordBatch.from_arrays(
        [pa.array(range(1000)), pa.array([[1.0, 2.0]] * 1000, pa.list_(pa.float32()))], names=["id", "x"]
    )
    models.canary = batch
    assert models.canary.schema.names == ["x"]
    assert len(models.canary) == proving.CANARY_ROWS
    assert models.canary.nbytes < batch.nbytes / 10
    models.canary = None
    assert models.canary is None
    with pytest.raises(ColumnNotFoundError, match="in the canary, column 'x' is not"):
        models.canary = batch.select(["id"])
    with pytest.raises(InvalidParamError, match="'canary' must be a RecordBatch"):
        models.canary = [1]


# proving, by itself


@pytest.mark.parametrize(
    ("new", "running", "canary", "reason"),
    [
        (LogOf, LogOf, rows([-1.0, 0.0], [1.0, 1.0]), None),  # no worse than the one that runs
        (LogOf, lambda: Scaled(1), rows([-1.0, 0.0], [1.0, 1.0]), "it fails on 1 of 2 rows of the stream"),
        (lambda: Scaled(1), LogOf, rows([-1.0, 0.0]), None),
        (LogOf, lambda: Scaled(1), rows([0.0, 0.0]), "row 0: output 'y' is -inf"),
        (lambda: Scaled(1), lambda: Scaled(2), rows(None, None), None),  # none of the rows is good: made-up ones
        (lambda: Scaled(np.nan), lambda: Scaled(2), rows(None), "of made-up rows"),
    ],
)  # fmt: skip
def test_only_what_is_worse_than_what_runs_is_refused(new, running, canary, reason):
    found = proving.objection(bundled(new()), bundled(running()), Scoring(), canary)
    assert found is None if reason is None else reason in found


def test_rows_on_which_it_raises_are_found():
    small, large = bundled(Table(3), KEY), bundled(Table(9), KEY)
    canary = pa.RecordBatch.from_arrays([pa.array([0, 1, 5, 2, 7])], names=["x"])
    found = proving.objection(small, large, Scoring(), canary)
    assert found.startswith(
        "it fails on 2 of 5 rows of the stream that the running one scores; the first, row 2: failed: the model raised"
    )
    assert proving.objection(large, small, Scoring(), canary) is None
    assert proving.objection(small, small, Scoring(), canary) is None


@pytest.mark.parametrize(
    "scoring", [Scoring(), Scoring(device="cuda"), Scoring(precision="bfloat16"), Scoring(compile=True), Scoring(4)]
)
def test_it_runs_on_the_driver_whatever_the_workers_run_it_on(good, scoring):
    assert proving.objection(good[1], good[0], scoring, None) is None
    assert "is nan" in proving.objection(bundled(Scaled(np.nan)), good[0], scoring, None)


def test_lengths_that_vary_and_masks_are_made_up_too():
    from models import Masked

    first, second = (Bundle.from_module(Masked("transformer"), Signature((TOKENS, MASK))) for _ in range(2))
    assert proving.objection(second, first, Scoring(), None) is None
    weights = {name: torch.full_like(value, torch.nan) for name, value in first.weights.items()}
    broken = first.with_training(weights, {}, {})
    assert "made-up rows" in proving.objection(broken, first, Scoring(), None)
    canary = pa.RecordBatch.from_arrays([pa.array([[1, 2], [3], None, [4, 5, 6]])], names=["tokens"])
    assert proving.objection(second, first, Scoring(), canary) is None
    assert "3 of 4 rows of the stream" in proving.objection(broken, first, Scoring(), canary)


def of_labels(*values):
    labels = Labels(values=values)
    told = TensorSpec("x", labels.dtype, labels.shape, ("x",), ("string",), preprocess=labels)
    return Bundle.from_module(Table(len(values)), Signature((told,)))


def test_each_reads_the_canary_by_its_own_preprocessor():
    few, more = of_labels("a", "b"), of_labels("c", "b", "a")
    canary = pa.RecordBatch.from_arrays([pa.array(["a", "b", "c", "?"])], names=["x"])
    assert proving.objection(more, few, Scoring(), canary) is None
    assert "fails on 1 of 4 rows of the stream that the running one scores; the first, row 2: value: column 'x'" in (
        proving.objection(few, more, Scoring(), canary)
    )


def test_a_version_that_adds_other_columns_is_refused():
    plain = Bundle.from_module(nn.Linear(2, 2), Signature((spec("x", shape=(2,)),)), task="multiclass")
    named = Bundle.from_module(
        nn.Linear(2, 2),
        Signature((spec("x", shape=(2,)),), decoder=LabelDecoder(values=("no", "yes"))),
        task="multiclass",
    )
    assert proving.difference(plain, named) == (
        "it adds the columns prediction string, probability array<float>, and the running one prediction double, "
        "probability array<float>"
    )


def test_numbers_of_another_type_are_read_alike(good):
    other = bundled(Scaled(2), spec("x", shape=(2,), type="array<double>"))
    vector = bundled(Scaled(2), spec("x", shape=(2,), type="vector"))
    assert proving.difference(good[0], other) is proving.difference(good[0], vector) is None


def test_torch_s_threads_are_as_before(good):
    before = torch.get_num_threads()
    proving.objection(good[1], good[0], Scoring(), None)
    assert torch.get_num_threads() == before


# a registry that is not there


def test_a_registry_that_cannot_be_read_leaves_the_version_that_runs(registry, tmp_path, caplog):
    models = Models("registry://fraud", registry=registry)
    models.first()
    registry.set_alias("fraud", "champion", 2)
    (tmp_path / "registry").rename(tmp_path / "away")
    for _ in range(3):
        assert models.now().version == "1"
    assert "RegistryError" in models.trouble
    assert caplog.text.count("goes on with version 1") == 1
    (tmp_path / "away").rename(tmp_path / "registry")
    until(models, lambda: models.candidate is not None)
    assert models.trouble is None
    assert caplog.text.count("answers again") == 1


def test_a_registry_that_does_not_answer_keeps_one_batch_waiting(registry, monkeypatch):
    models = Models("registry://fraud", registry=registry)
    models.first()
    may_answer, resolve = threading.Event(), registry.resolve
    monkeypatch.setattr(registry, "resolve", lambda *asked: may_answer.wait(30) and resolve(*asked))
    monkeypatch.setattr(reload, "ANSWER_S", 0.05)
    registry.set_alias("fraud", "champion", 2)
    started = time.monotonic()
    for _ in range(100):
        assert models.now().version == "1"
    assert time.monotonic() - started < 2
    assert "has not answered within" in models.trouble
    may_answer.set()
    until(models, lambda: models.candidate is not None)
    assert models.trouble is None


def test_a_bundle_that_cannot_be_read_now_is_tried_again(registry, monkeypatch, caplog):
    models = Models("registry://fraud", registry=registry)
    models.first()
    is_broken, load = [True], registry.load

    def loading(*asked, **how):
        if is_broken:
            raise RegistryError("the network is down", registry=registry.uri, name="fraud", version=2)
        return load(*asked, **how)

    monkeypatch.setattr(registry, "load", loading)
    monkeypatch.setattr(reload, "AGAIN_S", 0.05)
    registry.set_alias("fraud", "champion", 2)
    until(models, lambda: models.trouble is not None)
    assert "the network is down" in models.trouble
    is_broken.clear()
    until(models, lambda: models.candidate is not None)
    assert models.trouble is None
    assert models.refusals() == {}
    assert "version 2 of registry://fraud@champion cannot be read" in caplog.text


def test_a_load_that_hangs_is_told_and_keeps_no_other_version_away(registry, monkeypatch, caplog):
    models = Models("registry://fraud", registry=registry)
    models.first()
    may_load, loads, load = threading.Event(), [], registry.load

    def loading(name, number, **how):
        loads.append(number)
        assert number != 2 or may_load.wait(30)
        return load(name, number, **how)

    monkeypatch.setattr(registry, "load", loading)
    monkeypatch.setattr(reload, "HANG_S", 0.2)
    registry.set_alias("fraud", "champion", 2)
    models.now()
    assert models.trouble is None
    until(models, lambda: models.trouble is not None)
    assert models.trouble == "version 2 is not loaded and proven after 0 s"
    for _ in range(20):
        models.now()
    assert loads == [2]  # it itself is not tried again meanwhile
    assert caplog.text.count("version 2 is not loaded and proven") == 1
    registry.set_alias("fraud", "champion", 3)
    until(models, lambda: models.candidate is not None)
    assert (models.candidate.version, models.trouble, loads) == ("3", None, [2, 3])
    may_load.set()
    for _ in range(20):
        models.now()
    assert models.candidate.version == "3"


def test_a_load_that_hung_and_ends_after_all_is_taken(registry, monkeypatch):
    models = Models("registry://fraud", registry=registry)
    models.first()
    may_load, load = threading.Event(), registry.load
    monkeypatch.setattr(registry, "load", lambda *args, **how: may_load.wait(30) and load(*args, **how))
    monkeypatch.setattr(reload, "HANG_S", 0.05)
    registry.set_alias("fraud", "champion", 2)
    until(models, lambda: models.trouble is not None)
    may_load.set()
    until(models, lambda: models.candidate is not None)
    assert (models.candidate.version, models.trouble) == ("2", None)


# bad input


@pytest.mark.parametrize("model", [None, 3, "", b"x", nn.Linear(1, 1)])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(InvalidParamError, match="'model' must be a TorchModel, a Bundle"):
        Models(model)


def test_bad_input_is_told_before_the_stream_starts(registry, tmp_path, good, monkeypatch):
    for name in ("SPARKDL_REGISTRY", "SPARKDL_REGISTRY_BUNDLES"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RegistryError, match="no registry is configured"):
        Models("registry://fraud")
    with pytest.raises(RegistryError, match="a registry URI is"):
        Models("registry://fraud@a@b", registry=registry)
    with pytest.raises(RegistryError, match="did you mean 'fraud'"):
        Models("registry://fruad", registry=registry).first()
    with pytest.raises(RegistryError, match="did you mean 'champion'"):
        Models("registry://fraud@champoin", registry=registry).first()
    with pytest.raises(BundleError):
        Models(str(tmp_path / "nothing")).first()
    with pytest.raises(InvalidParamError, match="'hndleInvalid' is none; did you mean 'handleInvalid'"):
        Models(good[0], settings={"hndleInvalid": "keep"})
    with pytest.raises(InvalidParamError, match="'handleInvalid' must be"):
        Models(good[0], settings={"handleInvalid": "kep"}).first()


def test_the_default_registry_is_taken(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARKDL_REGISTRY", str(tmp_path / "registry"))
    assert Models("registry://fraud").now().version == "1"
