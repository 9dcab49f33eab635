"""What every rank of a fit runs: it opens its shard, trains, and rank 0 writes the weights. No Spark, no Horovod."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cloudpickle
import safetensors.torch

from sparkdl import store
from sparkdl.data.batch import Reader
from sparkdl.data.manifest import Dataset
from sparkdl.data.petastorm import PetastormDataset, PetastormReader
from sparkdl.data.reader import ArrowReader
from sparkdl.train.checkpoint import Checkpoints
from sparkdl.train.collective import Collective
from sparkdl.train.loop import Training, train
from sparkdl.train.progress import Report
from sparkdl.train.world import World


@dataclass(frozen=True)
class Reading:
    """What is read and how; kind: ``arrow`` or ``petastorm``."""

    data: Dataset | PetastormDataset
    batch_size: int
    seed: int
    kind: str = "arrow"
    memory_budget: int = 1 << 30
    drop_last: bool = False

    @property
    def reads_by_petastorm(self) -> bool:
        """True if Petastorm's reader is the one."""
        return self.kind == "petastorm" or isinstance(self.data, PetastormDataset)

    def reader(self, world: World, *, pin_memory: bool = False) -> Reader:
        """A rank's reader of the training rows."""
        settings: dict[str, Any] = {
            "batch_size": self.batch_size, "seed": self.seed, "memory_budget": self.memory_budget,
            "drop_last": self.drop_last,
        }  # fmt: skip
        if self.reads_by_petastorm:
            return PetastormReader(self.data, world, **settings)
        assert isinstance(self.data, Dataset)
        return ArrowReader(self.data, world, **settings, pin_memory=pin_memory)

    def validation(self, world: World) -> Reader | None:
        """A rank's reader of the validation rows, if there are some."""
        data = self.data.validation if isinstance(self.data, Dataset) else None
        if data is None:
            return None
        return ArrowReader(data, world, batch_size=self.batch_size, seed=self.seed, memory_budget=self.memory_budget)


@dataclass(frozen=True)
class Rank:
    """training: a Training by cloudpickle. weights_uri: where rank 0 writes what was learnt."""

    training: bytes
    reading: Reading
    checkpoints: Checkpoints | None
    weights_uri: str

    def __call__(self, collective: Collective) -> dict[str, Any]:
        """Train; ``history`` and ``best_epoch``."""
        training: Training = cloudpickle.loads(self.training)
        result = train(
            training,
            self.reading.reader(collective.world, pin_memory=collective.device.type == "cuda"),
            collective,
            validation=self.reading.validation(collective.world),
            checkpoints=self.checkpoints,
            progress=Report(),
        )
        if result.weights is not None:
            weights = {name: value.contiguous().clone() for name, value in result.weights.items()}
            store.write_bytes(self.weights_uri, safetensors.torch.save(weights))
        return {"history": result.history, "best_epoch": result.best_epoch}
