"""Looks whether a store is whole, drops what nobody finds any more, and gives unused space back to the disk."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from epsinas_onnx._util.text import shown
from epsinas_onnx.errors import UsageError
from epsinas_onnx.store.database import Database


@dataclass(frozen=True)
class Vacuumed:
    """What was done. dropped: results. before, after: bytes of the file."""

    dropped: int
    before: int
    after: int


def vacuum(database: Database, installed: Mapping[str, str] | None) -> Vacuumed:
    """Clean a store up. installed: the versions whose results stay; None drops nothing.

    Raises UsageError where the file is damaged; it is left as it is.
    """
    path = Path(database.path)
    with database.lock:
        [found] = database.connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise UsageError(f"{shown(str(path))}: is damaged ({found}); restore it from a copy, or name another file")
    before, dropped = path.stat().st_size, 0
    if installed is not None:
        with database.transaction() as connection:
            dropped = _drop(connection, installed)
    with database.lock:
        database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.connection.execute("VACUUM")
        database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Vacuumed(dropped, before, path.stat().st_size)


def _drop(connection: sqlite3.Connection, installed: Mapping[str, str]) -> int:
    """Drop what other versions wrote; return how many results that are."""
    known = connection.execute("SELECT settings, text FROM settings").fetchall()
    others = [(key,) for key, text in known if json.loads(text)["versions"] != installed]
    dropped = connection.executemany("DELETE FROM results WHERE settings = ?", others).rowcount if others else 0
    connection.executemany("DELETE FROM settings WHERE settings = ?", others)
    connection.execute("DELETE FROM others WHERE common NOT IN (SELECT common FROM settings)")
    for table in ("names", "sources"):
        connection.execute(f"DELETE FROM {table} WHERE source NOT IN (SELECT source FROM results)")
    return dropped
