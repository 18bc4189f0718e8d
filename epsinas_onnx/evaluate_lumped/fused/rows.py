"""Owns matrices over rows that no operand of a node spells out: which rows belong together, and in which place."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import numpy as np

from epsinas_onnx.evaluate_lumped.fused.matrices import Rows
from epsinas_onnx.evaluate_lumped.kernels.linear import Window
from epsinas_onnx.evaluate_lumped.scaled import Array
from epsinas_onnx.lump.value import Dims

K = TypeVar("K")
V = TypeVar("V")
_MOST_KEPT = 256
"""Matrices of each kind, of a megabyte at most: a space has up to 200 of the one and 60 of the others."""
_windows: dict[tuple[int, ...], Rows] = {}
_read: dict[tuple[int, int, bool], tuple[Rows, Rows, Rows]] = {}
"""By which two objects were put together, which are held so that no others get their numbers."""


@lru_cache(maxsize=128)
def spread(before: Dims, after: Dims) -> Rows:
    """Return what has each row as often as a value is broadcast."""
    columns = np.broadcast_to(np.arange(math.prod(before)).reshape(before), after).reshape(-1)
    return Rows(np.arange(len(columns) + 1), columns, np.ones(len(columns)))


@lru_cache(maxsize=128)
def in_a_row(shapes: tuple[Dims, ...], axis: int) -> tuple[Rows, ...]:
    """Return for each value what puts it in its place among rows of zeros."""
    begin, found = 0, []
    whole = [sum(shape[axis] for shape in shapes) if place == axis else size for place, size in enumerate(shapes[0])]
    for shape in shapes:
        held = np.zeros(whole, np.int64)
        held[(*(slice(None),) * axis, slice(begin, begin + shape[axis]))] = 1
        begin += shape[axis]
        starts = np.concatenate([[0], held.reshape(-1).cumsum()])
        found.append(Rows(starts, np.arange(starts[-1]), np.ones(starts[-1])))
    return tuple(found)


@lru_cache(maxsize=128)
def grouped(rest: Dims, places: tuple[int, ...], alike: bool) -> Rows:
    """Return which rows a reduction over some axes puts together; alike: whether it adds them up, or takes the mean."""
    order = [axis for axis in range(len(rest)) if axis + 1 not in places] + [axis - 1 for axis in places]
    together = math.prod(rest[axis - 1] for axis in places)
    numbers = np.arange(math.prod(rest)).reshape(rest).transpose(order).reshape(-1)
    starts = np.arange(len(numbers) // together + 1) * together
    return Rows(starts, numbers, np.full(numbers.size, 1.0 if alike else 1.0 / together))


def _of_windows(window: Window, rest: Dims) -> Rows:
    """Return which rows each window holds; none at all where one of them holds nothing."""
    numbers = window.padded(np.arange(math.prod(rest)).reshape(rest), -1)
    held = np.stack([window.at(numbers, offset) for offset in window.offsets()], -1).reshape(-1, len(window.offsets()))
    inside = held >= 0
    counts = inside.sum(axis=1)
    none = np.zeros(0, np.int64)
    return _each_once(counts, held[inside]) if counts.all() else Rows(none, none, np.zeros(0))


def _each_once(counts: Array, columns: Array) -> Rows:
    """Return rows of so many columns each, none of them twice."""
    width = int(columns.max()) + 1
    pairs = np.unique(np.repeat(np.arange(len(counts)), counts) * width + columns)
    starts = np.searchsorted(pairs, np.arange(len(counts) + 1) * width)
    return Rows(starts, pairs % width, np.ones(len(pairs)))


def in_windows(window: Window, rest: Dims) -> Rows:
    """Return which rows each window over the last axes holds; none at all where one of them holds nothing."""
    pads = (pad for pair in window.pads for pad in pair)
    key = (len(rest), *rest, *window.kernel, *window.strides, *window.dilations, *pads, *window.out)
    return _kept(_windows, key, lambda: _of_windows(window, rest))


def read_through(first: Rows, copies: Rows, largest: bool) -> Rows:
    """Return what a matrix on copies of rows does to what was copied; largest: whether it takes the largest of them."""
    key = id(first), id(copies), largest
    *_, made = _kept(_read, key, lambda: (first, copies, _read_through(first, copies, largest)))
    return made


def _read_through(first: Rows, copies: Rows, largest: bool) -> Rows:
    columns = copies.columns[first.columns]
    return _each_once(np.diff(first.starts), columns) if largest else Rows(first.starts, columns, first.entries)


def _kept(known: dict[K, V], key: K, make: Callable[[], V]) -> V:
    """Return what is known by a key, or make it; networks of one space have few different ones."""
    found = known.get(key)
    if found is None:
        if len(known) >= _MOST_KEPT:
            known.clear()
        found = known[key] = make()
    return found
