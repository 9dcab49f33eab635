"""Ready estimators: TorchEstimator with a model, preprocessors and a decoder for one kind of work."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from sparkdl import session
from sparkdl.errors import InvalidParamError, did_you_mean
from sparkdl.estimator import TorchEstimator

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.model import TorchModel


class ReadyEstimator(TorchEstimator):
    """Base: a subclass says in ``_design`` what it trains; all the rest is TorchEstimator's.

    own_defaults: Params whose default is another one here.
    """

    own_defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, **params: Any) -> None:
        super().__init__()
        self._setDefault(**self.own_defaults)
        self.setParams(**params)

    def setParams(self, **params: Any) -> ReadyEstimator:
        """Set several Params at once; None leaves the default. Raises InvalidParamError for one that is not there."""
        known = [param.name for param in self.params]
        for name in params:
            if name not in known:
                raise InvalidParamError(
                    f"{type(self).__name__} has no Param {name!r}{did_you_mean(name, known)}",
                    param=name,
                    value=params[name],
                )
        super().setParams(**params)
        return self

    @abstractmethod
    def _design(self, df: DataFrame) -> tuple[DataFrame, dict[str, Any]]:
        """What to train on, and with which Params of TorchEstimator: the ``model``, ``preprocess``, ``decoder``, ``task``
        and so on. May look at ``df``: ``sparkdl.preprocess.learn`` tells a vocabulary's size, say."""

    def _served(self, trained: TorchModel, designed: Mapping[str, Any]) -> TorchModel:
        """What ``fit`` gives: the trained model, or another one made with its weights."""
        return trained

    def _fit(self, dataset: Any) -> TorchModel:
        if not hasattr(dataset, "sparkSession"):
            raise InvalidParamError(
                f"{type(self).__name__}.fit takes a DataFrame (got {type(dataset).__name__})",
                param="dataset",
                value=dataset,
            )
        session.check_worker_python(dataset.sparkSession)  # before ``_design``, which may run there
        df, designed = self._design(dataset)
        told = {p.name: self.getOrDefault(p) for p in self.params if p.name in _OF_ESTIMATOR and self.isDefined(p)}
        estimator = TorchEstimator()
        chosen = {name: value for name, value in {**told, **designed}.items() if value is not None}
        return self._served(estimator.setParams(**chosen)._fit(df), designed)


_OF_ESTIMATOR = frozenset(param.name for param in TorchEstimator().params)
