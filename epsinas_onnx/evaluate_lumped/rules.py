"""Rules of single operators that no family covers: gates with attributes, reductions, poolings, choices, casts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from epsinas_onnx.evaluate_lumped import algebra, normalise, smooth
from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.families import Free, Operands, Rule, Run, as_formed, formed, linear, none_free
from epsinas_onnx.evaluate_lumped.kernels import layout, pointwise, reduction
from epsinas_onnx.evaluate_lumped.kernels import linear as sums
from epsinas_onnx.evaluate_lumped.scaled import Array, Scaled
from epsinas_onnx.evaluate_lumped.value import Operand, Pair, Value, depends, given, spread

One = Callable[[Value], Value]


def of_one(make: Callable[[Call], One]) -> Rule:
    """Return the rule of a function of one value whose attributes say what it is."""

    def rule(call: Call) -> Run:
        function = make(call)

        def run(operands: Operands) -> Sequence[Operand | None]:
            value = operands[0]
            assert isinstance(value, Value)
            return [function(value)]

        return run

    return rule


def scaled_by(factor: float, value: Value) -> Value:
    """Return a multiple of a value."""
    return algebra.multiply(value, algebra.number(factor))


def plus(value: Value, addend: float) -> Value:
    """Return a value plus a number."""
    return algebra.add(value, algebra.number(addend)) if addend else value


def leaky(value: Value, slope: Value) -> Value:
    """Return the value, times a slope where it is negative: max(x, 0) - slope max(-x, 0)."""
    above = algebra.relu(value)
    return algebra.subtract(above, algebra.multiply(algebra.relu(algebra.negative(value)), slope))


def leaky_relu(call: Call) -> One:
    """One slope, an attribute."""
    slope = algebra.number(float(call.attribute("alpha", 0.01)))
    return lambda value: leaky(value, slope)


def clip(call: Call) -> Run:
    """Between two numbers, attributes or operands."""
    old = call.attribute("min"), call.attribute("max")
    plain = pointwise.clip(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        value, *given_bounds = operands
        if isinstance(value, Pair):
            return as_formed(lambda _: plain)(call)(operands)
        assert value is not None
        bounds = [*given_bounds, None, None][:2]
        if any(depends(bound) for bound in bounds):
            low, high = bounds
            value = algebra.larger(value, low) if isinstance(low, Value) else value
            return [algebra.smaller(value, high) if isinstance(high, Value) else value]
        lowest, highest = (
            own if bound is None else float(np.asarray(formed(bound)).reshape(-1)[0])
            for bound, own in zip(bounds, old, strict=True)
        )
        return [
            algebra.bounded(
                value, -math.inf if lowest is None else float(lowest), math.inf if highest is None else float(highest)
            )
        ]

    return run


def hard_sigmoid(call: Call) -> One:
    """Alpha x + beta within 0 and 1."""
    alpha, beta = float(call.attribute("alpha", 0.2)), float(call.attribute("beta", 0.5))
    return lambda value: algebra.bounded(plus(scaled_by(alpha, value), beta), 0.0, 1.0)


def hard_swish(call: Call) -> One:
    """X times x / 6 + 1 / 2 within 0 and 1."""
    return lambda value: algebra.multiply(value, algebra.bounded(plus(scaled_by(1 / 6, value), 0.5), 0.0, 1.0))


def elu(call: Call) -> One:
    """max(x, 0) + alpha (e^min(x, 0) - 1); Selu is a multiple of it, Celu has x / alpha in the exponent."""
    selu, celu = call.op_type == "Selu", call.op_type == "Celu"
    alpha = float(call.attribute("alpha", 1.67326319217681884765625 if selu else 1.0))
    gamma = float(call.attribute("gamma", 1.05070102214813232421875)) if selu else 1.0

    def function(value: Value) -> Value:
        below = algebra.bounded(value, high=0.0)
        below = scaled_by(alpha, smooth.EXPM1(scaled_by(1 / alpha, below) if celu else below))
        made = algebra.add(algebra.relu(value), below)
        return scaled_by(gamma, made) if selu else made

    return function


def gated(gate: Callable[[Call], One]) -> Callable[[Call], One]:
    """Return what makes x times a function of x."""

    def make(call: Call) -> One:
        function = gate(call)
        return lambda value: algebra.multiply(value, function(value))

    return make


def swish_gate(call: Call) -> One:
    """The sigmoid of alpha x."""
    alpha = float(call.attribute("alpha", 1.702 if call.op_type == "QuickGelu" else 1.0))
    return lambda value: smooth.SIGMOID(value if alpha == 1.0 else scaled_by(alpha, value))


def mish_gate(call: Call) -> One:
    """The hyperbolic tangent of the softplus."""
    return lambda value: smooth.TANH(smooth.SOFTPLUS(value))


def gelu_gate(call: Call) -> One:
    """The normal distribution function, or its approximation by a hyperbolic tangent."""
    if str(call.attribute("approximate", "none")) == "tanh":
        return lambda value: plus(scaled_by(0.5, smooth.TANH(_bent(value))), 0.5)
    return smooth.NORMAL


def _bent(value: Value) -> Value:
    square = plus(scaled_by(0.044715, algebra.multiply(value, value)), 1.0)
    return scaled_by(math.sqrt(2 / math.pi), algebra.multiply(value, square))


def softsign(value: Value) -> Value:
    """Return x / (1 + |x|)."""
    return algebra.divide(value, plus(algebra.magnitude(value), 1.0))


def mean_of_all(call: Call) -> Run:
    """The mean of all operands."""

    def run(operands: Operands) -> Sequence[Operand | None]:
        found = [operand for operand in operands if isinstance(operand, Value)]
        made = found[0]
        for one in found[1:]:
            made = algebra.add(made, one)
        return [scaled_by(1 / len(found), made)]

    return run


def power(call: Call) -> Run:
    """X to a power that is known; another is e^(y log x)."""
    plain = as_formed(lambda _: np.power)(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        value, exponent = operands
        if not isinstance(value, Value):
            return plain(operands)
        if depends(exponent):
            if not isinstance(exponent, Value):
                return plain(operands)
            return [smooth.exponential(algebra.multiply(exponent, smooth.logarithm(value)))]
        level = np.asarray(formed(exponent))
        if level.size == 1:
            return [smooth.power(value, float(level.reshape(-1)[0]))]
        return plain(operands)

    return run


def where(call: Call) -> Run:
    """One value where a condition holds, else another."""

    def run(operands: Operands) -> Sequence[Operand | None]:
        condition, first, second = operands
        assert isinstance(condition, Pair)
        if isinstance(first, Value) and isinstance(second, Value):
            return [algebra.select(condition.reference, condition.actual, first, second)]
        return as_formed(lambda _: np.where)(call)(operands)

    return run


def compared(function: Callable[[Any, Any], Any]) -> Rule:
    """Compare two values by the sign of their difference, however small it is."""

    def rule(call: Call) -> Run:
        plain = as_formed(lambda _: function)(call)

        def run(operands: Operands) -> Sequence[Operand | None]:
            first, second = operands
            if not (isinstance(first, Value) and isinstance(second, Value)):
                return plain(operands)
            difference = algebra.subtract(first, second)
            reference, actual = (function(side, 0.0) for side in algebra.position(difference))
            return [Pair(reference, reference if difference.deviation is None else actual)]

        return run

    return rule


def sign(call: Call) -> Run:
    """-1, 0 or 1."""

    def run(operands: Operands) -> Sequence[Operand | None]:
        value = operands[0]
        if not isinstance(value, Value):
            return as_formed(lambda _: np.sign)(call)(operands)
        return [given(*algebra.position(value))]

    return run


def cast(call: Call) -> Run:
    """From float to float a value stays as it is, because exact arithmetic does not round."""
    kind = ir.DataType(int(call.attribute("to")))
    plain = as_formed(layout.cast)(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        value = operands[0]
        if isinstance(value, Value) and kind.is_floating_point():
            return [value]
        return plain(operands)

    return run


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


def reduced_after(change: One | None, sums_up: Rule, after: One | None) -> Rule:
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


def square(value: Value) -> Value:
    """Return the square."""
    return algebra.multiply(value, value)


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
    apart = base.become(windows(spread(base, value.shape), -np.inf) - top[..., None])
    moved = windows(spread(value.deviation, value.shape), 0.0)
    best = (moved + apart.in_units_of(value.deviation)).max(axis=-1)
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
        change = algebra.magnitude(value) if kind == 1 else square(value)
        norm = algebra.mapped(
            change, lambda p: p.become(spread(p, value.shape).sum(axis=axis, keepdims=True)),
            tuple(1 if place == axis % len(value.shape) else size for place, size in enumerate(value.shape)),
        )  # fmt: skip
        return [algebra.divide(value, norm if kind == 1 else smooth.square_root(norm))]

    return run


def padded(call: Call) -> Run:
    """Pads of a number join the base; those taken from the image are linear."""
    kernel = layout.pad(call)
    if str(call.attribute("mode", "constant")) != "constant":
        return linear(layout.pad)(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        data, *rest = operands
        if isinstance(data, Pair) or any(depends(operand) for operand in rest):
            return as_formed(layout.pad)(call)(operands)
        assert data is not None
        plain = [formed(operand) for operand in rest]
        zero = [*plain[:1], np.zeros(()), *plain[2:]] if plain else []
        parts = [
            part
            if part is None
            else part.become(kernel(spread(part, data.shape), *zero) if zero else kernel(spread(part, data.shape)))
            for part in (data.base, data.deviation, data.total)
        ]
        level = kernel(np.broadcast_to(np.zeros(()), data.shape), *plain)
        made = Value(level.shape, *parts)
        return [algebra.add(made, Value(level.shape, Scaled(level), None)) if level.any() else made]

    return run


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
