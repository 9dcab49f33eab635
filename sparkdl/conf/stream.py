"""The confs of the jobs score_stream and replay_dead_letters."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sparkdl.conf.base import Conf
from sparkdl.errors import did_you_mean

SINKS = {
    "parquet": ("uri", "partitionBy", "compression"),
    "delta": ("uri", "partitionBy"),
    "kafka": ("servers", "topic", "key", "options"),
}
_NEEDED = {"parquet": ("uri",), "delta": ("uri",), "kafka": ("servers", "topic")}
PAYLOADS = ("json", "avro", "protobuf")
_FILES = ("parquet", "json", "csv", "orc", "text", "delta", "avro")  # of a path
_SCHEMALESS = ("kafka", "delta", "rate", "rate-micro-batch", "socket")  # that bring their own columns


def one_of(value: str, options: Any) -> str:
    """``value``, if it is one of ``options``; for a validator."""
    if value not in options:
        raise ValueError(f"must be one of {list(options)}{did_you_mean(str(value), options)} (got {value!r})")
    return value


def known_params(value: dict[str, Any]) -> dict[str, Any]:
    """``value``, if its keys are Params of TorchModel; for a validator."""
    from sparkdl.params import MODEL_DEFAULTS

    for name in value:
        if name not in MODEL_DEFAULTS:
            raise ValueError(f"TorchModel has no Param {name!r}{did_you_mean(name, MODEL_DEFAULTS)}")
    return value


class SourceConf(Conf):
    """Where events come from, as ``spark.readStream`` is told it."""

    format: str = Field(description="parquet, json, csv, kafka, delta, or any other that spark.readStream has")
    path: str | None = Field(None, description="the folder in which files arrive, or the Delta table")
    columns: str | None = Field(None, description="the files' columns, as DDL: id bigint, image array<float>")
    options: dict[str, str | int | float | bool] = Field(default_factory=dict, description="options of the format")

    @model_validator(mode="after")
    def _complete(self) -> SourceConf:
        if self.format in _FILES and not self.path:
            raise ValueError(f"a source of format {self.format!r} needs a path")
        if self.format in _FILES and self.format not in _SCHEMALESS and not self.columns:
            raise ValueError(f"a source of format {self.format!r} needs its columns, as DDL: id bigint, x array<float>")
        if self.format == "kafka" and self.columns:
            raise ValueError("Kafka has columns of its own; what is in value, payload says")
        return self


class PayloadConf(Conf):
    """What is packed into one column of the events; see ``sparkdl.payloads``."""

    format: str = Field(description="json, avro or protobuf")
    schema_: str | None = Field(
        None, alias="schema", description="the fields: DDL for json, the schema's JSON for avro"
    )
    message: str | None = Field(None, description="protobuf: the message's full name")
    descriptor: str | None = Field(None, description="protobuf: the file of descriptors that protoc writes")
    column: str = Field("value", description="the column that holds it")
    options: dict[str, str] | None = Field(None, description="options of Spark's function that reads it")

    _format = field_validator("format")(classmethod(lambda cls, value: one_of(value, PAYLOADS)))

    @model_validator(mode="after")
    def _complete(self) -> PayloadConf:
        there = {"schema": self.schema_, "message": self.message, "descriptor": self.descriptor}
        for name in ("message", "descriptor") if self.format == "protobuf" else ("schema",):
            if not there.pop(name):
                raise ValueError(f"a payload of format {self.format!r} needs {name}")
        for name, value in there.items():
            if value is not None:
                raise ValueError(f"a payload of format {self.format!r} has no {name}")
        return self


class SinkConf(Conf):
    """Where rows go; see ``sparkdl.sinks``."""

    kind: str = Field(description="parquet, delta or kafka")
    uri: str | None = Field(None, description="parquet, delta: the table")
    partitionBy: list[str] | None = Field(None, description="parquet, delta: columns that become folders")
    compression: str | None = Field(None, description="parquet: snappy, zstd, gzip, lz4 or none")
    servers: str | None = Field(None, description="kafka: host:port, separated by commas")
    topic: str | None = Field(None, description="kafka: where rows are written to")
    key: str | None = Field(None, description="kafka: the column that is a record's key")
    options: dict[str, str] | None = Field(None, description="kafka: options of Spark's Kafka writer")

    _kind = field_validator("kind")(classmethod(lambda cls, value: one_of(value, SINKS)))

    @model_validator(mode="after")
    def _of_its_kind(self) -> SinkConf:
        for name in self.told:
            if name not in SINKS[self.kind]:
                raise ValueError(f"a sink of kind {self.kind!r} has no {name}; its keys are {list(SINKS[self.kind])}")
        for name in _NEEDED[self.kind]:
            if name not in self.told:
                raise ValueError(f"a sink of kind {self.kind!r} needs {name}")
        return self

    @property
    def told(self) -> dict[str, Any]:
        """The keys that were given, but ``kind``."""
        return {name: value for name, value in self if name != "kind" and value is not None}


class MonitorConf(Conf):
    """How a query is watched; see ``sparkdl.stream.monitor``."""

    jsonl: str | None = Field(None, description="file to which events are written, a line each")
    prometheus: int | str | None = Field(
        None, description="port, or host:port, of the exporter; the loopback by default"
    )
    token: str | None = Field(
        None, description="that requests to the exporter must bring, if it is not on the loopback"
    )
    alerts: list[dict[str, Any]] = Field(
        default_factory=list, description="maps of metric, above or below, over, action, url"
    )
    window: float = Field(60.0, gt=0, description="seconds that speed, latency and shares are looked at over")
    driftWindow: float = Field(600.0, gt=0, description="seconds that drift is looked at over")

    @field_validator("alerts")
    @classmethod
    def _good_alerts(cls, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        from sparkdl.stream.alerts import Alert

        for told in value:  # a URL may hold a secret, which is not known here
            Alert.of({**told, "url": "http://host"} if "${env:" in str(told.get("url")) else told)
        return value


class _Scoring(Conf):
    model: str = Field(description="a bundle's URI, or registry://NAME@ALIAS")
    registry: str | None = Field(None, description="the registry's URI; the session's by default")
    settings: dict[str, Any] = Field(default_factory=dict, description="Params of TorchModel")
    sink: SinkConf = Field(description="where scored rows go")
    payload: PayloadConf | None = Field(None, description="what is packed into a column of the events")
    columns: list[str] | None = Field(None, description="columns of the events that the sink gets; all if none")
    monitor: MonitorConf | None = Field(None, description="how the query is watched")
    name: str | None = Field(None, description="of the query, for Spark's UI and the monitor")

    _settings = field_validator("settings")(classmethod(lambda cls, value: known_params(value)))


class ScoreStreamConf(_Scoring):
    """The job score_stream."""

    source: SourceConf = Field(description="where events come from")
    checkpoint: str = Field(description="where the query keeps what it has done")
    mode: str = Field("microbatch", description="microbatch, realtime (Spark 4.3, Kafka to Kafka), or auto")
    deadLetter: SinkConf | None = Field(None, description="where rows that cannot be scored go: a URI, or a sink's map")
    trigger: str | None = Field(
        None,
        description="time between micro-batches, 1 second by default, or 'available now' to stop at the end; in real time "
        "between commits of offsets, 5 minutes by default",
    )
    challenger: str | None = Field(None, description="a second model, scored beside the first and compared")
    share: float = Field(0.0, ge=0, le=1, description="of the rows that the challenger serves")
    shareBy: str | None = Field(None, description="the column whose hash decides which rows these are")

    @field_validator("deadLetter", mode="before", json_schema_input_type=SinkConf | str | None)
    @classmethod
    def _table(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": "parquet", "uri": value}
        if isinstance(value, dict) and "kind" in value:
            one_of(value["kind"], SINKS)
        return value

    @field_validator("mode")
    @classmethod
    def _known_mode(cls, value: str) -> str:
        from sparkdl.stream.start import MODES

        return one_of(value, MODES)

    @field_validator("deadLetter")
    @classmethod
    def _can_be_replayed(cls, value: SinkConf | None, info: ValidationInfo) -> SinkConf | None:
        if value is not None and value.kind == "kafka" and info.data.get("mode") == "microbatch":
            raise ValueError("one of kind 'kafka' is for mode realtime; name a table: parquet or delta")
        return value


class ReplayConf(_Scoring):
    """The job replay_dead_letters."""

    deadLetter: str = Field(description="the URI of the dead letters, a table of Parquet")
    checkpoint: str | None = Field(None, description="what was replayed already; DEADLETTER.replay by default")
