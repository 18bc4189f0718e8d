"""`Store`: results in one file, which any number of runs find and add to at once."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from epsinas_onnx._util.text import shown
from epsinas_onnx.errors import OutputError
from epsinas_onnx.scoring.result import Score, Status
from epsinas_onnx.store.database import Database, is_lasting, meaning
from epsinas_onnx.store.keys import Settings
from epsinas_onnx.store.merge import Merged, merge_into
from epsinas_onnx.store.tables import Entry, put, rows
from epsinas_onnx.store.vacuum import Vacuumed, vacuum
from epsinas_onnx.versions import versions

_WAIT = 10.0
_AGAIN = 5.0  # seconds after which a store that took nothing is tried again
_HELD = 10_000  # results that are held meanwhile


@dataclass(frozen=True)
class Known:
    """What a store holds of one model. score: its record, None where it is an error or missing. others: by name."""

    score: Mapping[str, Any] | None = None
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Store:
    """A file of results, for `score_many(..., store=...)` and for reading; a context manager.

    Threads may share one, and any number of processes may have the same file open: each result is written as it comes,
    in a transaction of its own, so that whoever is killed loses what was being computed and nothing else. docs/store.md
    says what results are kept under.

    Args:
        path: an SQLite file, made where nothing is. On a file system of this machine: SQLite's log needs that.
        wait: seconds that another program is waited for which has the file locked.
        readonly: whether the file is only read; it must be there.

    Raises:
        UsageError: what is there is no store, is damaged, of a newer version, locked or read-only; it is left as it is.
        OutputError: it cannot be made; and when it is closed, where results could not be written, such as on a full
            disk. They are handed out all the same, and the store holds what it held.

    Examples:
        >>> import tempfile
        >>> from epsinas_onnx import score_many
        >>> with tempfile.TemporaryDirectory() as folder, Store(f"{folder}/results.db") as store:
        ...     for result in score_many(["models/mlp.onnx"], batch=16, store=store):
        ...         print(result.model, result.status, store.added)
        models/mlp.onnx ok 1
    """

    def __init__(self, path: str | os.PathLike[str], *, wait: float = _WAIT, readonly: bool = False) -> None:
        self.path = Path(path)
        self.found, self.added = 0, 0
        """How many results were found here since it was opened, and how many added."""
        self._database = Database(path, wait=wait, readonly=readonly)
        self._held: list[Entry] = []
        self._lost = 0
        self._failed: Exception | None = None
        self._tried = 0.0
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            with contextlib.suppress(OutputError):  # what ended it is what a reader wants to know
                self.close()

    def close(self) -> None:
        """Close the file; raises OutputError where results could not be written, after a last try."""
        if not self._is_open:
            return
        self._is_open = False
        with self._database.lock:
            if self._held:
                self._write(self._database.wait)
            self._database.close()
        if self._failed is None:
            return
        missing = self._lost + len(self._held)
        lacks = f"; {missing:,} results of this run are not in it" if missing else ""
        raise OutputError(f"{shown(os.fspath(self.path))}: {meaning(self._failed)}{lacks}")

    def scores(self, *, status: str | Sequence[str] = (), space: str | None = None) -> Iterator[Score]:
        """Yield every result, one for each name that its model was scored under; errors too, in the order of coming in.

        status: those with one of these. space: those of architectures of this search space. A model that was scored
        with several settings, or versions, comes once for each.

        Raises UsageError for a status that does not exist, OutputError where the file cannot be read.
        """
        wanted = (status,) if isinstance(status, str) else tuple(status)
        with self._database.told():
            for record in rows(self._database, wanted, space):
                yield Score.from_dict(record)

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Return how many results have which status, by search space (`""` for models that are of none)."""
        found: dict[str, dict[str, int]] = {}
        query = (
            "SELECT space, status, count(*) FROM results JOIN sources USING (source) GROUP BY space, status "
            "ORDER BY space, count(*) DESC, status"
        )
        with self._database.told(), self._database.lock:
            for space, status, count in self._database.connection.execute(query):
                found.setdefault(json.loads(space), {})[status] = count
        return found

    def other_scores(self) -> list[str]:
        """Return the names of the other training-free scores that there are results of."""
        with self._database.told(), self._database.lock:
            return [
                name for (name,) in self._database.connection.execute("SELECT DISTINCT name FROM others ORDER BY name")
            ]

    def merge(self, other: str | os.PathLike[str]) -> Merged:
        """Take in what another store holds and this one lacks; the other one is only read.

        A result takes the place of an error; of two results under one key that differ by more than rounding, the one
        that was there stays, and the other is told. Raises UsageError where `other` is no store, or this very file.
        """
        with self._database.told():
            return merge_into(self._database, other)

    def vacuum(self, *, other_versions: bool = False) -> Vacuumed:
        """Give unused space back to the disk, after looking whether the file is whole.

        other_versions: whether results are dropped that were computed with other versions than those that are
        installed, of this package or a library: no run of these versions finds them. Raises UsageError where the file
        is damaged, OutputError where it cannot be written.
        """
        with self._database.told():
            return vacuum(self._database, dict(versions()) if other_versions else None)

    def known(self, source: str, settings: Settings, names: Sequence[str]) -> Known:
        """Return what there is of a model, and of the other scores called `names`; nothing where it cannot be read."""
        ask = "SELECT record FROM results WHERE source = ? AND settings = ? AND status != ?"
        with self._reading() as connection:
            found = connection.execute(ask, (source, settings.key, Status.ERROR)).fetchone()
            others = {}
            if names:
                asked = connection.execute(
                    "SELECT name, record FROM others WHERE source = ? AND common = ? AND batch = ? AND status != ?",
                    (source, settings.common, settings.proxy_batch, Status.ERROR),
                )
                others = {name: json.loads(text) for name, text in asked if name in names}
            return Known(None if found is None else json.loads(found[0]), others)
        return Known()

    def network(self, source: str) -> tuple[str, int] | None:
        """Return the network that a model is known to be, and how many nodes it has."""
        with self._reading() as connection:
            ask = "SELECT network, nodes FROM sources WHERE source = ? AND network IS NOT NULL"
            found = connection.execute(ask, (source,)).fetchone()
            return None if found is None else (found[0], found[1])
        return None

    def shared(self, network: str, settings: Settings) -> Mapping[str, Any] | None:
        """Return a score of another model that is the same network, the first that came in."""
        with self._reading() as connection:
            found = connection.execute(
                "SELECT record FROM sources JOIN results USING (source) WHERE network = ? AND settings = ? AND "
                "status = ? ORDER BY id LIMIT 1",
                (network, settings.key, Status.OK),
            ).fetchone()
            return None if found is None else json.loads(found[0])
        return None

    def note_name(self, source: str, name: str) -> None:
        """Remember another name of a model, which is no result: where it cannot be written, nothing is missing."""
        values = (source, json.dumps(name))
        with self._reading() as connection:
            known = connection.execute("SELECT 1 FROM names WHERE source = ? AND name = ?", values).fetchone()
            if known is None and self._failed is None:
                with self._database.transaction():
                    connection.execute("INSERT OR IGNORE INTO names VALUES (?, ?)", values)

    def add(self, entry: Entry) -> None:
        """Write a result; where that fails it is held, tried again, and said when the store is closed."""
        with self._database.lock:
            if len(self._held) < _HELD:
                self._held.append(entry)
            else:
                self._lost += 1
            if self._failed is None:
                self._write(self._database.wait)
            elif time.monotonic() - self._tried >= _AGAIN:
                self._write(0)

    def _write(self, wait: float) -> None:
        try:
            with self._database.transaction(wait) as connection:
                for entry in self._held:
                    put(connection, entry)
        except (sqlite3.Error, OSError) as error:
            self._failed, self._tried = error, time.monotonic()
        else:
            self.added += len(self._held)
            self._held.clear()
            if self._failed is not None and not self._lost and not is_lasting(self._failed):
                self._failed = None

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._database.lock:
            try:
                yield self._database.connection
            except (sqlite3.Error, OSError, ValueError) as error:
                self._failed = self._failed or error
