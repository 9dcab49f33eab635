"""The list of a dataset's files, written last: no manifest, no dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from sparkdl import store
from sparkdl.errors import StoreError
from sparkdl.signature import Signature, TensorSpec

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class DataFile:
    """A Parquet file, its path relative to the dataset, and the rows of each of its row groups."""

    path: str
    row_groups: tuple[int, ...]


@dataclass(frozen=True)
class Dataset:
    """Training data at rest: one Parquet column a tensor, each tensor as a flat list (or a scalar) in its own dtype."""

    uri: str
    files: tuple[DataFile, ...]
    signature: Signature
    label: TensorSpec

    @cached_property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(sum(file.row_groups) for file in self.files)

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The inputs and the label: a column each, by the spec's name; the label's is LABEL."""
        return (*self.signature.inputs, replace(self.label, name=LABEL))

    def save(self) -> None:
        """Write the manifest, which makes this a dataset."""
        content = {
            "format": FORMAT,
            "rows": self.rows,
            "files": [asdict(file) for file in self.files],
            "signature": self.signature.to_json(),
            "label": asdict(self.label),
        }
        store.write_bytes(store.join(self.uri, MANIFEST), json.dumps(content).encode())

    @classmethod
    def load(cls, uri: str) -> Dataset:
        """Read the manifest. Raises StoreError if there is none, or none that this version reads."""
        try:
            content: Mapping[str, Any] = json.loads(store.read_bytes(store.join(uri, MANIFEST)))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, this sparkdl reads {FORMAT}")
            return cls(
                uri,
                tuple(DataFile(f["path"], tuple(f["row_groups"])) for f in content["files"]),
                Signature.from_json(content["signature"]),
                TensorSpec(**content["label"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"there is no (finished) dataset at {uri!r}: {error}", uri=uri) from error


LABEL = "__label__"
