"""The conf of the job score_batch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from sparkdl.conf.base import Conf
from sparkdl.conf.stream import known_params


class ScoreBatchConf(Conf):
    """The job score_batch: one table, or with ``slot`` a table a day, an hour or a partition."""

    source: str = Field(
        description="Parquet or Delta table to score; of slots with a placeholder, as in events/day={date}, {date:%Y/%m/%d}/{hour}"
    )
    model: str = Field(description="a bundle's URI, or registry://NAME@ALIAS")
    registry: str | None = Field(None, description="the registry's URI; the session's by default")
    output: str = Field(
        description="where the scored table is written, as Parquet; of slots the folder of their tables"
    )
    columns: list[str] | None = Field(
        None, description="columns of the source that the scored table keeps; all if none"
    )
    partitionBy: list[str] = Field(default_factory=list, description="columns that become folders")
    rowGroupSize: int | None = Field(None, description="rows to a row group")
    compression: str = Field("snappy", description="snappy, zstd, gzip, lz4 or none")
    overwrite: bool = Field(False, description="replace a table that is there")
    settings: dict[str, Any] = Field(default_factory=dict, description="Params of TorchModel")
    maxInvalid: float | None = Field(None, ge=0, le=1, description="share of bad rows above which the job ends with 4")
    slot: Literal["day", "hour", "partition"] | None = Field(None, description="what is scored exactly once")
    partition: str | None = Field(
        None, description="slot: partition: the column that the output's folders are called by"
    )
    ledger: str | None = Field(
        None, description="sqlite:///FILE or postgresql://USER@HOST/DATABASE; a file in the output, if that is local"
    )
    lease: float = Field(60.0, ge=1, description="seconds after which a run that is not heard of loses its slot")
    wait: float = Field(0.0, ge=0, description="seconds to wait for slots that another run works on")
    parallel: int = Field(1, ge=1, le=64, description="slots that are scored at a time")
    lateInput: Literal["report", "rescore"] = Field(
        "report", description="what to do when a slot's input changed after it was scored"
    )

    _settings = field_validator("settings")(classmethod(lambda cls, value: known_params(value)))

    @model_validator(mode="after")
    def _of_slots(self) -> ScoreBatchConf:
        from sparkdl.slots.slot import check_template

        check_template(self.source, self.slot)
        if (self.slot == "partition") != (self.partition is not None):
            raise ValueError(
                "slot: partition goes with the name of a column, as in partition: region "
                f"(got slot: {self.slot}, partition: {self.partition})"
            )
        if self.partition is not None and (not self.partition or set(self.partition) & set("/=")):
            raise ValueError(f"partition must be a column's name (got {self.partition!r})")
        if self.slot and self.overwrite:
            raise ValueError("overwrite is of one table; slots are replaced with --rescore")
        alone = {"ledger", "lease", "wait", "parallel", "lateInput"} & self.model_fields_set
        if not self.slot and alone:
            raise ValueError(f"{min(alone)} is of slots: say slot: day, hour or partition")
        return self
