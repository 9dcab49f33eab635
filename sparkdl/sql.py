"""What is the same for all that is kept in an SQL database, SQLite or PostgreSQL: its URL, and tables made by the first who writes."""

from __future__ import annotations

import os

from sqlalchemy import Engine, MetaData, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.schema import CreateTable

DIALECTS = ("sqlite", "postgresql")
WRITES = "sparkdl_writes"  # an option of a connection


def url(text: str) -> URL | None:
    """None for what is no URL of a SQLite file or a PostgreSQL database; it is not told why: that might hold the password."""
    try:
        found = make_url(text)
    except (ArgumentError, ValueError):
        return None
    usable = found.get_backend_name() in DIALECTS and found.database and found.database != ":memory:"
    return found if usable else None


def are_there(engine: Engine, tables: MetaData) -> bool:
    """True when all tables are; looks at a SQLite file only if there is one, for to connect would make it."""
    if engine.url.get_backend_name() == "sqlite" and not os.path.exists(str(engine.url.database)):
        return False
    found = inspect(engine)
    return all(found.has_table(table.name) for table in tables.sorted_tables)


def make(engine: Engine, tables: MetaData) -> None:
    """The tables, unless they are there."""
    if are_there(engine, tables):
        return
    try:
        with engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
            for table in tables.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
    except DatabaseError:  # PostgreSQL's IF NOT EXISTS does not hold for two at once
        if not are_there(engine, tables):
            raise
