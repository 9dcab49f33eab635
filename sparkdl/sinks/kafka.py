"""Rows into a Kafka topic as JSON, at least once, each with a header by which a reader drops what came twice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparkdl import connectors
from sparkdl.errors import ColumnNotFoundError, InvalidParamError, SinkError, SinkUnreachableError
from sparkdl.signature import quoted
from sparkdl.sinks import staged as files
from sparkdl.sinks.sink import Sink, Staged

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# A batch is some MB at once: Kafka's own 16 KiB would make hundreds of requests of it.
SENDING = {"kafka.batch.size": "262144", "kafka.linger.ms": "5"}
_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")  # Kafka's own rule for names


@dataclass(frozen=True)
class Kafka(Sink):
    """A Kafka topic. At least once: a batch that was cut off while it was sent is sent again, with the same headers.

    A record's value is the row as a JSON object, nulls included; binary columns come as base64 texts, NaN and infinities
    as the texts "NaN" and "Infinity", timestamps in the session's time zone with its offset. Its key is the column
    ``key``, bytes as they are, all else as text. Its headers, all texts: ``sparkdl-id``, the same each time the row is
    sent and another for every row: ``topic-partition-offset`` of the row's source where the rows have these columns, else
    ``query-batch-file-row``; ``sparkdl-query``, ``sparkdl-batch``, and, if there is such a column,
    ``sparkdl-model-version``. Where one record of the source becomes several rows, leave those columns out.

    servers: ``host:port``, several separated by commas. options: ``kafka.*`` as Spark's connector takes them
    (``kafka.security.protocol``, ``kafka.sasl.jaas.config``, …); they are neither shown nor written down. Records go
    256 KiB at a time unless ``kafka.batch.size`` says otherwise. Needs the connector's jar. Raises InvalidParamError for arguments of another kind.
    """

    servers: str
    topic: str
    key: str | None = None
    options: Mapping[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("servers", "topic"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise InvalidParamError(f"{name!r} must be a text (got {value!r})", param=name, value=value)
        if not _TOPIC.fullmatch(self.topic):
            raise InvalidParamError(
                f"'topic' must be 1 to 249 letters, digits, '.', '_' or '-' (got {self.topic!r})",
                param="topic",
                value=self.topic,
            )
        options = self.options or {}
        strange = [name for name in options if not str(name).startswith("kafka.") or name == "kafka.bootstrap.servers"]
        if strange or not all(isinstance(value, str) for value in options.values()):
            raise InvalidParamError(
                f"'options' must be texts under names that begin with 'kafka.', but 'kafka.bootstrap.servers', which is "
                f"'servers' (got the names {sorted(map(str, options))})",
                param="options",
                value=sorted(map(str, options)),
            )

    @property
    def identity(self) -> dict[str, Any]:
        """Its kind, servers, topic and key; no options."""
        return {"kind": "kafka", "servers": self.servers, "topic": self.topic, "key": self.key}

    def check(self, spark: SparkSession, schema: Mapping[str, Any]) -> None:
        """Refuse: no connector, no column ``key``, a column that hides the files' own, brokers that do not answer within
        10 s, a topic that is not there and that the broker does not make by itself."""
        names = [told["name"] for told in schema["fields"]]
        if self.key is not None and self.key not in names:
            raise ColumnNotFoundError(self.key, names, role="the Kafka sink's key, column")
        if not set(connectors.POSITION) <= set(names) and "_metadata" in names:
            raise self._error(
                "a column called '_metadata' hides where a row lies in its file, which the header sparkdl-id tells: rename it"
            )
        conf = connectors.lacking(spark, "org/apache/spark/sql/kafka010/KafkaSourceProvider", "spark-sql-kafka-0-10")
        if conf:
            raise self._error(f"it takes Spark's Kafka connector: start the session with {conf}")
        self._check_topic(spark)

    def _check_topic(self, spark: SparkSession) -> None:
        from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped,import-not-found]

        try:
            with connectors.kafka_admin(spark, self.servers, self.options or {}) as admin:
                topics = set(admin.listTopics().names().get())
                if self.topic not in topics and not self._makes_topics(spark, admin):
                    raise self._error(
                        f"there is no topic {self.topic!r}, and the broker makes none by itself: create it"
                    )
        except connectors.NoClientError as error:
            raise self._error(str(error)) from None
        except Py4JJavaError as error:
            told = f"the brokers do not answer as they should: {connectors.in_one_line(error)}"
            silent = "TimeoutException" in str(error.java_exception)
            raise self._error(told, SinkUnreachableError if silent else SinkError) from None

    def _makes_topics(self, spark: SparkSession, admin: Any) -> bool:
        """True unless the broker says that it makes no topics; who may not ask has to find out."""
        from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped,import-not-found]

        node = admin.describeCluster().nodes().get().iterator().next().idString()
        try:
            config = connectors.kafka_config(spark, admin, "BROKER", node)
        except Py4JJavaError as error:
            if "Authorization" in str(error.java_exception):
                return True
            raise
        entry = config.get("auto.create.topics.enable")
        return entry is None or entry.value() == "true"

    def commit(self, spark: SparkSession, staged: Staged) -> None:
        """Send the batch's rows, in one Spark job; nothing for a batch without rows."""
        if not staged.files:
            return
        files.checked(staged, self._place)
        writer = self._records(spark, staged).write.format("kafka")
        writer = writer.options(**{**SENDING, **(self.options or {})}).option("kafka.bootstrap.servers", self.servers)
        try:
            writer.option("topic", self.topic).option("includeHeaders", "true").save()
        except Exception as error:
            raise self._error(
                f"batch {staged.batch} was not sent whole: {connectors.in_one_line(error)}", batch=staged.batch
            ) from error

    def _records(self, spark: SparkSession, staged: Staged) -> DataFrame:
        """The batch as records: SQL's texts, for each Column that Python makes costs the driver a round trip."""
        rows = files.rows(spark, staged)
        headers = {
            "sparkdl-id": _identifier(rows, staged),
            "sparkdl-query": f"'{staged.query}'",
            "sparkdl-batch": f"'{staged.batch}'",
        }
        if "model_version" in rows.columns:
            headers["sparkdl-model-version"] = "model_version"
        chosen = [f"{row_text(map(quoted, rows.columns))} as value", f"{header_array(headers)} as headers"]
        if self.key is not None:
            kind = rows.schema[self.key].dataType.typeName()
            chosen.append(f"{key_of(quoted(self.key), kind)} as key")
        return rows.selectExpr(*chosen)

    @property
    def _place(self) -> str:
        return f"Kafka {self.topic} at {self.servers}"

    def _error(self, what: str, kind: type[SinkError] = SinkError, **fields: Any) -> SinkError:
        return kind(f"the sink {self._place}: {what}", sink=self._place, **fields)


def row_text(columns: Iterable[str]) -> str:
    """As SQL: these columns, themselves SQL with a name each, as the text of a JSON object."""
    return f"to_json(struct({', '.join(columns)}), map('ignoreNullFields', 'false'))"


def header_array(headers: Mapping[str, str]) -> str:
    """As SQL: headers of a record, by name what SQL gives their texts."""
    told = [f"struct('{name}' as key, cast({text} as binary) as value)" for name, text in headers.items()]
    return f"array({', '.join(told)})"


def key_of(column: str, kind: str) -> str:
    """As SQL: a column, itself SQL, of this type, as a record's key: bytes as they are, all else as text."""
    return column if kind == "binary" else f"cast({column} as string)"


def _identifier(rows: DataFrame, staged: Staged) -> str:
    """As SQL: where the row came from, or where it lies in the staged files, which a replay sends again."""
    own = f"concat('{staged.query}-{staged.batch}-', _metadata.file_name, '-', _metadata.row_index)"
    if not set(connectors.POSITION) <= set(rows.columns):
        return own
    source = "concat(topic, '-', `partition`, '-', `offset`)"
    # concat is null where a part is: rows of a join may lack their source.
    return f"coalesce({source}, {own})" if "_metadata" not in rows.columns else source
