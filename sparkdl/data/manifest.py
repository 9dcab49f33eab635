"""The list of a dataset's files, written last: no manifest, no dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from sparkdl import store
from sparkdl.errors import DataError, InvalidParamError, SignatureError, StoreError
from sparkdl.signature import FLOATS, Signature, TensorSpec, stack_scalars

MANIFEST = "manifest.json"
KIND = "sparkdl dataset"
FORMAT = 1
PAGE_CHECKSUMS = int(pa.__version__.split(".")[0]) >= 15  # older ones neither write nor verify them
LABEL, WEIGHT = "__label__", "__weight__"


@dataclass(frozen=True)
class Layout:
    """What is written of a DataFrame, and how: the model's inputs, the label, and which rows are for validation.

    weight: a scalar of ``float32`` or ``float64``. indicator: a boolean column, true in validation rows; or
    fraction: the share of rows, in (0, 1), that is for validation; which ones depends on their content and the seed.
    classes: if given, labels must be whole numbers in ``[0, classes)``.

    Raises InvalidParamError for a fraction outside ``[0, 1)``, or with an indicator; SignatureError for a weight of
    another dtype or shape, and for an input named as the label or the weight are on disk.
    """

    signature: Signature
    label: TensorSpec
    weight: TensorSpec | None = None
    indicator: str | None = None
    fraction: float = 0.0
    seed: int = 0
    classes: int | None = None

    def __post_init__(self) -> None:
        check_split(self.indicator, self.fraction)
        if self.weight is not None and (self.weight.shape or self.weight.dtype not in ("float32", "float64")):
            raise SignatureError(
                f"a weight is a scalar of float32 or float64 (got {self.weight})",
                column=self.weight.name,
                expected="float32 or float64",
                got=str(self.weight),
            )
        for spec in self.signature.inputs:
            if spec.name in (LABEL, WEIGHT):
                raise SignatureError(
                    f"an input cannot be called {spec.name!r}, which is the name of another column on disk; rename it",
                    column=spec.name,
                    expected=f"another name than {LABEL!r} and {WEIGHT!r}",
                    got=spec.name,
                )

    @property
    def splits(self) -> bool:
        """True when some rows are for validation."""
        return self.indicator is not None or self.fraction > 0

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """See ``Dataset.tensors``."""
        return stored(self.signature, self.label, self.weight)

    @property
    def digest(self) -> str:
        """16 hex digits of everything that makes the same rows another dataset."""
        told = {
            "inputs": [_made_of(spec) for spec in self.signature.inputs],
            "label": _made_of(self.label),
            "weight": self.weight and _made_of(self.weight),
            "indicator": self.indicator,
            "fraction": self.fraction,
            "seed": self.seed if self.fraction else None,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def difference(self, data: Dataset) -> str | None:
        """How a dataset that has a digest is laid out otherwise, in words; None if it is laid out like this."""
        if data.digest is None or data.digest[16:] == self.digest:
            return None
        pairs: dict[str, tuple[Any, Any]] = {
            "inputs": (data.signature.inputs, self.signature.inputs),
            "label": (data.label, self.label),
            "weight": (data.weight, self.weight),
        }
        for name, (there, asked) in pairs.items():
            if there != asked:
                return f"its layout differs, in the {name}: {_said(there)} there, {_said(asked)} asked for"
        return "its layout differs, in the way validation rows are chosen"


def _made_of(spec: TensorSpec) -> dict[str, Any]:
    """A preprocessor is told only if there is one, so that older datasets keep their digests."""
    told = asdict(replace(spec, preprocess=None))
    del told["preprocess"]
    return told if spec.preprocess is None else {**told, "preprocess": spec.preprocess.to_json()}


def _said(specs: TensorSpec | tuple[TensorSpec, ...] | None) -> str:
    if specs is None:
        return "none"
    said = (f"{spec} of {', '.join(spec.types)}" for spec in ((specs,) if isinstance(specs, TensorSpec) else specs))
    return "(" + "; ".join(said) + ")"


def check_split(indicator: str | None, fraction: float) -> None:
    """Raise InvalidParamError for a fraction outside ``[0, 1)``, or for both ways to choose validation rows at once."""
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 <= fraction < 1:
        raise InvalidParamError(
            f"'validationFraction' must be at least 0 and below 1 (got {fraction!r})",
            param="validationFraction",
            value=fraction,
        )
    if indicator is not None and fraction:
        raise InvalidParamError(
            f"'validationIndicatorCol' ({indicator!r}) and 'validationFraction' ({fraction}) are both set; "
            "validation rows are told by one of them, not both",
            param="validationFraction",
            value=fraction,
        )


def stored(signature: Signature, label: TensorSpec, weight: TensorSpec | None) -> tuple[TensorSpec, ...]:
    """The tensors of a dataset under their names on disk."""
    tail = () if weight is None else (replace(weight, name=WEIGHT),)
    return (*signature.inputs, replace(label, name=LABEL), *tail)


@dataclass(frozen=True)
class DataFile:
    """A Parquet file, its path relative to the dataset, and the rows of each of its row groups."""

    path: str
    row_groups: tuple[int, ...]


@dataclass(frozen=True)
class LabelFacts:
    """What is known of all labels: least, greatest, and whether each is a whole number."""

    min: float
    max: float
    whole: bool


@dataclass(frozen=True)
class Dataset:
    """Training data at rest: one Parquet column a tensor, each tensor as a flat list (or a scalar) in its own dtype.

    validation_files: the rows for validation, in files of their own. digest: 32 hex digits, of the rows whatever their
    order and of the layout (see ``Layout``); None if it was not asked for.
    """

    uri: str
    files: tuple[DataFile, ...]
    signature: Signature
    label: TensorSpec
    weight: TensorSpec | None = None
    validation_files: tuple[DataFile, ...] = ()
    digest: str | None = None
    label_facts: LabelFacts | None = None

    @cached_property
    def rows(self) -> int:
        """Rows to train on, of all files."""
        return sum(sum(file.row_groups) for file in self.files)

    @property
    def validation(self) -> Dataset | None:
        """The validation rows, or None if there are none."""
        return replace(self, files=self.validation_files, validation_files=()) if self.validation_files else None

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The inputs, the label (LABEL) and, if there is one, the weight (WEIGHT): a column each, by the spec's name."""
        return stored(self.signature, self.label, self.weight)

    def cast(self, float_dtype: str | None, label_dtype: str) -> Dataset:
        """The same files, read with floating inputs as ``float_dtype`` (None: as they are), labels as ``label_dtype``.

        Raises SignatureError if labels that are not whole numbers are to be read as whole numbers.
        """
        if label_dtype not in FLOATS and self.label_facts is not None and not self.label_facts.whole:
            raise SignatureError(
                f"label column {self.label.name!r} of {self.uri!r} holds numbers that are not whole, and {label_dtype} "
                "labels are asked for; give the labels as whole numbers, or train with task='regression'",
                column=self.label.name,
                expected=label_dtype,
                got=self.label.dtype,
            )
        weight = self.weight
        if weight is not None and float_dtype in ("float32", "float64"):
            weight = replace(weight, dtype=float_dtype)
        signature = self.signature.with_float_dtype(float_dtype)
        return replace(self, signature=signature, label=replace(self.label, dtype=label_dtype), weight=weight)

    def stacked(self, name: str) -> Dataset:
        """The same files, all inputs read as one vector of that name, in their order.

        Raises SignatureError if one of them is no scalar.
        """
        return replace(self, signature=Signature((stack_scalars(name, self.signature.inputs),)))

    def check_classes(self, classes: int) -> None:
        """Raise DataError if a label is not a whole number in ``[0, classes)``."""
        facts = self.label_facts
        if facts is None or (facts.whole and facts.min >= 0 and facts.max < classes):
            return
        got = f"labels from {facts.min} to {facts.max}" + ("" if facts.whole else ", not all of them whole numbers")
        raise DataError(
            f"label column {self.label.name!r} of {self.uri!r}: expected class numbers from 0 to {classes - 1}, "
            f"got {got}",
            column=self.label.name,
            row=None,
            file=None,
            expected=f"class numbers from 0 to {classes - 1}",
            got=got,
        )

    def save(self) -> None:
        """Write the manifest, which makes this a dataset. Raises StoreError."""
        content = {
            "kind": KIND,
            "format": FORMAT,
            "rows": self.rows,
            "files": [asdict(file) for file in self.files],
            "validation_files": [asdict(file) for file in self.validation_files],
            "signature": self.signature.to_json(),
            "label": self.label.to_json(),
            "weight": self.weight and self.weight.to_json(),
            "digest": self.digest,
            "label_facts": self.label_facts and asdict(self.label_facts),
        }
        store.write_bytes(store.join(self.uri, MANIFEST), json.dumps(content).encode())

    @classmethod
    def load(cls, uri: str) -> Dataset:
        """Read the manifest. Raises StoreError if there is none, or none that this version reads."""
        uri = store.absolute(uri)
        try:
            content: Mapping[str, Any] = json.loads(store.read_bytes(store.join(uri, MANIFEST)))
            if content["kind"] != KIND or content["format"] != FORMAT:
                found = f"{content['kind']!r}, format {content['format']}"
                raise ValueError(f"its manifest is of {found}; this sparkdl reads {KIND!r}, format {FORMAT}")
            weight, facts = content["weight"], content["label_facts"]
            return cls(
                uri,
                _files(content["files"]),
                Signature.from_json(content["signature"]),
                TensorSpec.from_json(content["label"]),
                weight and TensorSpec.from_json(weight),
                _files(content["validation_files"]),
                content["digest"],
                facts and LabelFacts(**facts),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            told = f"its manifest has no {error}" if isinstance(error, KeyError) else error
            raise StoreError(f"there is no (finished) dataset at {uri!r}: {told}", uri=uri) from error

    def delete(self) -> None:
        """Remove the dataset: the manifest first, then the files that it lists, and nothing else. Raises StoreError."""
        store.delete(store.join(self.uri, MANIFEST))
        for folder in {file.path.split("/")[0] for file in (*self.files, *self.validation_files)}:
            store.delete(store.join(self.uri, folder))


def _files(told: Sequence[Mapping[str, Any]]) -> tuple[DataFile, ...]:
    files = tuple(DataFile(file["path"], tuple(file["row_groups"])) for file in told)
    for file in files:
        parts = file.path.split("/")
        if file.path.startswith("/") or ".." in parts or not all(parts):
            raise ValueError(f"the file {file.path!r} is not inside the dataset")
        if not all(isinstance(rows, int) and rows > 0 for rows in file.row_groups):
            raise ValueError(f"the file {file.path!r} has row groups of {list(file.row_groups)} rows")
    return files


def merged(facts: Sequence[LabelFacts]) -> LabelFacts | None:
    """What is known of all labels, from what is known of each part; None without parts."""
    if not facts:
        return None
    return LabelFacts(
        min=min(fact.min for fact in facts), max=max(fact.max for fact in facts), whole=all(f.whole for f in facts)
    )
