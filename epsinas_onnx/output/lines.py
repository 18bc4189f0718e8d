"""Appends lines to a file that one process at a time writes, so that whoever reads it finds whole lines."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Self

from epsinas_onnx.errors import UsageError
from epsinas_onnx.output.files import cannot_write, is_stream, open_stream, replacing

if sys.platform == "win32":
    import msvcrt

    def _lock(file: io.FileIO) -> None:
        file.seek(2**31 - 2)  # a byte that nobody reads, since such a lock keeps readers out too
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: io.FileIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class LineFile:
    """A file that lines are appended to, and that nobody else writes meanwhile; a context manager.

    path: what is no regular file (a pipe, a device, `-`) is not locked, and holds no lines. goes_on: whether the lines
    that are there stay; otherwise the first new one takes their place.

    The lock vanishes with the process. Raises UsageError where another process writes the file, OutputError where it
    cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, goes_on: bool) -> None:
        self.path = path
        self._stream: BinaryIO | None = None
        try:
            if is_stream(path):
                self._stream = open_stream(path)
            else:
                self._file = self._locked()
                self._end = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise cannot_write(path, error) from None
        self._replaces = self._stream is None and not goes_on and self._end > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, which others may write then."""
        if self._stream is None:
            self._file.close()
        else:
            with contextlib.suppress(OSError):  # every line was written at once: this says again what was said of one
                self._stream.close()

    def lines(self) -> list[str]:
        """Return the lines that are there, with their ends; a last one without an end was cut off, and is left out."""
        if self._stream is not None:
            return []
        self._file.seek(0)
        lines = self._file.readall().decode(errors="surrogateescape").split("\n")
        return [f"{line}\n" for line in lines[:-1]]

    def keep(self, lines: Iterable[str]) -> None:
        """Leave these lines of those that are there, and nothing else, so that the file is whole at any time."""
        if self._stream is not None:
            return
        self._file.seek(0)
        before, after = self._file.readall(), "".join(lines).encode(errors="surrogateescape")
        if before.startswith(after):
            self._cut(len(after))
        else:
            self._replace(after)

    def append(self, line: str) -> None:
        """Write a line, which ends with a line break, wholly or not at all."""
        data = line.encode()
        try:
            if self._stream is not None:
                self._stream.write(data)
                self._stream.flush()
            elif self._replaces:
                self._replace(data)
                self._replaces = False
            else:
                self._write(data)
        except BrokenPipeError:  # the reader has enough
            raise
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        self._file.seek(self._end)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except BaseException:
            with contextlib.suppress(OSError):
                self._cut(self._end)
            raise
        self._end += len(data)

    def _cut(self, end: int) -> None:
        self._file.truncate(end)
        self._end = end

    def _replace(self, data: bytes) -> None:
        if sys.platform == "win32":  # which moves nothing over an open file
            self._file.close()
        with replacing(self.path) as file:
            file.write(data)
        old, self._file = self._file, self._locked()
        self._end = len(data)
        old.close()

    def _locked(self) -> io.FileIO:
        path = Path(os.path.realpath(self.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+")
            try:
                _lock(file)
                if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                    return file
            except (BlockingIOError, PermissionError):
                file.close()
                raise UsageError(
                    f"another run is writing {os.fspath(self.path)}; wait until it ends, or name another file"
                ) from None
            except BaseException:
                file.close()
                raise
            file.close()  # another one lies there since
