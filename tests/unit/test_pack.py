"""What goes into a packed environment, told from the environment that runs the tests; tests/e2e/test_packed.py packs real ones."""

import os
import sys
import tarfile
from pathlib import Path

import pytest

from sparkdl import distributions, pack
from sparkdl.__main__ import main


def test_what_a_package_needs_comes_with_it():
    found = distributions.needed(["sparkdl", "horovod"])
    assert {"sparkdl", "horovod", "torch", "pyarrow", "pyspark", "typing-extensions"} <= found
    assert not found & {"pytest", "ruff", "mypy", "hypothesis", "transformers", "keras"}
    assert not found & {"pillow", "deltalake"}, "extras that nobody asked for"
    more = distributions.needed(["Sparkdl[image]"]) - distributions.needed(["sparkdl"])
    assert {"pillow", "timm", "torchvision"} <= more, "what the extra asks for"
    assert not more & {"soundfile", "tokenizers", "mlflow-skinny"}, "what others do"
    assert distributions.needed(["PyYAML"]) == {"pyyaml"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--output", "environment.tar"], "--output must end with one of .tar.gz, .tgz (got 'environment.tar')"),
        (["--output", "nowhere/environment.tgz"], "there is no folder 'nowhere' to write 'environment.tgz' to"),
        (["--output", "e.tgz", "--only", "torchvison"], "no package 'torchvison'; did you mean 'torchvision'"),
        (["--output", "e.tgz", "--only", "sparkdl[imgae]"], "sparkdl has no extra 'imgae'; did you mean 'image'?"),
        (["--output", "e.tgz", "--only", "a b"], "--only takes packages as pip names them, 'sparkdl[image]' say (got 'a b')"),
        (["--output", "e.tgz", "--python-prefix", "usr"], "--python-prefix must be an absolute path"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["pack", *arguments]) == 1
    assert told in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_without_a_virtual_environment_or_venv_pack(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr(pack.importlib.util, "find_spec", lambda name: None)
        assert main(["pack", "--output", str(tmp_path / "e.tgz")]) == 1
    assert "pip install 'sparkdl[pack]'" in capsys.readouterr().err
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert main(["pack", "--output", str(tmp_path / "e.tgz")]) == 1
    assert "is not a virtual environment" in capsys.readouterr().err


def test_an_archive_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    """A disk that is full, say: what was there is still there, and no part of the new one."""
    target = tmp_path / "e.tgz"
    target.write_text("the last one")

    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "add", full)
    with pytest.raises(pack.PackError, match="cannot be written: No space left on device"):
        pack.pack(target, only=["tabulate"])
    assert target.read_text() == "the last one"
    assert os.listdir(tmp_path) == ["e.tgz"]


def test_what_torch_opens_stays():
    owners = {name: set(distributions.files_of(name)) for name in distributions.installed()}
    left_out = {Path(path).name for path in distributions.cuda_unopened(owners)}
    if not any(distributions.CUDA.match(name) for name in owners):
        pytest.skip("a torch without CUDA")
    assert any(name.startswith("libcudnn_engines") for name in left_out)
    assert not any(name.startswith(("libcublas.so", "libnccl.so", "libcudart.so")) for name in left_out)
    assert not any(name.startswith("libtorch") for name in left_out)
