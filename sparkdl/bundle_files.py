"""The files of a bundle: what the manifest must say, and that every file is the one it lists.

``docs/bundle-format.md`` describes the format. Nothing here loads a model.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sparkdl import __version__, store, tasks
from sparkdl import program as programs
from sparkdl.errors import BundleIntegrityError, BundleNotFoundError, BundleVersionError
from sparkdl.graph.graph import FILE as GRAPH
from sparkdl.graph.graph import Graph
from sparkdl.program import Program, Weights
from sparkdl.signature import Signature

FORMAT = 4
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FIRST_KINDS = ("export", "import", "pickle")


def format_of(program: Program, signature: Mapping[str, Any], graph: Any = None) -> int:
    """The first format that has what this bundle needs: older versions of sparkdl then read what they can run.
    signature, graph: as the manifest tells them."""
    if graph is not None:
        return 4
    inputs = signature["inputs"]
    if signature.get("decoder") is not None or any(spec.get("preprocess") is not None for spec in inputs):
        return 3
    plain = not any(-1 in spec["shape"] or spec.get("decode") for spec in inputs)
    return 1 if plain and program.kind in _FIRST_KINDS else 2


def packed(
    program: Program, weights: Weights, signature: Signature, graph: Graph | None, told: Mapping[str, Any]
) -> dict[str, bytes]:
    """The files of a bundle; the manifest, last, holds the digests of the others. told: its task, metrics, training."""
    tensors, aliases = without_aliases(weights)
    files = {WEIGHTS: safetensors.torch.save(tensors)}
    if program.kind in programs.FILES:
        files[programs.FILES[program.kind]] = program.content
    graph_told = {}
    if graph is not None:
        files[GRAPH] = graph.content
        graph_told["graph"] = graph.to_json()
    signature_told = signature.to_json()
    manifest = {
        "format": format_of(program, signature_told, graph),
        "signature": signature_told,
        "program": {
            "kind": program.kind,
            "factory": program.factory,
            "kwargs": program.kwargs,
            "reason": program.reason,
        },
        "aliases": aliases,
        "versions": {"sparkdl": __version__, "torch": torch.__version__},
        "files": {name: {"sha256": sha256(data), "bytes": len(data)} for name, data in files.items()},
        **graph_told,
        **told,
    }
    files[MANIFEST] = json.dumps(manifest, indent=2, sort_keys=True).encode()
    return files


def check(files: Mapping[str, bytes], uri: str | None) -> dict[str, Any]:
    """The manifest, after format and digests were found right. Raises as ``Bundle.load`` does."""
    if MANIFEST not in files:
        raise BundleNotFoundError(f"the bundle {uri or ''} has no {MANIFEST}", uri=uri)
    manifest = _parse_manifest(files[MANIFEST], uri)
    for name, told in manifest["files"].items():
        if name not in files:
            raise BundleIntegrityError(f"{name} of the bundle {uri or ''} is missing", uri=uri, file=name)
        if sha256(files[name]) != told.get("sha256"):
            raise BundleIntegrityError(
                f"{name} of the bundle {uri or ''} is not what was saved: sha256 {sha256(files[name])}, the manifest "
                f"says {told.get('sha256')}. Take it from a copy, or train again",
                uri=uri,
                file=name,
            )
    return manifest


def check_told(program: Program, manifest: Mapping[str, Any]) -> None:
    """Raise ValueError if a field of the manifest has no meaning."""
    fields = {
        "program.kind": program.kind in programs.KINDS,
        "format": manifest["format"] >= format_of(program, manifest["signature"], manifest.get("graph")),
        "program.factory": isinstance(program.factory, str),
        "program.kwargs": program.kwargs is None or isinstance(program.kwargs, dict),
        "program.reason": isinstance(program.reason, str),
        "task": manifest["task"] in (*tasks.TASKS, None),
        "metrics": isinstance(manifest["metrics"], dict),
        "training": isinstance(manifest["training"], dict),
    }
    for name, fine in fields.items():
        if not fine:
            raise ValueError(f"its {name} has no meaning")


def _parse_manifest(content: bytes, uri: str | None) -> dict[str, Any]:
    def bad(why: str) -> BundleIntegrityError:
        return BundleIntegrityError(f"{MANIFEST} of the bundle {uri or ''} {why}", uri=uri, file=MANIFEST)

    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise bad(f"is not JSON: {error}") from error
    number = manifest.get("format") if isinstance(manifest, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise bad("has no format number")
    if manifest["format"] > FORMAT:
        raise BundleVersionError(
            f"the bundle {uri or ''} has format {manifest['format']}; this sparkdl reads up to {FORMAT}: "
            "upgrade sparkdl here, or save the bundle with an older one",
            uri=uri,
            found=manifest["format"],
            supported=FORMAT,
        )
    listed = manifest.get("files")
    if not isinstance(listed, dict) or WEIGHTS not in listed:
        raise bad("lists no weights")
    for name, told in listed.items():
        if not _FILE_NAME.fullmatch(name) or ".." in name or not isinstance(told, dict):
            raise bad(f"lists {name!r}, which is not the name of a file beside it")
    return manifest


def read(uri: str) -> dict[str, bytes]:
    """The manifest and the files it lists, as bytes; nothing else in the directory is looked at."""
    if not store.exists(store.join(uri, MANIFEST)):
        raise BundleNotFoundError(
            f"there is no bundle at {uri!r}: it has no {MANIFEST}, which is written last; "
            "either nothing was saved there or saving was interrupted",
            uri=uri,
        )
    files = {MANIFEST: _read_file(uri, MANIFEST)}
    for name in _parse_manifest(files[MANIFEST], uri)["files"]:
        files[name] = _read_file(uri, name)
    return files


def _read_file(uri: str, name: str) -> bytes:
    filesystem, path = store.resolve(store.join(uri, name))
    if filesystem.type_name == "local" and os.path.islink(path):
        raise BundleIntegrityError(f"{name} of the bundle {uri} is a symbolic link; refused", uri=uri, file=name)
    try:
        return store.read_bytes(store.join(uri, name))
    except OSError as error:
        raise BundleIntegrityError(f"{name} of the bundle {uri} cannot be read: {error}", uri=uri, file=name) from error


def sha256(content: bytes) -> str:
    """In lower-case hex."""
    return hashlib.sha256(content).hexdigest()


def without_aliases(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor once, and which further names mean the same one (tied weights)."""
    seen: dict[tuple[Any, ...], str] = {}
    tensors, aliases = {}, {}
    for name, value in weights.items():
        key = (value.data_ptr(), value.dtype, value.shape, value.stride()) if value.numel() else (name,)
        if seen.setdefault(key, name) != name:
            aliases[name] = seen[key]
        else:
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return tensors, aliases
