"""Finds a name that nothing has yet."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T", str, str | None)


def fresh(stem: str, taken: set[T], sign: str = ".", first: int = 1) -> str:
    """Return `stem`, or with the first number behind a sign that makes it a name of its own; it is taken from then on.

    >>> fresh("a", {"a", "a.1"})
    'a.2'
    """
    name, count = stem, first
    while name in taken:
        name = f"{stem}{sign}{count}"
        count += 1
    taken.add(name)
    return name
