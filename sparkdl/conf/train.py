"""The conf of the job train."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from sparkdl.conf.base import Conf
from sparkdl.conf.stream import one_of
from sparkdl.errors import did_you_mean


class TrainConf(Conf):
    """The job train."""

    data: str = Field(description="Parquet table to train on")
    test: str | None = Field(None, description="Parquet table to report held-out figures on")
    model: str | None = Field(None, description="import path of what makes the module, package.module:name")
    application: str | None = Field(None, description="a ready estimator, such as ImageClassifier, instead of a model")
    bundle: str = Field(description="where the bundle is written")
    overwrite: bool = Field(False, description="replace a bundle that is there")
    graph: bool = Field(False, description="put the model's ONNX graph, which runs without Python, into the bundle")
    resume: bool = Field(
        False, description="go on with the run in estimator.checkpointDir that was interrupted, if any"
    )
    estimator: dict[str, Any] = Field(
        default_factory=dict, description="Params of TorchEstimator, or of the ready estimator"
    )

    @field_validator("application")
    @classmethod
    def _known_application(cls, value: str | None) -> str | None:
        from sparkdl.ready import NAMES

        return value if value is None else one_of(value, NAMES)

    @model_validator(mode="after")
    def _known_params(self) -> TrainConf:
        if (self.model is None) == (self.application is None):
            raise ValueError("model: say this, or application, and not both")
        from sparkdl.estimator import TorchEstimator
        from sparkdl.ready import estimator_named

        made = estimator_named(self.application)() if self.application else TorchEstimator()
        known = [param.name for param in made.params if param.name != "model"]
        for name in self.estimator:
            if name not in known:
                raise ValueError(f"estimator: {type(made).__name__} has no Param {name!r}{did_you_mean(name, known)}")
        return self

    @model_validator(mode="after")
    def _resumable(self) -> TrainConf:
        if self.resume and not self.estimator.get("checkpointDir"):
            raise ValueError("resume: needs estimator.checkpointDir, where runs keep their checkpoints")
        return self
