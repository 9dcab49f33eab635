"""Which version of the model a micro-batch is scored with.

A model of a registry follows its alias: see ``reload``. Any other has one version, named by its digest.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sparkdl import store
from sparkdl.bundle import Bundle
from sparkdl.errors import (
    BundleError,
    ColumnNotFoundError,
    InvalidParamError,
    RegistryError,
    StreamError,
    did_you_mean,
)
from sparkdl.registry import uri as registry_uri
from sparkdl.stream import proving
from sparkdl.stream.reload import Reload

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkdl.model import TorchModel
    from sparkdl.registry.registry import Registry

DIGITS = 12  # of a digest, as a version's name
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """version: what goes into column ``model_version``."""

    version: str
    model: TorchModel

    @property
    def digest(self) -> str:
        """Of its bundle."""
        return self.model.bundle.digest


class Models:
    """The versions of a stream's model, on the driver. One thread asks for ``first``, ``now`` and ``at``.

    model: a TorchModel, a Bundle, the URI of one, or a registry URI, out of ``registry`` or the default one.
    settings: Params of the TorchModel; every version gets them, and those of a TorchModel that was given.
    prove (attribute): looks at a version that is to take over, in the thread that loads it; what it raises refuses it.
    ship (attribute): sends a version to the workers. It is called in a thread with what has been proven, before that is
    the candidate, so that the next batch already finds it there.

    Raises InvalidParamError for what is no model or no Param, RegistryError for a registry URI that is none.
    """

    def __init__(
        self,
        model: TorchModel | Bundle | str | os.PathLike[str],
        *,
        registry: Registry | None = None,
        spark: SparkSession | None = None,
        trusted: bool | Collection[str] = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._model, self._trusted = _checked(model), trusted
        self._settings = _known_params(settings or {})
        self._reload: Reload[Served] | None = None
        if registry_uri.is_registry_uri(model):
            named = registry_uri.parse(str(model))
            found = registry if registry is not None else registry_uri.default(spark)
            self._reload = Reload(found, named, self._of_registry, self._objection, self._ready)
        self.prove: Callable[[Served], object] | None = None
        self.ship: Callable[[Served], object] | None = None
        self._served: Served | None = None
        self._other: Served | None = None  # of a replay
        self._canary: pa.RecordBatch | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint remembers of the model, as JSON values without secrets: of a registry's its name, whatever
        alias or version; of another its digest, or the URI that it was given by."""
        if self._reload is not None:
            return {"registry": self._reload.registry.uri, "name": self._reload.named.name}
        if isinstance(self._model, (str, os.PathLike)):
            return {"uri": store.shown(store.absolute(os.fspath(self._model)))}
        return {"digest": _bundle_of(self._model).digest}

    def first(self, version: str | None = None) -> Served:
        """The version to start with, loaded now. Raises RegistryError, BundleError, InvalidParamError.

        version: that of the last batch of an earlier run. What the alias names now has to prove itself beside it, as in a
        stream that runs, and else that one goes on: what was refused is not served after a restart.
        """
        if self._reload is not None:
            before = self._again(version)
            self._served = self._reload.settled(before) if before else self._of_registry(self._reload.resolved())
        else:
            given = self._model
            is_uri = isinstance(given, (str, os.PathLike))
            bundle = Bundle.load(os.fspath(given), trusted=self._trusted) if is_uri else _bundle_of(given)
            self._served = Served(bundle.digest[:DIGITS], self._dressed(bundle))
        return self._served

    def now(self) -> Served:
        """The version for the micro-batch that begins. Asks the registry once; never waits for a model to load.

        A registry that cannot be reached, and a version that is refused, leave the one that runs. Loads it if ``first``
        was not called, and raises then as that does.
        """
        if self._served is None:
            return self.first()
        if self._reload is not None:
            self._served = self._reload.next(self._served)
        return self._served

    def at(self, version: str) -> Served:
        """That very version, for a batch that was begun with it; loaded now if need be. Raises StreamError if it is
        gone or was never one of this model."""
        for known in (self._served, self.candidate, self._other):
            if known is not None and known.version == version:
                return known
        try:
            if self._reload is not None:
                self._other = self._of_registry(self._reload.resolved(version))
                return self._other
            given = self._served or self.first()
        except (RegistryError, BundleError) as error:
            raise _gone(version, str(error)) from error
        if given.version != version:
            raise _gone(version, f"the model that is given now is {given.version}")
        return given

    @property
    def candidate(self) -> Served | None:
        """The version that takes over next: loaded and proven on the driver, and for the workers to load."""
        return self._reload.candidate if self._reload is not None else None

    def warmed(self, digests: Collection[str]) -> None:
        """Workers told that they have the models of these bundles. Once the candidate's is among them, the next batch
        takes it; else it does ``reload.WARM_S`` after it was ready here, and the workers load it then."""
        if self._reload is not None and self.candidate is not None and self.candidate.digest in digests:
            self._reload.hurry()

    @property
    def canary(self) -> pa.RecordBatch | None:
        """Rows of the stream on which a new version is tried, at most 64. Set them once there are some; until then, rows
        are made up. Setting raises ColumnNotFoundError if a column that the model reads lacks."""
        return self._canary

    @canary.setter
    def canary(self, rows: pa.RecordBatch | None) -> None:
        if rows is None:
            self._canary = None
            return
        if not isinstance(rows, pa.RecordBatch):
            raise InvalidParamError(f"'canary' must be a RecordBatch (got {type(rows)})", param="canary", value=rows)
        names = (self._served or self.first()).model.signature.columns
        for name in names:
            if name not in rows.schema.names:
                raise ColumnNotFoundError(name, rows.schema.names, role="in the canary, column")
        few = pa.array(np.arange(min(len(rows), proving.CANARY_ROWS)))  # taken, for a slice would keep the whole batch
        self._canary = pa.RecordBatch.from_arrays([rows.column(name).take(few) for name in names], names=list(names))

    def refusals(self) -> dict[str, str]:
        """The versions that were refused since this was called last, with the reasons."""
        return self._reload.refusals() if self._reload is not None else {}

    @property
    def trouble(self) -> str | None:
        """Why the registry cannot be asked or read now; None if it can."""
        return self._reload.trouble if self._reload is not None else None

    def _again(self, version: str | None) -> Served | None:
        """The version with which an earlier run ended; None if there is none, or it is not to be had."""
        assert self._reload is not None  # for mypy
        if self._reload.named.version is not None or version is None or not version.isdecimal():
            return None
        try:
            return self._of_registry(self._reload.resolved(version))
        except (RegistryError, BundleError) as error:
            logger.warning(
                "%s starts with what it names now, for version %s, with which the stream ended, is not to be had: %s",
                self._reload.named,
                version,
                error,
            )
            return None

    def _of_registry(self, number: int) -> Served:
        assert self._reload is not None  # for mypy
        bundle = self._reload.registry.load(self._reload.named.name, number, trusted=self._trusted)
        return Served(str(number), self._dressed(bundle))

    def _objection(self, running: Served, new: Served) -> str | None:
        if self.prove is not None:
            self.prove(new)
        return proving.objection(new.model.bundle, running.model.bundle, new.model.scoring, self._canary)

    def _ready(self, new: Served) -> None:
        if self.ship is not None:
            self.ship(new)

    def _dressed(self, bundle: Bundle) -> TorchModel:
        """The model of a bundle with the Params that were asked for."""
        from sparkdl.model import TorchModel

        model = TorchModel(bundle)
        if isinstance(self._model, TorchModel):
            for param in self._model.params:
                if self._model.isSet(param):
                    model.set(model.getParam(param.name), self._model.getOrDefault(param))
        return model.setParams(**self._settings)


def _checked(model: Any) -> Any:
    """The model as it is. Raises InvalidParamError for what is none."""
    from sparkdl.model import TorchModel

    if not isinstance(model, (TorchModel, Bundle, os.PathLike)) and not (isinstance(model, str) and model):
        raise InvalidParamError(
            f"'model' must be a TorchModel, a Bundle, the URI of a bundle or registry://<name>@<alias> (got {model!r})",
            param="model",
            value=model,
        )
    return model


def _bundle_of(model: Any) -> Bundle:
    return model if isinstance(model, Bundle) else model.bundle  # type: ignore[no-any-return]


def _known_params(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Params of a TorchModel by name. Raises InvalidParamError for one that it does not have."""
    from sparkdl.params import TorchModelParams

    known = [param.name for param in TorchModelParams().params]
    for name in settings:
        if name not in known:
            raise InvalidParamError(
                f"'settings' must be Params of TorchModel, and {name!r} is none{did_you_mean(str(name), known)}",
                param="settings",
                value=name,
            )
    return dict(settings)


def _gone(version: str, why: str) -> StreamError:
    return StreamError(
        f"a batch of this checkpoint was begun with version {version!r} of the model, and must be ended with it: {why}. "
        "Put that version back where it was, or give the model that the stream was begun with",
        checkpoint=None,
    )
