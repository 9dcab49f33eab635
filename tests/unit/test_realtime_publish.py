"""What the driver tells the executors of the model: the file that they look at, and what is refused before it is in there."""

import hashlib
import json
import time

import pytest
import torch
from torch import nn

from sparkdl import Bundle, Registry, Signature, TensorSpec
from sparkdl.errors import GraphError
from sparkdl.preprocess import Image
from sparkdl.realtime.publish import Publisher, last_version
from sparkdl.stream.versions import Models

X = TensorSpec("x", "float32", (2,), ("x",), ("array<float>",))
IN_PYTHON = TensorSpec("x", "float32", (3, 4, 4), ("x",), ("binary",), preprocess=Image(height=4, width=4))
Z = TensorSpec("x", "float32", (2,), ("z",), ("array<float>",))


class Scaled(nn.Module):
    def __init__(self, by=1.0):
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, x):
        return x.flatten(1).sum(dim=1) * self.by


@pytest.fixture(scope="module")
def bundles():
    """1 and 2 can run in the JVM; 3 reads another column; 4 needs Python."""
    specs = (1.0, X), (2.0, X), (1.0, Z), (1.0, IN_PYTHON)
    return [Bundle.from_module(Scaled(by), Signature((spec,))) for by, spec in specs]


@pytest.fixture
def registry(tmp_path, bundles):
    made = Registry(tmp_path / "registry")
    for bundle in bundles:
        made.publish("m", bundle)
    made.set_alias("m", "champion", 1)
    return made


@pytest.fixture
def checkpoint(tmp_path):
    return str(tmp_path / "checkpoint")


def begun(registry, checkpoint):
    """A query's, as it starts one."""
    models = Models("registry://m@champion", registry=registry)
    publisher = Publisher(models, checkpoint)
    publisher.begin(models.first(last_version(checkpoint)))
    return publisher


def current(publisher):
    with open(f"{publisher.folder}/current.json") as file:
        return json.load(file)


def until(publisher, is_so):
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        publisher.look()
        time.sleep(0.01)  # as long as it takes until the next look


def test_the_file_names_version_graph_and_answers(registry, checkpoint, bundles):
    assert last_version(checkpoint) is None
    publisher = begun(registry, checkpoint)
    told = current(publisher)
    graph = bundles[0].graph
    assert told == {
        "model_version": "1", "file": f"graph-{graph.sha256}.onnx", "graph": graph.to_json(), "answers": {"prediction": "float"},
    }  # fmt: skip
    with open(f"{publisher.folder}/{told['file']}", "rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == graph.sha256
    assert publisher.version == last_version(checkpoint) == "1"


def test_the_version_that_the_alias_names_is_published_once_its_graph_is_there(registry, checkpoint, bundles):
    publisher = begun(registry, checkpoint)
    registry.set_alias("m", "champion", 2)
    until(publisher, lambda: publisher.version == "2")
    told = current(publisher)
    assert (told["model_version"], told["graph"]["sha256"]) == ("2", bundles[1].graph.sha256)
    for bundle in bundles[:2]:  # an executor that is slow may still be about to read the first
        with open(f"{publisher.folder}/graph-{bundle.graph.sha256}.onnx", "rb") as file:
            assert file.read() == bundle.graph.content


@pytest.mark.parametrize(
    ("number", "words"), [(3, "has columns ('z',)"), (4, "Image, which reads column 'x', runs in Python only")]
)
def test_a_version_that_cannot_take_over_is_refused_and_the_file_stays(registry, checkpoint, number, words):
    publisher = begun(registry, checkpoint)
    before = current(publisher)
    registry.set_alias("m", "champion", number)
    until(publisher, lambda: publisher.refused)
    assert list(publisher.refused) == [str(number)]
    assert words in publisher.refused[str(number)]
    assert current(publisher) == before
    registry.set_alias("m", "champion", 2)
    until(publisher, lambda: publisher.version == "2")


@pytest.mark.parametrize("number", [3, 4])
def test_what_cannot_take_over_does_not_at_a_restart_either(registry, checkpoint, number):
    begun(registry, checkpoint)
    registry.set_alias("m", "champion", number)
    again = begun(registry, checkpoint)
    assert (again.version, list(again.refused)) == ("1", [str(number)])
    registry.set_alias("m", "champion", 2)
    assert begun(registry, checkpoint).version == "2"


def test_a_first_version_that_needs_python_is_not_begun_with(registry, checkpoint):
    registry.set_alias("m", "champion", 4)
    with pytest.raises(GraphError, match="Image"):
        begun(registry, checkpoint)
    assert last_version(checkpoint) is None


def test_a_registry_that_is_gone_is_told_and_what_is_published_stays(registry, checkpoint, tmp_path):
    publisher = begun(registry, checkpoint)
    (tmp_path / "registry").rename(tmp_path / "elsewhere")
    until(publisher, lambda: publisher.models.trouble)
    assert publisher.version == "1"
    (tmp_path / "elsewhere").rename(tmp_path / "registry")
    registry.set_alias("m", "champion", 2)
    until(publisher, lambda: publisher.version == "2")
    assert publisher.models.trouble is None
