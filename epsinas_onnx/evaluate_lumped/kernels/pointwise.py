"""Kernels of functions of one entry at a time, as float32 computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.kernels.layout import Kernel, positive
from epsinas_onnx.evaluate_lumped.scaled import Array


def plain(function: Callable[..., Any]) -> Callable[[Call], Kernel]:
    """Return what makes a kernel of a NumPy function."""
    return lambda call: function


def divide(call: Call) -> Kernel:
    """Quotient; that of integers is cut off towards 0."""

    def kernel(x: Array, y: Array) -> Array:
        if x.dtype.kind in "iu":
            return np.asarray(np.trunc(x / y), x.dtype)
        return np.divide(x, y)

    return kernel


def mod(call: Call) -> Kernel:
    """Remainder with the sign of the divisor, or of the dividend."""
    return np.fmod if int(call.attribute("fmod", 0)) else np.mod


def several(function: Callable[[Any, Any], Any]) -> Callable[[Call], Kernel]:
    """Return what makes a kernel that takes any number of operands, two at a time."""

    def make(call: Call) -> Kernel:
        def kernel(*operands: Any) -> Any:
            made = operands[0]
            for one in operands[1:]:
                made = function(made, one)
            return made

        return kernel

    return make


def mean(call: Call) -> Kernel:
    """The mean of all operands."""
    add = several(np.add)(call)
    return lambda *operands: add(*operands) / len(operands)


def relu(call: Call) -> Kernel:
    """max(x, 0)."""
    return positive


def leaky_relu(call: Call) -> Kernel:
    """X, times alpha where it is negative."""
    alpha = float(call.attribute("alpha", 0.01))
    return lambda x: np.where(x < 0, x * alpha, x)


def prelu(call: Call) -> Kernel:
    """X, times a slope where it is negative."""
    return lambda x, slope: np.where(x < 0, x * slope, x)


def clip(call: Call) -> Kernel:
    """X within bounds."""
    old = call.attribute("min"), call.attribute("max")

    def kernel(x: Array, low: Any = None, high: Any = None) -> Array:
        low, high = (old[0] if low is None else low), (old[1] if high is None else high)
        made = x if low is None else np.maximum(x, np.asarray(low, x.dtype))
        return made if high is None else np.minimum(made, np.asarray(high, x.dtype))

    return kernel


def hard_sigmoid(call: Call) -> Kernel:
    """Alpha x + beta within 0 and 1."""
    alpha, beta = float(call.attribute("alpha", 0.2)), float(call.attribute("beta", 0.5))
    return lambda x: np.clip(x * alpha + beta, 0, 1)


def hard_swish(call: Call) -> Kernel:
    """X times (x / 6 + 1 / 2 within 0 and 1)."""
    return lambda x: x * np.clip(x / 6 + x.dtype.type(0.5), 0, 1)


def elu(call: Call) -> Kernel:
    """X, alpha (e^x - 1) where it is negative."""
    alpha = float(call.attribute("alpha", 1.0))
    return lambda x: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def celu(call: Call) -> Kernel:
    """X, alpha (e^(x / alpha) - 1) where it is negative."""
    alpha = float(call.attribute("alpha", 1.0))
    return lambda x: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0) / alpha), x)


def selu(call: Call) -> Kernel:
    """Gamma x, gamma alpha (e^x - 1) where it is negative."""
    alpha = float(call.attribute("alpha", 1.67326319217681884765625))
    gamma = float(call.attribute("gamma", 1.05070102214813232421875))
    return lambda x: gamma * np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def thresholded(call: Call) -> Kernel:
    """X where it is above alpha, else 0."""
    alpha = float(call.attribute("alpha", 1.0))
    return lambda x: np.where(x > alpha, x, x.dtype.type(0))


def sigmoid(call: Call) -> Kernel:
    """1 / (1 + e^-x)."""
    return lambda x: special.expit(x)


def swish(call: Call) -> Kernel:
    """X times the sigmoid of alpha x."""
    alpha = float(call.attribute("alpha", 1.0))
    return lambda x: x * special.expit(x * alpha)


def softplus(call: Call) -> Kernel:
    """log(1 + e^x)."""
    return lambda x: np.logaddexp(x.dtype.type(0), x)


def softsign(call: Call) -> Kernel:
    """X / (1 + |x|)."""
    return lambda x: x / (1 + np.abs(x))


def mish(call: Call) -> Kernel:
    """X times the hyperbolic tangent of the softplus."""
    return lambda x: x * np.tanh(np.logaddexp(x.dtype.type(0), x))


def gelu(call: Call) -> Kernel:
    """X times the normal distribution function, or its approximation by a hyperbolic tangent."""
    if str(call.attribute("approximate", "none")) == "tanh" or call.op_type == "FastGelu":
        root = np.sqrt(2 / np.pi)

        def fast(x: Array, bias: Any = None) -> Array:
            x = x if bias is None else x + bias
            made: Array = x * 0.5 * (1 + np.tanh(x * float(root) * (1 + 0.044715 * x * x)))
            return made

        return fast
    return lambda x, *_: x * 0.5 * (1 + special.erf(x * float(np.sqrt(0.5))))


def quick_gelu(call: Call) -> Kernel:
    """X times the sigmoid of 1.702 x."""
    alpha = float(call.attribute("alpha", 1.702))
    return lambda x: x * special.expit(x * alpha)


def where(call: Call) -> Kernel:
    """The second operand where the first is true, else the third."""
    return np.where


def shrink(call: Call) -> Kernel:
    """0 within lambd, moved towards 0 by bias outside."""
    lambd, bias = float(call.attribute("lambd", 0.5)), float(call.attribute("bias", 0.0))
    return lambda x: np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, x.dtype.type(0)))
