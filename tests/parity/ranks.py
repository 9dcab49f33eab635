"""What runs on the ranks of test_ranks, importable there, and two ways to start them."""

import multiprocessing
from dataclasses import dataclass

import torch
from torch import nn

from sparkdl.data.batch import Batch
from sparkdl.train.collective import HorovodCollective, Seat, SingleProcess, join
from sparkdl.train.local import run_here
from sparkdl.train.loop import Training, train
from sparkdl.train.named import named_optimizer
from sparkdl.train.world import World

ROWS = 42


@dataclass
class FixedReader:
    """Rows in a fixed order: in each step the ranks have the next rows, ``batch_size`` each as long as they last.

    With one rank and N times the batch size a step has the very same rows.
    """

    world: World
    batch_size: int
    rows: int = ROWS

    def __post_init__(self):
        self.steps_per_epoch = -(-self.rows // (self.batch_size * self.world.size))

    def interval(self, step, rank):
        start = (step * self.world.size + rank) * self.batch_size
        return min(start, self.rows), min(start + self.batch_size, self.rows)

    def rows_in_step(self, step):
        return [stop - start for start, stop in (self.interval(step, rank) for rank in range(self.world.size))]

    def epoch(self, epoch, first_step=0):
        generator = torch.Generator().manual_seed(epoch)
        x = torch.randn(self.rows, 4, dtype=torch.float64, generator=generator)
        y = (x[:, 0] * x[:, 1] > 0).long()
        for step in range(first_step, self.steps_per_epoch):
            start, stop = self.interval(step, self.world.rank)
            chosen = slice(start, stop) if start < stop else slice(self.batch_size)
            yield Batch([x[chosen]], y[chosen], stop - start)


def trained(collective, optimizer, arguments, batch_size, rows=ROWS):
    """(weights, losses, accuracies) after three epochs; every rank begins with weights of its own."""
    torch.manual_seed(collective.world.rank)
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    training = Training(module, nn.functional.cross_entropy, named_optimizer(optimizer, arguments), "multiclass", 3, 0)
    result = train(training, FixedReader(collective.world, batch_size, rows), collective)
    every = [collective.allgather(value) for value in module.state_dict().values()]
    assert all(torch.equal(value[0], other) for value in every for other in value)  # the ranks agree to the bit
    return (
        {name: value.tolist() for name, value in module.state_dict().items()},
        [entry["loss"] for entry in result.history],
        [entry["accuracy"] for entry in result.history],
    )


FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DTYPES = (*FLOATS, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64)
SHAPES = ((), (3,), (2, 3), (0,))


def exchanged(collective):
    """What each operation gives on every rank, by operation, dtype and shape; the ranks' tensors differ.

    All dtypes for broadcast and allgather, as a module's buffers may have any; floats, as gradients are, for allreduce.
    A transposed tensor, whose memory has another order, goes by the name of its operation in capitals.
    """
    rank, told = collective.world.rank, {}
    for dtype in DTYPES:
        for shape in SHAPES:
            tensor = ((torch.arange(torch.Size(shape).numel()).reshape(shape) + 10 * rank) % 16).to(dtype)
            first, turned = tensor.clone(), tensor.mT.contiguous().mT if len(shape) == 2 else tensor.clone()
            collective.broadcast(first)
            collective.broadcast(turned)
            answers = {"broadcast": first, "BROADCAST": turned, "allgather": tensor}
            if dtype in FLOATS:
                answers["allreduce"] = tensor.clone()
                collective.allreduce(answers["allreduce"])
            answers = {operation: collective.allgather(answer) for operation, answer in answers.items()}
            for operation, answer in answers.items():
                told[operation, str(dtype), shape] = (str(answer.dtype), tuple(answer.shape), answer.tolist())
        collective.barrier()
    return told


def everything(collective, cases):
    """What ``exchanged`` gives, and ``trained`` for each case, of keyword arguments: one start of the ranks for all."""
    return exchanged(collective), [trained(collective, **case) for case in cases]


def on_horovod(main, size=2, **kwargs):
    """``main(collective, **kwargs)`` on ranks joined by Horovod; rank 0's answer."""
    return run_here(horovod_rank, {"main": main, "kwargs": kwargs}, size)


def horovod_rank(main, kwargs):
    import horovod.torch as hvd

    torch.set_num_threads(1)
    hvd.init()
    world = World(hvd.rank(), hvd.size(), hvd.local_rank(), hvd.local_size(), hvd.cross_rank(), hvd.cross_size())
    return main(HorovodCollective(world, torch.device("cpu")), **kwargs)


def on_torch(main, **kwargs):
    """``main(collective, **kwargs)`` on two ranks joined by torch.distributed; rank 0's answer."""
    context = multiprocessing.get_context("spawn")
    between, answers = context.Pipe(), context.SimpleQueue()
    processes = [
        context.Process(target=torch_rank, args=(rank, between[rank], answers, main, kwargs)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    told = dict(answers.get() for _ in processes)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert not isinstance(told[0], Exception), told[0]
    return told[0]


def torch_rank(rank, other, answers, main, kwargs):
    def exchange(text):
        other.send(text)
        received = other.recv()
        return [text, received] if rank == 0 else [received, text]

    torch.set_num_threads(1)
    seat = Seat(World(rank, 2, rank, 2, 0, 1), ["here"] * 2, "127.0.0.1", torch.device("cpu"), exchange)
    try:
        with join(seat, "torch") as (collective, _):
            answer = main(collective, **kwargs)
    except Exception as error:
        answer = error
    answers.put((rank, answer))


def alone(main, **kwargs):
    """``main(collective, **kwargs)`` in this process."""
    return main(SingleProcess(), **kwargs)
