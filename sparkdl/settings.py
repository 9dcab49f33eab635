"""Plain data that is checked when it is made, told as JSON with its ``kind``, and made again from that."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, StrictBool, StrictInt, StrictStr, ValidationError

from sparkdl.errors import InvalidParamError, did_you_mean

_LARGEST = (1 << 63) - 1  # that a column of Spark holds


def _alike(values: tuple[Any, ...]) -> tuple[Any, ...]:
    kinds = sorted({type(value).__name__ for value in values})
    if len(kinds) > 1:
        raise ValueError(f"labels must be of one kind, and these are {' and '.join(kinds)}")
    twice = next((value for value, count in Counter(values).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"each label once, {twice!r} is there twice")
    large = next((value for value in values if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST), None)
    if large is not None:
        raise ValueError(f"{large} is more than a whole number of 64 bits holds")
    return values


Values = Annotated[tuple[StrictBool | StrictInt | StrictStr, ...], AfterValidator(_alike)]
"""Labels: texts, whole numbers or booleans, all of one kind and each once; nothing is turned into one of these."""


class Settings(BaseModel):
    """Base: frozen; what is wrong with a value is an InvalidParamError that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    kind: str

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "settings"
            known = [field for field in type(self).model_fields if field != "kind"]
            hint = did_you_mean(name, known) if first["type"] == "extra_forbidden" else ""
            said = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
            raise InvalidParamError(
                f"{name!r} of {type(self).__name__}: {said}{hint} (got {first['input']!r:.200})",
                param=name,
                value=first["input"],
            ) from error

    def to_json(self) -> dict[str, Any]:
        """As JSON values; what was not set is not told."""
        return {"kind": self.kind, **self.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})}

    def __str__(self) -> str:
        told = ", ".join(f"{name}={value!s:.40}" for name, value in self.to_json().items() if name != "kind")
        return f"{self.kind}({told})"


def class_at(path: str) -> Any:
    """The class at a ``module:name`` of ours."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def of_kind(told: Any, kinds: Mapping[str, str], what: str) -> Settings:
    """What is told, by its ``kind``. kinds: the import path of each. Raises InvalidParamError."""
    kind = told.get("kind") if isinstance(told, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise InvalidParamError(
            f"{what!r} must have a 'kind' out of {list(kinds)}{did_you_mean(str(kind), kinds)} (got {told!r:.200})",
            param=what,
            value=told,
        )
    found: Settings = class_at(kinds[kind])(**{str(key): value for key, value in told.items() if key != "kind"})
    return found
