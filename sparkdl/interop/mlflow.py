"""MLflow: bundles as pyfunc models that any MLflow client runs, and MLflow's pytorch models as bundles."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from torch import nn

from sparkdl import columns, store
from sparkdl.bundle import Bundle
from sparkdl.errors import BundleError, BundleNotFoundError, SignatureError, UntrustedBundleError
from sparkdl.interop.common import needed
from sparkdl.signature import Signature

if TYPE_CHECKING:
    import pandas as pd

_DATA = "bundle"
_TYPES = {
    "byte": "integer",
    "short": "integer",
    "decimal": "double",
    "date": "datetime",
    "timestamp": "datetime",
}  # of Spark that MLflow lacks; others are named alike


def bundle(uri: str, signature: Signature | None, trusted: bool, options: Mapping[str, Any]) -> Bundle:
    """See ``Bundle.from_mlflow``."""
    needed("mlflow", "mlflow")
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    try:
        place = _folder(uri)
        flavors = Model.load(os.fspath(place)).flavors
    except (MlflowException, OSError) as error:
        raise BundleNotFoundError(f"there is no MLflow model at {uri!r}: {error}", uri=uri) from error
    ours = flavors.get("python_function", {})
    if ours.get("loader_module") == __name__:
        return Bundle.load(os.fspath(place / _DATA), trusted=trusted)
    if "pytorch" not in flavors:
        raise BundleError(
            f"the MLflow model at {uri!r} has the flavours {sorted(flavors)}, not pytorch, and is not one of to_mlflow",
            uri=uri,
        )
    if trusted is not True:
        raise UntrustedBundleError(
            f"the MLflow model at {uri!r} is a pickle, and loading it runs its code; if you trust where it comes from, "
            "say trusted=True",
            uri=uri,
        )
    import mlflow.pytorch

    module: nn.Module = mlflow.pytorch.load_model(os.fspath(place), map_location="cpu")
    if signature is None:
        raise SignatureError(
            "an MLflow pytorch model does not tell its tensors as a bundle does; give a signature",
            column=None,
            expected="a signature",
            got=None,
        )
    return Bundle.from_module(module, signature, **{"trusted": True, **options})


def _folder(uri: str) -> Path:
    if re.match(r"[a-z0-9+]+:/", uri) and not uri.startswith("file:"):
        from mlflow.artifacts import download_artifacts

        return Path(download_artifacts(artifact_uri=uri))
    return Path(store.resolve(uri)[1])


def save(bundle: Bundle, path: str) -> None:
    """See ``Bundle.to_mlflow``."""
    needed("mlflow", "mlflow")
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    bundle.program.check_trust(False)  # MLflow's clients have no way to say that they trust it
    place = Path(path)
    if place.exists() and any(place.iterdir()):
        raise BundleError(f"there is something at {path!r} already", uri=path)
    bundle.save(os.fspath(place / _DATA))
    inputs = {
        column: _mlflow_type(kind)
        for spec in bundle.signature.inputs
        for column, kind in zip(spec.columns, spec.types, strict=True)
    }
    outputs = {name: _mlflow_type(columns.spark_json(kind)) for name, kind in columns.answers(bundle.signature).items()}
    inputs_schema, outputs_schema = (
        Schema([ColSpec(name=name, type=kind) for name, kind in side.items()]) for side in (inputs, outputs)
    )
    model = Model(signature=ModelSignature(inputs_schema, outputs_schema))
    pyfunc.add_to_model(model, loader_module=__name__, data=_DATA)
    model.save(os.fspath(place / "MLmodel"))


def _mlflow_type(kind: Any) -> Any:
    """MLflow's type of a column, from that of Spark: ``array<float>``, ``long``, or as the JSON values of a schema."""
    from mlflow.types import DataType
    from mlflow.types.schema import Array, Object, Property

    if isinstance(kind, dict) and kind["type"] == "array":
        return Array(_mlflow_type(kind["elementType"]))
    if isinstance(kind, dict):
        return Object([Property(one["name"], _mlflow_type(one["type"])) for one in kind["fields"]])
    if kind == "vector":
        return Array(DataType.double)
    inner = re.fullmatch(r"array<(.*)>", kind)
    return Array(_mlflow_type(inner[1])) if inner else DataType[_TYPES.get(kind, kind)]


def _load_pyfunc(path: str) -> _Predicting:
    """What MLflow calls with the folder of the bundle."""
    return _Predicting(Bundle.load(path))


class _Predicting:
    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, frame: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """A frame with the signature's columns in, one with a column an output out. Raises DataError for a bad row."""
        import pandas as pd

        signature = self.bundle.signature
        signature.check_columns(frame.columns)
        named = {name: _arrow(frame[name]) for name in signature.columns}
        inputs = {spec.name: columns.read(named, spec) for spec in signature.inputs if spec.columns}
        made = columns.answered(signature, self.bundle.predict(inputs), named)
        return pd.DataFrame({name: _series(column) for name, column in made.items()})


def _arrow(values: pd.Series) -> pa.Array:
    if values.dtype == object and any(isinstance(value, np.ndarray) and value.ndim > 1 for value in values):
        values = values.map(lambda value: value.tolist())
    return pa.array(values.tolist() if values.dtype == object else values, from_pandas=True)


def _series(column: pa.Array) -> Any:
    return column.to_pylist() if pa.types.is_nested(column.type) else column.to_pandas()
