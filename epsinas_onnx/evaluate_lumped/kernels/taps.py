"""Owns matrices that are little but zeros, as windows and means over them are: sums of slices of an axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np

from epsinas_onnx.evaluate_lumped.kernels.layout import first_in_front, first_innermost
from epsinas_onnx.evaluate_lumped.scaled import Array

Sums: TypeAlias = Callable[[Array], Array]
"""Gives the sums of slices of a value."""

LARGEST_KEPT = 2**18
"""Bytes of the largest matrix that is kept, with what was made ready of it, for other nodes that have the same."""
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


def _taps_of(matrix: Array) -> Taps:
    """Return what is not 0 in a matrix, in as few runs as a stride gives."""
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


def sums_along(matrix: Array, place: int) -> Sums:
    """Return what multiplies the axis at `place` by `[out, in]`, as sums of slices."""
    matrix = matrix.astype(np.float64, copy=False)
    return _made_ready(matrix, place) if matrix.nbytes > LARGEST_KEPT else _kept(matrix.shape, matrix.tobytes(), place)


@lru_cache(maxsize=256)
def _kept(shape: tuple[int, int], data: bytes, place: int) -> Sums:
    return _made_ready(np.frombuffer(data).reshape(shape), place)


def _made_ready(matrix: Array, place: int) -> Sums:
    taps, count = _taps_of(matrix), len(matrix)
    lead = (slice(None),) * place
    pair, rest = _pair(taps.runs)
    blank = [slice(0, count)] if pair is None else [slice(0, pair[0].start), slice(pair[0].stop, count)]
    blanks = [(*lead, rows) for rows in blank if rows.start < rows.stop]
    both = None if pair is None else tuple((*lead, one) for one in pair)
    runs = [((*lead, rows), (*lead, columns), entry) for rows, columns, entry in rest]
    scales = [((*lead, rows), factor) for rows, factor in taps.scales]

    def added_up(x: Array) -> Array:
        made = _laid_out_like(x, (*x.shape[:place], count, *x.shape[place + 1 :]))
        if both is not None:
            rows, first, second = both
            np.add(x[first], x[second], out=made[rows])
        for rows in blanks:
            made[rows] = 0
        for rows, columns, entry in runs:
            target, cut = made[rows], x[columns]
            target += cut if entry == 1 else cut * x.dtype.type(entry)
        for rows, factor in scales:
            target = made[rows]
            target *= x.dtype.type(factor)
        return made

    return added_up


def _pair(runs: Sequence[Tap]) -> tuple[tuple[slice, slice, slice] | None, list[Tap]]:
    """Return rows to which two runs give an entry as it is, with the columns of both, and what is left of all runs.

    Their sum can be written where zeros would have to be laid out first, which takes a third of such a sum's time.
    """
    first = next((run for run in runs if run.entry == 1), None)
    if first is None:
        return None, list(runs)
    others = [run for run in runs if run.entry == 1 and run is not first]
    second = max(others, key=lambda run: len(_common(first.rows, run.rows)), default=first)
    rows = _common(first.rows, second.rows)
    if second is first or not rows:
        return None, list(runs)
    shared = slice(rows.start, rows.stop)
    rest = [run for run in runs if run is not first and run is not second]
    ends = [part for run in (first, second) for part in (_rows(run, run.rows.start, shared.start),
                                                          _rows(run, shared.stop, run.rows.stop))]  # fmt: skip
    pair = shared, _rows(first, shared.start, shared.stop).columns, _rows(second, shared.start, shared.stop).columns
    return pair, [part for part in ends if part.rows.start < part.rows.stop] + rest


def _common(first: slice, second: slice) -> range:
    return range(max(first.start, second.start), min(first.stop, second.stop))


def _rows(run: Tap, start: int, stop: int) -> Tap:
    """Return the part of a run that lies in some of its rows."""
    stride = run.columns.step
    column = run.columns.start + (start - run.rows.start) * stride
    last = column + (stop - 1 - start) * stride
    return Tap(slice(start, stop), slice(column, last + 1, stride), run.entry)


def _laid_out_like(x: Array, shape: tuple[int, ...]) -> Array:
    """Return an array to be filled whose first axis lies innermost in memory where that of x does."""
    if first_innermost(x):
        return first_in_front(np.empty((*shape[1:], shape[0]), x.dtype))
    return np.empty(shape, x.dtype)
