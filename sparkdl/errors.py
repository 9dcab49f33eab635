"""What sparkdl raises.

::

    SparkdlError
     ├─ InvalidParamError        (ValueError)   a parameter's value is refused when it is set
     ├─ ConfError                (ValueError)   a job's conf cannot be used
     ├─ SignatureError           (ValueError)   columns and tensors, or model and tensors, do not fit
     │   └─ ColumnNotFoundError                 a column is not in the DataFrame
     ├─ DataError                (ValueError)   a row holds what the signature does not allow
     │   ├─ EmptyDatasetError                   no rows at all
     │   └─ TooFewRowsError                     fewer rows than ranks
     ├─ StoreError               (OSError)      a path cannot be read or written
     │   ├─ SourceNotFoundError                 there is nothing to read
     │   └─ OverlapError                        what is to be written lies in what is read
     ├─ ModelNotPicklableError   (TypeError)    the model cannot travel to the executors
     ├─ LaunchError              (RuntimeError) the ranks could not be started or did not come back
     │   ├─ NotEnoughSlotsError                 fewer task slots than ranks
     │   ├─ WorkerPythonError                   the workers run a Python that lacks a package
     │   ├─ RankFailedError                     a rank raised; carries the first failing rank's traceback
     │   └─ RanksLostError                      a rank's process or machine died: trying again may help
     │       └─ StalledRankError                a rank is silent, or holds up the others, for too long
     ├─ TrainingError            (RuntimeError) training cannot go on
     │   ├─ NonFiniteLossError                  the loss became NaN or infinite
     │   └─ CheckpointError                     nothing to resume, or a checkpoint of another run
     ├─ ScoringError             (RuntimeError) a table could not be scored to its end
     ├─ StreamError              (RuntimeError) a stream cannot start, or cannot go on
     │   ├─ RealtimeError                       it cannot be scored in real time
     │   └─ SinkError                           where its rows go does not take them
     │       ├─ SinkOverlapError                places of a stream lie in one another
     │       └─ SinkUnreachableError            it does not answer: trying again may help
     ├─ LedgerError              (RuntimeError) the ledger of slots cannot be read or written just now
     │   └─ LeaseLostError                      another run has taken the slot over
     ├─ RegistryError            (ValueError)   a registry has no such name, version or alias, or cannot be used
     │   └─ RegistryUnreachableError            it does not answer: trying again may help
     └─ BundleError              (ValueError)   a bundle cannot be used
         ├─ BundleNotFoundError                 nothing, or an unfinished bundle, at that place
         ├─ BundleIntegrityError                a file is missing, changed or where it must not be
         ├─ BundleVersionError                  written by a newer sparkdl
         ├─ GraphError                          it cannot be one ONNX graph: a step of it runs in Python only
         └─ UntrustedBundleError                running it means running its code; say ``trusted=True``

Each exception carries what its message says as fields, so that a program can act on it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class SparkdlError(Exception):
    """Base of all errors of sparkdl. Extra keyword arguments become attributes."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.__dict__.update(fields)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__))


def _restore(cls: type[SparkdlError], args: tuple[Any, ...], fields: dict[str, Any]) -> SparkdlError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(fields)
    return error


class InvalidParamError(SparkdlError, ValueError):
    """A parameter's value is refused. Fields: ``param``, ``value``."""

    param: str
    value: Any


class ConfError(SparkdlError, ValueError):
    """A job's conf cannot be used. Fields: ``path``, ``key`` (or None)."""

    path: str
    key: str | None


class SignatureError(SparkdlError, ValueError):
    """Columns and tensors, or tensors and model, do not fit. Fields: ``column``, ``expected``, ``got``."""

    column: str | None
    expected: Any
    got: Any


class ColumnNotFoundError(SignatureError):
    """A named column is not in the DataFrame. Fields: ``column``, ``available``."""

    available: list[str]

    def __init__(self, column: str, available: Iterable[str], role: str = "column") -> None:
        available = list(available)
        super().__init__(
            f"{role} {column!r} is not in the DataFrame{did_you_mean(column, available)}; its columns are {available}",
            column=column,
            available=available,
        )


class DataError(SparkdlError, ValueError):
    """A row does not fit the signature.

    Fields: ``column``, ``row`` (0-based, within ``file`` if that is known, else within the partition),
    ``file`` (of the source row, or None), ``expected``, ``got``.
    """

    column: str | None
    row: int | None
    file: str | None
    expected: Any
    got: Any


class EmptyDatasetError(DataError):
    """There are no rows to learn from. Fields: ``column`` whose shape was looked for, or None."""

    def __init__(self, column: str | None = None) -> None:
        lacking = f", so the shape of column {column!r} cannot be told" if column else ""
        super().__init__(
            f"the DataFrame has no rows{lacking}; check its filters and joins",
            column=column,
            row=None,
            file=None,
            expected="rows",
            got=0,
        )


class TooFewRowsError(DataError):
    """Fewer rows than ranks. Fields: ``rows``, ``ranks``."""

    rows: int
    ranks: int


class StoreError(SparkdlError, OSError):
    """A path cannot be read or written. Fields: ``uri``."""

    uri: str


class SourceNotFoundError(StoreError):
    """There is nothing to read at that place."""


class OverlapError(StoreError):
    """What is to be written and what is read lie in one another."""


class ModelNotPicklableError(SparkdlError, TypeError):
    """The model, loss or optimizer cannot be sent to the executors. Fields: ``what``."""

    what: str


class LaunchError(SparkdlError, RuntimeError):
    """The ranks could not be started, or did not come back."""


class NotEnoughSlotsError(LaunchError):
    """Fewer free task slots than ranks. Fields: ``needed``, ``available``."""

    needed: int
    available: int


class WorkerPythonError(LaunchError):
    """The workers' Python lacks a package. Fields: ``python`` (or None), ``missing``."""

    python: str | None
    missing: str


class RankFailedError(LaunchError):
    """A rank raised an exception. Fields: ``rank``, ``host``, ``traceback`` (the rank's own), ``echo`` (it failed
    only because a collective broke under it, and no rank with an error of its own is known)."""

    rank: int
    host: str
    traceback: str
    echo: bool = False


class RanksLostError(LaunchError):
    """A rank died with its process or its machine. Fields: ``reason`` (one line, Spark's own words if it has any);
    after retries also ``attempts``, a dict with ``ranks`` and ``error`` for each."""

    reason: str
    attempts: list[dict[str, Any]]


class StalledRankError(RanksLostError):
    """A rank holds up the others. Fields: ``rank`` (None if it was never heard), ``host``, ``seconds`` (since it
    last moved or was heard), ``phase`` (where it was then)."""

    rank: int | None
    host: str
    seconds: float
    phase: str


class TrainingError(SparkdlError, RuntimeError):
    """Training cannot go on."""


class NonFiniteLossError(TrainingError):
    """The loss is NaN or infinite. Fields: ``epoch`` and ``step`` (both from 0), ``loss``."""

    epoch: int
    step: int
    loss: float


class CheckpointError(TrainingError):
    """There is nothing to resume, or what is there is of another run. Fields: ``uri``, ``what`` differs (or None),
    ``expected``, ``got``."""

    uri: str
    what: str | None
    expected: Any
    got: Any


class ScoringError(SparkdlError, RuntimeError):
    """The job that scores a table broke off. Fields: ``uri`` of the table or None, ``finished``: pieces that the
    next call need not score."""

    uri: str | None
    finished: int


class StreamError(SparkdlError, RuntimeError):
    """A stream cannot start, or cannot go on. Fields: ``checkpoint`` (or None)."""

    checkpoint: str | None = None


class RealtimeError(StreamError):
    """A stream cannot be scored in real time; micro-batches may do. Fields: ``checkpoint``; ``passing``, True for a
    trouble that may pass."""

    passing: bool = False


class SinkError(StreamError):
    """A sink does not take the rows. Fields: ``sink``, what it is in one word and its place."""

    sink: str


class LedgerError(SparkdlError, RuntimeError):
    """The ledger of slots cannot be read or written just now; what was finished is kept. Fields: ``ledger``, without secrets."""

    ledger: str


class LeaseLostError(LedgerError):
    """Another run has taken the slot over, while this one stood still say. Fields: ``slot``, ``token`` of this run's lease."""

    slot: str
    token: str


class SinkOverlapError(SinkError):
    """Two places of a stream, its sinks and its checkpoint, lie in one another."""


class SinkUnreachableError(SinkError):
    """Where a sink's rows go does not answer."""


class RegistryError(SparkdlError, ValueError):
    """A registry has no such name, version or alias, or cannot be used. Fields: ``registry``, ``name`` (or None),
    ``version`` (a number, an alias, or None)."""

    registry: str
    name: str | None
    version: int | str | None


class RegistryUnreachableError(RegistryError):
    """A registry cannot be read or written just now."""


class BundleError(SparkdlError, ValueError):
    """A bundle cannot be used. Fields: ``uri``."""

    uri: str | None


class BundleNotFoundError(BundleError):
    """There is no (finished) bundle at that place."""


class BundleIntegrityError(BundleError):
    """A file of the bundle is missing, changed, or points outside. Fields: ``file``."""

    file: str


class BundleVersionError(BundleError):
    """The bundle's format is newer than this sparkdl reads. Fields: ``found``, ``supported``."""

    found: int
    supported: int


class GraphError(BundleError):
    """A bundle cannot be one ONNX graph. Fields: ``step`` that cannot be a part of one, a preprocessor or decoder;
    ``column`` that it reads."""

    step: str
    column: str


class UntrustedBundleError(BundleError):
    """Loading would run code that came with the bundle."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """``"; did you mean 'a' or 'b'?"`` with the options nearest to ``name``, or ``""``."""
    by_lower = {option.lower(): option for option in options}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=3, cutoff=0.5)
    if not near:
        return ""
    return "; did you mean " + " or ".join(repr(by_lower[key]) for key in near) + "?"
