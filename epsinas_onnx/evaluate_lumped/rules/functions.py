"""Rules of functions of one entry: gates, and what smooth functions with attributes are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from epsinas_onnx.evaluate_lumped import algebra, smooth
from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.families import Operands, Rule, Run, as_formed, formed
from epsinas_onnx.evaluate_lumped.kernels import pointwise
from epsinas_onnx.evaluate_lumped.value import Operand, Pair, Value, depends

One: TypeAlias = Callable[[Value], Value]


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


def _above(value: Value, level: float, inside: Value) -> Value:
    """Return `inside` where a value is above a level, by however little, else 0."""
    reference, actual = (side > 0 for side in algebra.position(plus(value, -level)))
    same = value.deviation is None
    return algebra.select(reference, reference if same else actual, inside, algebra.number(0.0))


def thresholded(call: Call) -> One:
    """X where it is above alpha, else 0."""
    alpha = float(call.attribute("alpha", 1.0))
    return lambda value: _above(value, alpha, value)


def shrink(call: Call) -> One:
    """0 within lambd, moved towards 0 by bias outside."""
    level, bias = float(call.attribute("lambd", 0.5)), float(call.attribute("bias", 0.0))

    def function(value: Value) -> Value:
        below = algebra.negative(value)
        return algebra.subtract(_above(value, level, plus(value, -bias)), _above(below, level, plus(below, -bias)))

    return function


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


def square(value: Value) -> Value:
    """Return the square."""
    return algebra.multiply(value, value)
