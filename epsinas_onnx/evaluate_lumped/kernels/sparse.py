"""Owns products with sparse matrices along several axes at once, for values so small that each step counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt
from scipy import sparse

from epsinas_onnx.evaluate_lumped.kernels.layout import first_behind, first_in_front, first_innermost
from epsinas_onnx.evaluate_lumped.scaled import Array

_SMALL = 2**15
"""A value of more entries is added up slice by slice at least as fast."""
_WIDE = 2**11
"""Positions of the largest matrix that is laid out."""
_FULL = 32
"""Entries a row from which on one product costs more than one along each axis."""


def all_at_once(matrices: Sequence[Array], axes: Sequence[int]) -> Callable[[Array], Array | None] | None:
    """Return what multiplies axes by `[out, in]` each in one product, or gives None for a value that is too large.

    None where the axes do not lie side by side, or the product of the matrices is too full.
    """
    if list(axes) != list(range(axes[0], axes[0] + len(axes))):
        return None
    if math.prod(max(matrix.shape) for matrix in matrices) > _WIDE:
        return None
    if math.prod(np.count_nonzero(matrix) / len(matrix) for matrix in matrices) > _FULL:
        return None
    joined: dict[npt.DTypeLike, sparse.csr_array] = {}
    out = tuple(len(matrix) for matrix in matrices)
    first, last = axes[0], axes[-1]

    def product(x: Array) -> Array | None:
        if x.size > _SMALL:
            return None
        turned = first_innermost(x) and first > 0
        rows = first_behind(x) if turned else x
        front, behind = first - turned, last + 1 - turned
        shape = rows.shape
        if math.prod(shape[:front]) != 1:
            return None
        flat = rows.reshape(math.prod(shape[front:behind]), -1)
        matrix = joined.get(x.dtype)
        if matrix is None:
            matrix = joined[x.dtype] = _joined(matrices, x.dtype)
        made: Array = (matrix @ flat).reshape(*shape[:front], *out, *shape[behind:])
        return first_in_front(made) if turned else made

    return product


def _joined(matrices: Sequence[Array], dtype: npt.DTypeLike) -> sparse.csr_array:
    """Return the Kronecker product of matrices."""
    stored = [sparse.csr_array(matrix.astype(dtype)) for matrix in matrices]
    return sparse.csr_array(reduce(lambda one, other: sparse.kron(one, other, "csr"), stored))
