"""The tiers of tests: those of every run, `slow` ones, which CI runs too, and `exhaustive` ones, run by hand."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Any

import pytest

ALIKE = ("nb201-c1-n-c1-n-n-c3", "nb201-c3-c3-c3-s-c3-c3", "nb201-c3-n-n-c1-c3-n", "nb201-p-c1-s-c1-s-s")
"""Files of `models/` of a space of which five others are there."""


def tiered(
    values: Iterable[Any], slow: Container[str] = (), exhaustive: Container[str] = (), name: Callable[[Any], str] = str
) -> list[Any]:
    """Return the values as parameters, called by their names; those named in `slow` or `exhaustive` have its mark."""

    def marks(called: str) -> list[pytest.MarkDecorator]:
        if called in exhaustive:
            return [pytest.mark.exhaustive]
        return [pytest.mark.slow] if called in slow else []

    return [pytest.param(value, id=name(value), marks=marks(name(value))) for value in values]
