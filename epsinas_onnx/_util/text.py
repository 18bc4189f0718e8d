"""Names in a sentence: the first few, and three dots where there are more."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 3
"""How many names a sentence holds."""


def first_names(names: Sequence[str]) -> str:
    """Return the first names with commas between; dots say that there are more."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
