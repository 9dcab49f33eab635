"""What real time's projection is warmed with."""

import json

import pyspark
import pytest

from sparkdl.payloads import JSON, parse
from sparkdl.realtime import warm
from sparkdl.signature import Signature, TensorSpec

pytestmark = pytest.mark.skipif(pyspark.__version__ < "4.3", reason="real time needs Spark 4.3")
SIGNATURE = Signature((TensorSpec("x", "float32", (3,), ("x",), ("array<float>",)),))
KINDS = (
    "boolean", "tinyint", "bigint", "float", "double", "decimal(12, 3)", "string", "binary", "date", "timestamp",
    "timestamp_ntz", "array<array<int>>", "map<string, int>", "struct<a: int, `b c`: array<struct<d: string>>>", "interval day",
)  # fmt: skip


def test_a_value_of_every_type(spark):
    from pyspark.ml.linalg import VectorUDT
    from pyspark.sql.types import StructType

    fields = StructType.fromDDL(", ".join(f"c{n} {kind}" for n, kind in enumerate(KINDS))).fields
    kinds = [field.dataType for field in fields] + [VectorUDT()]
    made = spark.range(2).select(*(warm.value(kind) for kind in kinds))
    assert [field.dataType.simpleString() for field in made.schema] == [kind.simpleString() for kind in kinds]
    assert len(made.collect()) == 2


@pytest.mark.parametrize("kind", ["string", "binary"])
def test_events_like_the_query_s_with_arrays_as_the_model_reads_them(spark, kind):
    events = spark.createDataFrame([], f"key binary, value {kind}, partition int, timestamp timestamp")
    payload = JSON("id bigint, x array<float>, y array<int>")
    columns = warm.made_up(parse(events, payload), payload, SIGNATURE)
    made = spark.range(5).select(*columns)
    assert made.dtypes == events.dtypes
    row = made.collect()[-1]
    told = json.loads(bytes(row.value, "utf-8") if kind == "string" else row.value)
    assert (told["id"], len(told["x"]), len(told["y"]), row.timestamp) == (4, 3, 1, None)


def test_rounds_grow_until_they_are_large_enough_or_their_time_is_over(spark, monkeypatch):
    counted = []
    events = spark.createDataFrame([], "value string, timestamp timestamp")
    monkeypatch.setattr(warm, "LAST", 4 * warm.FIRST)

    def sent(made):
        counted.append(made.count() // spark.sparkContext.defaultParallelism)
        return made

    warm.warm_up(events, None, SIGNATURE, sent)
    assert counted == [warm.FIRST, 2 * warm.FIRST, 4 * warm.FIRST]
    monkeypatch.setattr(warm, "SECONDS", 0.0)
    warm.warm_up(events, None, SIGNATURE, sent)
    assert len(counted) == 3
