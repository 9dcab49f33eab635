"""What is made of a model's outputs: labels, texts, spans, boxes, rankings. docs/preprocess.md is its guide."""

from __future__ import annotations

import importlib
from typing import Any

from sparkdl.decode.base import KINDS, Decoder

_HOME_OF = {path.partition(":")[2]: path.partition(":")[0] for path in KINDS.values()}

__all__ = ["Decoder", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'sparkdl.decode' has no attribute {name!r}")
