"""Owns matrices that are little but zeros, as windows and means over them are: sums of slices of an axis."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from epsinas_onnx.evaluate_lumped.kernels.layout import first_in_front, first_innermost
from epsinas_onnx.evaluate_lumped.scaled import Array

_STRIDES = 4
"""Runs of a matrix are looked for up to this stride."""


class Tap(NamedTuple):
    """A run of rows of a matrix, each with the same entry at a column that moves on by as much from row to row."""

    rows: slice
    columns: slice
    entry: float


class Taps(NamedTuple):
    """A matrix in runs, the longest first. scales: runs of rows that are a multiple of what the runs give, and of what.

    Means over windows have such rows where a window holds fewer entries than others.
    """

    runs: tuple[Tap, ...]
    scales: tuple[tuple[slice, float], ...]


def taps_of(matrix: Array) -> Taps:
    """Return what is not 0 in a matrix, in as few runs as a stride gives."""
    return _taps_of(matrix.shape, matrix.astype(np.float64, copy=False).tobytes())


@lru_cache(maxsize=1024)
def _taps_of(shape: tuple[int, int], data: bytes) -> Taps:
    matrix = np.frombuffer(data).reshape(shape)
    held = (matrix != 0).any(axis=1)
    least = np.where(held, np.where(matrix == 0, np.inf, np.abs(matrix)).min(axis=1, initial=np.inf), 1.0)
    factors = np.where(least == np.round(least), 1.0, least)
    matrix = matrix / factors[:, None]
    rows, columns = matrix.nonzero()
    stride = min(range(1, _STRIDES + 1), key=lambda step: len(np.unique(columns - step * rows)))
    shift = columns - stride * rows
    order = np.lexsort((rows, shift))
    found = []
    rows, columns, shift, entries = rows[order], columns[order], shift[order], matrix[rows, columns][order]
    breaks = (np.diff(rows) != 1) | (np.diff(shift) != 0) | (np.diff(entries) != 0)
    for run in np.split(np.arange(len(rows)), np.flatnonzero(breaks) + 1) if len(rows) else ():
        first, last = int(run[0]), int(run[-1])
        across = slice(int(columns[first]), int(columns[last]) + 1, stride)
        found.append(Tap(slice(int(rows[first]), int(rows[last]) + 1), across, float(entries[first])))
    scales = []
    for run in np.split(np.arange(len(factors)), np.flatnonzero(np.diff(factors)) + 1):
        if len(run) and factors[run[0]] != 1:
            scales.append((slice(int(run[0]), int(run[-1]) + 1), float(factors[run[0]])))
    return Taps(tuple(sorted(found, key=lambda tap: tap.rows.start - tap.rows.stop)), tuple(scales))


def added_up(x: Array, taps: Taps, count: int, place: int) -> Array:
    """Return x with one axis multiplied by a matrix of `count` rows, as a sum of slices."""
    lead = (slice(None),) * place
    rest = taps.runs
    if rest and rest[0].rows == slice(0, count):
        cut = x[(*lead, rest[0].columns)]
        made = cut.copy("K") if rest[0].entry == 1 else cut * x.dtype.type(rest[0].entry)
        rest = rest[1:]
    else:
        made = _laid_out_like(x, (*x.shape[:place], count, *x.shape[place + 1 :]))
    for rows, columns, entry in rest:
        target, cut = made[(*lead, rows)], x[(*lead, columns)]
        target += cut if entry == 1 else cut * x.dtype.type(entry)
    for rows, factor in taps.scales:
        target = made[(*lead, rows)]
        target *= x.dtype.type(factor)
    return made


def _laid_out_like(x: Array, shape: tuple[int, ...]) -> Array:
    """Return zeros whose first axis lies innermost in memory where that of x does."""
    if first_innermost(x):
        return first_in_front(np.zeros((*shape[1:], shape[0]), x.dtype))
    return np.zeros(shape, x.dtype)
