"""The file of a store: looked at before SQLite opens it, so that nobody else's is touched; made whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import struct
from dataclasses import dataclass
from pathlib import Path

from epsinas_onnx._util.text import shown
from epsinas_onnx.errors import UsageError
from epsinas_onnx.output.files import cannot_write, is_stream
from epsinas_onnx.store import schema

_MAGIC = b"SQLite format 3\0"
_HEADER = 100


@dataclass(frozen=True)
class Unfit:
    """Why a file is no store, as the end of a sentence, and what to do."""

    why: str

    def of(self, path: str | os.PathLike[str]) -> UsageError:
        """Return the error about the file at `path`."""
        return UsageError(f"{shown(os.fspath(path))}: {self.why}")


_NAME_ANOTHER = "name another file; this one is left as it is"


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise UsageError for what is there and is no store of this version or an older one; nothing is changed.

    https://www.sqlite.org/fileformat2.html#the_database_header says what stands where.
    """
    found = _unfit(Path(path))
    if found is not None:
        raise found.of(path)


def is_database(path: Path) -> bool:
    """Whether a file begins as every SQLite database does; what cannot be read is none."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def _unfit(path: Path) -> Unfit | None:
    if path.is_dir():
        return Unfit(f"is a folder, and a store is a file; name one in it, such as {shown(str(path / 'results.db'))}")
    if is_stream(path):
        return Unfit("is no regular file, which a store must be; name another file")
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        return Unfit(f"cannot be read: {error.strerror or error}")
    if not header.startswith(_MAGIC):
        what = "is empty" if not size else "is no SQLite database"
        return Unfit(f"{what}, so it is no store of results; {_NAME_ANOTHER}")
    if len(header) < _HEADER:
        return Unfit(f"is cut off ({size:,} bytes); restore it from a copy, or name another file")
    version, application = struct.unpack(">I", header[60:64])[0], struct.unpack(">I", header[68:72])[0]
    if application != schema.APPLICATION:
        return Unfit(f"is an SQLite database of another program; {_NAME_ANOTHER}")
    if version > schema.VERSION:
        return Unfit(
            f"was written by a newer version of epsinas-onnx (its tables are version {version}, and this one knows "
            f"{schema.VERSION}); install that version, or name another file"
        )
    return _cut_off(path, header, size)


def _cut_off(path: Path, header: bytes, size: int) -> Unfit | None:
    log = path.with_name(f"{path.name}-wal")
    with contextlib.suppress(OSError):
        if log.stat().st_size > 0:  # what the file lacks may be there, to be moved in
            return None
    page = struct.unpack(">H", header[16:18])[0]
    whole = (65536 if page == 1 else page) * struct.unpack(">I", header[28:32])[0]
    if size >= whole:
        return None
    return Unfit(f"is cut off ({size:,} bytes of {whole:,}); restore it from a copy, or name another file")


def make_file(path: str | os.PathLike[str]) -> None:
    """Make an empty store at `path` where nothing is: beside it, and moved there whole; another run may be quicker.

    Raises OutputError where it cannot be made.
    """
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".epsinas-{secrets.token_hex(8)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside.touch(exist_ok=False)
        try:
            with contextlib.closing(sqlite3.connect(beside, isolation_level=None)) as connection:
                schema.upgrade(connection)
                connection.execute("PRAGMA journal_mode = WAL")
            with contextlib.suppress(FileExistsError):
                _move(beside, target)
        finally:
            for ending in ("", "-journal", "-wal", "-shm"):
                beside.with_name(beside.name + ending).unlink(missing_ok=True)
    except sqlite3.Error as error:
        raise cannot_write(path, OSError(str(error))) from None
    except OSError as error:
        raise cannot_write(path, error) from None


def _move(beside: Path, target: Path) -> None:
    """Move a file to where nothing is; raises FileExistsError where something is."""
    try:
        os.link(beside, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        beside.replace(target)
