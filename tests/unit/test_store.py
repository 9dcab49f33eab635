"""Paths with and without a scheme mean what a user expects; a write is whole or not there; errors name the path."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from sparkdl import store
from sparkdl.errors import StoreError


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/tmp/a", "/tmp/a"),
        ("file:/tmp/a", "/tmp/a"),  # as Hadoop writes it
        ("file:///tmp/a", "/tmp/a"),
        ("file:///tmp/a%20b", "/tmp/a b"),
        ("/tmp/a%20b", "/tmp/a%20b"),  # no scheme, no escapes
        ("/tmp/a b#c?d", "/tmp/a b#c?d"),
        ("/tmp/a/../b/", "/tmp/b"),
        ("//[x", "//[x"),  # POSIX gives two slashes a meaning of its own
        ("a", os.path.abspath("a")),
        ("./a", os.path.abspath("a")),
    ],
)
def test_local_paths(uri, path):
    filesystem, found = store.resolve(uri)
    assert isinstance(filesystem, fs.LocalFileSystem)
    assert found == path
    assert store.hadoop_uri(uri) == f"file://{path}"


def test_a_path_object_is_a_path(tmp_path):
    assert store.resolve(tmp_path / "x")[1] == str(tmp_path / "x")
    assert store.join(tmp_path, "x", "y") == str(tmp_path / "x" / "y")


@pytest.mark.parametrize("uri", ["nosuch://a/b", "http://localhost/a", "run:1/x", "abcfs://x@y/z", "http://["])
def test_an_unknown_scheme_is_a_store_error_that_names_it(uri):
    with pytest.raises(StoreError) as caught:
        store.resolve(uri)
    assert caught.value.uri == uri
    assert uri in str(caught.value)


def test_other_file_systems_are_pyarrow_s():
    filesystem, path = store.resolve("mock:///a/b")
    assert filesystem.type_name == "mock"
    assert path == "a/b"


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        ("a/b", os.path.abspath("a/b")),
        ("/a/../b/", "/b"),
        (Path("a"), os.path.abspath("a")),
        ("file:///a", "file:///a"),
        ("file:/a", "file:/a"),
        ("mock:///a/b", "mock:///a/b"),
    ],
)
def test_a_relative_path_means_the_same_in_another_directory(uri, absolute):
    assert store.absolute(uri) == absolute


@pytest.mark.parametrize(
    ("uri", "parts", "joined"),
    [
        ("/a", ["b"], "/a/b"),
        ("/a/", ["b", "c"], "/a/b/c"),
        ("s3://bucket", ["b"], "s3://bucket/b"),
        ("hdfs:///a//", ["b"], "hdfs:///a/b"),
        ("/", ["b"], "/b"),
    ],
)
def test_join(uri, parts, joined):
    assert store.join(uri, *parts) == joined


@given(st.binary(max_size=2000))
def test_bytes_come_back(tmp_path_factory, content):
    place = tmp_path_factory.mktemp("store") / "new" / "folder" / "file"
    for uri in (str(place), f"file://{place}"):
        store.write_bytes(uri, content)
        assert store.read_bytes(uri) == content
    assert [path.name for path in place.parent.iterdir()] == ["file"]


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    uri = str(tmp_path / "file")
    store.write_bytes(uri, b"old")

    def full(source, target):
        assert os.path.dirname(source) == str(tmp_path)  # beside it: on the same disk, or replacing is no single act
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match="No space left"):
        store.write_bytes(uri, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert store.read_bytes(uri) == b"old"


class _Hdfs:
    """A local file system that renames as HDFS does; what files are called while they are written."""

    type_name = "hdfs"

    def __init__(self):
        self.local, self.written = fs.LocalFileSystem(), []

    def __getattr__(self, name):
        return getattr(self.local, name)

    def open_output_stream(self, path):
        self.written.append(path)
        return self.local.open_output_stream(path)

    def move(self, source, target):
        if os.path.exists(target):
            raise OSError(f"{target} exists")
        self.local.move(source, target)


def test_on_hdfs_nobody_sees_a_file_that_is_being_written(tmp_path, monkeypatch):
    hdfs, path = _Hdfs(), str(tmp_path / "folder" / "file")
    monkeypatch.setattr(store, "resolve", lambda uri: (hdfs, uri))
    for content in (b"old", b"new"):
        store.write_bytes(path, content)
        assert store.read_bytes(path) == content
    assert path not in hdfs.written
    monkeypatch.setattr(hdfs, "move", lambda *_: (_ for _ in ()).throw(OSError("no")), raising=False)
    with pytest.raises(StoreError, match="no"):
        store.write_bytes(str(tmp_path / "folder" / "other"), b"")
    assert os.listdir(tmp_path / "folder") == ["file"]


@pytest.mark.parametrize("place", ["{tmp}/file/below", "/proc/sparkdl/x", "file:///proc/sparkdl"])
def test_a_place_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").write_text("")
    uri = place.format(tmp=tmp_path)
    with pytest.raises(StoreError, match="cannot write") as caught:
        store.write_bytes(uri, b"x")
    assert caught.value.uri == uri
    with pytest.raises(StoreError, match="cannot write"):
        store.open_output(uri)
    with pytest.raises(StoreError, match=r"the store .* cannot be written .*set storePath to a directory"):
        store.check_writable(uri)


def test_checking_leaves_nothing(tmp_path):
    store.check_writable(str(tmp_path / "new"))
    assert list((tmp_path / "new").iterdir()) == []


def test_an_unknown_scheme_cannot_be_written_either():
    with pytest.raises(StoreError):
        store.check_writable("nosuch://a/b")


def test_exists_and_delete(tmp_path):
    folder = tmp_path / "folder"
    store.write_bytes(str(folder / "a" / "b"), b"")
    for uri in (str(folder / "a" / "b"), str(folder)):
        assert store.exists(uri)
        store.delete(uri)
        assert not store.exists(uri)
        store.delete(uri)  # nothing there is no error


def test_a_stream_makes_its_folder(tmp_path):
    with store.open_output(str(tmp_path / "a" / "b")) as stream:
        stream.write(b"text")
    assert (tmp_path / "a" / "b").read_bytes() == b"text"


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        store.read_bytes(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("a", "a", True), ("a", "a/b", True), ("a/", "link", True), ("link/b", "a", True), ("link/new", "a/new", True),
        ("a", "ab", False), ("a/b", "a/c", False), ("link", "b", False), ("a", "", True),
    ],
)  # fmt: skip
def test_places_overlap_behind_links_too(tmp_path, one, other, overlap):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    for pair in ((one, other), (other, one)):
        uris = [f"{tmp_path}/{pair[0]}", f"file:{tmp_path}/{pair[1]}"]
        assert store.overlap(*uris) == overlap
    assert not store.overlap(f"{tmp_path}/a", f"mock://{tmp_path}/a")
    assert store.overlap("nosuch://a/b", "nosuch://a")
    assert not store.overlap("nosuch://a", str(tmp_path))


@pytest.mark.parametrize(
    ("uri", "joined"),
    [
        ("/a", "/a/b/c"),
        ("/a/", "/a/b/c"),
        ("/what?", "/what?/b/c"),  # a local name
        ("s3://bucket/a", "s3://bucket/a/b/c"),
        ("s3://bucket/a/?region=x&scheme=http", "s3://bucket/a/b/c?region=x&scheme=http"),
    ],
)
def test_the_options_of_a_uri_stay_behind_its_path(uri, joined):
    assert store.join(uri, "b", "c") == joined


def test_hadoop_gets_no_options():
    assert store.hadoop_uri("s3://b/p?region=eu-west-1") == "s3://b/p"


def test_a_new_file_is_written_by_one_only(tmp_path, monkeypatch):
    uri = str(tmp_path / "a" / "f")
    with ThreadPoolExecutor(8) as pool:
        wrote = list(pool.map(lambda i: store.write_new(uri, f"{i}".encode() * 1000), range(8)))
    assert wrote.count(True) == 1
    assert store.read_bytes(uri) == f"{wrote.index(True)}".encode() * 1000
    assert os.listdir(tmp_path / "a") == ["f"]

    def no_links(*_):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    other = str(tmp_path / "b" / "f")
    assert [store.write_new(other, b"1"), store.write_new(other, b"2")] == [True, False]
    assert store.read_bytes(other) == b"1"
    assert os.listdir(tmp_path / "b") == ["f"]


def test_errors_show_no_password(tmp_path):
    with pytest.raises(StoreError) as caught:
        store.resolve("nosuch://KEY:a/b@bucket/t?token=hush")
    assert "KEY:***@bucket" in str(caught.value)
    assert "a/b" not in str(caught.value) + str(caught.value.uri)
    assert "hush" not in str(caught.value) + str(caught.value.uri)


def test_a_folder_that_is_made_while_it_is_listed(tmp_path):
    folders = [tmp_path / str(i) for i in range(3000)]
    with ThreadPoolExecutor(2) as pool:
        made = pool.submit(lambda: [os.mkdir(folder) for folder in folders])
        assert list(pool.map(lambda folder: store.names(str(folder)), folders)) == [[]] * 3000
        made.result()
