"""MLflow's model registry: its registered models, versions and aliases, with bundles that its own clients run too."""

from __future__ import annotations

import json
import logging
import tempfile
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sparkdl import store
from sparkdl.bundle import Bundle
from sparkdl.errors import BundleIntegrityError, RegistryError
from sparkdl.interop.common import needed
from sparkdl.registry.backend import Backend, May
from sparkdl.registry.records import Move, Version

EXPERIMENT = "sparkdl-registry"  # its runs hold the versions' files
_ARTIFACTS = "model"
_DIGEST, _BY, _MOVE = "sparkdl.digest", "sparkdl.by", "sparkdl.move."
logger = logging.getLogger(__name__)


class MLflow(Backend):
    """MLflow numbers the versions and keeps the aliases. It has no history of aliases, and no compare-and-set: a tag of
    the registered model is a move; what an alias must name before is looked at just before it is moved."""

    def __init__(self, tracking: str) -> None:
        needed("mlflow", "mlflow")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self.uri = f"mlflow:{store.shown(tracking)}"
        if not tracking:
            raise RegistryError(
                "mlflow: must be followed by a tracking URI, as in mlflow:sqlite:///… or mlflow:http://…",
                registry=self.uri,
                name=None,
                version=None,
            )
        self.errors = (MlflowException, OSError)
        self._absent = MlflowException
        self._tracking = tracking
        self._client: Any = MlflowClient(tracking_uri=tracking, registry_uri=tracking)

    def names(self) -> list[str]:
        """See Backend."""
        return sorted(model.name for model in _all(self._client.search_registered_models))

    def versions(self, name: str) -> list[Version]:
        """See Backend."""
        found = _all(self._client.search_model_versions, filter_string=f"name='{name}'")
        return sorted((_version(one) for one in found), key=lambda version: version.number)

    def version(self, name: str, number: int) -> Version | None:
        """See Backend."""
        found = self._or_none(self._client.get_model_version, name, str(number))
        return None if found is None else _version(found)

    def aliases(self, name: str) -> list[str]:
        """See Backend."""
        found = self._or_none(self._client.get_registered_model, name)
        return [] if found is None else sorted(found.aliases)

    def current(self, name: str, alias: str) -> int | None:
        """See Backend."""
        found = self._or_none(self._client.get_model_version_by_alias, name, alias)
        return None if found is None else int(found.version)

    def history(self, name: str, alias: str) -> list[Move]:
        """Those moved by sparkdl; MLflow's own clients leave no trace."""
        model = self._or_none(self._client.get_registered_model, name)
        tags = model.tags if model is not None else {}
        moves = [Move(**json.loads(value)) for key, value in tags.items() if key.startswith(_MOVE)]
        return sorted((move for move in moves if move.alias == alias), key=lambda move: move.time)

    def publish(self, name: str, files: Mapping[str, bytes], digest: str, by: str, note: str) -> int:
        """The files go to a run of its own, then MLflow makes the version."""
        bundle = Bundle.from_files(files)
        with tempfile.TemporaryDirectory(prefix="sparkdl-registry-") as folder:
            bundle.to_mlflow(f"{folder}/{_ARTIFACTS}")
            run = self._client.create_run(self._experiment(), run_name=f"{name} {digest[:12]}")
            self._client.log_artifacts(run.info.run_id, f"{folder}/{_ARTIFACTS}", _ARTIFACTS)
            self._client.set_terminated(run.info.run_id)
        if self._or_none(self._client.get_registered_model, name) is None:
            with suppress(self._absent):  # another one made it meanwhile; if not, the next call says why
                self._client.create_registered_model(name)
        made = self._client.create_model_version(
            name,
            source=f"{run.info.artifact_uri}/{_ARTIFACTS}",
            run_id=run.info.run_id,
            tags={_DIGEST: digest, _BY: by},
            description=note or None,
        )
        return int(made.version)

    def move(self, name: str, alias: str, version: int, by: str, may: May) -> None:
        """The alias first: were this to break off between, a move would lack in the history, not one be told that was
        not made."""
        before = self.current(name, alias)
        may(before)
        self._client.set_registered_model_alias(name, alias, str(version))
        told = asdict(Move(alias, version, before, time.time(), by))
        self._client.set_registered_model_tag(name, f"{_MOVE}{uuid.uuid4().hex}", json.dumps(told))

    def load(self, name: str, version: Version, trusted: bool | Collection[str]) -> Bundle:
        """By way of a folder that is gone thereafter."""
        from mlflow.artifacts import download_artifacts

        uri = self._client.get_model_version_download_uri(name, str(version.number))
        with tempfile.TemporaryDirectory(prefix="sparkdl-registry-") as folder:
            place = Path(download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=self._tracking))
            bundle = Bundle.from_mlflow(str(place), trusted=trusted)  # type: ignore[arg-type]
        if version.digest and bundle.digest != version.digest:
            raise BundleIntegrityError(
                f"version {version.number} of {name!r} in {self.uri} is another bundle, of digest {bundle.digest}, than "
                "was published; publish the right one again",
                uri=uri,
                file="manifest.json",
            )
        return bundle

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            with suppress(self._absent):  # another one made it meanwhile
                return str(self._client.create_experiment(EXPERIMENT))
            found = self._client.get_experiment_by_name(EXPERIMENT)
        return str(found.experiment_id)

    def _or_none(self, ask: Any, *what: str) -> Any:
        """What MLflow answers; None where it says that there is no such thing."""
        try:
            return ask(*what)
        except self._absent as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None


def _all(search: Any, **how: Any) -> list[Any]:
    """All pages of what a search of MLflow gives."""
    found: list[Any] = []
    token = None
    while True:
        page = search(page_token=token, **how)
        found += page
        token = page.token
        if not token:
            return found


def _version(found: Any) -> Version:
    tags = found.tags
    by = tags.get(_BY) or found.user_id or ""
    return Version(
        int(found.version), tags.get(_DIGEST, ""), found.creation_timestamp / 1000, by, found.description or ""
    )
