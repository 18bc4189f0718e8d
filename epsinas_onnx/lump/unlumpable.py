"""Owns the exceptions that say that a graph cannot be lowered, so that the plain one must do."""

from __future__ import annotations


class Unlumpable(Exception):
    """Raised where a graph cannot be lowered at all."""


class TooLong(Unlumpable):
    """Raised where telling the entries of an axis apart, or storing them, takes more memory than is given to it."""


class TooDeep(Unlumpable):
    """Raised where bodies lie so deep in each other that lowering them, each twice, would hardly end."""
