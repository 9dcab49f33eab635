"""Where a registry keeps its bundles: each once, in a folder named by its digest."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sparkdl import store
from sparkdl.bundle import Bundle
from sparkdl.bundle_files import MANIFEST
from sparkdl.errors import BundleError, BundleIntegrityError, StoreError

_ATTEMPTS = 5  # at writing where others write the same: on HDFS one of two who rename at once fails


def put(root: str, files: Mapping[str, bytes], digest: str) -> None:
    """See to it that ``<root>/<digest>`` is this bundle, whole. Others may do the same at the same time: all write the
    same bytes. Files of a damaged copy are written anew. Raises StoreError."""
    uri = store.join(root, digest)
    for attempt in range(_ATTEMPTS):
        if _is_whole(uri, digest):
            return
        try:
            for name in sorted(files, key=lambda name: name == MANIFEST):  # the manifest last: without it, no bundle
                _put_file(store.join(uri, name), files[name])
        except StoreError:
            if attempt == _ATTEMPTS - 1:
                raise


def _is_whole(uri: str, digest: str) -> bool:
    try:
        return Bundle.verify(uri) == digest
    except BundleError:
        return False


def _put_file(uri: str, content: bytes) -> None:
    try:
        if store.read_bytes(uri) == content:
            return
    except OSError:  # not there, or cannot be read: writing will tell
        pass
    store.write_bytes(uri, content)


def get(root: str, digest: str, trusted: bool | Collection[str]) -> Bundle:
    """The bundle of this digest. Raises as ``Bundle.load`` does."""
    uri = store.join(root, digest)
    bundle = Bundle.load(uri, trusted=trusted)
    if bundle.digest != digest:
        raise BundleIntegrityError(
            f"the bundle {uri!r} is another one, of digest {bundle.digest}: somebody replaced it. Publish the right one "
            "again",
            uri=uri,
            file=MANIFEST,
        )
    return bundle
