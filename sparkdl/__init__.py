"""Train and apply PyTorch models without leaving Spark.

Public names come from here; everything else may change. They are imported when first used, so that
``python -m sparkdl doctor`` works where Spark or torch does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME_OF = {
    "Bundle": "sparkdl.bundle",
    "HorovodRunner": "sparkdl.runner",
    "Signature": "sparkdl.signature",
    "SparkdlError": "sparkdl.errors",
    "TensorSpec": "sparkdl.signature",
    "TorchEstimator": "sparkdl.estimator",
    "TorchModel": "sparkdl.model",
    "World": "sparkdl.train.world",
    "log_to_driver": "sparkdl.train.messages",
}

if TYPE_CHECKING:
    from sparkdl.bundle import Bundle
    from sparkdl.errors import SparkdlError
    from sparkdl.estimator import TorchEstimator
    from sparkdl.model import TorchModel
    from sparkdl.runner import HorovodRunner
    from sparkdl.signature import Signature, TensorSpec
    from sparkdl.train.messages import log_to_driver
    from sparkdl.train.world import World

__all__ = [
    "Bundle",
    "HorovodRunner",
    "Signature",
    "SparkdlError",
    "TensorSpec",
    "TorchEstimator",
    "TorchModel",
    "World",
    "__version__",
    "log_to_driver",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    try:
        return importlib.import_module(f"sparkdl.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"sparkdl.{name}":
            raise
    raise AttributeError(f"module 'sparkdl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
