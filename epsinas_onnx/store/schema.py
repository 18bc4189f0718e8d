"""The tables of a store, and the steps that bring one of an older version up to date."""

from __future__ import annotations

import sqlite3

APPLICATION = 0x45505349
"""What SQLite's application_id is in a store: `EPSI`."""

# Keys are digests; names may be anything, lone surrogates too, so they are kept as JSON in printable ASCII.
STEPS = (
    """
    CREATE TABLE settings (
        settings TEXT PRIMARY KEY, common TEXT NOT NULL, text TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE sources (
        source TEXT PRIMARY KEY, kind TEXT NOT NULL, space TEXT NOT NULL, network TEXT, nodes INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE names (source TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (source, name)) WITHOUT ROWID;
    CREATE TABLE results (
        id INTEGER PRIMARY KEY, source TEXT NOT NULL, settings TEXT NOT NULL, status TEXT NOT NULL,
        record TEXT NOT NULL, written REAL NOT NULL, UNIQUE (source, settings)
    );
    CREATE TABLE others (
        source TEXT NOT NULL, common TEXT NOT NULL, batch INTEGER NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL,
        record TEXT NOT NULL, PRIMARY KEY (source, common, batch, name)
    ) WITHOUT ROWID;
    CREATE INDEX sources_by_network ON sources (network) WHERE network IS NOT NULL;
    """,
)
"""Step N brings a store of version N to N + 1. A store that was released stays readable: steps are added, never
changed."""

VERSION = len(STEPS)
TABLES = frozenset({"settings", "sources", "names", "results", "others"})


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring a store up to date, in a transaction of its own; one that is, is left alone."""
    if _version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in STEPS[_version(connection) :]:
            for statement in step.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
