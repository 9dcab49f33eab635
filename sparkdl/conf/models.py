"""The confs of the jobs evaluate, publish and drift_report: what is done with a model that there is."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from sparkdl.conf.base import Conf
from sparkdl.conf.stream import known_params


class _OfModel(Conf):
    model: str = Field(description="a bundle's URI, or registry://NAME@ALIAS")
    registry: str | None = Field(None, description="the registry's URI; the session's by default")
    settings: dict[str, Any] = Field(default_factory=dict, description="Params of TorchModel")

    _settings = field_validator("settings")(classmethod(lambda cls, value: known_params(value)))


class EvaluateConf(_OfModel):
    """The job evaluate."""

    data: str = Field(description="Parquet table that the model was not trained on")
    label: str = Field(description="its column that holds the truth")
    output: str | None = Field(None, description="where the figures are written, as JSON")
    thresholds: dict[str, float] = Field(
        default_factory=dict, description="figures that must be at least, or where lower is better at most, this"
    )

    @field_validator("thresholds")
    @classmethod
    def _known_figures(cls, value: dict[str, float]) -> dict[str, float]:
        from sparkdl.evaluate import check_names

        check_names(value)
        return value


class BeatsConf(Conf):
    """What a bundle must be better than to be published."""

    evaluation: str = Field(description="what evaluate wrote of this bundle")
    champion: str = Field(description="what evaluate wrote of the model that the alias names now")
    figure: str = Field(description="which figure is compared: accuracy, rmse, …")
    by: float = Field(0.0, ge=0, description="by how much, at least; 0: any more")


class PublishConf(Conf):
    """The job publish."""

    bundle: str = Field(description="the bundle's URI")
    name: str = Field(description="the model's name in the registry")
    registry: str | None = Field(None, description="the registry's URI; the session's by default")
    bundles: str | None = Field(None, description="the folder of bundles of a registry in a database")
    alias: str | None = Field(None, description="that is to name this version: champion, say")
    note: str = Field("", description="kept with the version")
    beats: BeatsConf | None = Field(None, description="publish only what is better than what the alias names now")

    @model_validator(mode="after")
    def _complete(self) -> PublishConf:
        if self.beats and not self.alias:
            raise ValueError("beats: takes an alias, whose model the bundle is compared with")
        return self


class DriftReportConf(_OfModel):
    """The job drift_report."""

    source: str = Field(description="Parquet or Delta table, scored already or not")
    output: str | None = Field(None, description="where the page is written, as HTML")
    json_: str | None = Field(None, alias="json", description="where the figures are written, as JSON")
    threshold: float | None = Field(None, gt=0, description="PSI of a feature above which the job's status is 4")
