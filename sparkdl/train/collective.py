"""What ranks do together, behind one small protocol: by Horovod, by torch.distributed, or alone.

Horovod's rendezvous and torch's store ask for no password, so they listen on the loopback; ranks on other hosts reach them
through ``tunnel``, which asks for this launch's secret, until all have met. Gloo, with which ranks then exchange tensors, has
none either: it is bound to the loopback when all ranks share a host, to the cluster's own address otherwise.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import psutil
import torch
from torch import Tensor

from sparkdl.errors import LaunchError
from sparkdl.train import pulse, tunnel
from sparkdl.train.failure import PeerFailedError
from sparkdl.train.tunnel import LOOPBACK
from sparkdl.train.world import World

F = TypeVar("F", bound=Callable[..., Any])
BACKENDS = ("auto", "horovod", "torch")


class Collective(Protocol):
    """The ranks of one run. Every call is made by all ranks, in the same order."""

    world: World
    device: torch.device

    def allreduce(self, tensor: Tensor) -> None:
        """Replace ``tensor`` by its sum over all ranks."""

    def broadcast(self, tensor: Tensor) -> None:
        """Replace ``tensor`` by rank 0's."""

    def allgather(self, tensor: Tensor) -> Tensor:
        """All ranks' tensors, which have one shape, stacked: ``(size, *shape)``."""

    def barrier(self) -> None:
        """Return when all ranks have called it."""


class SingleProcess:
    """One rank and nobody to talk to."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.world = World()
        self.device = torch.device(device)

    def allreduce(self, tensor: Tensor) -> None:
        """See Collective."""

    def broadcast(self, tensor: Tensor) -> None:
        """See Collective."""

    def allgather(self, tensor: Tensor) -> Tensor:
        """See Collective."""
        return tensor.unsqueeze(0)

    def barrier(self) -> None:
        """See Collective."""


def _waits(operation: F) -> F:
    """While in ``operation`` this rank waits for the others, which is not its stalling."""

    @functools.wraps(operation)
    def wrapped(*args: Any) -> Any:
        with pulse.waiting():
            return operation(*args)

    return cast(F, wrapped)


class HorovodCollective:
    """Ranks joined by Horovod. Make it after ``hvd.init()``."""

    backend = "horovod"

    def __init__(self, world: World, device: torch.device) -> None:
        import horovod.torch as hvd

        self._hvd = hvd
        self.world = world
        self.device = device

    @_waits
    def allreduce(self, tensor: Tensor) -> None:
        """See Collective."""
        if tensor.dtype == torch.bfloat16:
            self._allreduce_bfloat16(tensor)
        elif tensor.numel():
            self._hvd.allreduce_(tensor, op=self._hvd.Sum, name=_name("allreduce", tensor))

    def _allreduce_bfloat16(self, tensor: Tensor) -> None:
        """Horovod does not add bfloat16, but moves bytes: each rank gets its part of all ranks' tensors, adds these in
        float32, and gives the sum to all: as many bytes as a ring all-reduce moves."""
        size, count = self.world.size, tensor.numel()
        part = -(-count // size)
        padded = tensor.new_zeros(part * size)
        padded[:count] = tensor.reshape(-1)
        mine = self._hvd.alltoall(_bytes(padded), name=_name("alltoall", padded))
        total = mine.view(torch.bfloat16).view(size, part).float().sum(0).bfloat16()
        tensor.copy_(self.allgather(total).reshape(-1)[:count].view_as(tensor))

    @_waits
    def broadcast(self, tensor: Tensor) -> None:
        """See Collective."""
        data = _bytes(tensor)
        if len(data):
            self._hvd.broadcast_(data, root_rank=0, name=_name("broadcast", data))
            _restore(tensor, data)

    @_waits
    def allgather(self, tensor: Tensor) -> Tensor:
        """See Collective."""
        data = _bytes(tensor)
        if not len(data):
            return tensor.new_empty(self.world.size, *tensor.shape)
        gathered: Tensor = self._hvd.allgather(data.unsqueeze(0), name=_name("allgather", data))
        return gathered.view(tensor.dtype).reshape(self.world.size, *tensor.shape)

    @_waits
    def barrier(self) -> None:
        """See Collective."""
        self._hvd.barrier()

    def leave(self) -> None:
        """Take part no more."""
        self._hvd.shutdown()


def _name(operation: str, tensor: Tensor) -> str:
    """Horovod caches what it learns of a name, so each kind of tensor has its own."""
    return f"{operation}.{tensor.dtype}.{tuple(tensor.shape)}"


def _bytes(tensor: Tensor) -> Tensor:
    """The tensor's memory as bytes, since no backend knows all dtypes; a copy if the memory has gaps."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _restore(tensor: Tensor, data: Tensor) -> None:
    """Put the bytes back if they are a copy."""
    if data.data_ptr() != tensor.data_ptr():
        tensor.detach().copy_(data.view(tensor.dtype).reshape(tensor.shape))


class TorchCollective:
    """Ranks joined by torch.distributed. Make it after ``init_process_group``."""

    backend = "torch"

    def __init__(self, world: World, device: torch.device) -> None:
        self.world = world
        self.device = device

    @_waits
    def allreduce(self, tensor: Tensor) -> None:
        """See Collective."""
        torch.distributed.all_reduce(tensor)

    @_waits
    def broadcast(self, tensor: Tensor) -> None:
        """See Collective."""
        data = _bytes(tensor)
        torch.distributed.broadcast(data, src=0)
        _restore(tensor, data)

    @_waits
    def allgather(self, tensor: Tensor) -> Tensor:
        """See Collective."""
        data = _bytes(tensor)
        gathered = [torch.empty_like(data) for _ in range(self.world.size)]
        torch.distributed.all_gather(gathered, data)
        return torch.cat(gathered).view(tensor.dtype).reshape(self.world.size, *tensor.shape)

    @_waits
    def barrier(self) -> None:
        """See Collective."""
        torch.distributed.barrier()

    def leave(self) -> None:
        """Take part no more."""
        torch.distributed.destroy_process_group()


@dataclass(frozen=True)
class Seat:
    """What a rank knows before it is joined to the others.

    hosts: where each rank is, as Spark names it, in rank order. here: this host's IP address.
    exchange: gives each rank's text to all, in rank order; Spark takes about a second for it.
    """

    world: World
    hosts: Sequence[str]
    here: str
    device: torch.device
    exchange: Callable[[str], list[str]]

    @property
    def address(self) -> str:
        """Where this rank listens: the loopback if all ranks are on one host."""
        return LOOPBACK if len(set(self.hosts)) == 1 else self.here


@dataclass(frozen=True)
class Met:
    """What ranks have told each other. place: where this rank reaches what rank 0 has opened for the backend. prepared: this
    rank's own. listener: rank 0's socket for torch."""

    backend: str
    place: tuple[str, int]
    prepared: Any
    listener: socket.socket | None


@contextlib.contextmanager
def meet(seat: Seat, wanted: str, prepare: Callable[[], Any] = lambda: None) -> Iterator[Met]:
    """Tell the other ranks all that must be known to join them, in one exchange; the listeners end with the block.

    prepare: what a rank may fail at alone. If one fails, none goes on, for they would wait for it for ever: that rank
    raises its error, the others PeerFailedError.
    """
    with contextlib.ExitStack() as stack:
        opened: dict[str, int] = {}  # on rank 0's loopback
        told: dict[str, Any] = {"address": seat.address, "problem": None, "horovod": None, "ports": {}}
        failure = prepared = listener = None
        try:
            interface_of(seat.address)
            prepared = prepare()
            told["horovod"] = horovod_problem() if wanted in ("auto", "horovod") else None
            if seat.world.is_chief:
                told["secret"] = secrets.token_hex(16)
                if wanted != "torch" and told["horovod"] is None:
                    opened["horovod"] = stack.enter_context(rendezvous())
                if wanted in ("auto", "torch"):
                    listener = stack.enter_context(socket.create_server((LOOPBACK, 0)))
                    opened["torch"] = listener.getsockname()[1]
                for backend, port in opened.items():
                    if seat.address != LOOPBACK:
                        port = stack.enter_context(tunnel.door(seat.address, port, told["secret"]))
                    told["ports"][backend] = port
        except Exception as error:
            failure = error
            told["problem"] = f"{type(error).__name__}: {error}"
        peers = [json.loads(text) for text in seat.exchange(json.dumps(told))]
        if failure is not None:
            raise failure
        for rank, peer in enumerate(peers):
            if peer["problem"]:
                raise PeerFailedError(f"rank {rank} cannot begin: {peer['problem']}")
        backend = "horovod"
        if wanted != "environment":
            backend = choose_backend(wanted, [peer["horovod"] for peer in peers])
        chief, port = peers[0], peers[0]["ports"][backend]
        if seat.world.is_chief:
            port = opened[backend]
        elif seat.address != LOOPBACK:
            port = stack.enter_context(tunnel.way((chief["address"], port), chief["secret"]))
        yield Met(backend, (LOOPBACK, port), prepared, listener)


@contextlib.contextmanager
def join(
    seat: Seat, wanted: str, prepare: Callable[[], Any] = lambda: None
) -> Iterator[tuple[HorovodCollective | TorchCollective, Any]]:
    """Join the other ranks by ``horovod``, ``torch`` or the one that ``auto`` chooses; leave together, or at once on an
    error. Gives the Collective and what ``prepare`` gave; see ``meet``."""
    with meet(seat, wanted, prepare) as met:
        collective = _by_horovod(seat, met) if met.backend == "horovod" else _by_torch(seat, met)
        collective.barrier()  # all have met: rank 0's rendezvous can close
    try:
        yield collective, met.prepared
        collective.barrier()  # a fast rank's exit would read as a failure on a slow one
    finally:
        collective.leave()


def _by_horovod(seat: Seat, met: Met) -> HorovodCollective:
    import horovod.torch as hvd

    with environment(horovod_variables(seat.world, seat.address, met.place)):
        hvd.init()
    return HorovodCollective(seat.world, seat.device)


def _by_torch(seat: Seat, met: Met) -> TorchCollective:
    import torch.distributed as dist

    world = seat.world
    store = dist.TCPStore(
        *met.place, world.size, is_master=world.is_chief, wait_for_workers=False,
        master_listen_fd=met.listener.detach() if met.listener else None,
    )  # fmt: skip
    with environment({"GLOO_SOCKET_IFNAME": interface_of(seat.address)}):
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if seat.device.type == "cuda" else "gloo",
            store=store, rank=world.rank, world_size=world.size,
        )  # fmt: skip
    return TorchCollective(world, seat.device)


def horovod_variables(world: World, address: str, meeting: tuple[str, int]) -> dict[str, str]:
    """What ``hvd.init()`` reads on the rank at ``address``; ``meeting`` is the rendezvous' host and port."""
    return {
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": meeting[0],
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(meeting[1]),
        "HOROVOD_GLOO_IFACE": interface_of(address),
        "HOROVOD_HOSTNAME": address,
        **{f"HOROVOD_{name.upper()}": str(value) for name, value in vars(world).items()},
    }


@contextlib.contextmanager
def rendezvous() -> Iterator[int]:
    """Horovod's rendezvous on the loopback; its port."""
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    class Server(RendezvousHTTPServer):  # type: ignore[misc]
        daemon_threads = True
        block_on_close = False

    server = Server((LOOPBACK, 0), RendezvousHandler, verbose=0)
    server.init([])
    with tunnel.served(server, "horovod-rendezvous") as port:
        yield port


def horovod_problem() -> str | None:
    """Why Horovod cannot be used in this process, or None if it can."""
    try:
        import horovod.torch  # noqa: F401
    except Exception as error:  # a wheel built for another torch fails in ways of its own
        return f"{type(error).__name__}: {error}"
    return None


def choose_backend(wanted: str, problems: Sequence[str | None]) -> str:
    """``horovod`` or ``torch``, from what was asked for and each rank's ``horovod_problem``. Same on all ranks.

    Raises LaunchError if Horovod was asked for and a rank has none.
    """
    if wanted == "torch":
        return "torch"
    broken = [(rank, problem) for rank, problem in enumerate(problems) if problem]
    if not broken:
        return "horovod"
    if wanted == "auto":
        return "torch"
    rank, problem = broken[0]
    raise LaunchError(
        f"Horovod cannot be used on rank {rank}: {problem}. Build it for this torch: "
        "python -m sparkdl build-horovod --install; or use collective='torch'"
    )


def interface_of(address: str) -> str:
    """The network interface that has ``address``. Raises LaunchError if none has."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(found.address == address for found in addresses):
            return name
    if address.startswith("127."):
        return interface_of("127.0.0.1") if address != "127.0.0.1" else "lo"
    raise LaunchError(
        f"no network interface of {socket.gethostname()} has the address {address}, which Spark gave for it; "
        "check that the host's name resolves to its own address (SPARK_LOCAL_IP sets it)"
    )


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables set until the block ends."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
