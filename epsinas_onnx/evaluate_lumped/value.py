"""Owns what a tensor of the lowered graph holds in exact arithmetic: a base, and how the samples deviate from it."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from epsinas_onnx.evaluate_lumped import scaled
from epsinas_onnx.evaluate_lumped.scaled import Array, Floats, Scaled

Shape: TypeAlias = tuple[int, ...]


class Value:
    """A float tensor: base + deviation, each with a scale of its own; never modified.

    shape: of the whole; the arrays broadcast to it, and have as many axes. base: the same for every sample, that of the
    reference sample where nothing speaks against it; None for zeros. deviation: what a sample has more than that; None
    where no sample has. total: their sum, where adding them up would lose it; None where it would not.
    """

    __slots__ = ("_sum", "base", "deviation", "shape", "total")

    def __init__(
        self, shape: Shape, base: Scaled | None, deviation: Scaled | None, total: Scaled | None = None
    ) -> None:
        self.shape = shape
        self.base = base
        self.deviation = deviation
        self.total = total
        self._sum: Scaled | None = None

    def whole(self) -> Scaled | None:
        """Return what every sample has, None for zeros."""
        if self.deviation is None:
            return self.base
        if self.base is None:
            return self.deviation
        if self.total is not None:
            return self.total
        if self._sum is None:
            self._sum = scaled.add(self.base, self.deviation)
        return self._sum

    def formed(self) -> Floats:
        """Return what every sample has in float64, in the full shape."""
        return _plain(self.whole(), self.shape)

    def formed_base(self) -> Floats:
        """Return the base in float64, in the full shape."""
        return _plain(self.base, self.shape)


class Pair:
    """A tensor of another type: integers, booleans, strings. reference: for the reference sample; actual: for all.

    They are the same object where the tensor does not depend on the samples.
    """

    __slots__ = ("actual", "reference")

    def __init__(self, reference: Array, actual: Array) -> None:
        self.reference = reference
        self.actual = actual

    @property
    def depends(self) -> bool:
        """Whether samples differ, or could."""
        return self.reference is not self.actual

    @property
    def shape(self) -> Shape:
        """Return the shape."""
        return self.actual.shape


Operand: TypeAlias = Value | Pair


def fixed(array: Array) -> Operand:
    """Return what no sample changes."""
    if array.dtype.kind != "f":
        return Pair(array, array)
    return Value(array.shape, Scaled(np.asarray(array, np.float64)) if array.any() or array.size == 0 else None, None)


def given(reference: Array, actual: Array) -> Operand:
    """Return a value from two arrays of its shape, the first of which may hold one sample for all.

    Where how much there is depends on the samples, or the reference is not finite, nothing is taken for common.
    """
    if np.broadcast_shapes(reference.shape, actual.shape) != actual.shape:
        return Pair(actual, actual) if actual.dtype.kind != "f" else _apart(actual)
    if actual.dtype.kind != "f":
        whole = np.broadcast_to(reference, actual.shape)
        return Pair(actual if np.array_equal(whole, actual) else whole, actual)
    base = np.asarray(reference, np.float64)
    if not np.isfinite(base).all():
        return _apart(actual)
    deviation = np.subtract(actual, base, dtype=np.float64)
    return Value(
        actual.shape, Scaled(base) if base.any() else None, Scaled(deviation) if deviation.any() else None
    )  # fmt: skip


def _apart(actual: Array) -> Value:
    return Value(actual.shape, None, Scaled(np.asarray(actual, np.float64)))


def depends(value: Operand | None) -> bool:
    """Whether samples differ."""
    if isinstance(value, Pair):
        return value.depends
    return value is not None and value.deviation is not None


def spread(part: Scaled, shape: Shape) -> Floats:
    """Return an array in the full shape."""
    return part.array if part.array.shape == shape else np.broadcast_to(part.array, shape)


def raised(part: Scaled | None, rank: int) -> Scaled | None:
    """Return a part with axes of size 1 in front, so that it has so many."""
    if part is None or part.array.ndim == rank:
        return part
    return part.become(part.array.reshape((1,) * (rank - part.array.ndim) + part.array.shape), 0)


def _plain(part: Scaled | None, shape: Shape) -> Floats:
    if part is None:
        return np.zeros(shape)
    array = part.plain()
    return array if array.shape == shape else np.broadcast_to(array, shape)
