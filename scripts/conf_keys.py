"""Write the tables of the confs' keys into docs/jobs.md, out of the models that check the confs."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/jobs.md"
PLACE = re.compile(r"(<!-- keys of (\w+) -->\n).*?(?=<!-- end -->)", re.DOTALL)
sys.path.insert(0, str(ROOT))


def rows(kind: Any, prefix: str = "") -> Iterator[str]:
    """A line a key; those of an inner map after it."""
    from pydantic import BaseModel

    for name, field in kind.model_fields.items():
        key = prefix + (field.alias or name)
        yield f"| `{key}` | {_default(field)} | {field.description} |"
        types = (field.annotation, *get_args(field.annotation))
        for inner in types:
            if isinstance(inner, type) and issubclass(inner, BaseModel) and name != "deadLetter":
                yield from rows(inner, f"{key}.")


def _default(field: Any) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if value in (None, [], {}, ""):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def table(job: str) -> str:
    """Of a job's conf, as Markdown."""
    kind = importlib.import_module(f"sparkdl.jobs.{job}").CONF
    return "\n".join(["| key | default | what it says |", "| --- | --- | --- |", *rows(kind), ""])


def page(text: str) -> str:
    """The page with its tables as the models are now."""
    return PLACE.sub(lambda found: found[1] + table(found[2]), text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
