"""How a new version of a model comes in while a stream runs.

The alias is resolved once a batch. A version that it did not name before is loaded in a thread and proven there; then
the workers may load it too; then, between two batches, it takes over. What is refused is told, and what runs goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sparkdl.errors import BundleIntegrityError, RegistryError
from sparkdl.registry.registry import Registry
from sparkdl.registry.uri import ModelName

ANSWER_S = 0.3  # a registry that answers later does so to a later batch
WARM_S = 10.0  # so long a candidate waits for workers to have it
AGAIN_S = 10.0  # between attempts to load from a store that cannot be read
HANG_S = 60.0  # what takes longer to load and prove keeps no other version from being tried
logger = logging.getLogger(__name__)


class _Versioned(Protocol):
    @property
    def version(self) -> str: ...


V = TypeVar("V", bound=_Versioned)
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Attempt:
    """To load and prove a version. since: by ``time.monotonic``."""

    number: int
    since: float


class Reload(Generic[V]):
    """load: the version of a number. objection: why the second may not take over from the first, or None. Both are called
    in a thread; whatever they raise refuses the version, but for a store that cannot be read, which is asked again.
    ready: called in that thread with a version that is proven, before it is the candidate; if it raises, it is tried again.
    """

    def __init__(
        self,
        registry: Registry,
        named: ModelName,
        load: Callable[[int], V],
        objection: Callable[[V, V], str | None],
        ready: Callable[[V], None],
    ) -> None:
        self.registry, self.named = registry, named
        self._load, self._objection, self._ready = load, objection, ready
        self._asking: Future[int] | None = None
        self._silence: str | None = None  # why the registry does not say what the alias names
        self._lock = threading.Lock()  # of what follows, which the thread that loads changes
        self._wanted: int | None = None
        self._loading: _Attempt | None = None
        self._candidate: V | None = None
        self._take_at = 0.0
        self._again_at = 0.0
        self._unread: str | None = None  # why the version that is wanted cannot be read
        self._avoided: int | None = None
        self._refusals: dict[str, str] = {}

    def resolved(self, version: str | None = None) -> int:
        """The number that the alias names now, or that of ``version`` if it is there. Raises RegistryError."""
        return self.registry.resolve(self.named.name, self.named.at if version is None else version)

    def settled(self, before: V) -> V:
        """What a run starts with: the version that the alias names, if it is proven now; else ``before``, with which the
        run before this one ended. Waits for it: a run of one batch is to have the version that was named before it."""
        number = self.resolved()
        if self.named.version is not None or before.version == str(number):
            return before
        self._wanted, self._loading = number, _Attempt(number, time.monotonic())
        self._prove(self._loading, before)
        with self._lock:
            found, self._candidate = self._candidate, None
        return before if found is None else found

    def next(self, running: V) -> V:
        """What runs from now on: the candidate if it is to take over, else ``running``."""
        if self.named.version is not None:
            return running
        wanted = self._answer(running)
        return running if wanted is None else self._follow(wanted, running)

    @property
    def candidate(self) -> V | None:
        """See ``Models.candidate``."""
        with self._lock:
            return self._candidate

    def hurry(self) -> None:
        """The candidate need not wait any longer."""
        with self._lock:
            self._take_at = 0.0

    def refusals(self) -> dict[str, str]:
        """See ``Models.refusals``."""
        with self._lock:
            told, self._refusals = self._refusals, {}
            return told

    @property
    def trouble(self) -> str | None:
        """See ``Models.trouble``."""
        return self._silence or self._unread

    def _answer(self, running: V) -> int | None:
        """The number that the alias names; None if the registry does not say, or not yet."""
        is_late = self._asking is not None
        asked = self._asking or in_thread(self.resolved, "sparkdl-alias")
        if not wait([asked], 0 if is_late else ANSWER_S).done:
            self._asking = asked
            self._tell(running, f"the registry {self.registry.uri} has not answered within {ANSWER_S} s")
            return None
        self._asking = None
        error = asked.exception()
        self._tell(running, None if error is None else f"{type(error).__name__}: {error}")
        return None if error is not None else asked.result()

    def _tell(self, running: V, silence: str | None) -> None:
        if silence and self._silence is None:
            logger.warning("%s goes on with version %s: %s", self.named, running.version, silence)
        if silence is None and self._silence is not None:
            logger.warning("%s: the registry answers again", self.named)
        self._silence = silence

    def _follow(self, wanted: int, running: V) -> V:
        with self._lock:
            if wanted != self._wanted:
                self._wanted, self._again_at, self._unread = wanted, 0.0, None
            if wanted != self._avoided:
                self._avoided = None
            if self._candidate is not None and self._candidate.version != str(wanted):
                self._candidate = None
            candidate, now = self._candidate, time.monotonic()
            if candidate is not None and now >= self._take_at:
                logger.warning("%s: version %s takes over from %s", self.named, candidate.version, running.version)
                self._candidate = None
                return candidate
            is_known = running.version == str(wanted) or wanted == self._avoided or candidate is not None
            if not is_known and self._is_free(wanted, now) and now >= self._again_at:
                attempt = self._loading = _Attempt(wanted, now)
                in_thread(lambda: self._prove(attempt, running), "sparkdl-candidate")
            return running

    def _is_free(self, wanted: int, now: float) -> bool:
        """Whether the version may be tried now: nothing is loading, or another one that hangs. It itself is not tried
        again while it hangs, for the second attempt would hang too."""
        if self._loading is None:
            return True
        if now - self._loading.since <= HANG_S:
            return False
        if self._loading.number == wanted and self._unread is None:
            self._unread = f"version {wanted} is not loaded and proven after {HANG_S:.0f} s"
            logger.warning("%s: %s; what runs goes on", self.named, self._unread)
        return self._loading.number != wanted

    def _prove(self, attempt: _Attempt, running: V) -> None:
        """In a thread: the version becomes the candidate, is refused, or is tried again later."""
        number = attempt.number
        found: V | None = None
        unread: str | None = None
        reason: str | None = None
        try:
            found = self._load(number)
            reason = self._objection(running, found)
        except Exception as error:  # whatever reading and loading raise: the stream goes on
            told = f"{type(error).__name__}: {error}"
            unread, reason = (told, None) if _is_unread(error) else (None, told)
        if found is not None and unread is None and reason is None:
            try:
                self._ready(found)
            except Exception as error:  # Py4J's and PySpark's errors share no base, and say nothing of the version
                unread = f"it cannot be sent to the workers: {type(error).__name__}: {error}"
        with self._lock:
            if attempt is not self._loading:
                return  # it hung, and another one was begun
            self._loading = None
            if number != self._wanted:
                return  # the alias has moved on meanwhile
            self._unread = unread
            if unread is not None:
                self._again_at = time.monotonic() + AGAIN_S
                logger.warning("version %d of %s cannot be read: %s", number, self.named, unread)
            elif reason is not None:
                self._avoided = number
                self._refusals[str(number)] = reason
                logger.warning(
                    "version %d of %s is refused, and %s goes on: %s", number, self.named, running.version, reason
                )
            else:
                self._candidate, self._take_at = found, time.monotonic() + WARM_S


def in_thread(function: Callable[[], T], name: str) -> Future[T]:
    """What the function will have given, in a thread of its own that nobody's exit waits for."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _is_unread(error: Exception) -> bool:
    """True for what says that the store could not be read, which says nothing of the bundle."""
    file_unread = isinstance(error, BundleIntegrityError) and isinstance(error.__cause__, OSError)
    return isinstance(error, (RegistryError, OSError)) or (
        file_unread and not isinstance(error.__cause__, FileNotFoundError)
    )
