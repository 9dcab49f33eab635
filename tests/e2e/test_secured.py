"""Jobs where nobody is trusted: Spark with a secret, encrypted; Kafka by SASL_SSL; and no secret in anything that is written."""

import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import textwrap
from pathlib import Path

import kafka
import pyspark
import pytest
import standalone
import yaml
from standalone_jobs import check_jobs
from torch import nn

import sparkdl

ROOT = standalone.ROOT
pytestmark = pytest.mark.timeout(900)  # the first to run fetches jars
NEWEST = pyspark.__version__ >= "4"  # whose RPC can be TLS
PATIENCE = 120


def encrypted(folder: Path, secret: str) -> dict[str, str]:
    """What docs/security.md says to set."""
    conf = {
        "spark.authenticate": "true", "spark.authenticate.secret": secret, "spark.io.encryption.enabled": "true",
    }  # fmt: skip
    if not NEWEST:
        return {**conf, "spark.network.crypto.enabled": "true", "spark.network.crypto.saslFallback": "false"}
    keys, authority, trust = folder / "keys.p12", folder / "authority.pem", folder / "trust.p12"
    kafka.make_keystore(keys, authority, secret)
    subprocess.run(
        [kafka.keytool(), "-importcert", "-noprompt", "-file", authority, "-keystore", trust, "-storetype", "PKCS12",
         "-storepass", secret, "-alias", "here"], check=True, capture_output=True,
    )  # fmt: skip
    return conf | {
        "spark.ssl.rpc.enabled": "true", "spark.ssl.rpc.protocol": "TLSv1.3",
        "spark.ssl.rpc.keyStore": str(keys), "spark.ssl.rpc.keyStorePassword": secret,
        "spark.ssl.rpc.keyStoreType": "PKCS12", "spark.ssl.rpc.trustStore": str(trust),
        "spark.ssl.rpc.trustStorePassword": secret, "spark.ssl.rpc.trustStoreType": "PKCS12",
    }  # fmt: skip


@pytest.fixture(scope="module")
def secret():
    return secrets.token_hex(24)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, secret):
    """A cluster that talks to nobody without the secret, and encrypts all it says and writes between stages."""
    folder = tmp_path_factory.mktemp("secured")
    with standalone.cluster(folder / "cluster", conf=encrypted(folder, secret)) as made:
        yield made


def test_a_secured_cluster_trains_and_scores(cluster, secret, tmp_path):
    """Master, workers, executors and driver with spark.authenticate, encryption of what they send and of what they spill."""
    check_jobs(cluster, tmp_path, conf={"spark.pyspark.python": sys.executable}, streams=False)
    assert secret not in cluster.logs


HERE = """
    from pathlib import Path
    from pyspark.sql import SparkSession

    def here(_):
        return Path("environment/bin/python").exists()

    spark = SparkSession.builder.getOrCreate()
    print("UNPACKED", spark.sparkContext.parallelize(range(4), 2).map(here).collect())
"""


@pytest.mark.lane("spark35")
def test_conf_spark_cluster_conf_with_a_secret_and_an_archive(cluster, tmp_path):
    """As docs/deployment.md has schedulers submit: nothing but these two is added, but for the size of this cluster."""
    environment = tmp_path / "environment"  # that runs the lane's Python; what `pack` makes is test_packed.py's
    (environment / "bin").mkdir(parents=True)
    (environment / "bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (environment / "bin/python").chmod(0o755)
    archive = shutil.make_archive(str(environment), "gztar", environment)
    lines = (ROOT / "conf/spark/cluster.conf").read_text().splitlines()
    shipped = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    assert "spark.authenticate.secret" not in shipped
    (tmp_path / "job.py").write_text(textwrap.dedent(HERE))
    done = cluster.submit(tmp_path / "job.py", conf=shipped | {
        "spark.archives": f"{archive}#environment", "spark.pyspark.driver.python": sys.executable,
        "spark.cores.max": "2", "spark.executor.cores": "1", "spark.executor.memory": "1g",
    })  # fmt: skip
    assert "UNPACKED [True, True, True, True]" in done.stdout, done.stdout + done.stderr[-3000:]


def test_who_does_not_know_the_secret_is_refused(cluster, tmp_path):
    (tmp_path / "job.py").write_text("from pyspark.sql import SparkSession\nSparkSession.builder.getOrCreate()\n")
    other = {"spark.authenticate.secret": secrets.token_hex(24)}
    with cluster.submitted(tmp_path / "job.py", conf=other) as job:
        standalone.line(job, "Failed to connect to master", [])  # Spark would try twice more, for 20 s each
    assert "Registered app" not in "".join(cluster.said[-20:])


@pytest.mark.skipif(not NEWEST, reason="Spark 3.5 has no TLS for its RPC")
def test_sparks_own_messages_are_tls(cluster):
    """The master's port shows the certificate that the trust store has, and says nothing without."""
    host, port = cluster.url.removeprefix("spark://").split(":")
    trusting = ssl.create_default_context(cafile=cluster.folder.parent / "authority.pem")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        trusting.wrap_socket(plain, server_hostname=host) as tls,
    ):
        assert tls.version() == "TLSv1.3"


# Kafka


class Sum(nn.Module):
    """The sum of three numbers."""

    def forward(self, x):
        return x.sum(1, keepdim=True)


@pytest.fixture(scope="module")
def login():
    return kafka.Login("sparkdl", secrets.token_hex(16))


@pytest.fixture(scope="module")
def broker(tmp_path_factory, login):
    """A broker that takes the login by SASL_SSL."""
    if not kafka.session_jars():
        kafka.require_jars(kafka.lane())
    made = kafka.Broker(tmp_path_factory.mktemp("kafka"), kafka.require_jars("kafka"), login).start()
    yield made
    made.stop()


def options(broker) -> dict[str, str]:
    """As docs/security.md has them; the password is named, not told."""
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required"
    return {
        "kafka.security.protocol": "SASL_SSL", "kafka.sasl.mechanism": "SCRAM-SHA-512",
        "kafka.sasl.jaas.config": f'{scram} username="sparkdl" password="${{env:KAFKA_PASSWORD}}";',
        "kafka.ssl.truststore.type": "PEM", "kafka.ssl.truststore.location": str(broker.authority),
    }  # fmt: skip


def stream(folder: Path, broker, password: str) -> subprocess.CompletedProcess[str]:
    """score_stream from topic `in` to topic `out`, with Spark's log at its most talkative and an event log."""
    (folder / "conf.yaml").write_text(yaml.safe_dump({
        "source": {"format": "kafka", "options": {
            "kafka.bootstrap.servers": broker.secured, "subscribe": "in", "startingOffsets": "earliest", **options(broker),
        }},
        "payload": {"format": "json", "schema": "id bigint, x array<float>"},
        "model": str(folder / "bundle"), "checkpoint": str(folder / "checkpoint"), "trigger": "available now",
        "deadLetter": str(folder / "dead"), "monitor": {"jsonl": str(folder / "events.jsonl")},
        "sink": {"kind": "kafka", "servers": broker.secured, "topic": "out", "options": options(broker)},
    }))  # fmt: skip
    (folder / "spark-events").mkdir(exist_ok=True)
    submit = [str(standalone.HOME / "bin/spark-submit"), "--properties-file", "conf/spark/local.conf"]
    for setting in ("spark.log.level=INFO", "spark.eventLog.enabled=true", f"spark.eventLog.dir={folder}/spark-events"):
        submit += ["--conf", setting]
    return subprocess.run(
        [*submit, "--jars", kafka.session_jars(), "jobs/score_stream.py", "--conf-file", str(folder / "conf.yaml")],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
        env={**os.environ, "KAFKA_PASSWORD": password, "PYSPARK_PYTHON": sys.executable,
             "PYSPARK_DRIVER_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"},
    )  # fmt: skip


def told(folder: Path, text: str) -> list[str]:
    """Files under the folder that hold the text."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_a_stream_by_sasl_ssl(broker, login, spark, tmp_path):
    """Kafka to Kafka through the secured listener alone; the password is nowhere but in the environment."""
    spec = sparkdl.TensorSpec("x", "float32", (3,), ("x",), ("array<float>",))
    bundle = sparkdl.Bundle.from_module(Sum(), sparkdl.Signature((spec,)), task="regression")
    bundle.save(str(tmp_path / "bundle"))
    broker.create_topic("in"), broker.create_topic("out")
    broker.produce(spark, "in", [json.dumps({"id": i, "x": [i, 1, 2]}) for i in range(50)])

    wrong = secrets.token_hex(16)
    refused = stream(tmp_path, broker, wrong)
    assert refused.returncode != 0
    assert "invalid credentials" in refused.stdout, refused.stdout[-3000:]
    assert told(tmp_path, wrong) == []
    assert wrong not in refused.stdout + refused.stderr

    done = stream(tmp_path, broker, login.password)
    assert done.returncode == 0, done.stdout[-4000:]
    rows = [json.loads(row.value) for row in broker.read(spark, "out").collect()]
    assert sorted((row["id"], row["prediction"]) for row in rows) == [(i, i + 3.0) for i in range(50)]
    assert any((tmp_path / "spark-events").iterdir())
    assert told(tmp_path, login.password) == [], "in no event log, checkpoint, ledger or record"
    assert login.password not in done.stdout + done.stderr
