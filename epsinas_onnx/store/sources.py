"""Tells one model from another without planning it: by the bytes of its files, or by what a search space calls it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import onnx
import onnx_ir as ir

from epsinas_onnx.graph.data_files import data_files
from epsinas_onnx.graph.load import Buildable, ModelSource
from epsinas_onnx.store.keys import digest

_READ = 2**24
"""Bytes up to which a data file counts by its content: weights are not read, and may be hundreds of gigabytes."""

Stamp = tuple[tuple[str, int, int, int], ...]


@runtime_checkable
class Keyed(Buildable, Protocol):
    """A network that is told from others without being built, such as an architecture of a search space."""

    @property
    def space(self) -> str:
        """The name of its search space."""

    @property
    def store_key(self) -> str:
        """Equal for networks that are equal, now and in any later run; another one where they are built otherwise."""


@dataclass(frozen=True)
class Source:
    """What a model is known by. kind: `file`, `space` or `memory`; space: of an architecture, empty for others.

    key: None where only building the model tells. unread: whether it could not be read here, so that an error alone is
    kept. files: what the key was taken of, and how it looked then.
    """

    key: str | None
    kind: str
    space: str = ""
    unread: bool = False
    files: Stamp = ()

    def is_as_it_was(self) -> bool:
        """Whether the files still look as they did when the key was taken."""
        return all(_stamp(Path(path)) == (path, *rest) for path, *rest in self.files)


def source_of(model: ModelSource) -> Source:
    """Return what `model` is known by; nothing is parsed, and a file from a stranger costs reading it once."""
    if isinstance(model, str | os.PathLike):
        return _file(Path(model))
    if isinstance(model, bytes):
        return Source(digest("bytes", model), "memory")
    if isinstance(model, onnx.ModelProto):
        return Source(digest("proto", model.SerializeToString(deterministic=True)), "memory")
    if isinstance(model, ir.Model):
        return Source(built_key(model), "memory")
    if isinstance(model, Keyed):
        return Source(digest("space", model.space, model.store_key), "space", model.space)
    return Source(None, "memory")


def built_key(model: ir.Model) -> str:
    """Return the key of a model that was built, without regard to what builds it."""
    return digest("built", ir.to_proto(model).SerializeToString(deterministic=True))


def _file(path: Path) -> Source:
    try:
        before = _stamp(path)
        hashed = hashlib.sha256()
        if before is None:
            raise OSError("no regular file")
        with path.open("rb") as file:
            while block := file.read(2**20):
                hashed.update(block)
        stamps, more = _data(path)
    except (OSError, ValueError):
        return Source(digest("unread", os.path.abspath(path)), "file", unread=True)  # noqa: PTH100 (follows no link)
    return Source(digest("file", hashed.digest(), *more), "file", files=(before, *stamps))


def _data(path: Path) -> tuple[Stamp, Sequence[bytes]]:
    """Return how the data files of a model look, and what of them counts: content, or size and time where it is long.

    Those outside the model's folder are refused where the model is loaded, so they are not read here.
    """
    stamps, parts = [], []
    folder = path.parent.resolve()
    for file in dict.fromkeys(data_files(os.fspath(path))):
        found = _stamp(file) if file.resolve().is_relative_to(folder) else None
        if found is None:
            parts.append(b"nothing")
            continue
        stamps.append(found)
        long = found[1] > _READ
        parts.append(repr(found[1:3]).encode() if long else hashlib.sha256(file.read_bytes()).digest())
    return tuple(stamps), parts


def _stamp(path: Path) -> tuple[str, int, int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return os.fspath(path), found.st_size, found.st_mtime_ns, found.st_ino
