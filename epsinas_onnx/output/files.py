"""Writes files: beside what is there, and moved into place, so that a reader finds the old file or the new one."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from epsinas_onnx.errors import OutputError, UsageError

_DESCRIPTORS = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")


def write_output(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file as a whole, text as UTF-8; see `replacing`."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file whose content is at `path` once all of it is written; until then the old one is there.

    Permissions stay, a symbolic link keeps leading there, and missing folders are made. What is no regular file (a
    pipe, a device, `-` for standard output) is written as it comes.

    Raises OutputError where it cannot be written; what was there is then as it was.
    """
    try:
        if is_stream(path):
            with open_stream(path) as stream:
                yield stream
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        before = target.stat() if target.exists() else None
        if before is not None and not os.access(target, os.W_OK):
            raise PermissionError(None, "Permission denied")
        beside = target.with_name(f".epsinas-{secrets.token_hex(8)}.tmp")
        try:
            with beside.open("xb") as file:
                yield file
            if before is not None:
                _keep_permissions(beside, before)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except BrokenPipeError:  # the reader has enough
        raise
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """Return the sentence for a file that could not be written."""
    return OutputError(f"cannot write {os.fspath(path)}: {error.strerror or error}")


@contextlib.contextmanager
def standard_output() -> Iterator[None]:
    """Let names that are no text through, to be printed as escapes; raise OutputError where there is no room left."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)  # what is left in the buffer cannot be written at the end either
        raise cannot_write("standard output", error) from None


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a path is written as it comes: a pipe, a device, `-`, or a file that this process has open."""
    there = Path(path)
    return _descriptor(path) is not None or (there.exists() and not there.is_file() and not there.is_dir())


def open_stream(path: str | os.PathLike[str]) -> BinaryIO:
    """Open what is written as it comes."""
    descriptor = _descriptor(path)
    if descriptor is None:
        return Path(path).open("wb")
    sys.stdout.flush()
    return os.fdopen(os.dup(descriptor), "wb")


def _descriptor(path: str | os.PathLike[str]) -> int | None:
    name = os.fspath(path)
    found = _DESCRIPTOR.fullmatch(name)
    return int(found[1]) if found else _DESCRIPTORS.get(name)


def check_writable(path: str | os.PathLike[str], option: str) -> None:
    """Raise UsageError for a path that can never be written: a folder, or below what is no folder or takes no file."""
    if is_stream(path):
        return
    target = Path(os.path.realpath(path))
    why = None
    try:
        if target.is_dir():
            why = "it is a folder"
        elif target.exists():
            why = None if os.access(target, os.W_OK) else "Permission denied"
        elif not _may_be_made(target):
            why = "no file can be made there"
    except OSError as error:  # a name that is too long, for one
        why = error.strerror
    if why is not None:
        raise UsageError(f"{option}: cannot write {os.fspath(path)}: {why}; name another file")


def _may_be_made(target: Path) -> bool:
    folder = next((parent for parent in target.parents if parent.exists()), None)
    return folder is not None and folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _keep_permissions(path: Path, before: os.stat_result) -> None:
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):  # only a superuser gives files away
            os.chown(path, before.st_uid, before.st_gid)
    path.chmod(stat.S_IMODE(before.st_mode))
