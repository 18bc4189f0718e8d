"""Rules of sums, norms and extremes over axes and windows, and of contractions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from epsinas_onnx.evaluate_lumped import algebra, normalise, smooth
from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.families import Free, Operands, Rule, Run, as_formed, formed, linear, none_free
from epsinas_onnx.evaluate_lumped.kernels import layout, reduction
from epsinas_onnx.evaluate_lumped.kernels import linear as sums
from epsinas_onnx.evaluate_lumped.scaled import Array, Scaled
from epsinas_onnx.evaluate_lumped.value import Operand, Value, spread

One: TypeAlias = Callable[[Value], Value]


def reduce_sum(call: Call) -> Run:
    """Sums over axes; one index may stand for all of another."""
    return linear(reduction.reduce(np.sum), _others(call))(call)


def reduce_mean(call: Call) -> Run:
    """Means over axes: exactly an entry where all are equal."""
    return linear(reduction.reduce(reduction.level_mean), _others(call))(call)


def _others(call: Call) -> Free:
    """Return the axes that are not reduced, none where it is not known which are."""
    if call.attribute("axes") is None and call.constant(1) is None:
        return none_free
    places = reduction.axes_of(call)(call.stored)
    if places is None:
        return none_free
    return lambda axis, rank: axis not in {place % rank for place in places}


def reduced_after(
    change: Callable[[Value], Value] | None, sums_up: Rule, after: Callable[[Value], Value] | None
) -> Rule:
    """Return the rule of a reduction made of others: a function, the sum, another function."""

    def rule(call: Call) -> Run:
        inner = sums_up(call)

        def run(operands: Operands) -> Sequence[Operand | None]:
            value = operands[0]
            assert isinstance(value, Value)
            (made,) = inner([value if change is None else change(value), *operands[1:]])
            assert isinstance(made, Value)
            return [made if after is None else after(made)]

        return run

    return rule


def reduce_log_sum_exp(call: Call) -> Run:
    """The logarithm of the sum of exponentials."""
    axes_of, keep = reduction.axes_of(call), reduction.keeps(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        value = operands[0]
        assert isinstance(value, Value)
        axes = axes_of([formed(operand) for operand in operands])
        places = tuple(range(len(value.shape))) if axes is None else tuple(axis % len(value.shape) for axis in axes)
        made = normalise.log_sum_exp(value, places)
        if keep:
            return [made]
        shape = tuple(size for axis, size in enumerate(made.shape) if axis not in places)
        return [algebra.mapped(made, lambda p: p.become(p.array.reshape(shape), 0), shape)]

    return run


def extreme(value: Value, windows: Callable[[Array, float], Array], largest: Callable[[Array], Array]) -> Value:
    """Return the largest of every window: with b' the largest of the base's, that of d + (b - b').

    windows: lays entries out along a last axis, with a number for what is padding. largest: of plain arrays.
    """
    if value.base is None and value.deviation is not None:
        made = value.deviation.become(largest(spread(value.deviation, value.shape)))
        return Value(made.array.shape, None, made)
    base = value.base or Scaled(np.zeros((1,) * len(value.shape)))
    top = largest(spread(base, value.shape))
    if value.deviation is None:
        return Value(top.shape, base.become(top), None)
    below = windows(spread(base, value.shape), -np.inf) - top[..., None]
    padding = np.isneginf(below)  # infinitely far below in any unit, also where all that is finite is 0
    apart = base.become(np.where(padding, 0.0, below)).in_units_of(value.deviation)
    moved = windows(spread(value.deviation, value.shape), 0.0)
    best = np.where(padding, -np.inf, moved + apart).max(axis=-1)
    return Value(top.shape, base.become(top), value.deviation.become(best))


def max_pool(call: Call) -> Run:
    """The largest of every window."""
    largest, windows = sums.max_windows(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        (value,) = operands
        assert isinstance(value, Value)
        return [extreme(value, windows, largest)]

    return run


def reduce_extreme(smallest: bool) -> Rule:
    """The largest or the smallest over axes."""

    def rule(call: Call) -> Run:
        axes_of, keep = reduction.axes_of(call), reduction.keeps(call)
        plain = as_formed(reduction.reduce(np.min if smallest else np.max))(call)

        def run(operands: Operands) -> Sequence[Operand | None]:
            value = operands[0]
            if not isinstance(value, Value):
                return plain(operands)
            axes = axes_of([formed(operand) for operand in operands])
            rank = len(value.shape)
            places = tuple(range(rank)) if axes is None else tuple(sorted(axis % rank for axis in axes))
            shape = tuple(1 if axis in places else size for axis, size in enumerate(value.shape))
            final = shape if keep else tuple(size for axis, size in enumerate(value.shape) if axis not in places)

            def windows(array: Array, level: float) -> Array:
                order = [*(axis for axis in range(rank) if axis not in places), *places]
                return array.transpose(order).reshape(*final, -1)

            value = algebra.negative(value) if smallest else value
            made = extreme(value, windows, lambda array: windows(array, 0.0).max(axis=-1))
            return [algebra.negative(made) if smallest else made]

        return run

    return rule


def spread_root(call: Call) -> Run:
    """The norm of every entry along an axis, of which it is divided by."""
    axis, kind = int(call.attribute("axis", -1)), int(call.attribute("p", 2))

    def run(operands: Operands) -> Sequence[Operand | None]:
        (value,) = operands
        assert isinstance(value, Value)
        change = algebra.magnitude(value) if kind == 1 else algebra.multiply(value, value)
        norm = algebra.mapped(
            change, lambda p: p.become(spread(p, value.shape).sum(axis=axis, keepdims=True)),
            tuple(1 if place == axis % len(value.shape) else size for place, size in enumerate(value.shape)),
        )  # fmt: skip
        return [algebra.divide(value, norm if kind == 1 else smooth.square_root(norm))]

    return run


def lp_kernel(call: Call) -> layout.Kernel:
    """X over its norm along an axis."""
    axis, kind = int(call.attribute("axis", -1)), int(call.attribute("p", 2))

    def kernel(x: Array) -> Array:
        norm = (
            np.abs(x).sum(axis=axis, keepdims=True)
            if kind == 1
            else np.sqrt(np.square(x).sum(axis=axis, keepdims=True))
        )
        made: Array = x / norm
        return made

    return kernel


def einsum(call: Call) -> Run:
    """A contraction, linear in every operand."""
    equation = str(call.attribute("equation"))

    def run(operands: Operands) -> Sequence[Operand | None]:
        found = [operand for operand in operands if isinstance(operand, Value)]
        if len(found) == 1 == len(operands):
            return linear(sums.einsum)(call)(operands)
        if len(found) != 2 or len(operands) != 2:
            return as_formed(sums.einsum)(call)(operands)
        first, second = found

        def times(one: Scaled, other: Scaled) -> Scaled:
            one, other = one.settled(), other.settled()
            array = np.einsum(equation, spread(one, first.shape), spread(other, second.shape), optimize=True)
            made = Scaled(array, one.mantissa, one.exponent)
            return made.times(other.mantissa, other.exponent)

        made = algebra.product(times, first, second, ())
        empty = np.einsum(equation, np.zeros(first.shape), np.zeros(second.shape), optimize=True)
        made.shape = empty.shape
        return [made]

    return run
