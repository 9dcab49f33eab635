"""What ``score_table`` is asked for, checked on the driver before anything runs."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sparkdl import columns as arrow_columns
from sparkdl import store
from sparkdl.bundle import Bundle
from sparkdl.errors import ColumnNotFoundError, InvalidParamError, OverlapError, SignatureError, StoreError
from sparkdl.score import written
from sparkdl.score.output import Layout
from sparkdl.score.sources import Source

if TYPE_CHECKING:
    from sparkdl.model import TorchModel

_FORMAT = 2  # of the staging folder: another one's pieces are not taken up


def _nothing() -> None:
    """The guard of a run that nobody ends."""


@dataclass(frozen=True)
class Job:
    """sink: the URI of the table, or None. passed: columns of the source that the table keeps. outputs: the column of
    each output of the model. error_column: or None. told: Spark's schema of the table, as JSON values. about: what the
    table's manifest says beside what is told of its rows. guard: called while tasks run, and before the commit; what it
    raises ends the run."""

    source: Source
    model: TorchModel
    sink: str | None
    passed: tuple[str, ...]
    outputs: dict[str, str]
    error_column: str | None
    told: dict[str, Any]
    layout: Layout
    overwrite: bool
    about: dict[str, Any] | None = None
    guard: Callable[[], None] = _nothing

    @property
    def needed(self) -> list[str]:
        """Columns of the source that are read."""
        kept = self.passed if self.sink else ()
        return list(dict.fromkeys([*kept, *self.model.signature.columns]))

    @property
    def invalid(self) -> str:
        """What is done with bad rows."""
        return str(self.model.getOrDefault("handleInvalid"))

    @property
    def key(self) -> str:
        """Of all that the table is made from; a new one where that is not known."""
        if self.source.identity is None:
            return uuid.uuid4().hex
        params = {param.name: value for param, value in self.model.extractParamMap().items()}
        made_of = [_FORMAT, self.source.identity, self.model.bundle.digest, params, self.passed, asdict(self.layout)]
        return hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()[:32]


def checked(source: Source, model: TorchModel, sink: Any, columns: Any, layout: Layout, *, overwrite: bool) -> Job:
    """The Job. Raises as ``score_table`` says."""
    passed = kept_columns(columns, source.df.columns)
    model.input_kinds(source.df)
    _check_distinct([*passed, *(name for name in model.signature.columns if name not in passed)])
    outputs = model.output_columns(dict.fromkeys([*passed, *model.signature.columns]))
    keeps = model.getOrDefault("handleInvalid") == "keep"
    error_column = (model.getOrDefault("errorCol") or None) if keeps else None
    told = _told_schema(source, model, passed, outputs, error_column)
    layout.check_columns({field["name"]: field["type"] for field in told["fields"]})
    if sink is not None:
        sink = _folder(sink)
        written.check_sink(sink)
        _check_apart(source, sink)
    return Job(source, model, sink, passed, outputs, error_column, told, layout, overwrite)


def kept_columns(columns: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Those of ``names`` that a table keeps: ``columns``, each once, or all for None. Raises InvalidParamError,
    ColumnNotFoundError."""
    if columns is not None and (isinstance(columns, str) or not all(isinstance(name, str) for name in columns)):
        raise InvalidParamError(
            f"'columns' must be a list of column names, or None for all (got {columns!r})",
            param="columns",
            value=columns,
        )
    kept = tuple(names if columns is None else dict.fromkeys(columns))
    for name in kept:
        if name not in names:
            raise ColumnNotFoundError(name, names, role="in columns, column")
    return kept


def model_of(model: Any) -> TorchModel:
    """A TorchModel out of a TorchModel, a Bundle, or the URI of one, in a store or ``registry://``. Raises
    InvalidParamError, BundleError, RegistryError."""
    from sparkdl.model import TorchModel

    if isinstance(model, TorchModel):
        return model
    if isinstance(model, str) or hasattr(model, "__fspath__"):
        model = Bundle.load(model)
    if not isinstance(model, Bundle):
        raise InvalidParamError(
            f"'model' must be a TorchModel, a Bundle or the URI of a bundle (got {model!r})", param="model", value=model
        )
    return TorchModel(model)


def _check_distinct(names: Iterable[str]) -> None:
    taken: dict[str, str] = {}
    for name in names:
        if name.lower() in taken:
            raise SignatureError(
                f"columns {taken[name.lower()]!r} and {name!r} are one to Spark, which ignores case; rename or drop one",
                column=name,
                expected="names that differ by more than case",
                got=taken[name.lower()],
            )
        taken[name.lower()] = name


def _told_schema(
    source: Source, model: TorchModel, passed: Sequence[str], outputs: dict[str, str], error_column: str | None
) -> dict[str, Any]:
    """Spark's schema of the table, as JSON values."""
    fields = {field["name"]: field for field in source.df.schema.jsonValue()["fields"]}
    types = arrow_columns.answers(model.signature)
    made = {outputs[name]: arrow_columns.spark_json(kind) for name, kind in types.items() if name in outputs}
    if "probability" in outputs and model.getOrDefault("probabilityAsVector"):
        made[outputs["probability"]] = {"type": "udt", "class": "vector"}
    if error_column:
        made[error_column] = "string"
    new = [{"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind in made.items()]
    return {"type": "struct", "fields": [*(fields[name] for name in passed), *new]}


def _folder(sink: Any) -> str:
    """Its URI, made absolute. Raises InvalidParamError, StoreError."""
    if not isinstance(sink, (str, os.PathLike)):
        raise InvalidParamError(f"'sink' must be the URI of a folder, or None (got {sink!r})", param="sink", value=sink)
    uri = store.absolute(os.fspath(sink)).rstrip("/")
    if not uri or not store.resolve(uri)[1].strip("/"):
        raise StoreError(f"{os.fspath(sink)!r} is no folder that a table can be made of; name one in it", uri=uri)
    return uri


def _check_apart(source: Source, sink: str) -> None:
    """Raise OverlapError if the sink would be among the source's files, or replace them."""
    for place in source.places:
        if store.overlap(sink, place):
            raise OverlapError(
                f"the table {store.shown(sink)!r} and its source, {store.shown(place)!r}, lie in one another; choose "
                "another place",
                uri=store.shown(sink),
            )
