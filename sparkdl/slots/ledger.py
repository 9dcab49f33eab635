"""Ledger: what became of each slot, and who works on it now. The database's word is one statement a step."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, and_, case, func, not_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from sparkdl import sql, store
from sparkdl.errors import InvalidParamError, LedgerError
from sparkdl.slots import tables
from sparkdl.slots.entry import Entry, Told, of_row, of_table
from sparkdl.slots.tables import ATTEMPTS, SLOTS

TRIES = 4  # of each step; between them half a second, one and two
NEW, SCORING, DONE, FAILED, LOST = "new", "scoring", "done", "failed", "lost"
FILE = "_sparkdl/ledger.sqlite"  # under a local output


def url_of(ledger: str | None, output: str) -> str:
    """The ledger's URL: the one that is told, or the file in the output. Raises InvalidParamError."""
    if ledger:
        return ledger
    if "://" in output and not output.startswith("file:"):
        raise InvalidParamError(
            f"the output {store.shown(output)!r} is not on this machine, so say where the ledger is: ledger: "
            "postgresql://<user>@<host>/<database>, or sqlite:///<path of a file>",
            param="ledger",
            value=None,
        )
    return f"sqlite:///{store.join(store.resolve(output)[1], FILE)}"


class Ledger:
    """At ``url``, of the slots of one output. Raises InvalidParamError for a URL that is none.

    All that reads or writes raises LedgerError if the database cannot be reached or is busy, after ``TRIES``, and
    InvalidParamError if it is no ledger, or may not be used. Times are the database's, so that machines whose clocks differ
    agree on when a lease is over.
    """

    def __init__(self, url: str, output: str) -> None:
        self.url, self.output = store.shown(url), store.canonical(output)
        self._secrets = store.secrets_of(url)
        found = tables.checked_url(url)
        self._file = os.path.abspath(str(found.database)) if found.get_backend_name() == "sqlite" else None
        if self._file is not None:
            found = found.set(database=self._file)
        self._engine = tables.engine(found)
        self._insert: Any = sqlite.insert if self._file is not None else postgresql.insert

    @property
    def is_there(self) -> bool:
        """True when somebody has written it."""
        return self._tried(lambda: sql.are_there(self._engine, tables.TABLES))

    def make(self) -> None:
        """Its tables, unless they are there."""
        if self._file is not None:
            folder = os.path.dirname(self._file)
            try:
                if self._file.endswith(FILE):
                    os.makedirs(folder, exist_ok=True)
                if not os.access(folder, os.W_OK):
                    raise PermissionError(f"there is no folder {folder!r} that this process may write")
            except OSError as error:
                raise InvalidParamError(
                    f"'ledger': {self.url} cannot be made: {error}", param="ledger", value=self.url
                ) from error
        self._tried(lambda: sql.make(self._engine, tables.TABLES))

    def entries(self) -> dict[str, Entry]:
        """Of all slots of the output, by name, in order."""

        def read() -> dict[str, Entry]:
            with self._reading() as connection:
                now = self._now(connection)
                rows = connection.execute(select(SLOTS).where(SLOTS.c.output == self.output).order_by(SLOTS.c.slot))
                return {row.slot: of_row(row, now) for row in rows}

        return self._tried(read)

    def states(self) -> dict[str, tuple[str, bool]]:
        """Of all slots of the output, by name: the state, and whether somebody's lease is not over."""

        def read() -> dict[str, tuple[str, bool]]:
            with self._reading() as connection:
                asked = select(SLOTS.c.slot, SLOTS.c.state, SLOTS.c.expires).where(SLOTS.c.output == self.output)
                now = self._now(connection)
                return {row.slot: (row.state, row.expires > now) for row in connection.execute(asked)}

        return self._tried(read)

    def outputs(self) -> list[str]:
        """Whose slots it has."""

        def read() -> list[str]:
            with self._reading() as connection:
                return list(connection.execute(select(SLOTS.c.output).distinct().order_by(SLOTS.c.output)).scalars())

        return self._tried(read)

    def entry(self, slot: str) -> Entry | None:
        """Of one slot; None if nobody asked for it yet."""

        def read() -> Entry | None:
            with self._reading() as connection:
                row = connection.execute(select(SLOTS).where(*self._is(slot))).one_or_none()
                return None if row is None else of_row(row, self._now(connection))

        return self._tried(read)

    def attempts(self) -> list[Told]:
        """At all slots of the output, the oldest first."""

        def read() -> list[Told]:
            with self._reading() as connection:
                asked = select(ATTEMPTS).where(ATTEMPTS.c.output == self.output).order_by(ATTEMPTS.c.started)
                return [dict(row._mapping) for row in connection.execute(asked)]

        return self._tried(read)

    def grant(self, slot: str, seen: Entry | None, token: str, run: str, seconds: float, *, rescore: bool) -> bool:
        """Give the lease to this token for so many seconds, if the slot is as it was ``seen`` and nobody has it.

        An order to score again that was not carried out goes on, whoever carries it out.
        """
        number, before = int(token.partition("-")[0]), seen.number if seen else 0
        unfinished = seen is not None and seen.state in (SCORING, FAILED) and (seen.rescore or not rescore)
        since = seen.since if seen and unfinished else number
        told = {"state": SCORING, "number": number, "token": token, "owner": _owner(run), "since": since}
        told |= {"rescore": rescore or bool(seen and unfinished and seen.rescore)}

        def write() -> bool:
            with self._writing() as connection:
                now = self._now(connection)
                if seen is None:
                    nobody = {
                        "state": NEW,
                        "number": 0,
                        "token": "",
                        "since": 0,
                        "rescore": False,
                        "owner": "",
                        "expires": 0.0,
                    }
                    row = {"output": self.output, "slot": slot, **nobody}
                    connection.execute(self._insert(SLOTS).values(**row).on_conflict_do_nothing())
                taken = (
                    update(SLOTS)
                    .where(*self._is(slot), SLOTS.c.number == before, SLOTS.c.expires <= now)
                    .values(expires=now + seconds, **told)
                )
                if connection.execute(taken).rowcount != 1:  # it may have been the try before, whose answer was lost
                    found = connection.execute(select(SLOTS.c.token).where(*self._is(slot))).scalar_one_or_none()
                    return bool(found == token)
                lost = update(ATTEMPTS).where(ATTEMPTS.c.output == self.output, ATTEMPTS.c.slot == slot)
                connection.execute(lost.where(ATTEMPTS.c.state == SCORING).values(state=LOST, ended=now))
                row = {"output": self.output, "slot": slot, "number": number, "run": run, "owner": _owner(run)}
                connection.execute(self._insert(ATTEMPTS).values(**row, state=SCORING, started=now))
                return True

        return self._tried(write)

    def renew(self, slot: str, token: str, seconds: float) -> bool:
        """Prolong the lease; False if it is another's by now."""

        def write() -> bool:
            with self._writing() as connection:
                mine = update(SLOTS).where(*self._is(slot), SLOTS.c.token == token, SLOTS.c.state == SCORING)
                return connection.execute(mine.values(expires=self._now(connection) + seconds)).rowcount == 1

        return self._tried(write)

    def done(self, slot: str, token: str, manifest: Told) -> bool:
        """The slot's table is there, as its manifest says, and the lease is over. False if it is another's by now."""
        told = manifest["told"]
        of_attempt = {"state": DONE, "pieces": told.get("pieces"), "resumed": told.get("resumed"), "problem": None}
        return self._ended(
            slot, token, {"state": DONE, "rescore": False, "problem": None, **of_table(manifest)}, of_attempt
        )

    def failed(self, slot: str, token: str, problem: str) -> bool:
        """The attempt failed, and the lease is over. False if it is another's by now."""
        return self._ended(slot, token, {"state": FAILED, "problem": problem}, {"state": FAILED, "problem": problem})

    def _ended(self, slot: str, token: str, told: Told, of_attempt: Told) -> bool:
        def write() -> bool:
            with self._writing() as connection:
                mine = update(SLOTS).where(*self._is(slot), SLOTS.c.token == token)
                found = connection.execute(mine.values(expires=0.0, **told)).rowcount == 1
                number = int(token.partition("-")[0])
                attempt = (ATTEMPTS.c.output == self.output, ATTEMPTS.c.slot == slot, ATTEMPTS.c.number == number)
                state = of_attempt if found else {"state": LOST}
                connection.execute(update(ATTEMPTS).where(*attempt).values(**state, ended=self._now(connection)))
                return found

        return self._tried(write)

    def put(self, slot: str, manifest: Told) -> bool:
        """Make the slot's entry what its manifest says; False, and nothing done, while somebody works on it, or is to score it
        again."""
        number = int(str(manifest.get("token", "0")).partition("-")[0])
        told = {"state": DONE, "rescore": False, "problem": None, "owner": "", "expires": 0.0, **of_table(manifest)}
        told["token"] = str(manifest.get("token", ""))
        new = {"number": number, "since": number}
        grown = case((SLOTS.c.number < number, number), else_=SLOTS.c.number)  # a token does not come twice

        def write() -> bool:
            with self._writing() as connection:
                row = {"output": self.output, "slot": slot, **new, **told}
                added = connection.execute(self._insert(SLOTS).values(**row).on_conflict_do_nothing())
                if added.rowcount == 1:
                    return True
                free = update(SLOTS).where(*self._is(slot), SLOTS.c.expires <= self._now(connection))
                due = and_(SLOTS.c.rescore, SLOTS.c.since > number)
                return connection.execute(free.where(not_(due)).values(number=grown, **told)).rowcount == 1

        return self._tried(write)

    def forget(self, slot: str) -> bool:
        """What is told of a slot whose table is gone, but for the number of its last token; unless somebody works on it."""
        empty = {column.name: None for column in SLOTS.c if column.nullable}
        new = {"state": NEW, "token": "", "rescore": False, "owner": "", "expires": 0.0}

        def write() -> bool:
            with self._writing() as connection:
                free = update(SLOTS).where(*self._is(slot), SLOTS.c.expires <= self._now(connection))
                return connection.execute(free.values(**empty, **new)).rowcount == 1

        return self._tried(write)

    def _is(self, slot: str) -> tuple[Any, Any]:
        return SLOTS.c.output == self.output, SLOTS.c.slot == slot

    def _now(self, connection: Connection) -> float:
        if self._file is not None:  # which one machine has
            return time.time()
        return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._engine.connect().execution_options(**{sql.WRITES: True}) as connection, connection.begin():
            yield connection

    def _tried(self, step: Callable[[], Any]) -> Any:
        """What the step gives, tried again while the database cannot be reached or is busy. Raises LedgerError if it stays so,
        InvalidParamError for what trying again does not mend."""
        again = Retrying(
            retry=retry_if_exception(tables.may_pass),
            stop=stop_after_attempt(TRIES),
            wait=wait_exponential(multiplier=0.5),
            reraise=True,
        )
        try:
            return again(step)
        except SQLAlchemyError as error:
            told = str(error.orig) if isinstance(error, DBAPIError) else str(error)
            told = store.hushed(" ".join(told.split()), self._secrets)
            cause = None if self._secrets else error
            if tables.may_pass(error):
                raise LedgerError(
                    f"the ledger {self.url} cannot be read or written: {told}; nothing is lost, run it again when it can",
                    ledger=self.url,
                ) from cause
            raise InvalidParamError(
                f"'ledger': {self.url} cannot be used: {told}", param="ledger", value=self.url
            ) from cause


def _owner(run: str) -> str:
    return f"{run} on {socket.gethostname()}, process {os.getpid()}"
