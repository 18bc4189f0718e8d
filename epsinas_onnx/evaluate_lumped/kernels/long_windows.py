"""Sums over windows along an axis that is too long for a matrix."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from epsinas_onnx.evaluate_lumped.scaled import Array

_LARGEST_MATRIX = 2**18
"""Entries of the largest matrix from positions to windows."""


class Row(NamedTuple):
    """Windows along one axis: how many positions each has, and what lies between them; how many windows there are."""

    length: int
    stride: int
    dilation: int
    front: int
    windows: int

    def is_long(self, size: int) -> bool:
        """Whether a matrix for so many positions would be too large."""
        return self.windows * size > _LARGEST_MATRIX


def window_sums(x: Array, place: int, row: Row) -> Array:
    """Return the sums along axis `place`: those over 2, 4, 8, .. positions are sums of two over half as many."""
    x = np.moveaxis(x, place, -1)
    reach = row.dilation * (row.length - 1) + 1
    end = (row.windows - 1) * row.stride
    held = min(x.shape[-1], end + reach - row.front)
    sums = np.zeros((*x.shape[:-1], end + reach), x.dtype)
    sums[..., row.front : row.front + held] = x[..., :held]
    made = np.zeros((*x.shape[:-1], row.windows), x.dtype)
    start, many = 0, 1
    while True:
        if row.length & many:
            first = start * row.dilation
            made += sums[..., first : first + end + 1 : row.stride]
            start += many
        if 2 * many > row.length:
            return np.moveaxis(made, -1, place)
        step = many * row.dilation
        sums = sums[..., :-step] + sums[..., step:]
        many *= 2
