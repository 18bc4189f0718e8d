"""Owns smooth functions: what f(base + deviation) - f(base) is, without subtracting two equal numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy import special

from epsinas_onnx.evaluate_lumped import algebra, scaled
from epsinas_onnx.evaluate_lumped.scaled import Array, Floats, Scaled
from epsinas_onnx.evaluate_lumped.value import Value

Function: TypeAlias = Callable[[Floats], Floats]
Difference: TypeAlias = Callable[[Floats, Floats, Floats], Floats]

_LINEAR = -60.0
"""Deviations below 2 to this power move a function of moderate numbers along its tangent, to the last bit."""
_CLOSE = 0.1
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)


@dataclass(frozen=True)
class Smooth:
    """A function of one number. slope: its derivative. difference: f(t) - f(b) of b, t - b and t, exactly.

    Without a difference of its own, a small step is the integral of the slope.
    """

    function: Function
    slope: Function
    difference: Difference | None = None

    def __call__(self, value: Value) -> Value:
        """Return the function of every entry."""
        base = value.formed_base() if value.base is None else value.base.plain()
        if value.base is None:
            base = np.zeros((1,) * len(value.shape))
        inner = self.function(base)
        made = Scaled(inner) if inner.any() else None
        if value.deviation is None:
            return Value(value.shape, made, None)
        if not np.isfinite(inner).all():  # the function has no value there: zero is as good a base as any
            whole = value.whole()
            assert whole is not None
            return Value(value.shape, None, Scaled(self.function(whole.plain())))
        deviation = value.deviation
        step = deviation.log2
        if step == -math.inf:
            return Value(value.shape, made, None)
        if step < _LINEAR:
            slope = self.slope(base)
            if np.isfinite(slope).all() and (slope != 0).all():
                return Value(value.shape, made, scaled.multiply(deviation, Scaled(slope)))
        whole = value.whole()
        assert whole is not None
        moved = deviation.plain()
        change = (self.difference or self._difference)(base, moved, whole.plain())
        return Value(value.shape, made, Scaled(change))

    def _difference(self, base: Floats, step: Floats, total: Floats) -> Floats:
        change: Floats = self.function(total) - self.function(base)
        if not base.any() and not self.function(np.zeros(())).any():
            return change
        close = np.abs(step) < _CLOSE
        if not close.any():
            return change
        integral = np.zeros(np.broadcast_shapes(base.shape, step.shape))
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            integral += 0.5 * weight * self.slope(base + 0.5 * (node + 1.0) * step)
        made: Floats = np.where(close, integral * step, change)
        return made


def sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + exp(-x))."""
    made: Floats = special.expit(x)
    return made


_STEEP = 1e-280
"""Slopes of a sigmoid down to this leave room for e to the largest step that is told from others."""
_LARGEST_STEP = 700.0


def sigmoid_sides(base: Floats) -> tuple[Floats, Floats, Floats] | None:
    """Return s(b), s(-b) and their product, the slope, as of `sigmoid_rise`; None where float64 holds too little."""
    up, down = special.expit(base), special.expit(-base)
    slope = up * down
    return (up, down, slope) if np.minimum.reduce(slope, None, initial=1.0) > _STEEP else None


def sigmoid_rise(up: Floats, down: Floats, slope: Floats, step: Floats) -> Floats:
    """Return s(b + d) - s(b) = (e^d - 1) s(b) s(-b) / (s(-b) + s(b) e^d), in which nothing cancels."""
    step = np.minimum(step, _LARGEST_STEP)
    rise: Floats = slope * np.expm1(step)
    below = up * np.exp(step)
    below += down
    rise /= below
    return rise


def _sigmoid_difference(base: Floats, step: Floats, total: Floats) -> Floats:
    sides = sigmoid_sides(base)
    if sides is not None:
        return sigmoid_rise(*sides, step)
    # (e^t - e^b) / ((1 + e^t) (1 + e^b)), from whichever side keeps e^|t - b| - 1 in range
    up = -np.expm1(-np.abs(step))
    left = np.where(step > 0, special.expit(total) * special.expit(-base), special.expit(base) * special.expit(-total))
    made: Floats = np.sign(step) * up * left
    return made


def _tanh_difference(base: Floats, step: Floats, total: Floats) -> Floats:
    made: Floats = 2.0 * _sigmoid_difference(2.0 * base, 2.0 * step, 2.0 * total)
    return made


def _softplus(x: Floats) -> Floats:
    return np.logaddexp(0.0, x)


def _softplus_difference(base: Floats, step: Floats, total: Floats) -> Floats:
    rising = np.log1p(np.expm1(np.minimum(step, 30.0)) * special.expit(base))
    made: Floats = np.where(step > 30.0, _softplus(total) - _softplus(base), rising)
    return made


def _erf_difference(base: Floats, step: Floats, total: Floats) -> Floats:
    both = np.sign(base) * (np.sign(base) == np.sign(total))
    tails = both * (special.erfc(np.abs(base)) - special.erfc(np.abs(total)))
    plain = special.erf(total) - special.erf(base)
    change = np.where(both != 0, tails, plain)
    middle = base + 0.5 * step
    close = (np.abs(step) < 0.25) & (base != 0)
    if not close.any():
        return change  # type: ignore[no-any-return]
    integral = np.zeros(np.broadcast_shapes(base.shape, step.shape))
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        integral += 0.5 * weight * np.exp(-np.square(middle + 0.5 * node * step))
    made: Floats = np.where(close, 2.0 / math.sqrt(math.pi) * integral * step, change)
    return made


def _phi(x: Floats) -> Floats:
    made: Floats = special.ndtr(x)
    return made


SIGMOID = Smooth(sigmoid, lambda x: special.expit(x) * special.expit(-x), _sigmoid_difference)
TANH = Smooth(np.tanh, lambda x: 4.0 * special.expit(2.0 * x) * special.expit(-2.0 * x), _tanh_difference)
SOFTPLUS = Smooth(_softplus, sigmoid, _softplus_difference)
ERF = Smooth(special.erf, lambda x: 2.0 / math.sqrt(math.pi) * np.exp(-np.square(x)), _erf_difference)
NORMAL = Smooth(_phi, lambda x: np.exp(-0.5 * np.square(x)) / math.sqrt(2.0 * math.pi))
EXPM1 = Smooth(np.expm1, np.exp, lambda b, d, t: np.where(d < 700, np.exp(b) * np.expm1(d), np.exp(t) - np.exp(b)))
SIN = Smooth(np.sin, np.cos)
COS = Smooth(np.cos, lambda x: -np.sin(x))
ATAN = Smooth(np.arctan, lambda x: 1.0 / (1.0 + x * x))
SINH = Smooth(np.sinh, np.cosh)
COSH = Smooth(np.cosh, np.sinh)
ASINH = Smooth(np.arcsinh, lambda x: 1.0 / np.sqrt(1.0 + x * x))
TAN = Smooth(np.tan, lambda x: 1.0 / np.square(np.cos(x)))
ASIN = Smooth(np.arcsin, lambda x: 1.0 / np.sqrt(1.0 - x * x))
ACOS = Smooth(np.arccos, lambda x: -1.0 / np.sqrt(1.0 - x * x))
ATANH = Smooth(np.arctanh, lambda x: 1.0 / (1.0 - x * x))
ACOSH = Smooth(np.arccosh, lambda x: 1.0 / np.sqrt(x * x - 1.0))


def square_root(value: Value) -> Value:
    """Return the root: the deviation is d / (sqrt(b + d) + sqrt(b)), whatever their exponents."""
    base = None if value.base is None else scaled.root(value.base)
    if value.deviation is None:
        return Value(value.shape, base, None)
    whole = value.whole()
    assert whole is not None
    total = scaled.root(whole)
    if base is None:
        return Value(value.shape, None, total)
    both = scaled.add(total, base)
    return Value(value.shape, base, _quotient(value.deviation, both), total)


def exponential(value: Value) -> Value:
    """Return e to the value: e^b (e^d - 1) is the deviation. The largest of all gives the exponent."""
    base = np.zeros((1,) * len(value.shape)) if value.base is None else value.base.plain()
    inner = _power_of_e(base)
    if value.deviation is None:
        return Value(value.shape, inner, None)
    if value.deviation.log2 < _LINEAR:
        return Value(value.shape, inner, scaled.multiply(value.deviation, inner))
    step, whole = value.deviation.plain(), value.whole()
    assert whole is not None
    total = _power_of_e(whole.plain())
    if float(step.max()) < 1.0:
        return Value(value.shape, inner, scaled.multiply(inner, Scaled(np.expm1(step))), total)
    near = scaled.multiply(inner, Scaled(np.expm1(np.minimum(step, 1.0))))
    return Value(value.shape, inner, _either(step < 1.0, near, scaled.add(total, inner, True)), total)


def logarithm(value: Value) -> Value:
    """Return the natural logarithm: log(1 + d / b) is the deviation; that of a number beyond float64 is in range."""
    if value.base is None or not (value.base.array > 0).all():
        whole = value.whole()
        made = Scaled(np.full((1,) * len(value.shape), -np.inf)) if whole is None else _log(whole)
        return Value(value.shape, None, made) if value.deviation is not None else Value(value.shape, made, None)
    base = _log(value.base)
    if value.deviation is None:
        return Value(value.shape, base, None)
    ratio = scaled.divide(value.deviation, value.base)
    if ratio.log2 < _LINEAR:
        return Value(value.shape, base, ratio)
    whole = value.whole()
    assert whole is not None
    step = ratio.plain()
    far = _log(whole).array - base.array
    return Value(value.shape, base, Scaled(np.where(np.abs(step) < 0.5, np.log1p(step), far)))


def reciprocal(value: Value) -> Value:
    """Return 1 over the value."""
    return algebra.divide(algebra.number(1.0), value)


def power(value: Value, exponent: float) -> Value:
    """Return the value to a known power; whole ones are products, others of positive numbers."""
    if exponent == int(exponent) and 0 <= abs(exponent) <= 64:
        return _whole_power(value, int(exponent))
    if exponent * 2 == int(exponent * 2) and abs(exponent) <= 8:
        root = square_root(value)
        return _whole_power(root, int(exponent * 2))
    return exponential(algebra.multiply(algebra.number(exponent), logarithm(value)))


def _whole_power(value: Value, exponent: int) -> Value:
    if exponent < 0:
        return reciprocal(_whole_power(value, -exponent))
    made = algebra.lifted(algebra.number(1.0), len(value.shape))
    if exponent == 0:
        return Value(value.shape, made.base, None)
    found: Value | None = None
    while exponent:
        if exponent & 1:
            found = value if found is None else algebra.multiply(found, value)
        exponent >>= 1
        value = algebra.multiply(value, value) if exponent else value
    assert found is not None
    return found


def _power_of_e(x: Floats) -> Scaled:
    top = float(x.max()) if x.size else 0.0
    if not math.isfinite(top) or abs(top) < 300.0:
        return Scaled(np.exp(x))
    shift = round(top / math.log(2.0))
    return Scaled(np.exp(x - shift * math.log(2.0)), 1.0, shift)


def _log(value: Scaled) -> Scaled:
    return Scaled(np.log(value.array) + (math.log(value.mantissa) + value.exponent * math.log(2.0)))


def _quotient(first: Scaled, second: Scaled) -> Scaled:
    made = scaled.divide(first, second)
    return made.become(np.nan_to_num(made.array, nan=0.0, posinf=np.inf, neginf=-np.inf), 0)


def _either(condition: Array, first: Scaled, second: Scaled) -> Scaled:
    first, second = first.settled(), second.settled()
    own = first if first.log2 >= second.log2 else second
    return own.become(np.where(condition, first.in_units_of(own), second.in_units_of(own)))
