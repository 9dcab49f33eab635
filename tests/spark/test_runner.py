"""HorovodRunner, on the executors and on the driver's machine."""

from __future__ import annotations

import io
import os
import sys
import threading

import pytest
import torch

import sparkdl
from sparkdl import HorovodRunner
from sparkdl.errors import InvalidParamError, ModelNotPicklableError, NotEnoughSlotsError, RankFailedError

EVERYWHERE = pytest.mark.parametrize("np", [2, -2], ids=["executors", "driver"])


def train(learning_rate, *, steps):
    """As its documentation writes it: every rank its own data, one DistributedOptimizer."""
    import horovod.torch as hvd

    hvd.init()
    torch.manual_seed(hvd.rank())
    x = torch.randn(64, 3, dtype=torch.float64)
    y = x @ torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    model = torch.nn.Linear(3, 1).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    for _ in range(steps):
        optimizer.zero_grad()
        ((model(x).squeeze(1) - y) ** 2).mean().backward()
        optimizer.step()
    weights = hvd.allgather(model.weight.detach(), name="weights")
    return {"rank": hvd.rank(), "size": hvd.size(), "local": hvd.local_rank(), "weights": weights.tolist()}


@EVERYWHERE
def test_horovod_code_runs_unchanged_and_rank_0_answers(spark, np):
    answer = HorovodRunner(np=np).run(train, learning_rate=0.2, steps=60)
    assert (answer["rank"], answer["size"], answer["local"]) == (0, 2, 0)
    assert answer["weights"][0] == answer["weights"][1] == pytest.approx([1, -2, 3], abs=1e-3)


def test_np_0_takes_all_slots(spark):
    def main():
        import horovod.torch as hvd

        hvd.init()
        return hvd.size()

    assert HorovodRunner(np=0).run(main) == 2


class Watch(io.StringIO):
    """A stdout that calls back, once, when a text was written to it."""

    def __init__(self, then):
        super().__init__()
        self.then = then

    def write(self, text):
        written = super().write(text)
        for awaited in [awaited for awaited in self.then if awaited in self.getvalue()]:
            self.then.pop(awaited)()
        return written


@EVERYWHERE
def test_lines_show_on_the_driver_while_it_runs(spark, signals, monkeypatch, np):
    printed, logged = signals(), signals()
    shown = Watch({"printed: epoch 1 of 2\n": printed.send, "logged: epoch 1 of 2\n": logged.send})
    monkeypatch.setattr(sys, "stdout", shown)

    def main():
        heard = []
        if os.environ["HOROVOD_RANK"] == "0":
            for say, signal in ((print, printed), (sparkdl.log_to_driver, logged)):
                fd = signal.listen()
                say("printed: epoch 1 of 2" if say is print else "logged: epoch 1 of 2")
                heard.append(signal.wait(fd))
        return heard

    assert HorovodRunner(np=np).run(main) == [True, True]


@pytest.mark.parametrize("verbosity", ["all", "log_callback_only"])
def test_log_callback_only_hides_what_is_printed(spark, capfd, verbosity):
    def main():
        print("chatter")
        print("to stderr", file=sys.stderr)
        sparkdl.log_to_driver("wanted")

    capfd.readouterr()
    HorovodRunner(np=1, driver_log_verbosity=verbosity).run(main)
    shown = capfd.readouterr().out.splitlines()
    assert ("wanted" in shown, "chatter" in shown, "to stderr" in shown) == (True, *[verbosity == "all"] * 2)


@EVERYWHERE
def test_the_rank_that_failed_is_named(spark, np, capfd):
    def main():
        import horovod.torch as hvd

        hvd.init()
        if hvd.rank() == 1:
            1 / 0  # noqa: B018
        hvd.barrier()

    with pytest.raises(RankFailedError, match="ZeroDivisionError") as caught:
        HorovodRunner(np=np).run(main)
    assert caught.value.rank == 1


def test_a_process_that_ends_early_says_how(capfd):
    def main():
        os._exit(3)

    with pytest.raises(RankFailedError, match="status 3"):
        HorovodRunner(np=-1).run(main)


@pytest.mark.parametrize("np", [1.5, "2", True, None])
def test_np_must_be_a_whole_number(np):
    with pytest.raises(InvalidParamError, match="np must be a whole number") as caught:
        HorovodRunner(np=np)
    assert (caught.value.param, caught.value.value) == ("np", np)


def test_other_bad_arguments(spark, jobs):
    with pytest.raises(InvalidParamError, match="driver_log_verbosity"):
        HorovodRunner(np=1, driver_log_verbosity="loud")
    with pytest.raises(InvalidParamError, match="must be a function"):
        HorovodRunner(np=1).run("train")
    with pytest.raises(NotEnoughSlotsError) as caught:
        HorovodRunner(np=3).run(train)
    assert (caught.value.needed, caught.value.available) == (3, 2)
    for np in (1, -1):
        with pytest.raises(ModelNotPicklableError):
            HorovodRunner(np=np).run(lambda lock: None, lock=threading.Lock())
    assert jobs() == 0
