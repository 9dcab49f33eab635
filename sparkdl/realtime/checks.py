"""What real-time mode takes. All else is refused before the query starts, with what to change."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sparkdl import connectors, session
from sparkdl.errors import RealtimeError
from sparkdl.sinks.kafka import Kafka
from sparkdl.stream.rate import seconds_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sparkdl.model import TorchModel
    from sparkdl.sinks.sink import Sink

COLUMNS = ("key", "value", "topic", "partition", "offset", "timestamp")  # of Spark's Kafka source
REGISTRATION_S = 60.0  # for a young cluster's executors to be there
SHORTEST_S = 5  # Spark's spark.sql.streaming.realTimeMode.minBatchDuration
_SINCE = (4, 3)
_NODES = ("Project", "Filter", "SubqueryAlias")  # of Spark's plans: one record in, one out, at once


def refused(why: str) -> RealtimeError:
    """The error, with the way out that is always there."""
    return RealtimeError(f"real time is not to be had: {why}; or leave out mode='realtime'", checkpoint=None)


def check_frame(events: Any) -> None:
    """Raise RealtimeError for a function that bounds micro-batches."""
    if callable(events):
        raise refused(
            "'events' is a function of a number of rows, and there are no batches to bound; give a streaming DataFrame"
        )


def check_spark(spark: SparkSession) -> None:
    """Raise RealtimeError for a Spark without real-time mode."""
    if tuple(map(int, spark.version.split(".")[:2])) < _SINCE:
        raise refused(f"Spark {spark.version} has no real-time mode for Kafka; it takes Spark 4.3 or newer")


def check_events(events: DataFrame) -> dict[str, str]:
    """The options of the Kafka source behind ``events``. Raises RealtimeError for another source, several of them, records
    without the source's columns, and what makes a record wait or become several."""
    plan = events._jdf.queryExecution().analyzed()
    leaves = plan.collectLeaves()
    leaf = leaves.head()
    name = leaf.sourceName() if "StreamingRelation" in leaf.getClass().getSimpleName() else leaf.nodeName()
    if leaves.size() != 1 or name != "kafka":
        raise refused(
            f"the events come from {leaves.size()} source(s), the first of them {name}; it takes one Kafka source"
        )
    _check_plan(plan, events.sparkSession)
    lacking = [column for column in COLUMNS if column not in events.columns]
    if lacking:
        raise refused(
            f"the events lack the columns {lacking} of the Kafka source, which say where a record lies; give the events as "
            "Kafka's source has them, and parse them by payload="
        )
    return {str(key).lower(): str(value) for key, value in dict(leaf.extraOptions().asCaseSensitiveMap()).items()}


def _check_plan(plan: Any, spark: SparkSession) -> None:
    patterns = getattr(spark._jvm, "org.apache.spark.sql.catalyst.trees.TreePattern")
    if plan.containsPattern(patterns.PYTHON_UDF()):
        raise refused(
            "the events have a function in Python, behind which rows wait for the end of the batch; use Spark's own"
        )
    while not plan.children().isEmpty():
        if plan.nodeName() not in _NODES:
            raise refused(
                f"the events have an {plan.nodeName()}; it takes columns made of one record each, and filters"
            )
        plan = plan.children().head()


def check_sinks(sink: Sink, dead: Sink | None, model: TorchModel) -> tuple[Kafka, Kafka | None]:
    """Both, as topics. Raises RealtimeError for a sink that is no Kafka topic, dead letters that go elsewhere, and bad records that would end
    the query."""
    if not isinstance(sink, Kafka):
        raise refused(f"the sink is {type(sink).__name__}; it takes sparkdl.sinks.Kafka(servers, topic)")
    if dead is not None and not isinstance(dead, Kafka):
        raise refused(
            f"deadLetter is {type(dead).__name__}; it takes a topic, sparkdl.sinks.Kafka({sink.servers!r}, 'dead-letters')"
        )
    if dead is not None and (dead.servers, dict(dead.options or {})) != (sink.servers, dict(sink.options or {})):
        raise refused(
            f"deadLetter is at {dead.servers}, and the sink at {sink.servers} or with other options; one writer sends both"
        )
    if dead is None and model.getOrDefault("handleInvalid") == "error":
        raise refused(
            "one bad record would end the query, and each restart of it; give deadLetter=sparkdl.sinks.Kafka("
            f"{sink.servers!r}, 'dead-letters'), or settings={{'handleInvalid': 'skip'}} or 'keep'"
        )
    return sink, dead


def check_plain(given: Mapping[str, Any]) -> None:
    """Raise RealtimeError for arguments of score_stream that mean nothing without micro-batches."""
    for name, value in given.items():
        if value:
            raise refused(f"{name!r} is for micro-batches; leave it out")


def check_trigger(trigger: Any) -> None:
    """Raise RealtimeError for what is no length of a long batch that Spark takes."""
    try:
        is_long = trigger is None or seconds_of(trigger) >= SHORTEST_S
    except ValueError:
        is_long = False
    if not is_long:
        raise refused(
            f"'trigger' must be a time of {SHORTEST_S} seconds or more, such as '5 minutes' (got {trigger!r})"
        )


def check_loop(servers: str, topics: Iterable[str], *sinks: Kafka | None) -> None:
    """Raise RealtimeError for a query that would read what it writes, for ever. servers, topics: of the source."""
    for sink in filter(None, sinks):
        if sink.servers == servers and sink.topic in topics:
            raise refused(f"the source reads the topic {sink.topic!r}, into which the query writes; name another topic")


def check_slots(spark: SparkSession, options: Mapping[str, str], topics: Mapping[str, int]) -> None:
    """Raise RealtimeError if there are fewer task slots than partitions to read: the records of those left over would wait
    for the end of the long batch, and nobody would say so. topics: the number of partitions of each."""
    needed = max(sum(topics.values()), int(options.get("minpartitions", 0)))
    slots = session.await_slots(spark, needed, 0 if spark.sparkContext.master.startswith("local") else REGISTRATION_S)
    if slots is not None and slots < needed:
        raise refused(
            f"the source has {needed} partitions, each of which takes a task slot for itself all the time, and the session "
            f"has {slots}: start it with --master local[{needed}] or more, or give the application more cores"
        )


def topics_of(spark: SparkSession, options: Mapping[str, str]) -> dict[str, int]:
    """The topics that a Kafka source of these options reads, and how many partitions of each. Raises RealtimeError for one
    that is not there, and if the brokers do not tell."""
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped,import-not-found]

    if "assign" in options:
        return {topic: len(numbers) for topic, numbers in json.loads(options["assign"]).items()}
    settings = {key: value for key, value in options.items() if key.startswith("kafka.")}
    servers = settings.pop("kafka.bootstrap.servers", "")
    try:
        with connectors.kafka_admin(spark, servers, settings) as admin:
            if "subscribepattern" in options:
                pattern = re.compile(options["subscribepattern"])
                names = [name for name in admin.listTopics().names().get() if pattern.fullmatch(name)]
            else:
                names = [name.strip() for name in options["subscribe"].split(",")]
            told = admin.describeTopics(names).allTopicNames().get()
            return {name: len(topic.partitions()) for name, topic in told.items()}
    except Py4JJavaError as error:
        if "UnknownTopicOrPartitionException" in str(error.java_exception):
            raise refused(f"there is no topic {options['subscribe']!r} at {servers}; create it") from None
        raise refused(f"the source's brokers at {servers} do not answer: {connectors.in_one_line(error)}") from None
