"""The jobs' confs: YAML, checked by typed models before anything runs."""

from sparkdl.conf.base import Conf, filled, load, of_command_line
from sparkdl.conf.stream import MonitorConf, PayloadConf, ReplayConf, ScoreStreamConf, SinkConf, SourceConf
from sparkdl.conf.tables import ScoreBatchConf, TrainConf

__all__ = [
    "Conf",
    "MonitorConf",
    "PayloadConf",
    "ReplayConf",
    "ScoreBatchConf",
    "ScoreStreamConf",
    "SinkConf",
    "SourceConf",
    "TrainConf",
    "filled",
    "load",
    "of_command_line",
]
