"""sparkdl-jvm.jar: the same sources give the same bytes, and a jar of these is not built again."""

import re
import zipfile

import jvm
import pytest

import sparkdl


@pytest.fixture
def build():
    return jvm.load_build()


def test_the_same_sources_give_the_same_bytes_and_are_built_once(build, tmp_path):
    jvm.require()
    first, second = tmp_path / "first.jar", tmp_path / "second.jar"
    assert build.build(first)
    assert not build.build(first)
    assert build.build(second)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        names = archive.namelist()
        assert archive.read("sparkdl/jvm/version").decode() == sparkdl.__version__
    assert names == ["META-INF/MANIFEST.MF", *sorted(names[1:])]
    assert "sparkdl/jvm/Scorer.class" in names


def test_what_is_packed_hangs_on_names_and_contents_alone(build, tmp_path):
    build.pack(tmp_path / "a.jar", {"b": b"2", "a": b"1"})
    build.pack(tmp_path / "b.jar", {"a": b"1", "b": b"2"})
    assert (tmp_path / "a.jar").read_bytes() == (tmp_path / "b.jar").read_bytes()


def test_another_source_or_version_is_another_stamp(build, tmp_path):
    (tmp_path / "A.java").write_text("class A {}")
    before = build.digest(tmp_path, "1")
    assert build.digest(tmp_path, "1") == before != build.digest(tmp_path, "2")
    (tmp_path / "A.java").write_text("class A { }")
    assert build.digest(tmp_path, "1") != before


def test_what_is_no_jar_is_built_anew(build, tmp_path):
    jar = tmp_path / "a.jar"
    assert not build.is_current(jar, "stamp")
    jar.write_bytes(b"no zip")
    assert not build.is_current(jar, "stamp")
    build.pack(jar, {build.STAMP: b"stamp"})
    assert build.is_current(jar, "stamp")
    assert not build.is_current(jar, "another")


def test_a_source_that_is_no_java_is_told(build, tmp_path):
    jvm.require()
    (tmp_path / "A.java").write_text("class A { nonsense }")
    with pytest.raises(build.BuildError, match=re.compile("javac failed.*A.java:1", re.DOTALL)):
        build.build(tmp_path / "a.jar", tmp_path)
    assert not (tmp_path / "a.jar").exists()
