"""The conf of the job score_batch."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from sparkdl.conf.base import Conf


class ScoreBatchConf(Conf):
    """The job score_batch."""

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
