"""Train and apply PyTorch models without leaving Spark.

Public names come from here; everything else may change. They are imported when first used, so that
``python -m sparkdl doctor`` works where Spark or torch does not. A job in a program of one's own: ``sparkdl.jobs.main``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparkdl import tracebacks

__version__ = "0.1.0"

_HOME_OF = {
    "Alert": "sparkdl.stream.alerts",
    "AnomalyDetector": "sparkdl.ready.sequences",
    "Bundle": "sparkdl.bundle",
    "CSVLogger": "sparkdl.train.loggers",
    "Callback": "sparkdl.train.callbacks",
    "Dataset": "sparkdl.data.manifest",
    "Ensemble": "sparkdl.ensemble",
    "HorovodRunner": "sparkdl.runner",
    "ImageClassifier": "sparkdl.ready.images",
    "JSONLinesLogger": "sparkdl.train.loggers",
    "KerasEstimator": "sparkdl.ready.keras",
    "Logger": "sparkdl.train.loggers",
    "MLflowLogger": "sparkdl.train.loggers",
    "Monitor": "sparkdl.stream.monitor",
    "ObjectDetector": "sparkdl.ready.detection",
    "QuestionAnswering": "sparkdl.ready.answers",
    "Recommender": "sparkdl.ready.recommend",
    "Registry": "sparkdl.registry.registry",
    "Run": "sparkdl.train.callbacks",
    "ScoreQuery": "sparkdl.stream.query",
    "ScoredTable": "sparkdl.score.result",
    "SequenceForecaster": "sparkdl.ready.sequences",
    "Signature": "sparkdl.signature",
    "SparkdlError": "sparkdl.errors",
    "SpeechRecognizer": "sparkdl.ready.speech",
    "StreamStatus": "sparkdl.stream.status",
    "TabularClassifier": "sparkdl.ready.tabular",
    "TabularRegressor": "sparkdl.ready.tabular",
    "TensorBoardLogger": "sparkdl.train.loggers",
    "TensorSpec": "sparkdl.signature",
    "TextClassifier": "sparkdl.ready.texts",
    "TorchEstimator": "sparkdl.estimator",
    "TorchModel": "sparkdl.model",
    "TrainingSummary": "sparkdl.train.summary",
    "World": "sparkdl.train.world",
    "log_to_driver": "sparkdl.train.messages",
    "materialize": "sparkdl.data.materialize",
    "observed": "sparkdl.stream.observe",
    "replay_dead_letters": "sparkdl.stream.replay",
    "score_stream": "sparkdl.stream.start",
    "score_table": "sparkdl.score.batch",
    "show": "sparkdl.zeppelin",
    "watch": "sparkdl.stream.observe",
    "windows": "sparkdl.preprocess.windows",
}

if TYPE_CHECKING:
    from sparkdl.bundle import Bundle
    from sparkdl.data.manifest import Dataset
    from sparkdl.data.materialize import materialize
    from sparkdl.ensemble import Ensemble
    from sparkdl.errors import SparkdlError
    from sparkdl.estimator import TorchEstimator
    from sparkdl.model import TorchModel
    from sparkdl.preprocess.windows import windows
    from sparkdl.ready.answers import QuestionAnswering
    from sparkdl.ready.detection import ObjectDetector
    from sparkdl.ready.images import ImageClassifier
    from sparkdl.ready.keras import KerasEstimator
    from sparkdl.ready.recommend import Recommender
    from sparkdl.ready.sequences import AnomalyDetector, SequenceForecaster
    from sparkdl.ready.speech import SpeechRecognizer
    from sparkdl.ready.tabular import TabularClassifier, TabularRegressor
    from sparkdl.ready.texts import TextClassifier
    from sparkdl.registry.registry import Registry
    from sparkdl.runner import HorovodRunner
    from sparkdl.score.batch import score_table
    from sparkdl.score.result import ScoredTable
    from sparkdl.signature import Signature, TensorSpec
    from sparkdl.stream.alerts import Alert
    from sparkdl.stream.monitor import Monitor
    from sparkdl.stream.observe import observed, watch
    from sparkdl.stream.query import ScoreQuery
    from sparkdl.stream.replay import replay_dead_letters
    from sparkdl.stream.start import score_stream
    from sparkdl.stream.status import StreamStatus
    from sparkdl.train.callbacks import Callback, Run
    from sparkdl.train.loggers import CSVLogger, JSONLinesLogger, Logger, MLflowLogger, TensorBoardLogger
    from sparkdl.train.messages import log_to_driver
    from sparkdl.train.summary import TrainingSummary
    from sparkdl.train.world import World
    from sparkdl.zeppelin import show

__all__ = [
    "Alert",
    "AnomalyDetector",
    "Bundle",
    "CSVLogger",
    "Callback",
    "Dataset",
    "Ensemble",
    "HorovodRunner",
    "ImageClassifier",
    "JSONLinesLogger",
    "KerasEstimator",
    "Logger",
    "MLflowLogger",
    "Monitor",
    "ObjectDetector",
    "QuestionAnswering",
    "Recommender",
    "Registry",
    "Run",
    "ScoreQuery",
    "ScoredTable",
    "SequenceForecaster",
    "Signature",
    "SparkdlError",
    "SpeechRecognizer",
    "StreamStatus",
    "TabularClassifier",
    "TabularRegressor",
    "TensorBoardLogger",
    "TensorSpec",
    "TextClassifier",
    "TorchEstimator",
    "TorchModel",
    "TrainingSummary",
    "World",
    "__version__",
    "log_to_driver",
    "materialize",
    "observed",
    "replay_dead_letters",
    "score_stream",
    "score_table",
    "show",
    "watch",
    "windows",
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


tracebacks.shorten_in_zeppelin()
