"""Owns values whose base is added to their deviation, which is as large, and what is read off them afterwards."""

from __future__ import annotations

import numpy as np

from epsinas_onnx.evaluate_lumped.kernels.layout import first_behind
from epsinas_onnx.evaluate_lumped.scaled import Array, Scaled
from epsinas_onnx.evaluate_lumped.value import Value

_LOST = 2.0**-10
"""A deviation that is at least this share of its base loses no more than ten of 52 digits where they are added up."""

MOST = _LOST**-2
"""The same of a mean and what is left when it is taken away, squared."""


def folded(value: Value) -> Scaled | None:
    """Return what every sample has, None where samples differ by so little of it that digits would be lost."""
    base, deviation = value.base, value.deviation
    if deviation is None or value.total is not None or base is None:
        return deviation if value.total is None else None
    if deviation.array.shape != value.shape or len(base.array) != 1:
        return None
    deviation = deviation.settled()
    squares, least = _squares(deviation.array, base.settled().in_units_of(deviation))
    smallest = squares[squares > 0].min(initial=np.inf)
    # What is equal in all samples is added to what is not, and may be taken away again.
    fair = np.where(squares > 0, squares >= least, least <= smallest)
    return value.whole() if np.isfinite(smallest) and fair.all() else None


def split(part: Scaled) -> Value | None:
    """Return a value whose base is what the first sample has, None where digits were lost by having none."""
    array = part.array
    base = array[:1]
    deviation = array - base
    squares, least = _squares(deviation, base)
    if not (squares >= least).all():  # where samples are the same, rounding may have made them so
        return None
    return Value(array.shape, part.become(base) if base.any() else None, part.become(deviation))


def _squares(deviation: Array, base: Array) -> tuple[Array, Array]:
    """Return for every index the sum of squares over samples, and the least that is a fair share of the base."""
    rows = first_behind(deviation)
    return np.einsum("...n,...n->...", rows, rows), len(deviation) * _LOST**2 * np.square(base[0])
