"""Rules of normalisations and of softmax: what statistics do to base and deviation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from epsinas_onnx.evaluate_lumped import algebra, scaled
from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.families import Operands, Run, formed, opened
from epsinas_onnx.evaluate_lumped.kernels import reduction
from epsinas_onnx.evaluate_lumped.kernels.reduction import Average
from epsinas_onnx.evaluate_lumped.scaled import Array, Floats, Scaled
from epsinas_onnx.evaluate_lumped.value import Operand, Value

_NARROW = 2.0**60


def standardise(call: Call) -> Run:
    """(x - mean) / sqrt(variance + epsilon), times a scale: base and deviation are centred each by itself.

    With centred b and d, and variances v of b + d and u of b, the deviation is d / sqrt(v + e) less
    b (v - u) / (sqrt(v + e) sqrt(u + e) (sqrt(v + e) + sqrt(u + e))), and v - u is the mean of d (2b + d).
    """
    axes = tuple(int(axis) for axis in call.attribute("axes"))
    epsilon = float(call.attribute("epsilon"))
    averages: dict[int, Average] = {}

    def run(operands: Operands) -> Sequence[Operand | None]:
        x, *rest = operands
        assert isinstance(x, Value)
        average = averages.get(len(x.shape))
        if average is None:
            weights = formed(rest[0]) if rest and rest[0] is not None else None  # stored, and always the same
            average = averages[len(x.shape)] = Average(axes, weights, len(x.shape))
        made = standardised(x, axes, epsilon, average)
        scale = rest[1] if len(rest) > 1 else None
        if isinstance(scale, Value) and scale.deviation is None and scale.base is not None:
            made = algebra.multiply(made, scale)
        elif isinstance(scale, Value):
            flat = algebra.mapped(
                scale, lambda p: p.become(p.array.reshape((1,) * len(x.shape)), 0), (1,) * len(x.shape)
            )
            made = algebra.multiply(made, flat)
        return [made, None, None]

    return run


def standardised(x: Value, axes: tuple[int, ...], epsilon: float, mean: Average | None = None) -> Value:
    """Return x less its mean, over the root of its variance plus epsilon; mean: what is to be taken for a mean."""
    rank = len(x.shape)
    average = Average(axes, None, rank) if mean is None else mean
    alone = _of_samples_alone(x, axes, epsilon, average)
    if alone is not None:
        return alone

    def stays(axis: int, rank: int) -> bool:
        return axis not in axes or average.weights is None or average.weights.shape[axis] == 1

    def centred(part: Scaled | None) -> Scaled | None:
        if part is None:
            return None
        array = opened(part, x.shape, stays)
        if 0 not in axes:  # else the reference is among what the mean is taken of, and its deviation is 0
            array = array - array[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(rank))]
        array = array - average(array)
        return part.become(array)

    base, deviation = _present(centred(x.base)), centred(x.deviation)
    small = scaled.number(epsilon)
    if deviation is None:
        if base is None:
            return Value(x.shape, None, None)
        return Value(x.shape, scaled.divide(base, _spread(_mean_square(base, average), small)), None)
    if base is None:
        variance = _mean_square(deviation, average)
        _note_size(deviation, variance)
        return Value(x.shape, None, _over_spread(deviation, variance, epsilon))
    whole = scaled.add(base, deviation)
    mine, its = _spread(_mean_square(whole, average), small), _spread(_mean_square(base, average), small)
    if not (its.array > 0).all():
        return Value(x.shape, None, scaled.divide(whole, mine))
    more = _mean(deviation, scaled.add(whole, base), average)
    below = scaled.multiply(scaled.multiply(mine, its), scaled.add(mine, its))
    turned = scaled.multiply(base, scaled.divide(more, below))
    made = scaled.add(scaled.divide(deviation, mine), turned, True)
    return Value(x.shape, scaled.divide(base, its), made)


def _of_samples_alone(x: Value, axes: tuple[int, ...], epsilon: float, average: Average) -> Value | None:
    """Return the same where nothing is common to the samples and one mean is taken over all; None elsewhere.

    Nearly every normalisation of an image is such a one, whose parts need not be looked at one by one.
    """
    part = x.deviation
    if x.base is not None or part is None or part.array.shape != x.shape or 0 not in axes:
        return None
    if not average.is_one_number(part.array):
        return None
    array, _, squares = average.about_mean(part.array)
    square = float(squares.item())
    if not _NARROW**-2 < square < _NARROW**2:  # else it may have left the range of float64
        return None
    centred = Scaled(array, part.mantissa, part.exponent, 0)
    return Value(x.shape, None, _over_root(centred, square * part.mantissa**2, 2 * part.exponent, epsilon))


def _mean(first: Scaled, second: Scaled, average: Average) -> Scaled:
    made = scaled.multiply(first, second)
    return made.become(average(made.array))


def _mean_square(value: Scaled, average: Average) -> Scaled:
    value = value.settled()
    mantissa, exponent = math.frexp(value.mantissa**2)
    return Scaled(average.squares(value.array), mantissa, 2 * value.exponent + exponent)


def _spread(variance: Scaled, epsilon: Scaled) -> Scaled:
    total = variance if epsilon.array == 0 else scaled.add(variance, _like(epsilon, variance))
    return scaled.root(total)


def _over_spread(part: Scaled, variance: Scaled, epsilon: float) -> Scaled:
    """Return a part over the root of a variance plus epsilon; of one number it changes the scale alone."""
    if variance.array.size == 1 and 0 < (value := variance.array.item()) < math.inf:
        return _over_root(part, value * variance.mantissa, variance.exponent, epsilon)
    return scaled.divide(part, _spread(variance, scaled.number(epsilon)))


def _over_root(part: Scaled, value: float, exponent: int, epsilon: float) -> Scaled:
    """Return a part over the root of epsilon plus a variance, which is value * 2**exponent and not 0."""
    mantissa, more = math.frexp(value)
    exponent += more
    if epsilon:
        least, place = math.frexp(epsilon)
        top = max(exponent, place)
        mantissa = math.ldexp(mantissa, max(exponent - top, -2000)) + math.ldexp(least, max(place - top, -2000))
        exponent = top
    odd = exponent % 2
    return part.times(1.0 / math.sqrt(mantissa * 2**odd), -((exponent - odd) // 2))


def _like(value: Scaled, other: Scaled) -> Scaled:
    return value.become(value.array.reshape((1,) * other.array.ndim), 0)


def _note_size(centred: Scaled, variance: Scaled) -> None:
    """Remember how large an array is whose variance is known, which saves looking at its magnitude."""
    if variance.array.size == 1:
        root = math.sqrt(abs(variance.array.item()))
        # the variance has the square of the array's scale, up to the power that its mantissa was brought into range by
        if 1 / _NARROW < root < _NARROW:
            centred.age = 0


def _present(part: Scaled | None) -> Scaled | None:
    return part if part is not None and part.array.any() else None


def instance_normalise(call: Call) -> Run:
    """The same over every map of every sample, with a scale and a shift for each channel."""
    epsilon = float(call.attribute("epsilon", 1e-5))

    def run(operands: Operands) -> Sequence[Operand | None]:
        x, scale, shift = operands
        assert isinstance(x, Value)
        assert isinstance(scale, Value)
        assert isinstance(shift, Value)
        column = (1, x.shape[1], *(1,) * (len(x.shape) - 2))
        made = standardised(x, tuple(range(2, len(x.shape))), epsilon)
        made = algebra.multiply(made, algebra.mapped(scale, lambda p: p.become(p.array.reshape(column), 0), column))
        return [algebra.add(made, algebra.mapped(shift, lambda p: p.become(p.array.reshape(column), 0), column))]

    return run


def softmax(call: Call) -> Run:
    """e^x over its sum: with p that of the base, g = e^d - 1 and m the sum of p g, it moves by p (g - m) / (1 + m)."""
    return _over_classes(call, softened)


def softened(x: Value, axes: tuple[int, ...]) -> Value:
    """Return the softmax over axes."""
    rank = len(x.shape)

    def stays(axis: int, rank: int) -> bool:
        return axis not in axes

    first = tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(rank))
    base = np.zeros((1,) * rank) if x.base is None else x.base.plain()
    level = _soft(np.broadcast_to(base, _opened_shape(base, x.shape, axes)), axes)
    if x.deviation is None:
        return Value(x.shape, Scaled(level), None)
    deviation = x.deviation
    array = opened(deviation, x.shape, stays)
    step = deviation.become(array - array[first])
    if step.peak == 0:
        return Value(x.shape, Scaled(level), None)
    if step.log2 < -60.0:
        mean = (level * step.array).sum(axis=axes, keepdims=True)
        return Value(x.shape, Scaled(level), scaled.multiply(Scaled(level), step.become(step.array - mean)))
    moved = step.plain()
    if float(np.abs(moved).max()) < 1.0:
        rise = np.expm1(moved)
        mean = (level * rise).sum(axis=axes, keepdims=True)
        change = level * (rise - mean) / (1.0 + mean)
    else:
        change = _soft(base + moved, axes) - level
    return Value(x.shape, Scaled(level), Scaled(change))


def log_softmax(call: Call) -> Run:
    """X less the logarithm of the sum of e^x, which moves by log(1 + sum of p (e^d - 1))."""
    return _over_classes(call, lambda x, axes: algebra.subtract(x, log_sum_exp(x, axes)))


def _over_classes(call: Call, law: Callable[[Value, tuple[int, ...]], Value]) -> Run:
    axes_of_rank = reduction.softmax_axes(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        (x,) = operands
        assert isinstance(x, Value)
        return [law(x, axes_of_rank(len(x.shape)))]

    return run


def log_sum_exp(x: Value, axes: tuple[int, ...]) -> Value:
    """Return the logarithm of the sum of e^x over axes, which stay with size 1."""
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    base = np.broadcast_to(x.formed_base(), x.shape)
    level = _log_sum(base, axes)
    if x.deviation is None:
        return Value(shape, Scaled(level), None)
    share, deviation = _soft(base, axes), x.deviation
    if deviation.log2 < -60.0:
        moved = deviation.become((share * deviation.array).sum(axis=axes, keepdims=True))
        return Value(shape, Scaled(level), moved)
    step = deviation.plain()
    if float(np.abs(step).max()) < 1.0:
        return Value(shape, Scaled(level), Scaled(np.log1p((share * np.expm1(step)).sum(axis=axes, keepdims=True))))
    return Value(shape, Scaled(level), Scaled(_log_sum(np.broadcast_to(base + step, x.shape), axes) - level))


def _log_sum(x: Floats, axes: tuple[int, ...]) -> Floats:
    top = x.max(axis=axes, keepdims=True)
    made: Floats = np.log(np.exp(x - top).sum(axis=axes, keepdims=True)) + top
    return made


def _opened_shape(array: Array, shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(
        want if axis in axes else have for axis, (have, want) in enumerate(zip(array.shape, shape, strict=True))
    )


def _soft(x: Floats, axes: tuple[int, ...]) -> Floats:
    raised = np.exp(x - x.max(axis=axes, keepdims=True))
    made: Floats = raised / raised.sum(axis=axes, keepdims=True)
    return made
