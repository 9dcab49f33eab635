"""How many rows to give to a forward pass: as told, or found out on the first batches, whose results are used."""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST, LAST = 8, 1 << 15
PASSES = 4  # at each size; the quickest counts, so the first may warm up
BETTER = 1.05  # rows a second, for twice the rows to be worth their memory
LONG_S = 0.25  # a forward pass that takes this has nothing to gain from more rows


@dataclass(frozen=True)
class Tuning:
    """Where the search for a batch size stands; each step gives a new one.

    best: rows to a forward pass, by what is known so far. trial: the size that is looked at; None: the search is over.
    seconds: of each forward pass at that size. tried: the sizes before it, with their rows/s.
    """

    best: int
    trial: int | None = None
    seconds: tuple[float, ...] = ()
    tried: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, batch_size: int) -> Tuning:
        """No search for a size that is given; for 0 one that starts small."""
        return cls(batch_size) if batch_size else cls(FIRST, trial=FIRST)

    def after(self, seconds: float) -> Tuning:
        """One more forward pass over ``trial`` rows took ``seconds``."""
        if self.trial is None:
            return self
        passes = (*self.seconds, seconds)
        quickest = max(min(passes), 1e-9)
        if len(passes) < 2 or (len(passes) < PASSES and quickest < LONG_S):
            return replace(self, seconds=passes)
        tried = (*self.tried, (self.trial, self.trial / quickest))
        is_better = not self.tried or tried[-1][1] >= BETTER * tried[-2][1]
        goes_on = is_better and 2 * quickest <= LONG_S and 2 * self.trial <= LAST
        return Tuning(self.trial if is_better else self.best, 2 * self.trial if goes_on else None, (), tried)

    def at_most(self, rows: int) -> Tuning:
        """More rows than these do not fit the memory: the search is over."""
        return replace(self, best=min(self.best, rows), trial=None, seconds=())

    def __str__(self) -> str:
        tried = ", ".join(f"{size}: {rate:,.0f}" for size, rate in self.tried)
        return f"{self.best} rows to a forward pass (rows/s by size: {tried})"
