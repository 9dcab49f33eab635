"""The model of a run of score_batch, as the manifests of its tables tell of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparkdl import store
from sparkdl.jobs import models
from sparkdl.jobs.run import Run

if TYPE_CHECKING:
    from sparkdl.conf import ScoreBatchConf
    from sparkdl.model import TorchModel


@dataclass(frozen=True)
class Model:
    """What scores. name: as the conf has it; version: in its registry, or None."""

    torch: TorchModel
    name: str
    version: int | None

    @property
    def told(self) -> dict[str, Any]:
        """For a manifest."""
        return {"name": store.shown(self.name), "version": self.version, "digest": self.torch.bundle.digest}


def of(run: Run, conf: ScoreBatchConf) -> Model:
    """The conf's model, with its version if it is in a registry: an alias is looked up once a run."""
    from sparkdl.registry import uri

    if not uri.is_registry_uri(conf.model):
        return Model(models.model(run, conf.model, conf.settings), conf.model, None)
    name = uri.parse(conf.model)
    version = models.registry(run, conf.registry).resolve(name.name, name.at)
    numbered = f"{uri.SCHEME}{name.name}/{version}"
    return Model(models.model(run, numbered, conf.settings, conf.registry), conf.model, version)
