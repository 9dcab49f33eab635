"""What real-time mode takes. All else is refused before the query starts, with what to change."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sparkdl import connectors, session
from sparkdl.errors import RealtimeError
from sparkdl.realtime import slots
from sparkdl.sinks.kafka import Kafka
from sparkdl.stream.rate import seconds_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sparkdl.model import TorchModel
    from sparkdl.sinks.sink import Sink

REQUEST_BYTES = 16 << 20  # that a producer sends at once, half of the memory in which it holds what it sends
MESSAGE_BYTES = 1_048_588  # that a topic takes, where nothing else is said: Kafka's own default
COLUMNS = ("key", "value", "topic", "partition", "offset", "timestamp")  # of Spark's Kafka source
REGISTRATION_S = 60.0  # for a young cluster's executors to be there
SHORTEST_S = 5  # Spark's spark.sql.streaming.realTimeMode.minBatchDuration
_SINCE = (4, 3)
_NODES = ("Project", "Filter", "SubqueryAlias", "View")  # of Spark's plans: one record in, one out, at once


def refused(why: str, *, passing: bool = False) -> RealtimeError:
    """The error, with the way out that is always there. passing: it may be otherwise soon."""
    return RealtimeError(
        f"real time is not to be had: {why}; or leave out mode='realtime'", checkpoint=None, passing=passing
    )


def check_query(events: Any, trigger: Any, plain: Mapping[str, Any]) -> dict[str, str]:
    """The options of the Kafka source, of a query that real time takes. plain: arguments of ``score_stream`` that must not
    be given. Raises RealtimeError."""
    check_plain(plain)
    check_trigger(trigger)
    check_frame(events)
    check_spark(events.sparkSession)
    return check_events(events)


def check_places(
    spark: SparkSession, options: Mapping[str, str], sink: Sink, dead: Sink | None, model: TorchModel
) -> tuple[Kafka, Kafka | None, int]:
    """Both sinks, as topics, and the task slots that the query takes. options: as ``check_query`` gives them. Raises RealtimeError for places and partitions that do not
    do, GraphError for a model that the JVM cannot run."""
    topic, letters = check_sinks(sink, dead, model)
    _ = model.bundle.graph
    topics = topics_of(spark, options)
    check_loop(options, topics, topic, letters)
    return topic, letters, check_slots(spark, options, topics)


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
                f"the events have the operator {plan.nodeName()}; it takes columns made of one record each, and filters"
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
    if dead is not None and dead.topic == sink.topic:
        raise refused(f"the sink and deadLetter are one topic, {sink.topic!r}; name another one for the dead letters")
    if model.getOrDefault("handleInvalid") == "keep" and model.getOrDefault("errorCol"):
        raise refused(
            f"errorCol is {model.getOrDefault('errorCol')!r}, and what is wrong with a record is its header sparkdl-reason; "
            "leave errorCol out"
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


def check_loop(options: Mapping[str, str], topics: Iterable[str], *sinks: Kafka | None) -> None:
    """Raise RealtimeError for a query that would read what it writes, for ever. options, topics: of the source, which may
    read by its pattern a topic that is yet to be."""
    pattern = re.compile(options.get("subscribepattern", "(?!)"))
    for sink in filter(None, sinks):
        is_same = not _hosts(sink.servers).isdisjoint(_hosts(options["kafka.bootstrap.servers"]))
        if is_same and (sink.topic in topics or pattern.fullmatch(sink.topic)):
            raise refused(f"the source reads the topic {sink.topic!r}, into which the query writes; name another topic")


def _hosts(servers: str) -> set[str]:
    return {server.strip().lower() for server in servers.split(",")}


def check_slots(spark: SparkSession, options: Mapping[str, str], topics: Mapping[str, int]) -> int:
    """How many task slots the query takes: one a partition. Raises RealtimeError if there are fewer that no other query in real
    time keeps: the records of those left over would wait for the end of the long batch, and nobody would say so. topics: the
    number of partitions of each."""
    least = options.get("minpartitions", "0")
    if not least.isdecimal():
        raise refused(f"the source's option 'minPartitions' must be a whole number (got {least!r})")
    needed = max(sum(topics.values()), int(least))
    is_local = spark.sparkContext.master.startswith("local")
    held = slots.held_in(spark)
    there = session.await_slots(spark, needed + held, 0 if is_local else REGISTRATION_S)
    if there is not None and there < needed + held:
        others = f", of which other queries in real time keep {held}" if held else ""
        raise refused(
            f"the source has {needed} partitions, each of which takes a task slot for itself all the time, and the session "
            f"has {there}{others}: start it with --master local[{needed + held}] or more, or give the application more cores",
            passing=not is_local,
        )
    return needed


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
    except connectors.NoClientError as error:
        raise refused(f"of the source's brokers at {servers} {error}") from None
    except Py4JJavaError as error:
        if "UnknownTopicOrPartitionException" in str(error.java_exception):
            raise refused(f"there is no topic {options['subscribe']!r} at {servers}; create it") from None
        raise refused(
            f"the source's brokers at {servers} do not answer: {connectors.in_one_line(error)}",
            passing="TimeoutException" in str(error.java_exception),
        ) from None


def longest(spark: SparkSession, *sinks: Kafka | None) -> dict[str, int]:
    """Bytes of a message that each sink's topic takes, and its producer sends. Raises RealtimeError if the brokers do not
    tell; of those that may not, Kafka's default is taken."""
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped,import-not-found]

    told = {}
    for sink in filter(None, sinks):
        options = sink.options or {}
        told[sink.topic] = MESSAGE_BYTES
        try:
            with connectors.kafka_admin(spark, sink.servers, options) as admin:
                entry = connectors.kafka_config(spark, admin, "TOPIC", sink.topic).get("max.message.bytes")
                told[sink.topic] = int(entry.value())
        except Py4JJavaError as error:
            if not re.search("Authorization|UnknownTopicOrPartition", str(error.java_exception)):
                raise refused(
                    f"the brokers at {sink.servers} do not tell how long a message the topic {sink.topic!r} takes: "
                    f"{connectors.in_one_line(error)}",
                    passing=True,
                ) from None
        most = options.get("kafka.max.request.size", str(REQUEST_BYTES))
        if not most.isdecimal():
            raise refused(f"the sink's option 'kafka.max.request.size' must be a number of bytes (got {most!r})")
        told[sink.topic] = min(told[sink.topic], int(most))
    return told
