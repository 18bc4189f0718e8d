"""Owns matrices of many graphs, by rows and one behind the other, as the compiled program reads them."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np

from epsinas_onnx.evaluate_lumped.scaled import Array

_LONGEST = 2**21
"""Entries that are kept for other graphs of the process; beyond them the next graphs begin anew."""

_MOST_SEEN = 2**12
"""Objects whose place is remembered, so that their bytes need not be looked at."""


class Rows(NamedTuple):
    """A matrix by rows, as `scipy.sparse.csr_array` has it; one of entries alone where `starts` is empty."""

    starts: Array
    columns: Array
    entries: Array


class Matrices:
    """Matrices in a row; where one begins never changes, so that threads may read while another appends."""

    def __init__(self) -> None:
        self.starts, self.columns, self.entries = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        self._rows = self._entries = 0
        self._known: dict[tuple[bytes, bytes, bytes], int] = {}
        self._seen: dict[int, tuple[Rows, int]] = {}
        self._lock = threading.Lock()

    def place(self, rows: Rows) -> int:
        """Return where a matrix begins: in `starts`, or in `entries` where it has nothing else."""
        with self._lock:
            seen = self._seen.get(id(rows))
            return self._place(rows) if seen is None else seen[1]

    def _place(self, rows: Rows) -> int:
        key = rows.starts.tobytes(), rows.columns.tobytes(), rows.entries.tobytes()
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._append(rows)
        if len(self._seen) < _MOST_SEEN:
            self._seen[id(rows)] = rows, found
        return found

    @property
    def full(self) -> bool:
        """Whether there are so many that new ones are better kept elsewhere."""
        return self._entries > _LONGEST

    def _append(self, rows: Rows) -> int:
        first, begin = self._rows, self._entries
        self.starts = _with(self.starts, first, rows.starts + begin)
        self.columns = _with(self.columns, begin, rows.columns)
        self.entries = _with(self.entries, begin, rows.entries)
        self._rows, self._entries = first + len(rows.starts), begin + len(rows.entries)
        return first if len(rows.starts) else begin


def _with(array: Array, begin: int, more: Any) -> Array:
    """Return an array with more entries from a place on, twice as long where it is too short."""
    end = begin + len(more)
    if end > len(array):
        longer = np.zeros(max(end, 2 * len(array)), array.dtype)
        longer[: min(begin, len(array))] = array[:begin]
        array = longer
    array[begin:end] = more
    return array


_shared = [Matrices()]


def shared() -> Matrices:
    """Return where the process keeps matrices at present."""
    if _shared[0].full:
        _shared[0] = Matrices()
    return _shared[0]
