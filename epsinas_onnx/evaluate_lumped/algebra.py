"""Owns arithmetic on values: what base and deviation of a sum, a product, a quotient and a bounded value are."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from epsinas_onnx.evaluate_lumped import scaled
from epsinas_onnx.evaluate_lumped.kernels.layout import positive
from epsinas_onnx.evaluate_lumped.scaled import Array, Floats, Scaled
from epsinas_onnx.evaluate_lumped.value import Shape, Value, raised

Part = Scaled | None
Kernel = Callable[[Floats, Floats], Floats]


def number(value: float) -> Value:
    """Return a number without axes."""
    return Value((), scaled.number(value) if value else None, None)


def joint(first: Shape, second: Shape) -> Shape:
    """Return the shape that two broadcast to."""
    if first == second or not second:
        return first
    return np.broadcast_shapes(first, second) if first else second


def add(first: Value, second: Value, negate: bool = False) -> Value:
    """Return the sum, or the difference: base and deviation each by itself."""
    shape = first.shape
    if shape != second.shape:
        shape = joint(shape, second.shape)
        first, second = lifted(first, len(shape)), lifted(second, len(shape))
    base = _sum(first.base, second.base, negate)
    deviation = _sum(first.deviation, second.deviation, negate)
    total = None
    if first.total is not None or second.total is not None:
        total = _sum(first.whole(), second.whole(), negate)
    return Value(shape, base, deviation, total)


def subtract(first: Value, second: Value) -> Value:
    """Return the difference."""
    return add(first, second, negate=True)


def negative(value: Value) -> Value:
    """Return the value with the other sign."""
    return mapped(value, Scaled.negative)


def mapped(value: Value, change: Callable[[Scaled], Scaled], shape: Shape | None = None) -> Value:
    """Return a value each of whose parts went through something linear."""
    parts = [part if part is None else change(part) for part in (value.base, value.deviation, value.total)]
    return Value(value.shape if shape is None else shape, *parts)


def multiply(first: Value, second: Value) -> Value:
    """Return the product; a number changes scales alone."""
    for one, other in ((first, second), (second, first)):
        base = one.base
        if one.deviation is None and base is not None and base.array.size == 1 and base.array.shape == one.shape:
            factor = base.array.item()
            if factor and math.isfinite(factor) and len(one.shape) <= len(other.shape):
                return times_number(other, factor, base)
    shape = joint(first.shape, second.shape)
    return product(scaled.multiply, lifted(first, len(shape)), lifted(second, len(shape)), shape)


def times_number(value: Value, factor: float, scale: Scaled) -> Value:
    """Return a value times a number, which is a factor with a scale."""
    mantissa, exponent = math.frexp(scale.mantissa * abs(factor))
    exponent += scale.exponent
    parts = [
        None if part is None else part.times(mantissa, exponent) for part in (value.base, value.deviation, value.total)
    ]
    made = Value(value.shape, *parts)
    return made if factor > 0 else negative(made)


def product(times: Callable[[Scaled, Scaled], Scaled], first: Value, second: Value, shape: Shape) -> Value:
    """Return what is linear in either operand: ab at the reference, and (a + d)(b + e) - ab = d (b + e) + a e."""
    base = None if first.base is None or second.base is None else times(first.base, second.base)
    if second.deviation is None:
        deviation = _times(times, first.deviation, second.base)
    elif first.deviation is None:
        deviation = _times(times, first.base, second.deviation)
    else:
        deviation = _sum(
            _times(times, first.deviation, second.whole()), _times(times, first.base, second.deviation)
        )  # fmt: skip
    total = None
    if first.total is not None or second.total is not None:
        total = _times(times, first.whole(), second.whole())
    return Value(shape, base, deviation, total)


def divide(first: Value, second: Value) -> Value:
    """Return the quotient: (a + d) / (b + e) - a / b = (d - a / b e) / (b + e)."""
    shape = joint(first.shape, second.shape)
    first, second = lifted(first, len(shape)), lifted(second, len(shape))
    zeros = Scaled(np.zeros((1,) * len(shape)))
    if second.deviation is None:
        below = second.base or zeros
        return mapped(first, lambda part: scaled.divide(part, below), shape)
    whole = second.whole() or zeros
    total = _over(first.whole(), whole)
    base = _over(first.base, second.base or zeros)
    if base is not None and not np.isfinite(base.array).all():
        return Value(shape, None, total)
    lost = _times(scaled.multiply, base, second.deviation)
    return Value(shape, base, _over(_sum(first.deviation, lost, True), whole), total)


def bounded(value: Value, low: float = -math.inf, high: float = math.inf) -> Value:
    """Return the value, but no less than `low` and no more than `high`.

    With b' the base within its bounds, the deviation is d + (b - b') between low - b' and high - b': all of it in
    units of the deviation, so that a base far above it leaves a gate, and one far below it none.
    """
    base, deviation = value.base, value.deviation
    rank = len(value.shape)
    inside = _clipped(base, low, high, rank)
    if deviation is None:
        return Value(value.shape, inside, None)
    if base is None and math.isinf(low) and math.isinf(high):
        return value
    over = _sum(base, inside, True) if base is not inside else None
    array = deviation.array
    if over is not None:
        array = array + over.in_units_of(deviation)
    for bound, choose in ((low, np.maximum), (high, np.minimum)):
        if math.isinf(bound):
            continue
        limit = _beyond(bound, inside)
        array = choose(array, 0.0 if limit is None else limit.in_units_of(deviation))
    made = deviation.become(array)
    return Value(value.shape, inside, made, None)


def _beyond(bound: float, inside: Part) -> Part:
    """Return a bound less a base within it, exactly 0 where `_clipped` put the base on it."""
    if inside is None:
        return scaled.number(bound) if bound else None
    limit = scaled.number(bound).in_units_of(inside) if bound else 0.0
    return inside.become(limit - inside.array)


def _clipped(base: Part, low: float, high: float, rank: int) -> Part:
    """Return a base within bounds, the same object where it is already."""
    if base is None:
        inside = min(max(0.0, low), high)
        return raised(scaled.number(inside), rank) if inside else None
    array = base.array
    for bound, choose, beyond in ((low, np.maximum, np.less), (high, np.minimum, np.greater)):
        if math.isinf(bound):
            continue
        limit = scaled.number(bound).in_units_of(base) if bound else np.zeros(())
        if beyond(array, limit).any():
            array = choose(array, limit)
    return base if array is base.array else base.become(array)


def relu(value: Value) -> Value:
    """Return the value where it is positive, else 0."""
    if value.base is None and value.deviation is not None:
        return Value(value.shape, None, value.deviation.become(positive(value.deviation.array)))
    return bounded(value, low=0.0)


def larger(first: Value, second: Value) -> Value:
    """Return the larger of two: b + max(a - b, 0)."""
    return add(second, relu(subtract(first, second)))


def smaller(first: Value, second: Value) -> Value:
    """Return the smaller of two: a - max(a - b, 0)."""
    return subtract(first, relu(subtract(first, second)))


def magnitude(value: Value) -> Value:
    """Return |x| = max(x, 0) + max(-x, 0)."""
    if value.base is None and value.deviation is not None:
        return mapped(value, lambda part: part.become(np.abs(part.array), 0))
    return add(relu(value), relu(negative(value)))


def select(reference: Array, actual: Array, first: Value, second: Value) -> Value:
    """Return the first where a condition holds, else the second. reference: the condition for the reference sample."""
    shape = np.broadcast_shapes(reference.shape, first.shape, second.shape)
    first, second = lifted(first, len(shape)), lifted(second, len(shape))
    base = _chosen(reference, first.base, second.base)
    deviation = _chosen(actual, first.deviation, second.deviation)
    total = None
    if first.total is not None or second.total is not None:
        total = _chosen(actual, first.whole(), second.whole())
    if reference is not actual:
        moved = _sum(_chosen(actual, first.base, second.base), base, True)
        deviation = _sum(deviation, moved)
    return Value(shape, base, deviation, total)


def lifted(value: Value, rank: int) -> Value:
    """Return the value with axes of size 1 in front, so that it has so many."""
    if len(value.shape) == rank:
        return value
    shape = (1,) * (rank - len(value.shape)) + value.shape
    return Value(shape, raised(value.base, rank), raised(value.deviation, rank), raised(value.total, rank))


def position(value: Value) -> tuple[Floats, Floats]:
    """Return numbers with the signs of the base and of the whole, however small either is."""
    zero = np.zeros(value.shape)
    base = zero if value.base is None else np.broadcast_to(np.sign(value.base.array), value.shape)
    if value.deviation is None:
        return base, base
    whole = value.deviation.array
    if value.base is not None:
        whole = whole + value.base.in_units_of(value.deviation)
    return base, np.broadcast_to(np.sign(whole), value.shape)


def _chosen(condition: Array, first: Part, second: Part) -> Part:
    if first is None and second is None:
        return None
    if first is None or second is None:
        own = first if first is not None else second
        assert own is not None
        empty = np.zeros((1,) * own.array.ndim)
        pair = (own.array, empty) if first is not None else (empty, own.array)
        made: Floats = np.where(condition, pair[0], pair[1])
        return own.become(made, 0)
    first, second = first.settled(), second.settled()
    own = first if first.log2 >= second.log2 else second
    return own.become(np.where(condition, first.in_units_of(own), second.in_units_of(own)))


def _sum(first: Part, second: Part, negate: bool = False) -> Part:
    if second is None:
        return first
    if first is None:
        return second.negative() if negate else second
    return scaled.add(first, second, negate)


def _times(times: Callable[[Scaled, Scaled], Scaled], first: Part, second: Part) -> Part:
    return None if first is None or second is None else times(first, second)


def _over(first: Part, second: Scaled) -> Part:
    return None if first is None else scaled.divide(first, second)
