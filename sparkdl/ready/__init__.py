"""Estimators for the work people bring: images, speech, texts, tables, sequences, recommendations."""

from __future__ import annotations

from typing import Any

from sparkdl.settings import class_at

_HOME_OF: dict[str, str] = {  # the module of each, by name
    "AnomalyDetector": "sparkdl.ready.sequences",
    "ImageClassifier": "sparkdl.ready.images",
    "KerasEstimator": "sparkdl.ready.keras",
    "QuestionAnswering": "sparkdl.ready.answers",
    "ObjectDetector": "sparkdl.ready.detection",
    "Recommender": "sparkdl.ready.recommend",
    "SequenceForecaster": "sparkdl.ready.sequences",
    "SpeechRecognizer": "sparkdl.ready.speech",
    "TabularClassifier": "sparkdl.ready.tabular",
    "TabularRegressor": "sparkdl.ready.tabular",
    "TextClassifier": "sparkdl.ready.texts",
}
NAMES = tuple(_HOME_OF)


def estimator_named(name: str) -> Any:
    """The class of that name, one of ``NAMES``."""
    return class_at(f"{_HOME_OF[name]}:{name}")
