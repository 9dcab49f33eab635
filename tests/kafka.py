"""A real Kafka broker for the tests, and the jars that Spark needs to talk to it.

The jars come through Maven (scripts/jars.py). Where they cannot be had a test that needs them is skipped with the reason;
with CI=true it fails.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from sparkdl import system

ROOT = Path(__file__).resolve().parents[1]
LIST_OFFSETS, METADATA, CREATE_TOPICS, DELETE_TOPICS = 2, 3, 19, 20  # numbers of requests in Kafka's protocol
TOPIC_EXISTS = 36
START_SECONDS = 60
FLAGS = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")  # a broker that is up soon


@functools.cache
def load_jars():
    """The module scripts/jars.py."""
    spec = importlib.util.spec_from_file_location("jars", ROOT / "scripts/jars.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["jars"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def lane() -> str:
    """Of the pyspark that runs the tests."""
    return "latest" if int(importlib.metadata.version("pyspark").split(".")[0]) >= 4 else "spark35"


@functools.cache
def fetched(name: str) -> tuple[Path | None, str]:
    """The folder of a set of jars, or None and the reason; tried once a run."""
    jars = load_jars()
    try:
        return jars.fetch(name), ""
    except jars.JarsError as error:
        return None, str(error)


def require_jars(name: str) -> Path:
    """The folder of a set of jars; skips the test without it, or fails it where CI=true."""
    folder, reason = fetched(name)
    if folder is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no jars {name!r}: {reason}")
    return folder


def session_jars() -> str:
    """`spark.jars` of a test's session: the lane's connectors and ONNX Runtime, separated by commas; empty where the
    connectors cannot be had."""
    folders = [folder for folder, _ in map(fetched, (lane(), "onnx")) if folder]
    return (
        ",".join(str(path) for folder in folders for path in sorted(folder.glob("*.jar"))) if fetched(lane())[0] else ""
    )


def keytool() -> str:
    """Java's, found as Spark finds Java."""
    return shutil.which("keytool", path=system.java_path(os.environ)) or "keytool"


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass(frozen=True)
class Login:
    """A user of a broker; the password is its keystore's, too."""

    name: str
    password: str


def make_keystore(keystore: Path, authority: Path, password: str) -> None:
    """A key for 127.0.0.1, in PKCS12, and its self-signed certificate, in PEM; by Java's keytool."""
    common = ["-keystore", str(keystore), "-storetype", "PKCS12", "-storepass", password, "-alias", "here"]
    key = [
        "-keyalg",
        "EC",
        "-groupname",
        "secp256r1",
        "-dname",
        "CN=127.0.0.1",
        "-ext",
        "SAN=IP:127.0.0.1",
        "-validity",
        "2",
    ]
    for command in (["-genkeypair", *key], ["-exportcert", "-rfc", "-file", str(authority)]):
        subprocess.run([keytool(), *command, *common], check=True, capture_output=True)


class Broker:
    """A Kafka 3.9 of one node, in KRaft mode, on the loopback, its data under `folder`.

    login: of a second listener, SASL_SSL by SCRAM, at `secured`; its certificate's maker is `authority`, PEM.
    flags: of its JVM.
    `start` returns when it serves. `stop` ends it in order, `kill` by SIGKILL; after either `start` goes on with the same
    data and port. No topic is made unless asked for.
    """

    def __init__(self, folder: Path, jars: Path, login: Login | None = None, flags: Sequence[str] = FLAGS) -> None:
        self.folder, self.jars, self.login, self.flags = Path(folder), jars, login, flags
        self.port, self.controller_port, self.secured_port = free_ports(3)
        self.process: subprocess.Popen | None = None

    @property
    def servers(self) -> str:
        """Where to reach it, as `kafka.bootstrap.servers` wants it."""
        return f"127.0.0.1:{self.port}"

    @property
    def secured(self) -> str:
        """Where to reach it by SASL_SSL."""
        return f"127.0.0.1:{self.secured_port}"

    @property
    def authority(self) -> Path:
        """The certificate that a client of `secured` trusts."""
        return self.folder / "authority.pem"

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return (self.folder / "log.txt").read_text(errors="replace")

    def start(self) -> Broker:
        self.folder.mkdir(parents=True, exist_ok=True)
        properties = self.folder / "server.properties"
        if not properties.exists():
            properties.write_text(self._properties())
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22]
            user = []
            if self.login is not None:
                make_keystore(self.folder / "keys.p12", self.authority, self.login.password)
                user = ["--add-scram", f"SCRAM-SHA-512=[name={self.login.name},password={self.login.password}]"]
            made = self._java(
                "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(properties), *user
            )
            if made.wait(START_SECONDS) != 0:
                raise RuntimeError(f"the broker's folder was not made:\n{self.log[-3000:]}")
        self.process = self._java("kafka.Kafka", str(properties))
        until = time.monotonic() + START_SECONDS
        while not self._serves():
            if self.process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"the broker did not come up:\n{self.log[-3000:]}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(START_SECONDS)
        self.process = None

    def _java(self, main: str, *arguments: str) -> subprocess.Popen:
        java = shutil.which("java", path=f"{os.environ.get('JAVA_HOME', '')}/bin:{os.environ['PATH']}")
        with (self.folder / "log.txt").open("a") as log:
            return subprocess.Popen(
                [java, *self.flags, "-cp", f"{self.jars}/*", main, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _properties(self) -> str:
        here = "127.0.0.1"
        return "\n".join([
            "process.roles=broker,controller",
            "node.id=1",
            f"listeners=PLAINTEXT://{here}:{self.port},CONTROLLER://{here}:{self.controller_port}"
            + (f",SASL_SSL://{here}:{self.secured_port}" if self.login else ""),
            "controller.listener.names=CONTROLLER",
            f"controller.quorum.voters=1@{here}:{self.controller_port}",
            f"log.dirs={self.folder / 'data'}",
            "auto.create.topics.enable=false",
            "offsets.topic.replication.factor=1",
            "offsets.topic.num.partitions=1",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "transaction.state.log.num.partitions=1",
            "group.initial.rebalance.delay.ms=0",
            "broker.heartbeat.interval.ms=500",
            "broker.session.timeout.ms=3000",  # until which a killed one's place is kept: a start waits for it
            "log.index.size.max.bytes=65536",
            "message.max.bytes=8388608",
            *self._security(),
            "",
        ])  # fmt: skip

    def _security(self) -> list[str]:
        if self.login is None:
            return []
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        return [
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
            "inter.broker.listener.name=PLAINTEXT",
            "listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-512",
            f"listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram}",
            "ssl.keystore.type=PKCS12",
            f"ssl.keystore.location={self.folder / 'keys.p12'}",
            f"ssl.keystore.password={self.login.password}",
        ]

    def _serves(self) -> bool:
        """True when it tells a client of itself: it has registered with its controller."""
        try:
            answer = self._ask(METADATA, 1, struct.pack(">i", 0))
        except OSError:
            return False
        return struct.unpack_from(">i", answer)[0] > 0  # brokers

    def create_topic(self, name: str, partitions: int = 1) -> str:
        """Make a topic, which may be there; its name."""
        body = struct.pack(">i", 1) + _text(name) + struct.pack(">ihii", partitions, 1, 0, 0)
        answer = self._ask(CREATE_TOPICS, 1, body + struct.pack(">ib", 10_000, 0))
        (error,) = struct.unpack_from(">h", answer, 4 + 2 + len(name))
        if error not in (0, TOPIC_EXISTS):
            raise RuntimeError(f"the broker made no topic {name!r}: error {error}")
        return name

    def delete_topic(self, name: str) -> None:
        """Remove a topic and its records."""
        answer = self._ask(DELETE_TOPICS, 1, struct.pack(">i", 1) + _text(name) + struct.pack(">i", 10_000))
        (error,) = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(name))
        if error:
            raise RuntimeError(f"the broker did not remove the topic {name!r}: error {error}")

    def count(self, topic: str, partitions: int = 1) -> int:
        """How many records a topic of so many partitions holds, none of which was removed or sent in a transaction."""
        latest = b"".join(struct.pack(">iq", number, -1) for number in range(partitions))
        body = struct.pack(">ii", -1, 1) + _text(topic) + struct.pack(">i", partitions) + latest
        answer = self._ask(LIST_OFFSETS, 1, body)
        told = [struct.unpack_from(">ihqq", answer, 4 + 2 + len(topic) + 4 + 22 * n) for n in range(partitions)]
        if errors := [error for _, error, _, _ in told if error]:
            raise RuntimeError(f"the broker does not tell of the topic {topic!r}: errors {errors}")
        return sum(end for _, _, _, end in told)

    def _ask(self, request: int, version: int, body: bytes) -> bytes:
        """The answer's body. https://kafka.apache.org/protocol: size, then key, version, a number, the client's name."""
        message = struct.pack(">hhi", request, version, 1) + _text("tests") + body
        with socket.create_connection(("127.0.0.1", self.port), timeout=15) as connection:
            connection.sendall(struct.pack(">i", len(message)) + message)
            (size,) = struct.unpack(">i", _read(connection, 4))
            return _read(connection, size)[4:]

    def produce(self, spark, topic, records) -> None:
        """Write records (each the value, or a pair of key and value; text or bytes) in this order, by Spark."""
        pairs = [record if isinstance(record, tuple) else (None, record) for record in records]
        rows = [[None if part is None else _bytes(part) for part in pair] for pair in pairs]
        frame = spark.createDataFrame(rows, "key binary, value binary").coalesce(1)
        self.write(frame, topic)

    @contextlib.contextmanager
    def sender(self, spark):
        """A function of a topic and a value (text, bytes or None), perhaps key= and partition=, which sends that record at
        once and does not wait for it; after the block all are there. Its client lives in the session's JVM."""
        settings = spark._jvm.java.util.Properties()
        told = {"bootstrap.servers": self.servers, "linger.ms": "0", "acks": "all", "delivery.timeout.ms": "120000"}
        serializer = "org.apache.kafka.common.serialization.ByteArraySerializer"
        for name, value in {**told, "key.serializer": serializer, "value.serializer": serializer}.items():
            settings.setProperty(name, value)
        clients = spark._jvm.org.apache.kafka.clients.producer
        producer, last = clients.KafkaProducer(settings), {}

        def send(topic, value, key=None, partition=None):
            parts = [None if part is None else bytearray(_bytes(part)) for part in (key, value)]
            last[topic, partition] = producer.send(clients.ProducerRecord(topic, partition, *parts))

        try:
            yield send
            producer.flush()
            for sent in last.values():
                sent.get()  # raises what became of it
        finally:
            producer.close()

    def write(self, frame, topic) -> None:
        """Write a DataFrame of `value`, perhaps `key`, `partition`, `headers`."""
        frame.write.format("kafka").option("kafka.bootstrap.servers", self.servers).option("topic", topic).save()

    def read(self, spark, topic):
        """All records of a topic, a DataFrame as Spark's connector gives it, with `headers`."""
        return self._reader(spark.read, topic).load()

    def stream(self, spark, topic, **options):
        """A streaming DataFrame of a topic from its start, with `headers`."""
        return self._reader(spark.readStream, topic).option("startingOffsets", "earliest").options(**options).load()

    def _reader(self, reader, topic):
        reader = reader.format("kafka").option("kafka.bootstrap.servers", self.servers)
        return reader.option("subscribe", topic).option("includeHeaders", "true")


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _read(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = connection.recv(size - len(found))
        if not more:
            raise ConnectionError("the broker closed the connection")
        found += more
    return found


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    """A running Broker for all tests of the run. A test that kills one makes its own: `own_broker`."""
    if not session_jars():
        require_jars(lane())
    made = Broker(tmp_path_factory.mktemp("kafka"), require_jars("kafka")).start()
    yield made
    made.stop()


@pytest.fixture
def own_broker(tmp_path):
    """A running Broker of this test's own."""
    if not session_jars():
        require_jars(lane())
    made = Broker(tmp_path / "kafka", require_jars("kafka")).start()
    yield made
    made.kill()


@pytest.fixture
def topic(broker):
    """An empty topic of two partitions, gone after the test."""
    name = broker.create_topic(f"t-{uuid.uuid4().hex[:12]}", 2)
    yield name
    broker.delete_topic(name)
