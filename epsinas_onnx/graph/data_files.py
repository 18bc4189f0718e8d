"""Finds the files that tensors of a model name as theirs, by its bytes: nothing is parsed."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

_LOCATION = re.compile(rb"\x0a\x08location\x12")
"""How a protobuf begins where a tensor, wherever in a model, names its data file: the key of that entry."""


def data_files(model: str) -> Iterator[Path]:
    """Yield the files that tensors of a model name as theirs, in functions and bodies too; nothing is parsed.

    The bytes are searched, since a file from a stranger may unpack to more than there is memory.
    """
    with (
        contextlib.suppress(OSError, ValueError),  # an empty file cannot be mapped
        Path(model).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        for match in _LOCATION.finditer(data):
            size, start = _varint(data, match.end())
            yield Path(model).parent / os.fsdecode(data[start : start + size])


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """Return a number as protobufs write it, and where what follows starts."""
    value = 0
    for index, byte in enumerate(data[at : at + 5]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    return 0, at
