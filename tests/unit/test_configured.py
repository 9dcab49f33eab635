"""What a job's conf says, made. (Streams themselves: tests/e2e/test_stream_job.py.)"""

import pytest

from sparkdl import sinks
from sparkdl.conf import MonitorConf, PayloadConf, SinkConf, SourceConf
from sparkdl.errors import SourceNotFoundError
from sparkdl.stream import configured


def test_sinks(tmp_path):
    parquet = configured.sink(SinkConf(kind="parquet", uri=str(tmp_path), compression="zstd", partitionBy=["day"]))
    assert isinstance(parquet, sinks.Parquet)
    assert (parquet.layout.compression, parquet.layout.partition_by) == ("zstd", ("day",))
    kafka = configured.sink(SinkConf(kind="kafka", servers="b:9092", topic="scored", key="id"))
    assert isinstance(kafka, sinks.Kafka)
    assert kafka.topic == "scored"


def test_payloads():
    made = configured.payload(PayloadConf(format="json", schema="id bigint", column="body"))
    assert (made.kind, made.schema, made.column) == ("JSON", "id bigint", "body")


def test_a_monitor(tmp_path):
    alerts = [{"metric": "dead", "above": 0.1, "action": "webhook", "url": "https://hooks/secret-part"}]
    made = configured.monitor(MonitorConf(jsonl=str(tmp_path / "events"), alerts=alerts, window=5))
    assert (made.window, made.alerts[0].url) == (5, "https://hooks/secret-part")
    assert configured.monitor(None) is None


def test_a_source_that_is_not_there(tmp_path):
    conf = SourceConf(format="json", path=str(tmp_path / "none"), columns="id bigint")
    with pytest.raises(SourceNotFoundError, match=r"there is nothing at .*none', where events should arrive"):
        configured.events(None, conf)
