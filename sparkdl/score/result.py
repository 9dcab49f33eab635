"""What ``score_table`` tells."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from sparkdl import store
from sparkdl.errors import StoreError


@dataclass(frozen=True, repr=False)
class ScoredTable:
    """What ``score_table`` did.

    uri: of the table, None if none was written. rows: that were read; written: those of them in the table.
    invalid: bad rows by kind, ``{"null": 3}``. seconds: of this call. way: ``scan`` or ``dataframe``; why: Spark had to
    read the table, or None. pieces: into which a scan cut it; resumed: those of them that an earlier run had finished.
    already: the table was there, of the same rows, model and settings, and nothing was scored.
    """

    uri: str | None
    rows: int
    written: int
    invalid: dict[str, int]
    seconds: float
    way: str
    why: str | None = None
    pieces: int = 0
    resumed: int = 0
    already: bool = False

    @property
    def bad(self) -> int:
        """How many rows are."""
        return sum(self.invalid.values())

    def too_many(self, share: float) -> str:
        """What to say of a table with more bad rows than that."""
        return (
            f"{self.bad:,} of its {self.rows:,} rows are bad, more than maxInvalid {share:g} allows; its table is there "
            "all the same"
        )

    def to_json(self) -> dict[str, Any]:
        """What is true of the table, whoever asks for it, as JSON values."""
        return {name: value for name, value in asdict(self).items() if name not in ("uri", "seconds", "already")}

    @classmethod
    def from_json(cls, told: dict[str, Any], **more: Any) -> ScoredTable:
        """What ``to_json`` told, with the other fields; of a later version what this one knows. Raises StoreError."""
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{name: value for name, value in told.items() if name in known}, **more)
        except (AttributeError, TypeError) as error:
            raise StoreError(
                f"what is told of the table {more['uri']!r} was not written by this version of sparkdl ({error}); delete "
                "its _sparkdl.json and replace it by overwrite=True",
                uri=more["uri"],
            ) from error

    def __repr__(self) -> str:
        rows = (
            f"{self.rows:,} rows"
            if self.uri is None
            else f"{self.written:,} of {self.rows:,} rows in {store.shown(self.uri)!r}"
        )
        bad = "".join(f", {count:,} {kind}" for kind, count in sorted(self.invalid.items()))
        how = f"{self.way}, {self.seconds:,.1f} s, {self.rows / max(self.seconds, 1e-9):,.0f} rows/s"
        before = f", {self.resumed} of {self.pieces} pieces finished before" if self.resumed else ""
        return f"ScoredTable({rows}{bad}; {'there already' if self.already else how + before})"

    def _repr_html_(self) -> str:
        from sparkdl.showing import facts

        return facts.html(facts.of_table(self))
