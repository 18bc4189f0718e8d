"""One store that is open: its connection to SQLite, transactions, and what an error means for a person."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from epsinas_onnx._util.text import shown
from epsinas_onnx.errors import EpsinasError, OutputError, UsageError
from epsinas_onnx.store import schema
from epsinas_onnx.store.file import check_file, make_file

_DISK = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
_LOCKED = "is locked by another program; wait until it is done with it, or end it"


class Database:
    """The tables of a store. wait: seconds that another writer is waited for. readonly: whether nothing is written.

    Threads may share one; so may processes that were forked, each of which gets a connection of its own.

    Raises UsageError where the file is no store, or locked, and OutputError where it cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str], *, wait: float, readonly: bool) -> None:
        self.path = path
        self.wait, self._readonly = wait, readonly
        self.lock = threading.RLock()
        if not readonly and not os.path.lexists(path):
            make_file(path)
        check_file(path)
        if not readonly and not os.access(path, os.W_OK):
            raise UsageError(f"{shown(os.fspath(path))}: cannot be written: Permission denied; name another file")
        self._connect()

    def _connect(self) -> None:
        self._process = os.getpid()
        self._file = Path(self.path).stat()
        try:
            self._open = self._connected()
            try:
                self._prepare()
            except BaseException:
                self._open.close()
                raise
        except sqlite3.Error as error:
            kind = OutputError if _code(error) in _DISK and not self._readonly else UsageError
            raise kind(f"{shown(os.fspath(self.path))}: {meaning(error)}") from None

    def _connected(self) -> sqlite3.Connection:
        if not self._readonly:
            return self._sqlite(str(Path(os.path.realpath(self.path))))
        path = Path(os.path.realpath(self.path))
        if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
            found = self._sqlite(str(path))  # takes away at its end what reading needs beside the file
            found.execute("PRAGMA query_only = ON")
            return found
        address = path.as_uri() + "?mode=ro"
        found = self._sqlite(address, uri=True)
        try:
            found.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError as error:  # reading needs files beside it, and nothing can be made there
            found.close()
            log = path.with_name(f"{path.name}-wal")
            if _code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or log.exists():
                raise
            return self._sqlite(address + "&immutable=1", uri=True)
        return found

    def _sqlite(self, address: str, **more: Any) -> sqlite3.Connection:
        opened: sqlite3.Connection = sqlite3.connect(
            address, timeout=self.wait, isolation_level=None, check_same_thread=False, **more
        )
        return opened

    def _prepare(self) -> None:
        if not self._readonly:
            schema.upgrade(self._open)
            self._open.execute("PRAGMA journal_mode = WAL")
        self._open.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing; a power cut the last moments
        tables = {name for (name,) in self._open.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables >= schema.TABLES:
            raise sqlite3.DatabaseError("tables are missing")
        for table in schema.TABLES:  # a page that is no page is found here rather than in the middle
            self._open.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, to be used under `lock`; a process that was forked gets one of its own."""
        if self._process != os.getpid():
            self.lock = threading.RLock()
            self._connect()
        return self._open

    @contextlib.contextmanager
    def transaction(self, wait: float | None = None) -> Iterator[sqlite3.Connection]:
        """Let all that is written take place, or nothing of it. wait: seconds, where not as long as usual.

        Raises sqlite3.Error where it cannot, and OSError where the file is another one by now.
        """
        with self.lock:
            connection = self.connection
            if not self.is_there():
                raise OSError("it was moved or removed while it was in use")
            connection.execute(f"PRAGMA busy_timeout = {int(1000 * (self.wait if wait is None else wait))}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # an error may have ended it already
                    connection.execute("ROLLBACK")
                raise

    def is_there(self) -> bool:
        """Whether what the path leads to is still the file that was opened."""
        try:
            return os.path.samestat(Path(self.path).stat(), self._file)
        except OSError:
            return False

    def close(self) -> None:
        """Close the connection; what was written stays."""
        with self.lock, contextlib.suppress(sqlite3.Error):
            if self._process == os.getpid():
                self._open.close()

    @contextlib.contextmanager
    def told(self, doing: type[EpsinasError] = OutputError) -> Iterator[None]:
        """Raise what SQLite says as a sentence about this file."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise doing(f"{shown(os.fspath(self.path))}: {meaning(error)}") from None


def meaning(error: Exception) -> str:
    """Return what an error of SQLite means for a person, as the end of a sentence about the file."""
    match _code(error):
        case sqlite3.SQLITE_FULL:
            return "no space is left on its disk; make room, or name a file on another disk"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return _LOCKED
        case sqlite3.SQLITE_READONLY:
            return "cannot be written: it is read-only; name another file"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return "is damaged; restore it from a copy, or name another file"
        case sqlite3.SQLITE_IOERR:
            return f"its disk is full, or fails ({error}); make room, or name a file on another disk"
        case sqlite3.SQLITE_CANTOPEN:
            return "cannot be opened, or no file can be made beside it, which SQLite needs; check its folder and disk"
    if isinstance(error, sqlite3.DatabaseError) and "tables are missing" in str(error):
        return "is damaged: tables are missing; restore it from a copy, or name another file"
    return f"cannot be read or written: {error.strerror if isinstance(error, OSError) and error.strerror else error}"


def is_lasting(error: Exception) -> bool:
    """Whether a failure means that the file is damaged, so that it is to be told although later writes went well."""
    return isinstance(error, ValueError) or _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: BaseException) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF  # what lies above tells kinds of one error apart
