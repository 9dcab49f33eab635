"""A registry in an SQL catalogue, SQLite or PostgreSQL; the bundles themselves are in a store of files."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    func,
    insert,
    select,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from sparkdl import sql, store
from sparkdl.errors import RegistryError
from sparkdl.registry.backend import Log
from sparkdl.registry.records import Move, Version

BUSY_S = 30  # how long SQLite waits for another process's transaction
_tables = MetaData()
VERSIONS = Table(
    "sparkdl_versions",
    _tables,
    Column("name", String(128), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),
    Column("time", Float(53), nullable=False),
    Column("by", Text, nullable=False),
    Column("note", Text, nullable=False),
)
MOVES = Table(
    "sparkdl_moves",
    _tables,
    Column("name", String(128), primary_key=True),
    Column("alias", String(128), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("before", Integer),
    Column("time", Float(53), nullable=False),
    Column("by", Text, nullable=False),
)


class Sql(Log):
    """Two tables, made by the first who writes. That a number is taken is their primary keys' word."""

    errors = (SQLAlchemyError, OSError)

    def __init__(self, uri: str, bundles: str) -> None:
        self.uri = store.shown(uri)
        self.url = _url(uri, self.uri)
        self.bundles = store.absolute(bundles)
        self._are_there = False
        waits = {"timeout": BUSY_S} if self.url.get_backend_name() == "sqlite" else {}
        try:
            # a connection each time: nothing to go stale between two looks at an alias, nothing shared after a fork
            self.engine = create_engine(self.url, poolclass=NullPool, connect_args=waits, hide_parameters=True)
        except ModuleNotFoundError as error:
            raise RegistryError(
                f"the registry {self.uri} needs the package {error.name!r}, which is not installed: install it, or name "
                "another driver, as in postgresql+psycopg2://",
                registry=self.uri,
                name=None,
                version=None,
            ) from error

    def names(self) -> list[str]:
        """See Backend."""
        return [row.name for row in self._rows(select(VERSIONS.c.name).distinct().order_by(VERSIONS.c.name))]

    def versions(self, name: str) -> list[Version]:
        """See Backend."""
        return [_version(row) for row in self._rows(_versions_of(name))]

    def version(self, name: str, number: int) -> Version | None:
        """See Backend."""
        rows = self._rows(_versions_of(name).where(VERSIONS.c.number == number))
        return _version(rows[0]) if rows else None

    def aliases(self, name: str) -> list[str]:
        """See Backend."""
        found = select(MOVES.c.alias).distinct().where(MOVES.c.name == name).order_by(MOVES.c.alias)
        return [row.alias for row in self._rows(found)]

    def history(self, name: str, alias: str) -> list[Move]:
        """See Backend."""
        return [
            Move(row.alias, row.version, row.before, row.time, row.by)
            for row in self._rows(_moves_of(name, alias).order_by(MOVES.c.number))
        ]

    def last_version(self, name: str) -> int:
        """See Log."""
        rows = self._rows(select(func.max(VERSIONS.c.number).label("number")).where(VERSIONS.c.name == name))
        return rows[0].number or 0 if rows else 0

    def add_version(self, name: str, version: Version) -> bool:
        """See Log."""
        return self._added(VERSIONS, {"name": name, **asdict(version)})

    def last_move(self, name: str, alias: str) -> tuple[int, int | None]:
        """See Log."""
        rows = self._rows(_moves_of(name, alias).order_by(MOVES.c.number.desc()).limit(1))
        return (rows[0].number, rows[0].version) if rows else (0, None)

    def add_move(self, name: str, number: int, move: Move) -> bool:
        """See Log."""
        return self._added(MOVES, {"name": name, "number": number, **asdict(move)})

    def _rows(self, query: Any) -> list[Any]:
        if not self._has_tables():
            return []
        with self.engine.connect() as connection:
            return list(connection.execute(query))

    def _added(self, table: Table, row: dict[str, Any]) -> bool:
        if not self._has_tables():
            sql.make(self.engine, _tables)
        try:
            with self.engine.begin() as transaction:
                transaction.execute(insert(table).values(**row))
        except IntegrityError:
            return False
        return True

    def _has_tables(self) -> bool:
        if not self._are_there:
            self._are_there = sql.are_there(self.engine, _tables)
        return self._are_there


def _url(uri: str, told: str) -> URL:
    url = sql.url(uri)
    if url is None:
        raise RegistryError(
            f"{told!r} is no catalogue for a registry: it must be sqlite:///<path of a file> or "
            "postgresql://<user>@<host>/<database>",
            registry=told,
            name=None,
            version=None,
        )
    return url


def _versions_of(name: str) -> Any:
    return select(VERSIONS).where(VERSIONS.c.name == name).order_by(VERSIONS.c.number)


def _moves_of(name: str, alias: str) -> Any:
    return select(MOVES).where(MOVES.c.name == name, MOVES.c.alias == alias)


def _version(row: Any) -> Version:
    return Version(row.number, row.digest, row.time, row.by, row.note)
