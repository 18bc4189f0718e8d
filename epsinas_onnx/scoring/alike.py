"""Remembers within a batch what models compute and what came of it: of those that compute the same one is run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_MOST = 2**14
"""Results that are remembered; those that were asked for longest ago are forgotten."""


class Alike(Generic[T]):
    """Results by what was computed."""

    def __init__(self) -> None:
        self._results: OrderedDict[bytes, T] = OrderedDict()

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Score one model of the batch."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def __len__(self) -> int:
        return len(self._results)

    def find(self, digest: bytes) -> T | None:
        """Return what was computed before, None where nothing was."""
        found = self._results.get(digest)
        if found is not None:
            self._results.move_to_end(digest)
        return found

    def keep(self, digest: bytes, result: T) -> None:
        """Remember the result of the model at hand."""
        self._results[digest] = result
        if len(self._results) > _MOST:
            self._results.popitem(last=False)


_current: ContextVar[Alike[Any] | None] = ContextVar("epsinas_onnx.alike", default=None)


def of_batch() -> Alike[Any] | None:
    """Return what the batch of the model at hand remembers, None for a model alone."""
    return _current.get()
