"""How a job ended, as its exit status."""

from __future__ import annotations

from sparkdl.errors import (
    BundleNotFoundError,
    ConfError,
    InvalidParamError,
    LedgerError,
    OverlapError,
    RanksLostError,
    RegistryError,
    RegistryUnreachableError,
    SignatureError,
    SinkOverlapError,
    SinkUnreachableError,
    SourceNotFoundError,
    UntrustedBundleError,
)

DONE = 0
FAILED = 1
BAD_CONF = 2
INPUT_MISSING = 3
PARTLY = 4  # dead letters above the threshold, an alert, a figure that is not good enough
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h

# The first that fits. Whatever else is raised is FAILED.
_OF_ERROR: tuple[tuple[type[Exception], int], ...] = (
    (ConfError, BAD_CONF),
    (InvalidParamError, BAD_CONF),
    (SignatureError, BAD_CONF),
    (OverlapError, BAD_CONF),
    (SinkOverlapError, BAD_CONF),
    (UntrustedBundleError, BAD_CONF),
    (SourceNotFoundError, INPUT_MISSING),
    (BundleNotFoundError, INPUT_MISSING),
    (RanksLostError, TRY_AGAIN),
    (LedgerError, TRY_AGAIN),
    (SinkUnreachableError, TRY_AGAIN),
    (RegistryUnreachableError, TRY_AGAIN),
    (RegistryError, INPUT_MISSING),
)


def of(error: Exception) -> int:
    """The exit status of a job that ended by ``error``."""
    return next((status for kind, status in _OF_ERROR if isinstance(error, kind)), FAILED)
