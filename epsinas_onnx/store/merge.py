"""Takes the results of one store into another: equal keys once, a result beats an error, conflicts are told."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epsinas_onnx._util.text import shown
from epsinas_onnx.errors import UsageError
from epsinas_onnx.scoring.result import Status, same_score
from epsinas_onnx.store.database import Database

_PAGE = 1000  # rows that one transaction takes
_TOLD = 100


@dataclass(frozen=True)
class Conflict:
    """Two results under one key that differ by more than rounding. here: what stays. there: what was not taken."""

    model: str
    here: str
    there: str


@dataclass(frozen=True)
class Merged:
    """What a merge did. added: results that were missing. replaced: errors that became results. same: known already.

    conflicts: the first of those that differ, of which there are `differing`; what was there stays.
    """

    added: int
    replaced: int
    same: int
    differing: int = 0
    conflicts: Sequence[Conflict] = ()


def merge_into(database: Database, other: str | os.PathLike[str]) -> Merged:
    """Take in what the store `other` holds, page by page: a merge that is cut off is gone on with by repeating it."""
    theirs = Database(other, wait=database.wait, readonly=True)
    with contextlib.closing(theirs):
        if os.path.samestat(Path(other).stat(), Path(database.path).stat()):
            raise UsageError(f"{shown(os.fspath(other))}: is the store that it would be merged into; name another one")
        for page in _pages(theirs, "settings", "settings", 3):
            with database.transaction() as connection:
                connection.executemany("INSERT OR IGNORE INTO settings VALUES (?, ?, ?)", page)
        for page in _pages(theirs, "sources", "source", 5):
            with database.transaction() as connection:
                connection.executemany(
                    "INSERT INTO sources VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET network = excluded.network, "
                    "nodes = excluded.nodes WHERE excluded.network IS NOT NULL AND sources.network IS NULL", page,
                )  # fmt: skip
        for page in _pages(theirs, "names", "source, name", 2):
            with database.transaction() as connection:
                connection.executemany("INSERT OR IGNORE INTO names VALUES (?, ?)", page)
        counted = _Counted()
        for page in _pages(theirs, "results", "id", 6):
            with database.transaction() as connection:
                for row in page:
                    counted.take(connection, row[1:])
        for page in _pages(theirs, "others", "source, common, batch, name", 6):
            with database.transaction() as connection:
                connection.executemany(
                    "INSERT INTO others VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET status = excluded.status, "
                    f"record = excluded.record WHERE others.status = '{Status.ERROR}'", page,
                )  # fmt: skip
        return counted.merged()


class _Counted:
    """Takes results in, and counts what became of them."""

    def __init__(self) -> None:
        self._added = self._replaced = self._same = self._differing = 0
        self._conflicts: list[Conflict] = []

    def take(self, connection: sqlite3.Connection, row: tuple[Any, ...]) -> None:
        """Take in one row of results, without its number."""
        source, settings, status, record, _ = row
        ask = "SELECT status, record FROM results WHERE source = ? AND settings = ?"
        found = connection.execute(ask, (source, settings)).fetchone()
        if found is None:
            connection.execute(
                "INSERT INTO results (source, settings, status, record, written) VALUES (?, ?, ?, ?, ?)", row
            )
            self._added += 1
        elif found[0] == Status.ERROR and status != Status.ERROR:
            connection.execute(
                "UPDATE results SET status = ?, record = ?, written = ? WHERE source = ? AND settings = ?",
                (*row[2:], source, settings),
            )
            self._replaced += 1
        elif status == Status.ERROR or _agree(found, (status, record)):
            self._same += 1
        else:
            self._differing += 1
            if len(self._conflicts) < _TOLD:
                model = json.loads(found[1])["model"]
                self._conflicts.append(Conflict(model, _what(found), _what((status, record))))

    def merged(self) -> Merged:
        """Return what was counted."""
        return Merged(self._added, self._replaced, self._same, self._differing, tuple(self._conflicts))


def _agree(one: tuple[str, str], other: tuple[str, str]) -> bool:
    if one[0] != other[0]:
        return False
    return one[1] == other[1] or same_score(json.loads(one[1])["score"], json.loads(other[1])["score"])


def _what(row: tuple[str, str]) -> str:
    score = json.loads(row[1])["score"]
    return row[0] if score is None else f"{row[0]} {score:.6g}"


def _pages(database: Database, table: str, key: str, columns: int) -> Iterator[list[tuple[Any, ...]]]:
    """Yield all rows of a table by its key, some at a time; columns: how many there are to be."""
    names = key.split(", ")
    marks = ", ".join("?" * len(names))
    last: tuple[Any, ...] | None = None
    while True:
        where = "" if last is None else f"WHERE ({key}) > ({marks})"
        with database.lock:
            asked = database.connection.execute(
                f"SELECT * FROM {table} {where} ORDER BY {key} LIMIT {_PAGE}", last or ()
            )
            places = [[column[0] for column in asked.description].index(name) for name in names]
            page = asked.fetchall()
        if page and len(page[0]) != columns:
            raise sqlite3.DatabaseError("tables are missing")
        if page:
            yield page
        if len(page) < _PAGE:
            return
        last = tuple(page[-1][place] for place in places)
