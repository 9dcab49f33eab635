"""The jobs' confs: what is refused, with which words; secrets stay in the environment."""

import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from sparkdl import conf
from sparkdl.errors import ConfError

CONF = Path(__file__).parents[2] / "conf"
STREAM = {
    "source": {"format": "parquet", "path": "events", "columns": "id bigint"},
    "model": "bundle",
    "sink": {"kind": "parquet", "uri": "out"},
    "checkpoint": "checkpoint",
}


@pytest.fixture
def load(tmp_path):
    """The conf of a map, by way of a file; ``key=None`` leaves a key out."""

    def load(kind=conf.ScoreStreamConf, /, **changed):
        path = tmp_path / "conf.yaml"
        told = {**(STREAM if kind is conf.ScoreStreamConf else {}), **changed}
        path.write_text(yaml.safe_dump({key: value for key, value in told.items() if value is not None}))
        return conf.load(kind, str(path))

    return load


def test_a_good_one(load):
    made = load(
        deadLetter="dead", settings={"batchSize": 64}, sink={"kind": "kafka", "servers": "b:9092", "topic": "t"}
    )
    assert made.deadLetter.told == {"uri": "dead"}
    assert made.sink.told == {"servers": "b:9092", "topic": "t"}
    assert (made.mode, made.trigger, made.share, made.payload) == ("microbatch", None, 0.0, None)


BAD = [
    ({"checkpont": "here", "checkpoint": None}, ["checkpoint: is missing", "checkpont: there is no such key; did you mean 'checkpoint'?"]),
    ({"sink": {"kind": "parqet", "uri": "out"}}, ["sink.kind: must be one of", "did you mean 'parquet'?"]),
    ({"sink": {"kind": "parquet", "url": "out"}}, ["sink.url: there is no such key; did you mean 'uri'?"]),
    ({"sink": {"kind": "parquet", "topic": "t"}}, ["a sink of kind 'parquet' has no topic; its keys are ['uri',"]),
    ({"sink": {"kind": "kafka", "topic": "t"}}, ["a sink of kind 'kafka' needs servers"]),
    ({"deadLetter": {"kind": "kafka", "servers": "b", "topic": "t"}}, ["deadLetter: one of kind 'kafka' is for mode realtime"]),
    ({"source": {"format": "json", "columns": "id bigint"}}, ["source: a source of format 'json' needs a path"]),
    ({"source": {"format": "csv", "path": "x"}}, ["needs its columns, as DDL"]),
    ({"source": {"format": "kafka", "columns": "id int"}}, ["Kafka has columns of its own"]),
    ({"payload": {"format": "jsn", "schema": "id int"}}, ["payload.format: must be one of", "did you mean 'json'?"]),
    ({"payload": {"format": "json"}}, ["payload: a payload of format 'json' needs schema"]),
    ({"payload": {"format": "protobuf", "message": "m", "descriptor": "d", "schema": "x"}}, ["'protobuf' has no schema"]),
    ({"monitor": {"alerts": [{"metric": "ded", "above": 1}]}}, ["monitor.alerts: ", "did you mean 'dead'?"]),
    ({"settings": {"batchsize": 3}}, ["TorchModel has no Param 'batchsize'; did you mean 'batchSize'?"]),
    ({"share": 2}, ["share: should be less than or equal to 1 (got a number, 2)"]),
    ({"source": [1]}, ["source: should be a map of keys to values (got a list, [1])"]),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "said"), BAD)
def test_a_bad_one_is_an_error_that_names_key_and_remedy(load, tmp_path, changed, said):
    with pytest.raises(ConfError) as caught:
        load(**changed)
    for part in (str(tmp_path / "conf.yaml"), *said):
        assert part in str(caught.value)
    assert caught.value.path == str(tmp_path / "conf.yaml")
    assert caught.value.key in {*STREAM, *changed}


def test_no_map_no_yaml_no_file(tmp_path):
    path = tmp_path / "conf.yaml"
    for content, said in ((b"- 1", "must be a map"), (b"a: [", "is not YAML"), (b"\xff\xfe\xff", "is not YAML")):
        path.write_bytes(content)
        with pytest.raises(ConfError, match=said):
            conf.load(conf.ScoreStreamConf, str(path))
    with pytest.raises(ConfError, match="there is no conf at"):
        conf.load(conf.ScoreStreamConf, str(tmp_path / "none.yaml"))


def test_a_secret_comes_from_the_environment_and_is_in_no_message(load, monkeypatch):
    monkeypatch.setenv("JAAS", "my very secret")
    source = {"format": "kafka", "options": {"kafka.sasl.jaas.config": "x ${env:JAAS};", "kafka.linger.ms": 3}}
    made = load(source=source)
    assert "very secret" not in f"{made!r} {made}"
    assert conf.filled(made.source.options) == {"kafka.sasl.jaas.config": "x my very secret;", "kafka.linger.ms": 3}
    with pytest.raises(ConfError) as caught:
        load(source={**source, "colums": "${env:JAAS}"})
    assert "very secret" not in str(caught.value)


WRITTEN_OUT = [
    ("source.options.kafka.sasl.jaas.config", "hunter2"),
    ("source.options.kafka.sasl.jaas.config", 'username="${env:HOME}" password="hunter2";'),
    ("source.options.kafka.ssl.key.password", 12345678),
    ("source.options.kafka.ssl.key.password", "hunter2${env:HOME}"),
    ("monitor.token", ""),
    ("registry", "postgresql://me:hunter2@db/models"),
    ("registry", "postgresql://${env:HOME}:hunter2@db/models"),
    ("registry", "postgresql://me:hunter2${env:HOME}@db/models"),
    ("model", "s3://bucket/bundle?secret_key=hunter2"),
]


@pytest.mark.parametrize(("key", "value"), WRITTEN_OUT)
def test_a_secret_in_the_file_is_refused_unnamed(load, key, value):
    first, _, rest = key.partition(".")
    told = {"source": {"format": "kafka", "options": {rest.partition(".")[2]: value}}, "monitor": {rest: value}}
    with pytest.raises(ConfError, match=f"{re.escape(key)}: a secret does not belong") as caught:
        load(**{first: told.get(first, value)})
    assert "hunter2" not in str(caught.value)
    assert "12345678" not in str(caught.value)


def test_what_is_no_secret_is_taken(load, monkeypatch):
    monkeypatch.setenv("ME", "me")
    monkeypatch.setenv("DB", "hunter2")
    jaas = 'Module required username="me" password="${env:DB}";'
    made = load(
        registry="postgresql://${env:ME}:${env:DB}@db/models",
        source={"format": "kafka", "options": {"kafka.sasl.jaas.config": jaas, "kafka.linger.ms": 3}},
    )
    assert conf.filled(made).registry == "postgresql://me:hunter2@db/models"
    assert conf.secrets_of(made) == ["hunter2"]
    assert conf.printable(made)["registry"] == "postgresql://${env:ME}:***@db/models"
    columns = {"token_ids": [8]}
    assert load(conf.TrainConf, data="a", model="b:c", bundle="d", estimator={"shapes": columns})


def test_what_was_not_loaded_is_printed_without_its_secrets():
    source = conf.SourceConf(format="kafka", options={"kafka.ssl.key.password": 12345678})
    told = conf.printable(conf.ScoreStreamConf(**{**STREAM, "source": source}))
    assert told["source"]["options"] == {"kafka.ssl.key.password": "***"}


def test_a_value_of_the_wrong_kind_is_not_shown_for_a_secret(load):
    with pytest.raises(ConfError) as caught:
        load(monitor={"token": ["hunter2"]})
    assert "monitor.token: should be a text" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("text", "said"), [
    ("name: a\nbundle: b\nname: c\n", "line 3: the key 'name' is there already, in line 1"),
    ("bundle: b\nname: c\nbeats:\n  by: 1\n  figure: rmse\n  by: 2\n", "line 6: the key 'by' is there already, in line 4"),
])  # fmt: skip
def test_a_key_twice_is_refused(tmp_path, text, said):
    path = tmp_path / "conf.yaml"
    path.write_text(text)
    with pytest.raises(ConfError) as caught:
        conf.load(conf.PublishConf, str(path))
    assert said in str(caught.value)


def test_what_the_environment_lacks_is_said_at_once(load, monkeypatch):
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(ConfError, match="model: the environment has no NOT_THERE"):
        load(model="${env:NOT_THERE}/bundle")


def test_the_other_jobs(load):
    assert load(conf.ScoreBatchConf, source="a", model="b", output="c").columns is None
    with pytest.raises(ConfError, match="TorchEstimator has no Param 'epoch'; did you mean 'epochs'"):
        load(conf.TrainConf, data="a", model="b:c", bundle="d", estimator={"epoch": 3})
    with pytest.raises(ConfError, match="deadLetter: is missing"):
        load(conf.ReplayConf, model="b", sink={"kind": "parquet", "uri": "x"})


KINDS = {
    "train": conf.TrainConf,
    "evaluate": conf.EvaluateConf,
    "publish": conf.PublishConf,
    "score_batch": conf.ScoreBatchConf,
    "score_stream": conf.ScoreStreamConf,
    "drift_report": conf.DriftReportConf,
    "files": conf.ScoreStreamConf,
    "kafka": conf.ScoreStreamConf,
    "realtime": conf.ScoreStreamConf,
    "replay": conf.ReplayConf,
    "nightly": conf.ScoreBatchConf,
}
FILES = sorted(path for folder in ("demo", "stream", "schedule") for path in (CONF / folder).glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_confs_of_the_project_are_good_by_their_schemas_too(path, monkeypatch):
    monkeypatch.setenv("PAYMENTS_JAAS", "x")
    kind = KINDS[path.stem]
    assert conf.load(kind, str(path))
    schema = conf.schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    checker = jsonschema.Draft202012Validator(schema)
    told = yaml.safe_load(path.read_text())
    checker.validate(told)
    assert not checker.is_valid({**told, "no_such_key": 1})
    assert not checker.is_valid([told])
    for key in schema["required"]:
        assert not checker.is_valid({name: value for name, value in told.items() if name != key})


def test_what_is_set_on_the_command_line(tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_text(yaml.safe_dump({**STREAM, "source": {"format": "kafka"}}))

    def made(*changes):
        return conf.load(conf.ScoreStreamConf, str(path), changes=changes)

    assert made("trigger=2 seconds").trigger == "2 seconds"
    assert made("share=0.5", "share=0.25").share == 0.25
    assert made("columns=[a, b]").columns == ["a", "b"]
    assert made("sink.compression=zstd").sink.told == {"uri": "out", "compression": "zstd"}
    assert made("settings.batchSize=64").settings == {"batchSize": 64}
    assert made("monitor.window=5").monitor.window == 5
    options = made("source.options.kafka.bootstrap.servers=b:9092", "source.options.subscribe=t").source.options
    assert options == {"kafka.bootstrap.servers": "b:9092", "subscribe": "t"}


def test_a_nested_setting_of_an_estimator(load, tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_text("{data: a, model: 'b:c', bundle: d, estimator: {shapes: {image: [1, 8]}}}")
    made = conf.load(conf.TrainConf, str(path), changes=["estimator.shapes.image=[8, 1]", "estimator.epochs=3"])
    assert made.estimator == {"shapes": {"image": [8, 1]}, "epochs": 3}


BAD_CHANGES = [
    ("triger=1 second", "triger: there is no such key; did you mean 'trigger'"),
    ("sink.urii=x", "sink.urii: there is no such key; did you mean 'uri'"),
    ("trigger", "--set takes KEY=VALUE"),
    ("=x", "--set takes KEY=VALUE"),
    ("share=half", "share: should be a number (got a text, 'half')"),
    ("columns={a", "--set columns: the value is not YAML"),
    ("source=x", "source: should be a map of keys to values (got a text, 'x')"),
    ("model.name=x", "--set model.name: model is a text, 'bundle', and not a map"),
    ("sink.options.kafka.sasl.jaas.config=hunter2", "a secret does not belong in a conf"),
]


@pytest.mark.parametrize(("change", "said"), BAD_CHANGES)
def test_a_bad_change_is_named(tmp_path, change, said):
    path = tmp_path / "conf.yaml"
    path.write_text(yaml.safe_dump(STREAM))
    with pytest.raises(ConfError) as caught:
        conf.load(conf.ScoreStreamConf, str(path), changes=[change])
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_empty_file_and_a_list(tmp_path):
    path = tmp_path / "conf.yaml"
    for content, said in (("", "the file is empty"), ("# nothing\n", "the file is empty"), ("- a", "a list, ['a']")):
        path.write_text(content)
        with pytest.raises(ConfError) as caught:
            conf.load(conf.PublishConf, str(path))
        assert said in str(caught.value)
        assert "its keys are ['bundle', 'name'" in str(caught.value)


def test_what_is_printed_holds_no_secret(load, monkeypatch):
    monkeypatch.setenv("JAAS", "very secret")
    monkeypatch.setenv("DB", "hunter2")
    source = {"format": "kafka", "options": {"kafka.sasl.jaas.config": "${env:JAAS}"}}
    made = load(source=source, registry="postgresql://me:${env:DB}@db/models")
    told = yaml.safe_dump(conf.printable(made))
    assert "${env:JAAS}" in told
    assert "very secret" not in told
    assert "hunter2" not in told
    assert "mode: microbatch" in told  # a default


def test_train_that_cannot_resume(load):
    with pytest.raises(ConfError, match=r"resume: needs estimator\.checkpointDir"):
        load(conf.TrainConf, data="a", model="b:c", bundle="d", resume=True)


EXAMPLES = sorted((CONF.parent / "examples").glob("*/data.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_examples_confs(example):
    train = conf.load(conf.TrainConf, str(example.with_name("train.yaml")))
    stream = conf.load(conf.ScoreStreamConf, str(example.with_name("stream.yaml")))
    folder = f".examples/{example.parent.name}"
    assert (train.data, train.test, train.bundle) == (f"{folder}/train", f"{folder}/test", f"{folder}/bundle")
    assert (stream.source.path, stream.model) == (f"{folder}/arriving", train.bundle)


TRAIN = {"data": "d", "bundle": "b"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "model: say this, or application, and not both"),
        ({"model": "m:Net", "application": "ImageClassifier"}, "model: say this, or application, and not both"),
        ({"application": "ImageClasifier"}, "did you mean 'ImageClassifier'"),
        ({"application": "TextClassifier", "estimator": {"textcol": "x"}}, "TextClassifier has no Param 'textcol'; did you mean"),
        ({"model": "m:Net", "estimator": {"textCol": "x"}}, "TorchEstimator has no Param 'textCol'"),
    ],
)  # fmt: skip
def test_a_training_conf_names_a_model_or_an_application(load, changed, words):
    with pytest.raises(ConfError, match=re.escape(words)):
        load(conf.TrainConf, **TRAIN, **changed)


def test_an_applications_params_are_known(load):
    made = load(conf.TrainConf, **TRAIN, application="ImageClassifier", estimator={"backbone": "small", "epochs": 3})
    assert (made.application, made.model) == ("ImageClassifier", None)
