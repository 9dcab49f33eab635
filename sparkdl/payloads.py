"""What a stream's records hold: JSON, Avro or Protobuf, parsed by Spark's own functions; what cannot be parsed is told.

::

    sparkdl.score_stream(events, payload=sparkdl.payloads.JSON("id bigint, features array<float>"), …)

``parse`` works on streaming and on batch DataFrames alike, and without ``score_stream``.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sparkdl import connectors, store
from sparkdl.errors import ColumnNotFoundError, InvalidParamError, SignatureError, SparkdlError
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

PARSED, UNPARSABLE = "__parsed__", "__unparsable__"
SHOWN = 100  # characters of a record in a reason
_RAW, _MARK = "__raw__", "__sparkdl_mark__"


class Payload(ABC):
    """How the bytes or the text of a column hold a record. kind: the format's name. See JSON, Avro, Protobuf."""

    kind: ClassVar[str]
    own: ClassVar[tuple[str, ...]] = ("mode",)  # options that are not the user's to set
    column: str
    options: Mapping[str, str] | None

    @abstractmethod
    def _decoded(self, spark: SparkSession, value: Column) -> Column:
        """A struct of the fields and, for some, ``_MARK``; see ``_marked``."""

    @abstractmethod
    def _is_fine(self, raw: Column, value: Column, names: list[str]) -> Column:
        """True where ``raw``, what ``_decoded`` gave, is the record."""


def _check(payload: Payload, texts: tuple[str, ...]) -> None:
    for name in (*texts, "column"):
        value = getattr(payload, name)
        if not isinstance(value, str) or not value.strip():
            raise InvalidParamError(f"{name!r} must be a text (got {value!r})", param=name, value=value)
    options = payload.options or {}
    taken = [name for name in options if str(name).lower() in map(str.lower, payload.own)]
    if taken or not all(isinstance(text, str) for pair in options.items() for text in pair):
        raise InvalidParamError(
            f"'options' must be a dict of texts without {list(payload.own)}, which parsing sets (got {dict(options)!r})",
            param="options",
            value=dict(options),
        )


@dataclass(frozen=True)
class JSON(Payload):
    """A JSON object to a record, read by Spark's ``from_json``.

    schema: the fields as DDL, ``"id bigint, features array<float>"``. Fields that the schema lacks are ignored, those that
    a record lacks are null. A field of another type makes the record unparsable, and so does text that is no object, an
    array of objects too. Binary fields (images, sounds) are base64 texts. What follows the object in a record is not looked
    at. column: of the records, text or bytes in UTF-8. options: of Spark's JSON source.
    """

    schema: str
    column: str = "value"
    options: Mapping[str, str] | None = None
    kind: ClassVar[str] = "JSON"
    own: ClassVar[tuple[str, ...]] = ("mode", "columnNameOfCorruptRecord")

    def __post_init__(self) -> None:
        _check(self, ("schema",))

    def _decoded(self, spark: SparkSession, value: Column) -> Column:
        from pyspark.sql import functions as f
        from pyspark.sql.types import StringType, StructField, StructType

        kind = spark.range(0).select(f.from_json(f.lit("{}"), self.schema).alias("_")).schema["_"].dataType
        if not isinstance(kind, StructType) or not kind.fields:
            raise _no_schema(self.schema, f"it tells {kind.simpleString()}, not a record's fields")
        fields = StructType([*kind.fields, StructField(_MARK, StringType())])
        options = {**(self.options or {}), "mode": "PERMISSIVE", "columnNameOfCorruptRecord": _MARK}
        return f.from_json(value.cast("string"), fields, options)

    def _is_fine(self, raw: Column, value: Column, names: list[str]) -> Column:
        return raw.isNotNull() & raw[_MARK].isNull()  # Spark puts there a record that it could not read


@dataclass(frozen=True)
class Avro(Payload):
    """An Avro record in binary form, without a header of any schema registry, read by Spark's ``from_avro``.

    schema: with which it was written, as JSON text; its type is ``record``. To read by another one, give that as the
    option ``avroSchema``. Avro's bytes tell little of themselves: bytes of another schema may be read as nonsense.
    column: of the records, bytes. options: of ``from_avro``. Needs the package spark-avro.
    """

    schema: str
    column: str = "value"
    options: Mapping[str, str] | None = None
    kind: ClassVar[str] = "Avro"

    def __post_init__(self) -> None:
        _check(self, ("schema",))
        for name, text in (("schema", self.schema), ("options", (self.options or {}).get("avroSchema", self.schema))):
            try:
                told = json.loads(text)
            except ValueError as error:
                raise _no_schema(text, f"it is no JSON: {error}", name) from None
            if not isinstance(told, dict) or told.get("type") != "record" or not told.get("fields"):
                raise _no_schema(text, "an Avro schema of type 'record' with fields is needed", name)

    def _decoded(self, spark: SparkSession, value: Column) -> Column:
        from pyspark.sql.avro.functions import from_avro

        _need(spark, self, "org/apache/spark/sql/avro/AvroDataToCatalyst", "spark-avro")
        options = dict(self.options or {})
        reader = json.loads(options.get("avroSchema", self.schema))
        # Of a record that it cannot read Spark makes one of nulls. This field is true in all that it can read.
        reader["fields"] = [*reader["fields"], {"name": _MARK, "type": "boolean", "default": True}]
        options |= {"avroSchema": json.dumps(reader), "mode": "PERMISSIVE"}
        return from_avro(value, self.schema, options)

    def _is_fine(self, raw: Column, value: Column, names: list[str]) -> Column:
        return raw.isNotNull() & raw[_MARK].isNotNull()


@dataclass(frozen=True)
class Protobuf(Payload):
    """A Protobuf message, read by Spark's ``from_protobuf``.

    message: its full name. descriptor: a FileDescriptorSet (``protoc --include_imports --descriptor_set_out=…``), its
    bytes or the URI of its file, which the driver reads. A field that is not in the message is null; in proto3 that is
    so of one that holds its default (0, "", false) too, unless the option ``emit.default.values`` is ``"true"``. A
    message of which no field is known is unparsable, but one of no bytes is the message with all defaults.
    column: of the messages, bytes. options: of ``from_protobuf``. Needs the package spark-protobuf.
    """

    message: str
    descriptor: str | bytes = field(repr=False)
    column: str = "value"
    options: Mapping[str, str] | None = None
    kind: ClassVar[str] = "Protobuf"

    def __post_init__(self) -> None:
        _check(self, ("message",))
        if not isinstance(self.descriptor, (str, bytes)) or not self.descriptor:
            raise InvalidParamError(
                f"'descriptor' must be the URI of a FileDescriptorSet, or its bytes (got {self.descriptor!r})",
                param="descriptor",
                value=self.descriptor,
            )

    def _decoded(self, spark: SparkSession, value: Column) -> Column:
        from pyspark.sql import Column

        _need(spark, self, "org/apache/spark/sql/protobuf/ProtobufDataToCatalyst", "spark-protobuf")
        if isinstance(self.descriptor, bytes):
            content = self.descriptor
        else:
            try:
                content = store.read_bytes(self.descriptor)
            except OSError as error:
                raise InvalidParamError(
                    f"the descriptor {self.descriptor!r} cannot be read: {error}",
                    param="descriptor",
                    value=self.descriptor,
                ) from error
        jvm: Any = spark._jvm
        options = jvm.java.util.HashMap()
        for name, text in {**(self.options or {}), "mode": "PERMISSIVE"}.items():
            options.put(name, text)
        # Not pyspark's own from_protobuf: it hands over bytes, which packages before 3.5 do not take.
        function = jvm.org.apache.spark.sql.protobuf.functions.from_protobuf
        return Column(function(value._jc, self.message, _file_of(content), options))

    def _is_fine(self, raw: Column, value: Column, names: list[str]) -> Column:
        from pyspark.sql import functions as f

        # Of bytes that it cannot read Spark makes a message of nulls.
        any_known = functools.reduce(lambda one, two: one | two, (raw[name].isNotNull() for name in names))
        return raw.isNotNull() & (any_known | (f.octet_length(value) == 0))


def parse(events: DataFrame, payload: Payload) -> DataFrame:
    """``events`` with two columns more: ``__parsed__``, a struct of the payload's fields, null where a record cannot be
    parsed, and ``__unparsable__``, why it cannot, null where it can. A null payload cannot be parsed.

    Raises ColumnNotFoundError, SignatureError (the column is of another type), InvalidParamError (of the payload) and
    SparkdlError (a package is missing); no job runs.
    """
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped,import-not-found]
    from pyspark.errors import PySparkException
    from pyspark.sql import functions as f

    _check_column(events, payload)
    value = f.col(quoted(payload.column))
    try:
        read = events.withColumn(_RAW, payload._decoded(events.sparkSession, value))
    except (PySparkException, Py4JJavaError) as error:
        raise InvalidParamError(
            f"Spark cannot parse {payload!r}: {connectors.in_one_line(error)}", param="payload", value=payload
        ) from None
    kind: Any = read.schema[_RAW].dataType
    names = [field.name for field in kind.fields if field.name != _MARK]
    raw = f.col(_RAW)
    fine = value.isNotNull() & payload._is_fine(raw, value, names)
    told = ", ".join(f"{field.dataType.simpleString()} {field.name}" for field in kind.fields if field.name != _MARK)
    shown = f.substring(
        value.cast("string") if payload.kind == "JSON" else f.hex(f.substring(value, 1, SHOWN)), 1, SHOWN
    )
    reason = f.concat(f.lit(f"unparsable: column {payload.column!r} is no {payload.kind} of {told}: "), shown)
    whole = f.when(value.isNull(), f.lit(f"unparsable: column {payload.column!r} is null")).otherwise(reason)
    fields = raw.dropFields(_MARK) if _MARK in kind.names else raw
    return read.select(
        *(quoted(name) for name in events.columns),
        f.when(fine, fields).alias(PARSED),
        f.when(fine, None).otherwise(whole).alias(UNPARSABLE),
    )


def _check_column(events: DataFrame, payload: Payload) -> None:
    names, column = events.columns, payload.column
    if column not in names:
        raise ColumnNotFoundError(column, names, role="the payload's column")
    taken = {"binary", "string"} if payload.kind == "JSON" else {"binary"}
    kind = events.schema[column].dataType.typeName()
    if kind not in taken:
        raise SignatureError(
            f"the payload's column {column!r} is of type {kind}; {payload.kind} takes {' or '.join(sorted(taken))}",
            column=column,
            expected=sorted(taken),
            got=kind,
        )
    clash = sorted({PARSED, UNPARSABLE, _RAW} & set(names))
    if clash:
        raise SignatureError(
            f"the events have a column {clash[0]!r}, which parsing adds: rename it",
            column=clash[0],
            expected=None,
            got=names,
        )


def _need(spark: SparkSession, payload: Payload, holds: str, artifact: str) -> None:
    conf = connectors.lacking(spark, holds, artifact)
    if conf:
        raise SparkdlError(
            f"{payload.kind} takes Spark's package {artifact}: start the session with {conf}", package=conf
        )


def _no_schema(schema: str, why: str, name: str = "schema") -> InvalidParamError:
    return InvalidParamError(f"{name!r} cannot be used: {why} (got {schema!r})", param=name, value=schema)


@functools.lru_cache(maxsize=16)
def _file_of(content: bytes) -> str:
    """A local file with this content, until Python ends: the JVM takes descriptors as files."""
    handle, path = tempfile.mkstemp(prefix="sparkdl-", suffix=".desc")
    with os.fdopen(handle, "wb") as file:
        file.write(content)

    def remove() -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    atexit.register(remove)
    return path
