"""What is known of a micro-batch once its rows are the sink's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class BatchReport:
    """query: its id. batch: its number. time: when it was done, in seconds since 1970.

    rows: read from the source. versions: rows scored, by model version. dead: rows among the dead letters, by kind
    (``unparsable``, or one of ``columns.KINDS``, or ``failed``: the model raised on it). skipped: bad rows left out
    where there are no dead letters. nulls: by column that the model reads.
    seconds: ``queue`` (from the batch's start to its first task's), ``decode`` (reading columns into tensors), ``model``,
    ``write`` (each the mean over the batch's tasks), ``sink`` (committing), ``total`` (of sparkdl's part of the batch).
    replayed: it had been begun before, by a process that did not end it. files: bytes and number of them are in
    ``nbytes`` and ``files``.
    counts: of values between the edges of the bundle's drift reference, by feature; see ``sparkdl.drift``. compared: how champion
    and challenger differ (``agreement`` or ``difference``), if there are two.
    challenger_failed: why the challenger scored none, or not all, of the batch; None: it did.
    refused: versions of the model that were refused since the last batch, with the reason.
    """

    query: str
    batch: int
    time: float
    rows: int
    versions: Mapping[str, int]
    dead: Mapping[str, int] = field(default_factory=dict)
    skipped: int = 0
    nulls: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    replayed: bool = False
    files: int = 0
    nbytes: int = 0
    counts: Mapping[str, list[int]] = field(default_factory=dict)
    compared: Mapping[str, float] = field(default_factory=dict)
    challenger_failed: str | None = None
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def scored(self) -> int:
        """Rows that went to the sink."""
        return sum(self.versions.values())

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)
