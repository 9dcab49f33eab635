"""A run that is interrupted and taken up gives the weights, bit for bit, and the history of one that was not."""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import data, module, training
from torch import nn

from sparkdl import store
from sparkdl.errors import CheckpointError, NonFiniteLossError, TrainingError
from sparkdl.train import checkpoint, tree
from sparkdl.train.callbacks import Callback
from sparkdl.train.checkpoint import Checkpoints, Every, check_identity, saved
from sparkdl.train.collective import SingleProcess
from sparkdl.train.loop import Training, train
from sparkdl.train.metrics import Monitor, metrics_given
from sparkdl.train.named import loss_named, named_optimizer, named_scheduler
from sparkdl.train.schedule import Schedule
from sparkdl.train.step import Recipe


class Killed(Exception):
    pass


class Dies(Callback):
    """Raises after so many updates."""

    def __init__(self, after):
        self.left = after

    def on_step_end(self, run):
        self.left -= 1
        if not self.left:
            raise Killed


class Noisy(nn.Module):
    """Draws from all three generators, and has running statistics."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))

    def forward(self, x):
        noise = random.random() + np.random.rand() if self.training else 0.0
        return self.body(x + 0.01 * noise)


def checkpoints(folder, every=None, keep=2, identity=None):
    return Checkpoints(str(folder), every or Every(updates=2), keep, identity or {})


def plain(history):
    """The history without what differs from run to run."""
    return [{key: value for key, value in entry.items() if key not in ("seconds", "phases")} for entry in history]


CASES = {
    "SGD with momentum": {},
    "AdamW, a scheduler by step": {
        "optimizer": ("adamw", {"lr": 0.05}),
        "schedule": Schedule(named_scheduler("onecycle", {"max_lr": 0.1}), "step"),
    },
    "a scheduler by epoch": {"schedule": Schedule(named_scheduler("step", {"step_size": 1, "gamma": 0.5}))},
    "accumulation and clipping": {"recipe": Recipe(accumulation=3, clip_norm=0.1)},
    "float16 with a scaled loss": {"recipe": Recipe(precision="float16")},
    "the best epoch, patience": {"monitor": Monitor("loss", "min", patience=2, min_delta=0.5)},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("after", [1, 3, 4, 7, 9, 20])
def test_the_weights_are_those_of_an_undisturbed_run(case, after, tmp_path):
    settings = dict(CASES[case])
    dtype = torch.float32 if "float16" in case else torch.float64
    settings["metrics"] = metrics_given(["auroc"], "binary", 2)

    def run(places, callbacks=()):
        made = Noisy().to(dtype)
        return train(
            training("binary", made, epochs=3, callbacks=callbacks, **settings),
            data("binary", dtype), SingleProcess(), checkpoints=places,
        )  # fmt: skip

    undisturbed = run(None)
    with pytest.raises(Killed):
        run(checkpoints(tmp_path), (Dies(min(after, 3 * -(-7 // settings.get("recipe", Recipe()).accumulation))),))
    torch.manual_seed(99)  # whatever state the new process is in
    resumed = run(checkpoints(tmp_path))
    assert plain(resumed.history) == plain(undisturbed.history)
    assert resumed.best_epoch == undisturbed.best_epoch
    assert resumed.weights.keys() == undisturbed.weights.keys()
    for name, value in undisturbed.weights.items():
        assert torch.equal(resumed.weights[name], value), name


def test_checkpoints_are_taken_as_often_as_asked_and_the_last_are_kept(tmp_path):
    def names(every, keep, **settings):
        folder = tmp_path / f"{every}-{keep}"
        made = training("binary", module("binary"), epochs=3, **settings)
        train(made, data("binary"), SingleProcess(), checkpoints=checkpoints(folder, every, keep))
        return [(one.epoch, one.step) for one in saved(str(folder))]

    assert names(Every(epochs=1), 2) == [(3, 0), (2, 0)]
    assert names(Every(epochs=2), 5) == [(3, 0), (2, 0)]
    assert names(Every(updates=3), 4) == [(3, 0), (2, 4), (2, 1), (2, 0)]
    assert names(Every(updates=2), 1) == [(3, 0)]


def test_that_of_an_epoch_s_end_is_kept_for_another_number_of_ranks(tmp_path):
    made = training("binary", module("binary"), epochs=2, callbacks=(Dies(14),))
    with pytest.raises(Killed):
        train(made, data("binary"), SingleProcess(), checkpoints=checkpoints(tmp_path, Every(updates=1), keep=2))
    assert [(one.epoch, one.step) for one in saved(str(tmp_path))] == [(1, 6), (1, 5), (1, 0)]


def test_nothing_but_the_checkpoints_and_the_best_weights_they_name_stays(tmp_path):
    made = training("binary", module("binary"), epochs=4, monitor=Monitor("loss", "min"))
    train(made, data("binary"), SingleProcess(), checkpoints=checkpoints(tmp_path, Every(), keep=1))
    (one,) = saved(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(["attempt", one.best, os.path.basename(one.folder)])
    assert one.best.startswith("best-00003-")


def test_one_without_a_manifest_is_none_and_is_cleared_away(tmp_path):
    unfinished = tmp_path / "epoch-00009-step-000000-00000000"
    unfinished.mkdir()
    (unfinished / "shared.safetensors").write_bytes(b"half")
    made = training("binary", module("binary"), epochs=1)
    result = train(made, data("binary"), SingleProcess(), checkpoints=checkpoints(tmp_path))
    assert len(result.history) == 1
    assert not unfinished.exists()


@pytest.mark.parametrize("name", ["shared.safetensors", "rank-00000.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "gone"])
def test_one_that_is_damaged_is_passed_over_for_the_one_before(tmp_path, name, damage, caplog):
    def run(callbacks=()):
        made = training("binary", Noisy().double(), epochs=3, callbacks=callbacks)
        return train(made, data("binary"), SingleProcess(), checkpoints=checkpoints(tmp_path, Every(updates=2)))

    undisturbed = train(training("binary", Noisy().double(), epochs=3), data("binary"), SingleProcess())
    with pytest.raises(Killed):
        run((Dies(12),))
    newest = next(saved(str(tmp_path)))
    path = Path(newest.folder) / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage != "gone":
        content[-1] ^= 1
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    result = run()
    if name != "checkpoint.json":
        assert "cannot be used" in caplog.text
        assert newest.folder in caplog.text
    for key, value in undisturbed.weights.items():
        assert torch.equal(result.weights[key], value)


def test_a_full_disk_is_a_warning_and_training_goes_on(tmp_path, monkeypatch, caplog):
    write, calls = store.write_bytes, []

    def full(uri, content):
        calls.append(uri)
        if 4 < len(calls) < 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(uri, content)

    monkeypatch.setattr(checkpoint.store, "write_bytes", full)
    made = training("binary", Noisy().double(), epochs=3)
    result = train(made, data("binary"), SingleProcess(), checkpoints=checkpoints(tmp_path, Every(), keep=5))
    undisturbed = train(training("binary", Noisy().double(), epochs=3), data("binary"), SingleProcess())
    assert all(torch.equal(result.weights[key], value) for key, value in undisturbed.weights.items())
    assert "No space left on device" in caplog.text
    assert str(tmp_path) in caplog.text
    epochs = [one.epoch for one in saved(str(tmp_path))]
    assert 1 in epochs
    assert len(epochs) < 3
    assert len(os.listdir(tmp_path)) == len(epochs) + 1, "nothing half-written stays"


def damage(folder, name="shared.safetensors"):
    path = Path(folder) / name
    path.write_bytes(path.read_bytes()[:-1])


def test_what_was_passed_over_does_not_stand_before_what_comes_after(tmp_path):
    """Two disturbances: the newest are damaged, training goes on from before them, and is interrupted again."""
    undisturbed = train(training("binary", Noisy().double(), epochs=6), data("binary"), SingleProcess())

    def run(callbacks=(), epochs=6):
        made = training("binary", Noisy().double(), epochs=epochs, callbacks=callbacks)
        return train(made, data("binary"), SingleProcess(), checkpoints=checkpoints(tmp_path, Every(), keep=3))

    with pytest.raises(Killed):
        run((Dies(4 * 7 + 1),))
    newest, before, good = saved(str(tmp_path))
    damage(newest.folder)
    damage(before.folder)
    with pytest.raises(Killed):
        run((Dies(7 + 1),))
    assert [one.epoch for one in saved(str(tmp_path))] == [good.epoch + 1, good.epoch]
    result = run()
    assert plain(result.history) == plain(undisturbed.history)
    assert all(torch.equal(result.weights[key], value) for key, value in undisturbed.weights.items())


def test_a_full_disk_does_not_cost_the_best_weights(tmp_path, monkeypatch):
    """The file of the best weights takes the last of the space: the manifest after it cannot be written."""
    write, failures = store.write_bytes, []

    def full(uri, content):
        if uri.endswith("checkpoint.json") and not failures:
            failures.append(uri)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(uri, content)

    monkeypatch.setattr(checkpoint.store, "write_bytes", full)

    def run(callbacks=()):
        made = training(
            "binary", Noisy().double(), epochs=4, callbacks=callbacks, monitor=Monitor("loss", "max", min_delta=100),
        )  # fmt: skip
        return train(made, data("binary"), SingleProcess(), checkpoints=checkpoints(tmp_path, Every()))

    undisturbed = train(
        training("binary", Noisy().double(), epochs=4, monitor=Monitor("loss", "max", min_delta=100)),
        data("binary"),
        SingleProcess(),
    )
    with pytest.raises(Killed):
        run((Dies(2 * 7 + 1),))
    assert failures
    result = run()
    assert result.best_epoch == undisturbed.best_epoch == 0
    assert all(torch.equal(result.weights[key], value) for key, value in undisturbed.weights.items())


def test_a_store_that_fails_to_read_for_a_while_loses_nothing(tmp_path, monkeypatch, caplog):
    made = training("binary", module("binary"), epochs=2)
    train(made, data("binary"), SingleProcess(), checkpoints=checkpoints(tmp_path, Every()))
    before = {one.folder for one in saved(str(tmp_path))}
    read = store.read_bytes

    def away(uri):
        if any(uri.startswith(folder) for folder in before):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return read(uri)

    monkeypatch.setattr(checkpoint.store, "read_bytes", away)
    made = training("binary", module("binary"), epochs=1)
    result = train(made, data("binary"), SingleProcess(), checkpoints=checkpoints(tmp_path, Every()))
    assert len(result.history) == 1
    assert "Stale file handle" in caplog.text
    monkeypatch.undo()
    assert before <= {one.folder for one in saved(str(tmp_path))}


def test_with_resume_there_must_be_something_that_can_be_taken_up(tmp_path):
    places = Checkpoints(str(tmp_path), Every(), 2, {}, resume=True)
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train(training("binary", module("binary")), data("binary"), SingleProcess(), checkpoints=places)


def test_an_older_attempt_that_still_lives_can_save_nothing(tmp_path):
    class TakenOver(Callback):
        def on_epoch_end(self, run):
            if run.epoch == 1:
                (tmp_path / "attempt").write_text("another")

    made = training("binary", module("binary"), callbacks=(TakenOver(),))
    with pytest.raises(TrainingError, match="another attempt has taken over"):
        train(made, data("binary"), SingleProcess(), checkpoints=checkpoints(tmp_path, Every()))
    assert [one.epoch for one in saved(str(tmp_path))] == [1]


@pytest.mark.parametrize(
    ("name", "arguments", "interval"),
    [
        ("onecycle", {"max_lr": 0.1}, "step"),
        ("cosineannealing", {}, "step"),
        ("cosineannealing", {}, "epoch"),
        ("step", {"step_size": 2}, "epoch"),
    ],
)
def test_a_longer_training_goes_on_at_the_rate_it_would_have_had(name, arguments, interval, tmp_path):
    """From the same epoch on, as if it had been meant to be longer from the start."""
    schedule = Schedule(named_scheduler(name, arguments), interval)

    def rates(epochs, places=None):
        made = training("binary", module("binary"), epochs=epochs, schedule=schedule)
        return [e["lr"] for e in train(made, data("binary"), SingleProcess(), checkpoints=places).history]

    rates(3, checkpoints(tmp_path, Every()))
    assert rates(6, checkpoints(tmp_path, Every()))[3:] == pytest.approx(rates(6)[3:])


def test_a_buffer_that_is_not_of_the_state_comes_back_too(tmp_path):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 1).double()
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, x):
            self.calls += self.training
            return self.linear(x)

    def run(epochs):
        made = training("binary", Counting(), epochs=epochs)
        return train(made, data("binary"), SingleProcess(), checkpoints=checkpoints(tmp_path, Every()))

    run(2)
    assert run(3).module.calls == 21


def test_state_that_no_checkpoint_holds_is_said_before_the_first_step(tmp_path):
    class Odd(torch.optim.SGD):
        def state_dict(self):
            return {**super().state_dict(), "odd": object()}

    made = Training(module("binary"), loss_named("binary_cross_entropy_with_logits"), Odd, "binary", 1, 0)
    with pytest.raises(TrainingError, match=r"'odd'\] is a object.*maxRetries=0"):
        train(made, data("binary"), SingleProcess(), checkpoints=checkpoints(tmp_path))


def test_a_scheduler_that_keeps_functions_in_its_state_is_saved_without_them(tmp_path):
    schedule = Schedule(lambda optimizer, steps: torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.01, anneal_epochs=2))

    def run(epochs, places):
        made = training("binary", module("binary"), epochs=epochs, schedule=schedule)
        return train(made, data("binary"), SingleProcess(), checkpoints=places)

    run(2, checkpoints(tmp_path, Every()))
    assert plain(run(4, checkpoints(tmp_path, Every())).history) == plain(run(4, None).history)


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    class Spoils(Callback):
        def on_step_end(self, run):
            if (run.epoch, run.step) == (1, 7):
                run.module[0].weight.data.fill_(float("nan"))

    made = training("binary", module("binary"), epochs=3, callbacks=(Spoils(),))
    with pytest.raises(NonFiniteLossError):
        train(made, data("binary"), SingleProcess(), checkpoints=checkpoints(tmp_path, Every()))
    assert [one.epoch for one in saved(str(tmp_path))] == [1]


def test_the_best_weights_come_back_from_the_checkpoint(tmp_path):
    """The first epoch is the best; after it the loss only grows."""

    def run(epochs):
        made = Training(
            module("regression"), loss_named("mse_loss"), named_optimizer("sgd", {"lr": 1e-3, "maximize": True}),
            "regression", epochs, 0, monitor=Monitor("val_loss", "min"),
        )  # fmt: skip
        reader = data("regression")
        return train(made, reader, SingleProcess(), validation=reader, checkpoints=checkpoints(tmp_path))

    first, second = run(1), run(3)
    assert (first.best_epoch, second.best_epoch) == (0, 0)
    assert len(second.history) == 3
    assert all(torch.equal(first.weights[key], value) for key, value in second.weights.items())
    assert not torch.equal(second.module.state_dict()["0.weight"], second.weights["0.weight"])


def test_another_run_is_named_by_what_differs():
    ours = {"model": {"0.weight": "float32[8, 4]", "1.weight": "float32[1, 8]"}, "data": {"rows": 5}, "seed": 0}
    check_identity(json.loads(json.dumps(ours)), ours, "there")
    for changed, what in [
        ({"seed": 1}, "seed"),
        ({"data": {"rows": 6}}, "data rows"),
        ({"model": {**ours["model"], "1.weight": "float32[2, 8]"}}, "model 1.weight"),
        ({"model": {"0.weight": "float32[8, 4]"}}, "model 1.weight"),
    ]:
        with pytest.raises(CheckpointError, match=what) as caught:
            check_identity(ours, {**ours, **changed}, "there")
        assert caught.value.what == what


def test_nested_state_comes_back_as_it_was():
    state = {
        "a": [1, 2.5, None, True, "text", float("inf")], 3: (torch.arange(3), {"x": torch.zeros(2, 0)}),
        "bf": torch.ones(2, dtype=torch.bfloat16), "np": np.arange(4, dtype=np.uint32), "scalar": np.float64(1.5), "": {},
    }  # fmt: skip
    shared = torch.ones(4)
    state["one"], state["other"] = shared, shared[:2]
    back = tree.load(tree.dump(state))
    assert back.keys() == state.keys()
    assert back["a"] == state["a"]
    assert isinstance(back[3], tuple)
    assert torch.equal(back[3][0], state[3][0])
    assert back[3][1]["x"].shape == (2, 0)
    assert back["bf"].dtype == torch.bfloat16
    assert (back["np"] == state["np"]).all()
    assert back["np"].dtype == np.uint32
    assert torch.equal(back["other"], torch.ones(2))


@pytest.mark.parametrize("value", [object(), {1.5: 2}, {"x": {1, 2}}, lambda: 0])
def test_state_that_cannot_be_kept_is_named(value):
    with pytest.raises(TypeError, match=r"state\['here'\].*checkpoint cannot hold"):
        tree.dump({"here": value})


@pytest.mark.parametrize("content", [b"", b"abc", tree.dump({})[:-1], b"\xff" * 40, b"\x02" + b"\0" * 7 + b"{}"])
def test_other_content_is_a_value_error(content):
    if content != tree.dump({})[:-1] or not content:
        with pytest.raises(ValueError, match="not a file of nested state"):
            tree.load(content)
