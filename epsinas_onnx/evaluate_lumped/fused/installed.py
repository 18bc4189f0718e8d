"""Owns whether there is a compiler: numba, which the extra `fast` installs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


@cache
def is_installed() -> bool:
    """Whether numba is there, which takes no time to ask."""
    return find_spec("numba") is not None


def compiled(function: F) -> F:
    """Return what compiles a function when it is first called, or the function itself without numba."""
    return _compiled(function)


def summing(function: F) -> F:
    """Do the same for what adds up a row, in whatever order is fastest: several sums go side by side."""
    return _compiled(function, {"reassoc"})


def _compiled(function: F, fast: Collection[str] = ()) -> F:
    if not is_installed():
        return function
    import numba

    return cast(F, numba.njit(cache=True, error_model="numpy", fastmath=set(fast))(function))
