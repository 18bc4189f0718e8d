"""Derivatives of functions of one entry: activations, and what they are made of."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_ir as ir

from epsinas_onnx.proxies.reverse.call import Call
from epsinas_onnx.proxies.reverse.registry import Gradients, rule

_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
"""Defaults of the specification."""


@rule("Relu")
def relu(call: Call) -> Gradients:
    """Pass on where the output is positive, which leaves the input to be fused with the layer in front."""
    return call.only(call.op("Greater", call.y, 0.0), call.grad)


@rule("LeakyRelu")
def leaky_relu(call: Call) -> Gradients:
    """1 or alpha, by the sign of the input."""
    return call.mul(call.grad, call.where(call.op("Greater", call.x, 0.0), 1.0, call.number("alpha", 0.01)))


@rule("PRelu")
def parametric_relu(call: Call) -> Gradients:
    """1 or the slope; the slope's is the sum of what it multiplies."""
    positive = call.op("Greater", call.x, 0.0)
    found: dict[int | ir.Value, ir.Value | None] = {}
    if 0 in call.wanted:
        found[0] = call.mul(call.grad, call.where(positive, 1.0, call.input(1)))
    if 1 in call.wanted:
        found[1] = call.sum_to(call.only(positive, call.mul(call.grad, call.x), unless=True), 1)
    return found


@rule("ThresholdedRelu")
def thresholded_relu(call: Call) -> Gradients:
    """1 above the threshold."""
    return call.only(call.op("Greater", call.x, call.number("alpha", 1.0)), call.grad)


@rule("Shrink")
def shrink(call: Call) -> Gradients:
    """1 outside of the threshold on both sides."""
    return call.only(call.op("Greater", call.op("Abs", call.x), call.number("lambd", 0.5)), call.grad)


@rule("Clip")
def clip(call: Call) -> Gradients:
    """1 between the bounds, those included."""
    if call.wanted - {0}:
        raise call.refuse("a bound depends on what is differentiated by")
    outside = None
    for slot, (name, op_type) in enumerate((("min", "Less"), ("max", "Greater")), start=1):
        bound: ir.Value | float | None = call.optional(slot)
        if call.opset < 11:
            bound = call.number(name, 0.0) if name in call.node.attributes else None
        if bound is not None:
            beyond = call.op(op_type, call.x, bound)
            outside = beyond if outside is None else call.op("Or", outside, beyond)
    return call.grad if outside is None else call.only(outside, call.grad, unless=True)


@rule("Elu")
def elu(call: Call) -> Gradients:
    """1, or alpha exp(x), which is the output plus alpha."""
    return _right_of_zero(call, call.add(call.y, call.number("alpha", 1.0)))


@rule("Celu")
def celu(call: Call) -> Gradients:
    """1, or exp(x / alpha)."""
    return _right_of_zero(call, call.add(call.div(call.y, call.number("alpha", 1.0)), 1.0))


@rule("Selu")
def selu(call: Call) -> Gradients:
    """gamma, or gamma alpha exp(x)."""
    alpha, gamma = call.number("alpha", _SELU_ALPHA), call.number("gamma", _SELU_GAMMA)
    slope = call.where(call.op("Greater", call.x, 0.0), gamma, call.add(call.y, alpha * gamma))
    return call.mul(call.grad, slope)


def _right_of_zero(call: Call, otherwise: ir.Value) -> ir.Value:
    return call.mul(call.grad, call.where(call.op("Greater", call.x, 0.0), 1.0, otherwise))


@rule("HardSigmoid")
def hard_sigmoid(call: Call) -> Gradients:
    """Alpha where the output is neither 0 nor 1."""
    slope = call.mul(call.grad, call.number("alpha", 0.2))
    inside = call.op("And", call.op("Greater", call.y, 0.0), call.op("Less", call.y, 1.0))
    return call.only(inside, slope)


@rule("HardSwish")
def hard_swish(call: Call) -> Gradients:
    """0, x / 3 + 1 / 2, or 1."""
    middle = call.add(call.mul(call.x, 1 / 3), 0.5)
    right = call.where(call.op("Greater", call.x, 3.0), 1.0, middle)
    return call.mul(call.grad, call.where(call.op("Less", call.x, -3.0), 0.0, right))


@rule("Gelu")
@rule("Gelu", domain="com.microsoft")
def gelu(call: Call) -> Gradients:
    """Phi(x) + x phi(x), or the derivative of its approximation by tanh (Hendrycks and Gimpel, 2016)."""
    x = call.x
    if call.text("approximate", "none") == "tanh":
        return _tanh_gelu(call, x)
    below = call.mul(call.add(call.op("Erf", call.mul(x, math.sqrt(0.5))), 1.0), 0.5)
    density = call.mul(call.op("Exp", call.mul(call.mul(x, x), -0.5)), 1 / math.sqrt(2 * math.pi))
    return call.mul(call.grad, call.add(below, call.mul(x, density)))


@rule("FastGelu", domain="com.microsoft")
def fast_gelu(call: Call) -> Gradients:
    """The approximation by tanh, of a sum where there is a bias."""
    bias = call.optional(1)
    if 1 in call.wanted:
        raise call.refuse("the bias depends on what is differentiated by")
    return _tanh_gelu(call, call.x if bias is None else call.add(call.x, bias))


def _tanh_gelu(call: Call, x: ir.Value) -> ir.Value:
    square = call.mul(x, x)
    factor = math.sqrt(2 / math.pi)
    tanh = call.op("Tanh", call.mul(call.mul(x, call.add(call.mul(square, 0.044715), 1.0)), factor))
    inner = call.mul(call.add(call.mul(square, 3 * 0.044715), 1.0), factor)
    steep = call.mul(call.mul(x, inner), call.sub(1.0, call.mul(tanh, tanh)))
    return call.mul(call.grad, call.mul(call.add(call.add(tanh, 1.0), steep), 0.5))


@rule("Swish")
@rule("QuickGelu", domain="com.microsoft")
def swish(call: Call) -> Gradients:
    """S + a x s (1 - s), with s = sigmoid(a x)."""
    alpha = call.number("alpha", 1.702 if call.node.op_type == "QuickGelu" else 1.0)
    scaled = call.mul(call.x, alpha)
    gate = call.op("Sigmoid", scaled)
    rest = call.mul(scaled, call.sub(1.0, gate))
    return call.mul(call.grad, call.mul(gate, call.add(rest, 1.0)))


@rule("Mish")
def mish(call: Call) -> Gradients:
    """T + x (1 - t^2) sigmoid(x), with t = tanh(softplus(x))."""
    x = call.x
    tanh = call.op("Tanh", call.op("Softplus", x))
    steep = call.mul(call.mul(x, call.sub(1.0, call.mul(tanh, tanh))), call.op("Sigmoid", x))
    return call.mul(call.grad, call.add(tanh, steep))


def _square(call: Call, value: ir.Value) -> ir.Value:
    return call.mul(value, value)


def _tan(call: Call) -> ir.Value:
    return call.add(_square(call, call.y), 1.0)


_SLOPES: dict[str, Callable[[Call], ir.Value]] = {
    "Sigmoid": lambda c: c.mul(c.y, c.sub(1.0, c.y)),
    "Tanh": lambda c: c.sub(1.0, _square(c, c.y)),
    "Erf": lambda c: c.mul(c.op("Exp", c.op("Neg", _square(c, c.x))), 2 / math.sqrt(math.pi)),
    "Exp": lambda c: c.y,
    "Log": lambda c: c.op("Reciprocal", c.x),
    "Sqrt": lambda c: c.div(0.5, c.y),
    "Reciprocal": lambda c: c.op("Neg", _square(c, c.y)),
    "Abs": lambda c: c.op("Sign", c.x),
    "Softplus": lambda c: c.op("Sigmoid", c.x),
    "Softsign": lambda c: c.op("Reciprocal", _square(c, c.add(c.op("Abs", c.x), 1.0))),
    "Sin": lambda c: c.op("Cos", c.x),
    "Cos": lambda c: c.op("Neg", c.op("Sin", c.x)),
    "Tan": _tan,
    "Asin": lambda c: c.op("Reciprocal", c.op("Sqrt", c.sub(1.0, _square(c, c.x)))),
    "Acos": lambda c: c.op("Neg", c.op("Reciprocal", c.op("Sqrt", c.sub(1.0, _square(c, c.x))))),
    "Atan": lambda c: c.op("Reciprocal", c.add(_square(c, c.x), 1.0)),
    "Sinh": lambda c: c.mul(c.add(c.op("Exp", c.x), c.op("Exp", c.op("Neg", c.x))), 0.5),
    "Cosh": lambda c: c.mul(c.sub(c.op("Exp", c.x), c.op("Exp", c.op("Neg", c.x))), 0.5),
    "Asinh": lambda c: c.op("Reciprocal", c.op("Sqrt", c.add(_square(c, c.x), 1.0))),
    "Acosh": lambda c: c.op("Reciprocal", c.op("Sqrt", c.sub(_square(c, c.x), 1.0))),
    "Atanh": lambda c: c.op("Reciprocal", c.sub(1.0, _square(c, c.x))),
}
"""Derivatives by which the gradient is multiplied."""


@rule(*_SLOPES)
def multiplied(call: Call) -> Gradients:
    """The gradient times the derivative at each entry."""
    return call.mul(call.grad, _SLOPES[call.node.op_type](call))


@rule("Neg")
def negative(call: Call) -> Gradients:
    """The gradient with the other sign."""
    return call.op("Neg", call.grad)


@rule("Softmax")
def softmax(call: Call) -> Gradients:
    """Y (g - sum of g y)."""
    total = call.write.reduce("ReduceSum", call.mul(call.grad, call.y), _together(call))
    return call.mul(call.y, call.sub(call.grad, total))


@rule("LogSoftmax")
def log_softmax(call: Call) -> Gradients:
    """G - exp(y) times the sum of g."""
    total = call.write.reduce("ReduceSum", call.grad, _together(call))
    return call.sub(call.grad, call.mul(call.op("Exp", call.y), total))


def _together(call: Call) -> list[int]:
    """Return the axes that a softmax sums over; before operator set 13 it is all from its axis on."""
    axis = call.axis(default=-1 if call.opset >= 13 else 1)
    return [axis] if call.opset >= 13 else list(range(axis, len(call.shape())))


@rule("Dropout")
def dropout(call: Call) -> Gradients:
    """As it is: nothing is dropped where no training mode is asked for."""
    mode = call.known(2)
    if call.optional(2) is not None and (mode is None or bool(mode.any())):
        raise call.refuse("it drops at random, in training mode")
    return call.grad
