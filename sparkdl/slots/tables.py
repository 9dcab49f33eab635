"""The ledger's two tables, and how they are opened: SQLite or PostgreSQL."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import NullPool

from sparkdl import sql, store
from sparkdl.errors import InvalidParamError

BUSY_S = 10  # how long SQLite waits for another process's transaction
CONNECT_S = 5  # how long PostgreSQL may take to let one in
LOCK_S = 10  # how long it waits for another's lock on a row
STATEMENT_S = 20  # how long it may work on a statement
SILENT_S = 30  # after which a server that is not heard of is taken as gone
_SQLITE_PASSES = re.compile("locked|unable to open database file|disk I/O error|disk is full")
# connection lost, serialization and deadlock, no resources, lock not to be had, shut down or cancelled, system error
_POSTGRES_PASSES = ("08", "40", "53", "55P03", "57", "58")
_REFUSED = re.compile(
    "authentication failed|no password supplied|does not exist|no pg_hba.conf entry|permission denied"
)
TABLES = MetaData()
SLOTS = Table(
    "sparkdl_slots",
    TABLES,
    Column("output", String(512), primary_key=True),
    Column("slot", String(256), primary_key=True),
    Column("state", String(16), nullable=False),  # new, scoring, done, failed
    Column("number", Integer, nullable=False),  # of the last token
    Column("token", String(32), nullable=False),
    Column(
        "since", Integer, nullable=False
    ),  # the number of the first token that was to score it, or to score it again
    Column("rescore", Boolean, nullable=False),
    Column("owner", Text, nullable=False),
    Column("expires", Float(53), nullable=False),  # of the lease, in seconds since 1970; 0: nobody has it
    Column("run", String(64)),  # from here on: of the table that is there
    Column("model", Text),
    Column("version", Integer),
    Column("digest", String(64)),
    Column("rows", BigInteger),
    Column("written", BigInteger),
    Column("invalid", Text),
    Column("seconds", Float(53)),
    Column("finished", Float(53)),
    Column("input", Text),
    Column("files", Text),
    Column("problem", Text),  # why the last attempt failed
)
ATTEMPTS = Table(
    "sparkdl_attempts",
    TABLES,
    Column("output", String(512), primary_key=True),
    Column("slot", String(256), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("run", String(64), nullable=False),
    Column("owner", Text, nullable=False),
    Column("state", String(16), nullable=False),  # scoring, done, failed, lost
    Column("started", Float(53), nullable=False),
    Column("ended", Float(53)),
    Column("pieces", Integer),
    Column("resumed", Integer),
    Column("problem", Text),
)


def checked_url(text: str) -> URL:
    """Raises InvalidParamError, without what is secret in it."""
    url = sql.url(text)
    if url is None:
        raise InvalidParamError(
            f"'ledger' must be sqlite:///<path of a file> or postgresql://<user>@<host>/<database> (got {store.shown(text)!r})",
            param="ledger",
            value=store.shown(text),
        )
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def engine(url: URL) -> Engine:
    """A connection each time: nothing to go stale, nothing shared after a fork. Raises InvalidParamError for a driver that
    is not installed."""
    is_sqlite = url.get_backend_name() == "sqlite"
    waits = {"timeout": BUSY_S} if is_sqlite else _waits(url)
    try:
        made = create_engine(url, poolclass=NullPool, connect_args=waits, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise InvalidParamError(
            f"'ledger' needs the package {error.name!r}, which is not installed: pip install 'psycopg[binary]', or name "
            "another driver, as in postgresql+psycopg2://",
            param="ledger",
            value=url.render_as_string(),
        ) from error
    if is_sqlite:
        event.listen(made, "connect", _without_begin)
        event.listen(made, "begin", _begin)
    return made


def _waits(url: URL) -> dict[str, Any]:
    """Of libpq: nothing waits for ever, whatever became of the server, the way to it, or the owner of a lock."""
    limits = f"-c lock_timeout={int(LOCK_S * 1000)} -c statement_timeout={int(STATEMENT_S * 1000)}"
    return {
        "connect_timeout": CONNECT_S,
        "options": f"{limits} {url.query.get('options', '')}".strip(),
        "tcp_user_timeout": SILENT_S * 1000,
        "keepalives_idle": SILENT_S // 3,
        "keepalives_interval": SILENT_S // 6,
        "keepalives_count": 4,
    }


def may_pass(error: BaseException) -> bool:
    """True of an error that trying again may mend: the database is away, or busy, or its disk is full."""
    if not isinstance(error, DBAPIError):
        return False
    told = error.orig
    if isinstance(told, sqlite3.Error):
        return _SQLITE_PASSES.search(str(told)) is not None
    code = getattr(told, "sqlstate", None) or getattr(told, "pgcode", None)
    if code is not None:
        return str(code).startswith(_POSTGRES_PASSES)
    # before there is a connection libpq tells no code
    return isinstance(error, (OperationalError, InterfaceError)) and _REFUSED.search(str(told)) is None


def _without_begin(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # sqlite3 begins no transaction of its own


def _begin(connection: Connection) -> None:
    """One that writes has the file from its start: it cannot fail half-way because another one read what it did."""
    writes = connection.get_execution_options().get(sql.WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
