"""Reads files of which nobody knows how much they unpack to, up to a limit."""

from __future__ import annotations

from typing import Protocol

_PIECE = 2**20


class Readable(Protocol):
    """What bytes come from."""

    def read(self, size: int = ..., /) -> bytes:
        """Return up to so many bytes, none at the end."""


class TooMuch(Exception):
    """More was there than may be read."""


def read_at_most(stream: Readable, most: int) -> bytes:
    """Return what is left of a stream; raises TooMuch as soon as that is more than `most` bytes."""
    pieces = bytearray()
    while piece := stream.read(min(_PIECE, most + 1 - len(pieces))):
        pieces += piece
        if len(pieces) > most:
            raise TooMuch
    return bytes(pieces)
