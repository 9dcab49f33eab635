"""The jobs' confs: YAML, checked by typed models before anything runs."""

from sparkdl.conf.base import Conf, load, schema
from sparkdl.conf.batch import ScoreBatchConf
from sparkdl.conf.models import BeatsConf, DriftReportConf, EvaluateConf, PublishConf
from sparkdl.conf.secrets import filled, hushed, printable, secrets_of
from sparkdl.conf.stream import MonitorConf, PayloadConf, ReplayConf, ScoreStreamConf, SinkConf, SourceConf
from sparkdl.conf.train import TrainConf

__all__ = [
    "BeatsConf",
    "Conf",
    "DriftReportConf",
    "EvaluateConf",
    "MonitorConf",
    "PayloadConf",
    "PublishConf",
    "ReplayConf",
    "ScoreBatchConf",
    "ScoreStreamConf",
    "SinkConf",
    "SourceConf",
    "TrainConf",
    "filled",
    "hushed",
    "load",
    "printable",
    "schema",
    "secrets_of",
]
