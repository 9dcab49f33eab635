"""The jobs' confs: YAML, checked by typed models before anything runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sparkdl.errors import ConfError, did_you_mean


class _Conf(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class TrainConf(_Conf):
    """jobs/train.py."""

    data: str = Field(description="Parquet table to train on")
    test: str | None = Field(None, description="Parquet table to report held-out figures on")
    model: str = Field(description="import path of what makes the module, package.module:name")
    bundle: str = Field(description="where the bundle is written")
    overwrite: bool = Field(False, description="replace a bundle that is there")
    estimator: dict[str, Any] = Field(default_factory=dict, description="Params of TorchEstimator")

    @field_validator("estimator")
    @classmethod
    def _known_params(cls, value: dict[str, Any]) -> dict[str, Any]:
        from sparkdl.estimator import TorchEstimator

        known = [param.name for param in TorchEstimator().params if param.name != "model"]
        for name in value:
            if name not in known:
                raise ValueError(f"TorchEstimator has no Param {name!r}{did_you_mean(name, known)}")
        return value


class ScoreBatchConf(_Conf):
    """jobs/score_batch.py."""

    source: str = Field(description="Parquet or Delta table to score")
    bundle: str = Field(description="the model")
    output: str = Field(description="where the scored table is written, as Parquet")
    columns: list[str] | None = Field(
        None, description="columns of the source that the scored table keeps; all if none"
    )
    partitionBy: list[str] = Field(default_factory=list, description="columns that become folders")
    rowGroupSize: int | None = Field(None, description="rows to a row group")
    compression: str = Field("snappy", description="snappy, zstd, gzip, lz4 or none")
    overwrite: bool = Field(False, description="replace a table that is there")
    model: dict[str, Any] = Field(default_factory=dict, description="Params of TorchModel")


class ScoreStreamConf(_Conf):
    """jobs/score_stream.py."""

    source: str = Field(description="directory in which Parquet files arrive")
    columns: str = Field(description="the files' columns, as DDL: id bigint, image array<float>")
    bundle: str = Field(description="the model")
    output: str = Field(description="where scored rows are written, as Parquet")
    checkpoint: str = Field(description="where the query keeps what it has done")
    trigger: str = Field("1 second", description="time between micro-batches, or 'available now' to stop at the end")
    model: dict[str, Any] = Field(default_factory=dict, description="Params of TorchModel")


C = TypeVar("C", bound=_Conf)


def load(kind: type[C], path: str) -> C:
    """The conf in the YAML file at ``path``. Raises ConfError naming file, key, value and what was expected."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfError(f"cannot read the conf {path!r}: {error.strerror}", path=path, key=None) from error
    except yaml.YAMLError as error:
        raise ConfError(f"{path} is not YAML: {error}", path=path, key=None) from error
    if not isinstance(content, dict):
        raise ConfError(
            f"{path} must be a map of keys to values (got {type(content).__name__}); its keys are {list(kind.model_fields)}",
            path=path,
            key=None,
        )
    try:
        return kind(**content)
    except ValidationError as error:
        lines = [_explained(found, kind) for found in error.errors()]
        key = str(error.errors()[0]["loc"][0])
        raise ConfError(f"{path}:\n  " + "\n  ".join(lines), path=path, key=key) from error


def _explained(found: Any, kind: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        return f"{key}: there is no such key{did_you_mean(key, kind.model_fields)}"
    if found["type"] == "missing":
        return f"{key}: is missing ({kind.model_fields[key].description})"
    return f"{key}: {found['msg']} (got {found['input']!r})"


def of_command_line(kind: type[C]) -> C:
    """The conf named by the job's one argument; a bad one ends the job with its message and exit status 2."""
    if len(sys.argv) != 2:
        print(f"usage: spark-submit {sys.argv[0]} CONF.yaml", file=sys.stderr)
        raise SystemExit(2)
    try:
        return load(kind, sys.argv[1])
    except ConfError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
