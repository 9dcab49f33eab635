"""What counts as code that came with a job. (That nothing else is imported: tests/spark/test_jobs.py.)"""

import zipfile
from types import SimpleNamespace

import pytest

from sparkdl.errors import InvalidParamError
from sparkdl.jobs import code


class Conf(dict):
    def get(self, key, default=None):
        return super().get(key, default)


def run_with(*allowed, **conf):
    spark = SimpleNamespace(conf=Conf({key.replace("_", "."): value for key, value in conf.items()}))
    return SimpleNamespace(allowed=allowed, spark=spark)


def test_the_command_line_and_sparks_conf_allow():
    assert code.allowed(run_with("mine", "mine", spark_sparkdl_allow="theirs, others,")) == ("mine", "theirs", "others")
    assert code.trusted(run_with()) is False
    assert code.trusted(run_with("mine")) == ("mine",)
    assert code.trusted(run_with("mine", "*")) is True


@pytest.mark.parametrize("name", ["my company", "a.b", "a/b", "1a"])
def test_what_is_no_packages_name(name):
    with pytest.raises(InvalidParamError, match=r"--allow and spark\.sparkdl\.allow take the names of packages"):
        code.allowed(run_with(name))


def test_a_copy_of_a_shipped_file_is_shipped_and_another_of_its_name_is_not(tmp_path):
    shipped, copy, other = tmp_path / "a/net.py", tmp_path / "b/net.py", tmp_path / "c/net.py"
    for path, text in ((shipped, "x = 1"), (copy, "x = 1"), (other, "x = 2")):
        path.parent.mkdir()
        path.write_text(text)
    assert code._is_of(str(shipped), str(shipped))
    assert code._is_of(str(copy), str(shipped))
    assert not code._is_of(str(other), str(shipped))
    assert not code._is_of(str(tmp_path / "a/other.py"), str(shipped))


def test_what_lies_in_a_shipped_archive(tmp_path):
    archive = tmp_path / "models.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("models/__init__.py", "")
    assert code._is_of(f"{archive}/models", str(archive))
    assert not code._is_of(f"{archive}.more/models", str(archive))
    assert not code._is_of(str(tmp_path / "models"), str(archive))


@pytest.mark.parametrize("mark", ["pyvenv.cfg", "bin/python", "conda-meta/history"])
def test_a_python_environment_is_not_code_of_the_job(tmp_path, mark):
    (tmp_path / "env/lib").mkdir(parents=True)
    assert code._is_of(str(tmp_path / "env/lib/os.py"), str(tmp_path / "env"))
    (tmp_path / "env" / mark).parent.mkdir(exist_ok=True)
    (tmp_path / "env" / mark).touch()
    assert not code._is_of(str(tmp_path / "env/lib/os.py"), str(tmp_path / "env"))


def test_a_link_out_of_what_was_shipped_is_not_shipped(tmp_path):
    (tmp_path / "shipped").mkdir()
    (tmp_path / "evil.py").touch()
    (tmp_path / "shipped/net.py").symlink_to(tmp_path / "evil.py")
    assert not code._is_of(str(tmp_path / "shipped/net.py"), str(tmp_path / "shipped"))
