"""What is done to columns before the model, in training and in serving alike. docs/preprocess.md is its guide."""

from __future__ import annotations

import importlib
from typing import Any

from sparkdl.preprocess.base import KINDS, Preprocessor

_HOME_OF = {path.partition(":")[2]: path.partition(":")[0] for path in KINDS.values()}

__all__ = ["Preprocessor", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'sparkdl.preprocess' has no attribute {name!r}")
