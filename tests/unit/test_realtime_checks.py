"""What real-time mode refuses, as far as that takes no Spark."""

import json
from types import SimpleNamespace

import pytest

from sparkdl import Bundle, Signature, TensorSpec, TorchModel, sinks
from sparkdl.errors import InvalidParamError, RealtimeError
from sparkdl.realtime import checks

OUT = sinks.Kafka("here:9092", "out")


@pytest.fixture(scope="module")
def model():
    spec = TensorSpec("x", "float32", (2,), ("x",), ("array<float>",))
    return TorchModel(Bundle.from_module(_linear(), Signature((spec,))))


def _linear():
    from torch import nn

    return nn.Linear(2, 1)


@pytest.mark.parametrize("dead", [sinks.Kafka("here:9092", "dead"), sinks.Kafka("here:9092", "dead", key="id")])
def test_two_topics_at_one_place_are_taken(model, dead):
    assert checks.check_sinks(OUT, dead, model) == (OUT, dead)


def test_without_dead_letters_bad_records_are_skipped_or_kept(model):
    for invalid in ("skip", "keep"):
        assert checks.check_sinks(OUT, None, TorchModel(model.bundle).setParams(handleInvalid=invalid)) == (OUT, None)
    with pytest.raises(RealtimeError, match=r"one bad record would end the query.*deadLetter=.*'here:9092'.*'keep'"):
        checks.check_sinks(OUT, None, model)


@pytest.mark.parametrize(
    ("sink", "dead", "words"),
    [
        (sinks.Parquet("rows"), None, r"the sink is Parquet; it takes sparkdl.sinks.Kafka\("),
        (OUT, sinks.Parquet("letters"), r"deadLetter is Parquet; it takes a topic, sparkdl.sinks.Kafka\('here:9092'"),
        (OUT, sinks.Kafka("there:9092", "dead"), "deadLetter is at there:9092, and the sink at here:9092"),
        (OUT, sinks.Kafka("here:9092", "out"), "the sink and deadLetter are one topic, 'out'"),
        (OUT, sinks.Kafka("here:9092", "dead", options={"kafka.acks": "1"}), "or with other options"),
    ],
)
def test_other_sinks_are_refused_with_what_to_change(model, sink, dead, words):
    with pytest.raises(RealtimeError, match=f"real time is not to be had: .*{words}.*; or leave out mode='realtime'"):
        checks.check_sinks(sink, dead, model)


def test_a_column_of_what_is_wrong_is_refused(model):
    told = TorchModel(model.bundle).setParams(handleInvalid="keep", errorCol="why")
    with pytest.raises(RealtimeError, match=r"errorCol is 'why', .* its header sparkdl-reason; leave errorCol out"):
        checks.check_sinks(OUT, None, told)


@pytest.mark.parametrize("topic", ["a b", "a'b", "..", "é", "x" * 250])
def test_a_topic_has_a_name_that_kafka_takes(topic):
    with pytest.raises(InvalidParamError, match="'topic' must be 1 to 249 letters"):
        sinks.Kafka("here:9092", topic)


def test_partitions_are_a_whole_number():
    with pytest.raises(RealtimeError, match=r"'minPartitions' must be a whole number \(got 'x'\)"):
        checks.check_slots(None, {"minpartitions": "x"}, {"in": 1})


@pytest.mark.parametrize(
    ("name", "value"), [("challenger", "a"), ("share", 0.5), ("shareBy", "id"), ("monitor", object())]
)
def test_what_belongs_to_micro_batches_is_refused(name, value):
    given = {"challenger": None, "share": 0.0, "shareBy": None, "monitor": None}
    checks.check_plain(given)
    with pytest.raises(RealtimeError, match=f"'{name}' is for micro-batches; leave it out"):
        checks.check_plain({**given, name: value})


@pytest.mark.parametrize("trigger", ["available now", "1 second", "4999 ms", "soon", "", 5])
def test_a_long_batch_is_no_shorter_than_spark_takes(trigger):
    for fine in (None, "5 seconds", "1 hour"):
        checks.check_trigger(fine)
    with pytest.raises(
        RealtimeError, match=r"'trigger' must be a time of 5 seconds or more, such as '5 minutes' \(got "
    ):
        checks.check_trigger(trigger)


def test_a_function_of_rows_is_refused():
    with pytest.raises(RealtimeError, match="'events' is a function of a number of rows"):
        checks.check_frame(lambda rows: rows)


def test_partitions_that_are_assigned_are_counted():
    assert checks.topics_of(None, {"assign": json.dumps({"a": [0, 1], "b": [4]})}) == {"a": 2, "b": 1}


def test_a_query_does_not_read_what_it_writes():
    dead = sinks.Kafka("here:9092", "dead")
    here = {"kafka.bootstrap.servers": "here:9092"}
    checks.check_loop(here, ["in"], OUT, dead)
    checks.check_loop({"kafka.bootstrap.servers": "there:9092"}, ["out", "dead"], OUT, dead)
    for topic, given in (("out", (OUT, None)), ("dead", (OUT, dead))):
        with pytest.raises(RealtimeError, match=f"the source reads the topic '{topic}', into which the query writes"):
            checks.check_loop(here, ["in", topic], *given)
    for told in ({"kafka.bootstrap.servers": "there:9092, HERE:9092"}, {**here, "subscribepattern": "o.*"}):
        with pytest.raises(RealtimeError, match="the source reads the topic 'out'"):
            checks.check_loop(told, [] if len(told) > 1 else ["out"], OUT)


@pytest.mark.parametrize("version", ["3.5.9", "4.2.1", "4.2.0-preview"])
def test_a_spark_before_4_3_is_refused(version):
    for newer in ("4.3.0", "4.10.0", "5.0.0-preview"):
        checks.check_spark(SimpleNamespace(version=newer))
    with pytest.raises(
        RealtimeError, match=f"Spark {version} has no real-time mode for Kafka; it takes Spark 4.3 or newer"
    ):
        checks.check_spark(SimpleNamespace(version=version))
