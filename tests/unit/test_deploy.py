"""What is in deploy/ and conf/spark is what systemd, cron, Kubernetes and Spark understand."""

import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import kubeflow_spark_api.models as operator
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = ("1.31", "1.37")  # the oldest that has not been tried with, the newest
MISSPELT = {  # by kind, which key; metadata of any other
    "CronJob": "backoffLimit", "SparkApplication": "mainApplicationFile", "Role": "verbs",
    "NetworkPolicy": "policyTypes", "RoleBinding": "roleRef",
}  # fmt: skip
GPUS = ROOT / "conf/spark/gpus.sh"


def program(folder: Path, name: str, *lines: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


def run(*command, path, **settings):
    env = {"PATH": os.pathsep.join([str(path), "/usr/bin", "/bin"])}
    return subprocess.run([str(word) for word in command], env=env, capture_output=True, text=True, **settings)


# Kubernetes


def manifests():
    return [
        pytest.param(document, id=f"{path.stem}-{document['kind']}")
        for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]


def lost(document: dict) -> list[str]:
    """Raise unless Kubernetes, or the Spark operator, takes the document; keys that the operator's models do not know."""
    if document["apiVersion"].startswith("sparkoperator.k8s.io/"):
        known = operator.SparkV1beta2SparkApplication.from_dict(document).to_dict()
        return sorted(keys(document) - keys(known))
    for version in KUBERNETES:
        kubernetes_validate.validate(document, version, strict=True)
    return []


def keys(value, place="") -> set[str]:
    if isinstance(value, dict):
        inner = [keys(item, f"{place}.{key}") for key, item in value.items()]
        return set().union({f"{place}.{key}" for key in value}, *inner)
    if isinstance(value, list):
        return set().union(*(keys(item, f"{place}[]") for item in value))
    return set()


def misspelt(document: dict, key: str) -> dict:
    return json.loads(re.sub(rf'"{key}":', f'"{key}s":', json.dumps(document)))


@pytest.mark.parametrize("document", manifests())
def test_kubernetes_takes_the_manifest(document):
    assert lost(document) == []


@pytest.mark.parametrize("document", manifests())
def test_a_misspelt_key_is_noticed(document):
    key = MISSPELT.get(document["kind"], "metadata")
    try:
        found = lost(misspelt(document, key))
    except (kubernetes_validate.ValidationError, ValueError) as error:
        found = [str(error)]
    assert any(key in text for text in found)


def test_a_misspelt_key_deep_in_the_operators_manifest_is_noticed():
    (document,) = yaml.safe_load_all((DEPLOY / "kubernetes/stream.yaml").read_text())
    assert lost(misspelt(document, "memoryOverhead")) == [
        ".spec.driver.memoryOverheads",
        ".spec.executor.memoryOverheads",
    ]
    assert lost(misspelt(document, "onFailureRetryInterval")) == [".spec.restartPolicy.onFailureRetryIntervals"]


def test_the_cron_job_is_tried_again_on_75_alone():
    (document,) = yaml.safe_load_all((DEPLOY / "kubernetes/nightly.yaml").read_text())
    job = document["spec"]["jobTemplate"]["spec"]
    rule = job["podFailurePolicy"]["rules"][-1]
    assert (rule["action"], rule["onExitCodes"]["operator"], rule["onExitCodes"]["values"]) == (
        "FailJob",
        "NotIn",
        [75],
    )
    container = job["template"]["spec"]["containers"][0]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert job["template"]["spec"]["restartPolicy"] == "Never", "Kubernetes takes a podFailurePolicy with no other"
    assert container["args"][0].startswith("exec "), "SIGTERM must reach spark-submit, not a shell"


def properties(name: str) -> dict[str, str]:
    lines = (ROOT / "conf/spark" / name).read_text().splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))


def secrets(pod: dict) -> dict[str, str]:
    """Environment variables out of secrets, as the operator has them, in Spark's words."""
    return {name: f"{key['name']}:{key['key']}" for name, key in pod["envSecretKeyRefs"].items()}


def test_a_stream_has_the_settings_of_kubernetes_conf():
    (document,) = yaml.safe_load_all((DEPLOY / "kubernetes/stream.yaml").read_text())
    spec = document["spec"]
    driver, executor = spec["driver"], spec["executor"]
    told = {
        **spec["sparkConf"],
        "spark.submit.deployMode": spec["mode"],
        "spark.kubernetes.container.image": spec["image"],
        "spark.kubernetes.namespace": document["metadata"]["namespace"],
        "spark.kubernetes.authenticate.driver.serviceAccountName": driver["serviceAccount"],
        "spark.driver.memoryOverhead": driver["memoryOverhead"],
        **{f"spark.executor.{key}": str(executor[key]) for key in ("instances", "cores", "memory", "memoryOverhead")},
        **{f"spark.kubernetes.driver.secretKeyRef.{name}": key for name, key in secrets(driver).items()},
        **{f"spark.kubernetes.executor.secretKeyRef.{name}": key for name, key in secrets(executor).items()},
    }
    assert told.pop("spark.kubernetes.driver.secretKeyRef.PAYMENTS_JAAS")  # its conf's own
    assert told == properties("kubernetes.conf")


@pytest.mark.parametrize(("manifest", "conf"), [("nightly", "schedule/nightly"), ("stream", "stream/kafka")])
def test_a_driver_has_the_secrets_that_it_needs(manifest, conf):
    """The store's, as in kubernetes.conf, and those that the conf in docs/deployment.md's ConfigMap names."""
    (document,) = yaml.safe_load_all((DEPLOY / f"kubernetes/{manifest}.yaml").read_text())
    if manifest == "nightly":
        (pod,) = document["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        has = {one["name"] for one in pod["env"] if "secretKeyRef" in one["valueFrom"]}
    else:
        has = set(document["spec"]["driver"]["envSecretKeyRefs"])
    prefix = "spark.kubernetes.driver.secretKeyRef."
    store = {key.removeprefix(prefix) for key in properties("kubernetes.conf") if key.startswith(prefix)}
    named = set(re.findall(r"\$\{env:(\w+)\}", (ROOT / f"conf/{conf}.yaml").read_text()))
    assert has == store | named


# systemd

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")


def verified(unit: str, text: str, folder: Path) -> str:
    """What systemd-analyze has to say about a unit file with this text."""
    program(folder / "bin", "spark-submit")
    path = folder / unit
    path.write_text(text.replace("/opt/sparkdl/.venv/bin", str(folder / "bin")))
    timed = DEPLOY / "systemd" / f"{Path(unit).stem}.service"
    if not unit.endswith(".service"):
        (folder / timed.name).write_text(timed.read_text())
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    return done.stderr if done.returncode == 0 else f"{done.stderr}\nexit status {done.returncode}"


@needs_systemd
@pytest.mark.parametrize("unit", sorted(path.name for path in (DEPLOY / "systemd").iterdir()))
def test_systemd_takes_the_unit(unit, tmp_path):
    assert verified(unit, (DEPLOY / "systemd" / unit).read_text(), tmp_path) == ""


@needs_systemd
def test_systemd_would_tell_of_a_misspelt_key(tmp_path):
    unit = "sparkdl-nightly.service"
    text = (DEPLOY / "systemd" / unit).read_text().replace("KillMode=", "KilMode=")
    assert "KilMode" in verified(unit, text, tmp_path)


def test_what_is_named_of_the_project_is_there():
    """Under /opt/sparkdl: all but the environment and, in an image, what was unpacked from it."""
    named = [
        (file.name, path)
        for file in DEPLOY.rglob("*")
        if file.is_file()
        for path in re.findall(r"(?:/opt/sparkdl|\$home|\{HOME\})/(?!\.venv/|bin/)([\w./-]*\w)", file.read_text())
    ]
    assert {"jobs/score_batch.py", "jobs/score_stream.py", "conf/schedule/nightly.yaml"} <= {path for _, path in named}
    assert [(name, path) for name, path in named if not (ROOT / path).exists()] == []


def test_a_stream_comes_up_again_after_an_outage_of_any_length():
    unit = (DEPLOY / "systemd/sparkdl-stream.service").read_text()
    assert re.search(r"(?m)^StartLimitIntervalSec=0$", unit), "or systemd gives up after a few starts"
    assert re.search(r"(?m)^RestartPreventExitStatus=2 4$", unit)


# cron


def test_the_cron_line_runs_the_script():
    settings = re.compile(r"#|[A-Z_]+=|$")
    (line,) = (text for text in (DEPLOY / "cron/sparkdl").read_text().splitlines() if not settings.match(text))
    assert re.fullmatch(r"(?:[\d*/,-]+ ){5}\S+ /opt/sparkdl/deploy/cron/nightly( \S+)*", line)
    assert "%" not in line, "cron makes a new line of it"
    assert os.access(DEPLOY / "cron/nightly", os.X_OK)


@pytest.mark.parametrize(
    ("statuses", "ended", "runs"), [([0], 0, 1), ([75, 75, 0], 0, 3), ([3], 3, 1), ([75] * 9, 75, 7), ([75, 1], 1, 2)]
)
def test_the_cron_script_tries_again_on_75_alone(tmp_path, statuses, ended, runs):
    programs = tmp_path / "bin"
    told = tmp_path / "told"
    program(
        programs, "spark-submit", f'echo "$@" >>{told}',
        f"set -- {' '.join(map(str, statuses))}", f"shift $(($(wc -l <{told}) - 1))", 'exit "$1"',
    )  # fmt: skip
    program(programs, "sleep", f'echo "$@" >>{tmp_path}/slept')
    done = run(DEPLOY / "cron/nightly", "--master", "local", path=programs)
    assert (done.returncode, done.stderr) == (ended, "")
    calls = told.read_text().splitlines()
    assert len(calls) == runs
    properties, job = "/etc/sparkdl/cluster.conf", f"{ROOT}/jobs/score_batch.py"
    assert re.fullmatch(
        rf"--properties-file {properties} --master local {job} --conf-file {ROOT}/conf/schedule/nightly.yaml "
        r"--date \d{4}-\d\d-\d\d --log-format json",
        calls[0],
    )
    assert len(set(calls)) == 1, "each run is for the same day"
    assert runs == 1 or (tmp_path / "slept").read_text().split() == ["600"] * (runs - 1)


# GPUs


def test_gpus_are_told_as_spark_wants_them(tmp_path):
    program(tmp_path, "nvidia-smi", "printf '0\\n1\\n3\\n'")
    done = run(GPUS, path=tmp_path)
    assert json.loads(done.stdout) == {"name": "gpu", "addresses": ["0", "1", "3"]}
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("smi", "told"),
    [
        (["echo 'driver/library mismatch'; exit 18"], "failed: driver/library mismatch"),
        ([":"], "lists no GPU"),
        (["echo 'No devices were found'"], "no list of numbers: No devices were found"),
        (None, "no nvidia-smi"),
    ],
)
def test_no_gpu_is_an_error_that_says_why(tmp_path, smi, told):
    if smi:
        program(tmp_path, "nvidia-smi", *smi)
    elif shutil.which("nvidia-smi", path="/usr/bin:/bin"):
        pytest.skip("this machine has an nvidia-smi")
    done = run(GPUS, path=tmp_path)
    assert done.returncode == 1
    assert told in done.stderr
    assert done.stdout == ""


def test_the_discovery_script_can_be_run():
    assert GPUS.stat().st_mode & stat.S_IXOTH
