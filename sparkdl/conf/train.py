"""The conf of the job train."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from sparkdl.conf.base import Conf
from sparkdl.errors import did_you_mean


class TrainConf(Conf):
    """The job train."""

    data: str = Field(description="Parquet table to train on")
    test: str | None = Field(None, description="Parquet table to report held-out figures on")
    model: str = Field(description="import path of what makes the module, package.module:name")
    bundle: str = Field(description="where the bundle is written")
    overwrite: bool = Field(False, description="replace a bundle that is there")
    resume: bool = Field(
        False, description="go on with the run in estimator.checkpointDir that was interrupted, if any"
    )
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

    @model_validator(mode="after")
    def _resumable(self) -> TrainConf:
        if self.resume and not self.estimator.get("checkpointDir"):
            raise ValueError("resume: needs estimator.checkpointDir, where runs keep their checkpoints")
        return self
