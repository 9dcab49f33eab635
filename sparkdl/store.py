"""Paths are URIs, read and written through ``pyarrow.fs``: local, HDFS, S3, GCS, ABFS."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import uuid
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from pyarrow import NativeFile, fs

from sparkdl.errors import StoreError

_RENAMES = ("local", "hdfs")  # file systems that rename in one step
_OWNER = re.compile(r"(?<=://)[^/@:?#]*:")  # before a password
_OPTIONS = re.compile(r"\?(?=[\w.%-]+=)")
_PORT = re.compile(r"[0-9]{1,5}(?=[/?#]|$)")
_SECRET = "pass|secret|token|key|sig|credential"
_SECRET_OPTION = re.compile(rf"(?i)([?&][^=&]*(?:{_SECRET})[^=&]*)=[^&#]*")


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of ``uri`` and the path in it. A path without a scheme is local.

    Raises StoreError when no file system serves the scheme.
    """
    text = os.fspath(uri)
    if text.startswith("/"):
        return fs.LocalFileSystem(), os.path.abspath(text)
    try:
        scheme = urlsplit(text).scheme
    except ValueError as error:
        raise StoreError(f"{shown(text)!r} is no URI: {error}", uri=shown(text)) from error
    if scheme == "file":  # also Hadoop's spelling, file:/path
        return fs.LocalFileSystem(), os.path.abspath(unquote(urlsplit(text).path))
    if len(scheme) <= 1:  # no scheme, or a Windows drive letter
        return fs.LocalFileSystem(), os.path.abspath(text)
    try:
        return fs.FileSystem.from_uri(text)
    except (ValueError, OSError, NotImplementedError) as error:  # the last: pyarrow was built without it
        told = hushed(str(error), secrets_of(text))  # pyarrow quotes the URI
        cause = None if secrets_of(text) else error
        raise StoreError(f"no file system can open {shown(text)!r}: {told}", uri=shown(text)) from cause


def absolute(uri: str) -> str:
    """A local path made absolute, a URI as it is: executors have working directories of their own."""
    text = os.fspath(uri)
    filesystem, path = resolve(text)
    return path if isinstance(filesystem, fs.LocalFileSystem) and not text.startswith("file:") else text


def join(uri: str, *parts: str) -> str:
    """``uri`` with ``parts`` appended to its path, separated by single slashes; the options of ``s3://b/p?region=x`` stay
    behind it."""
    text = os.fspath(uri)
    place, mark, options = text.partition("?") if "://" in text else (text, "", "")
    return "/".join([place.rstrip("/"), *parts]) + mark + options


def hadoop_uri(uri: str) -> str:
    """``uri`` as Spark must be given it: a local path gets its ``file://``, whatever ``fs.defaultFS`` is; pyarrow's options
    (``s3://b/p?region=x``), which Hadoop would take for a part of the name, are left out."""
    filesystem, path = resolve(uri)
    return f"file://{path}" if isinstance(filesystem, fs.LocalFileSystem) else os.fspath(uri).partition("?")[0]


def exists(uri: str) -> bool:
    """True when there is a file or a folder at ``uri``."""
    filesystem, path = resolve(uri)
    return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)


def is_folder(uri: str) -> bool:
    """True when there is a folder at ``uri``."""
    filesystem, path = resolve(uri)
    return bool(filesystem.get_file_info(path).type == fs.FileType.Directory)


def size(uri: str) -> int:
    """Of a file, in bytes. Raises FileNotFoundError if there is none."""
    filesystem, path = resolve(uri)
    found = filesystem.get_file_info(path).size
    if found is None:  # a folder, or nothing
        raise FileNotFoundError(f"there is no file {shown(uri)!r}")
    return int(found)


def names(uri: str) -> list[str]:
    """What is in a folder, by name; nothing if there is no such folder."""
    filesystem, path = resolve(uri)
    selector = fs.FileSelector(path, allow_not_found=True)
    try:
        found = filesystem.get_file_info(selector)
    except FileNotFoundError:  # pyarrow's word on a folder that was made while it looked
        found = filesystem.get_file_info(selector)
    return [info.base_name for info in found]


def read_bytes(uri: str) -> bytes:
    """The file's content. Raises FileNotFoundError or OSError as pyarrow does."""
    filesystem, path = resolve(uri)
    with filesystem.open_input_stream(path) as stream:
        return bytes(stream.read())


def sha256(uri: str) -> str:
    """Of a file's content, in hex. Raises FileNotFoundError or OSError as pyarrow does."""
    filesystem, path = resolve(uri)
    digest = hashlib.sha256()
    with filesystem.open_input_stream(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file whole or not at all: through a temporary name where files are renamed, else at the stream's close.

    On HDFS, which renames to no name that is taken, a file that was there is removed first. Raises StoreError with the
    reason when it cannot be written.
    """
    filesystem, path = resolve(uri)
    local, renames = isinstance(filesystem, fs.LocalFileSystem), filesystem.type_name in _RENAMES
    target = f"{path}.{uuid.uuid4().hex}.tmp" if renames else path
    try:
        filesystem.create_dir(os.path.dirname(path), recursive=True)
        try:
            with filesystem.open_output_stream(target) as stream:
                stream.write(content)
            if local:
                os.replace(target, path)
            elif renames:
                if filesystem.get_file_info(path).type != fs.FileType.NotFound:
                    filesystem.delete_file(path)
                filesystem.move(target, path)
        except OSError:
            if renames and filesystem.get_file_info(target).type != fs.FileType.NotFound:
                filesystem.delete_file(target)
            raise
    except OSError as error:
        raise StoreError(f"cannot write {shown(uri)!r}: {error}", uri=shown(uri)) from error


def write_new(uri: str, content: bytes) -> bool:
    """Write a file unless there is one; False, and nothing done, if there is. Of several at once one writes a local file, and
    it is seen whole; in other stores, which have no such step, the last may write over the others'. Raises StoreError."""
    filesystem, path = resolve(uri)
    if not isinstance(filesystem, fs.LocalFileSystem):
        if exists(uri):
            return False
        write_bytes(uri, content)
        return True
    whole = f"{path}.{uuid.uuid4().hex}.tmp"
    write_bytes(whole, content)
    try:
        try:
            os.link(whole, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            with open(path, "xb") as file:
                file.write(content)
    except FileExistsError:
        return False
    except OSError as error:
        raise StoreError(f"cannot write {shown(uri)!r}: {error}", uri=shown(uri)) from error
    finally:
        os.unlink(whole)
    return True


def open_output(uri: str) -> NativeFile:
    """A stream to a new file, its folder made if need be. Raises StoreError with the reason."""
    filesystem, path = resolve(uri)
    try:
        filesystem.create_dir(os.path.dirname(path), recursive=True)
        return filesystem.open_output_stream(path)
    except OSError as error:
        raise StoreError(f"cannot write {shown(uri)!r}: {error}", uri=shown(uri)) from error


def delete(uri: str) -> None:
    """Remove a file or a folder with all in it; nothing there is no error."""
    filesystem, path = resolve(uri)
    kind = filesystem.get_file_info(path).type
    if kind == fs.FileType.Directory:
        filesystem.delete_dir(path)
    elif kind != fs.FileType.NotFound:
        filesystem.delete_file(path)


_REMEDY = "set storePath to a directory that the driver and every executor can write"


def check_writable(uri: str, remedy: str = _REMEDY) -> None:
    """Write and remove a small file under ``uri``. Raises StoreError naming the place and the remedy."""
    probe = join(uri, f".sparkdl-probe-{uuid.uuid4().hex}")
    try:
        write_bytes(probe, b"")
        delete(probe)
    except OSError as error:
        raise StoreError(
            f"the store {shown(uri)!r} cannot be written ({error}); {remedy}",
            uri=shown(uri),
        ) from error


def renames_folders(uri: str) -> bool:
    """True when a folder there is renamed in one step, so that nobody sees half of it: local and HDFS, not S3 or GCS."""
    filesystem, _ = resolve(uri)
    return filesystem.type_name in _RENAMES


def canonical(uri: str) -> str:
    """The same text for the same place, of local paths behind links too, however it is spelt; as it is for a URI that no
    file system here serves."""
    try:
        filesystem, path = resolve(uri)
    except StoreError:
        return os.fspath(uri).rstrip("/")
    found = os.path.realpath(path) if isinstance(filesystem, fs.LocalFileSystem) else path
    return f"{filesystem.type_name}:{found}".rstrip("/")


def overlap(uri: str, other: str) -> bool:
    """True when both are one place, or one lies in the other."""
    one, two = f"{canonical(uri)}/", f"{canonical(other)}/"
    return one.startswith(two) or two.startswith(one)


def move(uri: str, target: str) -> None:
    """Rename a file or folder within its file system. Raises StoreError, also where ``target`` is a folder with files."""
    filesystem, path = resolve(uri)
    try:
        filesystem.move(path, resolve(target)[1])
    except OSError as error:
        raise StoreError(f"cannot rename {shown(uri)!r} to {shown(target)!r}: {error}", uri=shown(uri)) from error


def sync(uri: str, *, below: bool = True) -> None:
    """See a local folder, with all that is below it or its names alone, through to the disk, so that it is there although the
    machine is lost; other stores do so themselves."""
    filesystem, path = resolve(uri)
    if not isinstance(filesystem, fs.LocalFileSystem):
        return
    for folder, _, files in os.walk(path) if below else [(path, [], [])]:
        for name in (*files, ""):
            handle = os.open(os.path.join(folder, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def exchange(uri: str, other: str) -> bool:
    """Let two local folders take each other's name in one step; False, and nothing done, where that is not to be had. Raises
    StoreError if it is, and one of them is not there, say."""
    filesystem, path = resolve(uri)
    if not isinstance(filesystem, fs.LocalFileSystem):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # Linux, not every file system
    if rename is None:
        return False
    at_working_directory, exchanges = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    paths = (os.fsencode(path), os.fsencode(resolve(other)[1]))
    if rename(at_working_directory, paths[0], at_working_directory, paths[1], exchanges) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise StoreError(f"{shown(uri)!r} and {shown(other)!r} cannot be exchanged: {os.strerror(number)}", uri=shown(uri))


def shown(uri: str) -> str:
    """The URI without what is secret in it: a password before the host, options that sound like one."""
    text = os.fspath(uri)
    found = _password(text)
    if found:
        text = f"{text[: found[0]]}***{text[found[1] :]}"
    return _SECRET_OPTION.sub(r"\1=***", text)


def secrets_of(uri: str) -> list[str]:
    """What ``shown`` leaves out."""
    text = os.fspath(uri)
    found = _password(text)
    options = [option[0].partition("=")[2] for option in _SECRET_OPTION.finditer(text)]
    return [secret for secret in [text[found[0] : found[1]] if found else "", *options] if secret]


def hushed(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def sounds_secret(name: str) -> bool:
    """True for the name of an option whose value is not to be shown."""
    return re.search(_SECRET, name, re.IGNORECASE) is not None


def _password(uri: str) -> tuple[int, int] | None:
    """Where it begins and ends. It may hold any character, ``/`` and ``@`` too: up to the last ``@`` before the options."""
    owner = _OWNER.search(uri)
    if owner is None:
        return None
    start = owner.end()
    options = _OPTIONS.search(uri, start)
    end = uri.rfind("@", start, options.start() if options else len(uri))
    if end < 0 and not _PORT.match(uri, start):  # what looks like options may be the password's
        end = uri.rfind("@", start)
    return (start, end) if end >= 0 else None
