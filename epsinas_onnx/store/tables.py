"""Puts one result into the tables of a store, and reads them back as rows."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epsinas_onnx._util.text import sentence, without_subject
from epsinas_onnx.errors import UsageError
from epsinas_onnx.scoring.result import Score, Status
from epsinas_onnx.store.database import Database
from epsinas_onnx.store.keys import Settings
from epsinas_onnx.versions import versions

_PAGE = 1000  # rows that are read at a time, so that no transaction stays open while they are used
_ELSEWHERE = ("proxies", "proxy_batch", "versions")
"""Fields of a score that lie in tables of their own."""


@dataclass(frozen=True)
class Entry:
    """A result to be written. source, kind, space, network, nodes: of the model. score: with all its other scores."""

    source: str
    kind: str
    space: str
    network: str | None
    nodes: int | None
    settings: Settings
    score: Score


def put(connection: sqlite3.Connection, entry: Entry) -> None:
    """Write a result under its key: an error gives way to whatever comes, and what is no error stays."""
    record = entry.score.to_dict()
    others = record["proxies"]
    for key in _ELSEWHERE:
        del record[key]
    record["seconds"].pop("proxies", None)
    settings, source = entry.settings, entry.source
    connection.execute(
        "INSERT OR IGNORE INTO settings VALUES (?, ?, ?)", (settings.key, settings.common, settings.text)
    )
    connection.execute(
        "INSERT INTO sources VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET network = excluded.network, "
        "nodes = excluded.nodes WHERE excluded.network IS NOT NULL AND sources.network IS NULL",
        (source, entry.kind, json.dumps(entry.space), entry.network, entry.nodes),
    )
    connection.execute("INSERT OR IGNORE INTO names VALUES (?, ?)", (source, json.dumps(entry.score.model)))
    connection.execute(
        "INSERT INTO results (source, settings, status, record, written) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET status = excluded.status, record = excluded.record, written = excluded.written "
        "WHERE results.status = ?",
        (source, settings.key, str(entry.score.status), json.dumps(record), time.time(), Status.ERROR),
    )
    for name, one in others.items():
        connection.execute(
            "INSERT INTO others VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET status = excluded.status, "
            "record = excluded.record WHERE others.status = ?",
            (source, settings.common, settings.proxy_batch, name, one["status"], json.dumps(one), Status.ERROR),
        )


def rows(database: Database, statuses: Sequence[str], space: str | None) -> Iterator[dict[str, Any]]:
    """Yield the records of all results, those of `score --format jsonl`, by the order in which they came in.

    One comes for each name of its model, and for each number of samples that its other scores were asked to see.

    Raises UsageError for a status that does not exist, sqlite3.Error where the file cannot be read.
    """
    for status in statuses:
        if status not in set(Status):
            raise UsageError(f"there is no status {status!r}; the statuses are {', '.join(Status)}")
    where, values = ["id > ?"], [*statuses, *([] if space is None else [json.dumps(space)])]
    if statuses:
        where.append(f"status IN ({', '.join('?' * len(statuses))})")
    if space is not None:
        where.append("space = ?")
    ask = (
        "SELECT id, source, common, text, record FROM results JOIN sources USING (source) JOIN settings USING "
        f"(settings) WHERE {' AND '.join(where)} ORDER BY id LIMIT {_PAGE}"
    )
    last = 0
    while True:
        with database.lock:
            page = database.connection.execute(ask, (last, *values)).fetchall()
            read = [(*row, _names(database, row[1]), _others(database, row[1], row[2])) for row in page]
        for _, _, _, text, record, names, others in read:
            yield from _records(json.loads(record), json.loads(text)["versions"], names, others)
        if len(page) < _PAGE:
            return
        last = page[-1][0]


def _records(
    record: dict[str, Any], used: Mapping[str, str], names: Sequence[str],
    others: Mapping[int | None, Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    for name in names or [record["model"]]:
        for batch, proxies in (others or {None: {}}).items():
            yield renamed({**record, "proxies": proxies, "proxy_batch": batch, "versions": used}, name)


def renamed(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the record of a model that is called otherwise."""
    old, reason = record["model"], record["reason"]
    if name != old and reason is not None and (what := without_subject(reason, old)) != reason:
        reason = sentence(f"{name}: {what}")
    return {**record, "model": name, "reason": reason}


def whole(record: Mapping[str, Any], others: Mapping[str, Any], batch: int | None) -> Score:
    """Return the score of a record out of the tables, with other scores, as this version gives it."""
    return Score.from_dict({**record, "proxies": others, "proxy_batch": batch, "versions": versions()})


def _names(database: Database, source: str) -> list[str]:
    found = database.connection.execute("SELECT name FROM names WHERE source = ? ORDER BY name", (source,))
    return [json.loads(name) for (name,) in found]


def _others(database: Database, source: str, common: str) -> dict[int | None, dict[str, Any]]:
    found: dict[int | None, dict[str, Any]] = {}
    ask = "SELECT batch, name, record FROM others WHERE source = ? AND common = ? ORDER BY batch, name"
    for batch, name, record in database.connection.execute(ask, (source, common)):
        found.setdefault(batch, {})[name] = json.loads(record)
    return found
