"""Owns base and deviation as plain arrays, for long loops over numbers that float64 holds without a scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from epsinas_onnx.evaluate_lumped import lstm, smooth
from epsinas_onnx.evaluate_lumped.scaled import Floats, Scaled
from epsinas_onnx.evaluate_lumped.steps import Done, Steps
from epsinas_onnx.evaluate_lumped.value import Value

_WIDEST = 2**8
"""Scales whose exponents are no further from 0 leave room for what a step multiplies."""
_LEAST = 2.0**-700
"""Beside numbers of this size those below the range of float64 are less than 2^-300."""


class Sides(NamedTuple):
    """What every sample has, and what a sample has beyond that, None where none has any."""

    base: Floats
    deviation: Floats | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the whole."""
        return self.base.shape if self.deviation is None else self.deviation.shape


def opened(value: Value, samples: int | None) -> Sides | None:
    """Return a value as plain arrays, None where its scales are too far from 1.

    samples: the axis along which one base may stand for all.
    """
    if value.total is not None:
        return None
    for part in (value.base, value.deviation):
        if part is not None and part.peak != 0 and not -_WIDEST < part.log2 < _WIDEST:
            return None
    base = np.zeros((1,) * len(value.shape)) if value.base is None else value.base.plain()
    shape = tuple(1 if axis == samples and base.shape[axis] == 1 else size for axis, size in enumerate(value.shape))
    deviation = None if value.deviation is None else np.broadcast_to(value.deviation.plain(), value.shape)
    return Sides(np.broadcast_to(base, shape), deviation)


def closed(made: Sides, samples: int, axis: int) -> Value:
    """Return a value again. axis: where its samples lie, and how many they are."""
    base, deviation = (
        None if array is None or not array.any() else Scaled(array) for array in (made.base, made.deviation)
    )
    shape = tuple(samples if place == axis else size for place, size in enumerate(made.base.shape))
    return Value(shape, base, deviation)


def is_plain(rows: Sides) -> bool:
    """Whether samples differ in every row by so much that what falls below float64 is nothing beside it."""
    moved = rows.deviation
    return moved is not None and bool((np.abs(moved).reshape(len(moved), -1).max(axis=1) > _LEAST).all())


def _stacked(arrays: Sequence[Floats]) -> Floats:
    alike = all(array.shape == arrays[0].shape for array in arrays)
    return np.stack(arrays if alike else np.broadcast_arrays(*arrays))


class Moderate:
    """What a recurrent layer is computed with (`recurrent.Arithmetic`); numpy must raise what is beyond float64."""

    def add(self, first: Sides, second: Sides) -> Sides:
        """Return the sum."""
        if first.deviation is None or second.deviation is None:
            own = second.deviation if first.deviation is None else first.deviation
            return Sides(first.base + second.base, own)
        return Sides(first.base + second.base, first.deviation + second.deviation)

    def subtract(self, first: Sides, second: Sides) -> Sides:
        """Return the difference."""
        return self.add(first, Sides(-second.base, None if second.deviation is None else -second.deviation))

    def multiply(self, first: Sides, second: Sides) -> Sides:
        """Return the product: (a + d)(b + e) - ab = d (b + e) + a e."""
        (a, d), (b, e) = first, second
        if d is None or e is None:
            return Sides(a * b, a * e if e is not None else d * b if d is not None else None)
        return Sides(a * b, d * (b + e) + a * e)

    def matmul(self, first: Sides, second: Sides) -> Sides:
        """Return the product with a matrix that is the same for all samples."""
        matrix = second.base
        return Sides(first.base @ matrix, None if first.deviation is None else first.deviation @ matrix)

    def take(self, value: Sides, index: tuple[Any, ...]) -> Sides:
        """Return an index or a slice."""
        return Sides(value.base[index], None if value.deviation is None else value.deviation[index])

    def transposed(self, value: Sides) -> Sides:
        """Return a matrix with its axes exchanged."""
        return Sides(value.base.T, None if value.deviation is None else value.deviation.T)

    def stack(self, rows: Sequence[Sides]) -> Sides:
        """Return one behind the other along a new first axis."""
        moved = [np.zeros(row.shape) if row.deviation is None else row.deviation for row in rows]
        return Sides(_stacked([row.base for row in rows]), _stacked(moved))

    def all_steps(self, steps: Steps) -> Done[Sides] | None:
        """Return what all steps of an LSTM with its usual functions give; None of another layer, or beyond range."""
        usual = steps.kind == "LSTM" and steps.functions == ["Sigmoid", "Tanh", "Tanh"]
        products, hidden, cell = steps.products, steps.hidden, steps.cell
        if not usual or products.deviation is None:
            return None
        matrix = steps.recurrence.base.T
        (base, moved), (h0, h1), (c0, c1) = (
            (one.base.swapaxes(-1, -2), None if one.deviation is None else one.deviation.swapaxes(-1, -2))
            for one in (products, hidden, cell)
        )
        level = lstm.levels(base, matrix, h0, c0, steps.order)
        found = lstm.deviations(np.ascontiguousarray(moved), matrix, h1, c1, c0, level, steps.order)
        if found is None:
            return None
        outputs, last_cell = found
        rows = [Sides(one.T, other.T) for one, other in zip(level.outputs, outputs, strict=True)]
        last = steps.order[-1]
        return Done(rows, rows[last], Sides(level.cells[last].T, last_cell.T))

    def put_in(self, value: Sides, axis: int) -> Sides:
        """Return a value with an axis of size 1 put in."""
        moved = value.deviation
        return Sides(np.expand_dims(value.base, axis), None if moved is None else np.expand_dims(moved, axis))

    def number(self, value: float) -> Sides:
        """Return a number."""
        return Sides(np.asarray(value), None)

    def choose(self, condition: Any, first: Sides, second: Sides) -> Sides:
        """Return the first where a condition holds that is the same for the reference, else the second."""
        raise FloatingPointError("sequences of several lengths have several bases")

    def zeros(self, shape: tuple[int, ...], like: Sides) -> Sides:
        """Return zeros of the kind of another."""
        return Sides(np.zeros((1, *shape[1:])), None)

    def function(self, name: str) -> Callable[[Sides], Sides]:
        """Return a function by name; raises KeyError for one without an exact difference."""
        found = {"Sigmoid": smooth.SIGMOID, "Tanh": smooth.TANH}[name]
        assert found.difference is not None
        difference = found.difference

        def run(value: Sides) -> Sides:
            base, moved = value
            change = None if moved is None else difference(base, moved, base + moved)
            return Sides(found.function(base), change)

        return run
