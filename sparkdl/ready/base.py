"""Ready estimators: TorchEstimator with a model, preprocessors and a decoder for one kind of work."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from sparkdl import plan, session
from sparkdl.errors import DataError, InvalidParamError, did_you_mean
from sparkdl.estimator import TorchEstimator

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.model import TorchModel
    from sparkdl.preprocess.labels import Labels


class ReadyEstimator(TorchEstimator):
    """Base: a subclass says in ``_design`` what it trains; all the rest is TorchEstimator's.

    own_defaults: Params whose default is another one here.
    heeds: Params of TorchEstimator that ``_design`` replaces by what it made of them; others that it gives cannot be set.
    """

    own_defaults: ClassVar[Mapping[str, Any]] = {}
    heeds: ClassVar[frozenset[str]] = frozenset()

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
        and so on; None leaves a Param as it is. May look at ``df``: ``sparkdl.preprocess.learn`` tells a vocabulary's size, say."""

    def _served(self, trained: TorchModel, designed: Mapping[str, Any], df: DataFrame) -> TorchModel:
        """What ``fit`` gives, and loggers get: the trained model, or another one made with its weights. df: of ``_design``."""
        return trained

    @property
    def _reduction(self) -> str:
        """Of the loss: a loss a row where rows have weights."""
        return "none" if self.isDefined("weightCol") else "mean"

    def _fit(self, dataset: Any) -> TorchModel:
        if not hasattr(dataset, "sparkSession"):
            raise InvalidParamError(
                f"{type(self).__name__}.fit takes a DataFrame (got {type(dataset).__name__})",
                param="dataset",
                value=dataset,
            )
        session.check_worker_python(dataset.sparkSession)  # before ``_design``, which may run there
        df, designed = self._design(dataset)
        designed = {name: value for name, value in designed.items() if value is not None}
        self._check_free(designed)
        own = {name: value for name, value in plan.values_of(self).items() if name not in _OF_ESTIMATOR}
        told = {p.name: self.getOrDefault(p) for p in self.params if p.name in _OF_ESTIMATOR and self.isDefined(p)}
        estimator = _Designed({"application": type(self).__name__, **own}, partial(self._served, designed=designed))
        return estimator.setParams(**{**told, **designed})._fit(df)

    def _check_free(self, designed: Mapping[str, Any]) -> None:
        """Raise InvalidParamError for a Param that was set and would not be heeded."""
        fixed = {*designed, *(["featuresCol"] if "inputCols" in designed else [])} - self.heeds
        for name in sorted(fixed):
            if self.isSet(name):
                raise InvalidParamError(
                    f"{type(self).__name__} sets {name!r} itself; leave it out",
                    param=name,
                    value=self.getOrDefault(name),
                )


class _Designed(TorchEstimator):
    """Trains what a ready estimator designed. told: of that, for the settings that a bundle, a run and loggers are told."""

    def __init__(self, told: Mapping[str, Any], served: Callable[..., TorchModel]) -> None:
        super().__init__()
        self.told, self.served = told, served

    def _values(self) -> plan.Values:
        return {**super()._values(), **self.told}

    def _finished(self, model: TorchModel, dataset: Any) -> TorchModel:
        return self.served(model, df=dataset)


def classes_of(labels: Labels, column: str) -> tuple[bool | int | str, ...]:
    """What is to be told apart. Raises DataError if there is one class only."""
    if len(labels.values) < 2:
        raise DataError(
            f"column {column!r} holds one class only, {labels.values[0]!r}; there is nothing to tell apart",
            column=column, row=None, file=None, expected="two classes or more", got=labels.values,
        )  # fmt: skip
    return labels.values


_OF_ESTIMATOR = frozenset(param.name for param in TorchEstimator().params)
