"""What a registry's store must be able to do, and how versions and moves come about where it only adds records."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping

from sparkdl.bundle import Bundle
from sparkdl.registry import bundles
from sparkdl.registry.records import Move, Version

May = Callable[[int | None], None]  # raises if an alias that names this version now must not be moved


class Backend(ABC):
    """uri: its place, without secrets. errors: what its store raises when it cannot be read or written.

    Names, aliases and versions that it is given are well-formed; the registry checks them.
    """

    uri: str
    errors: tuple[type[Exception], ...] = (OSError,)

    @abstractmethod
    def names(self) -> list[str]:
        """Of all models with a version, sorted."""

    @abstractmethod
    def versions(self, name: str) -> list[Version]:
        """By number; none of a name that is not there."""

    @abstractmethod
    def version(self, name: str, number: int) -> Version | None:
        """That one, or None."""

    @abstractmethod
    def aliases(self, name: str) -> list[str]:
        """Sorted."""

    @abstractmethod
    def current(self, name: str, alias: str) -> int | None:
        """The version that the alias names; None if there is no such alias."""

    @abstractmethod
    def history(self, name: str, alias: str) -> list[Move]:
        """The oldest first."""

    @abstractmethod
    def publish(self, name: str, files: Mapping[str, bytes], digest: str, by: str, note: str) -> int:
        """Keep the bundle of these checked files as a new version; gives its number."""

    @abstractmethod
    def move(self, name: str, alias: str, version: int, by: str, may: May) -> None:
        """Let the alias name ``version``, if ``may`` raises nothing for what it names now."""

    @abstractmethod
    def load(self, name: str, version: Version, trusted: bool | Collection[str]) -> Bundle:
        """Its bundle. Raises as ``Bundle.load``."""


class Log(Backend):
    """A store that adds a record under a number, all of it, unless there is one already.

    A version is such a record, and so is a move; whoever finds a number taken goes on with the next. What an alias names
    now is what its last move says: so moving it is one step, and its history cannot differ from it.
    """

    bundles: str

    @abstractmethod
    def last_version(self, name: str) -> int:
        """The highest number, 0 if there is none."""

    @abstractmethod
    def add_version(self, name: str, version: Version) -> bool:
        """False if the number is taken."""

    @abstractmethod
    def last_move(self, name: str, alias: str) -> tuple[int, int | None]:
        """The number of the last move, from 1, and the version it went to; 0 and None if there is none."""

    @abstractmethod
    def add_move(self, name: str, number: int, move: Move) -> bool:
        """False if the number is taken."""

    def current(self, name: str, alias: str) -> int | None:
        """As told by the last move."""
        return self.last_move(name, alias)[1]

    def publish(self, name: str, files: Mapping[str, bytes], digest: str, by: str, note: str) -> int:
        """First the files, then the version: who sees it finds them."""
        bundles.put(self.bundles, files, digest)
        while True:
            number = self.last_version(name) + 1
            if self.add_version(name, Version(number, digest, time.time(), by, note)):
                return number

    def move(self, name: str, alias: str, version: int, by: str, may: May) -> None:
        """Add a move. If another one came between, look again."""
        while True:
            number, before = self.last_move(name, alias)
            may(before)
            if self.add_move(name, number + 1, Move(alias, version, before, time.time(), by)):
                return

    def load(self, name: str, version: Version, trusted: bool | Collection[str]) -> Bundle:
        """From where all bundles are kept."""
        return bundles.get(self.bundles, version.digest, trusted)
