"""The rules of operators that bend: maxima, ReLU and its kin, gates, and what is bounded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from epsinas_onnx.proxies.growth.flow import Flow, Step, Writer, rule, standing

_FARTHEST = 1e4
"""Beyond this, functions of our rules are what they are at infinity, to float32."""


# Maxima, and functions that are linear on each side of 0: scales pass.


@rule("Max", "Min")
def extreme(step: Step) -> Flow:
    """Choose the larger, or the smaller, of two inputs."""
    if len(step.node.inputs) != 2:
        raise step.refuse("compares other than two inputs")
    write = step.write
    (one, other), scale = write.aligned([step.of(0), step.of(1)])
    ahead = write.op("Greater", [one.value, other.value] if step.node.op_type == "Max" else [other.value, one.value])
    value = write.where(ahead, one.value, other.value)
    return Flow(value, write.where(ahead, standing(write, one), standing(write, other)), scale)


@rule("MaxPool")
def max_pool(step: Step) -> Flow:
    """Take the largest of each window; the derivative is that of the entry, found by its index."""
    step.only(0)
    if len(step.node.outputs) > 1 and step.node.outputs[1].uses():
        raise step.refuse("gives indices, and the weights decide which")
    write, flow = step.write, step.of(0)
    value = step.again({0: flow.value})
    if flow.tangent is None or flow.tangent is flow.value:
        return dataclasses.replace(flow, value=value, tangent=value if flow.tangent is not None else None)
    producer = value.producer()
    assert producer is not None
    producer.resize_outputs(2)
    where = producer.outputs[1]
    where.name = where.name or f"{producer.name}.indices"
    tangent = write.op("Gather", [write.reshape(flow.tangent, [-1]), where], axis=0)
    return dataclasses.replace(flow, value=value, tangent=tangent)


@rule("GlobalMaxPool", "ReduceMax")
def global_max(step: Step) -> Flow:
    """Take the largest entry along axes; several that are as large share its derivative."""
    step.only(0)
    write, flow = step.write, step.of(0)
    value = step.again({0: flow.value})
    if flow.tangent is None or flow.tangent is flow.value:
        return Flow(value, value if flow.tangent is not None else None, flow.scale)
    if step.node.op_type == "ReduceMax" and step.node.attributes.get_int("keepdims", 1) != 1:
        raise step.refuse("drops the axes of its maximum")
    below = write.op("Less", [flow.value, value])
    ones = write.op("Add", [write.op("Mul", [flow.value, write.number(0.0)]), write.number(1.0)])
    mask = write.where(below, write.op("Sub", [ones, ones]), ones)
    mean = "GlobalAveragePool" if step.node.op_type == "GlobalMaxPool" else "ReduceMean"
    inputs = list(step.node.inputs[1:])
    parts = [write.like(step.node, mean, [one, *inputs]) for one in (write.op("Mul", [mask, flow.tangent]), mask)]
    return Flow(value, write.op("Div", parts), flow.scale)


@rule("Relu")
def relu(step: Step) -> Flow:
    """Let through what is above 0."""
    return _gated(step, lambda write, x: write.op("Sub", [x, x]))


@rule("LeakyRelu")
def leaky_relu(step: Step) -> Flow:
    """Multiply what is below 0 by alpha."""
    alpha = step.node.attributes.get_float("alpha", 0.01)
    return _gated(step, lambda write, x: write.op("Mul", [x, write.number(alpha)]))


@rule("PRelu")
def prelu(step: Step) -> Flow:
    """Multiply what is below 0 by a slope, which counts as no weight."""
    return _gated(step, lambda write, x: write.op("Mul", [x, step.static(1)]))


@rule("Abs")
def magnitude(step: Step) -> Flow:
    """Turn what is below 0 around."""
    return _gated(step, lambda write, x: write.op("Neg", [x]))


def _gated(step: Step, below: Callable[[Writer, ir.Value], ir.Value]) -> Flow:
    step.only(0)
    write, flow = step.write, step.of(0)
    if flow.positive:
        return flow
    above = write.op("Greater", [flow.value, write.number(0.0)])
    value = step.again({0: flow.value})
    if flow.tangent is None or flow.tangent is flow.value:
        return Flow(value, value if flow.tangent is not None else None, flow.scale)
    return Flow(value, write.where(above, flow.tangent, below(write, flow.tangent)), flow.scale)


# Functions that bend: x times a gate between 0 and 1 keeps its scale; what is bounded has none any more.


@rule("Clip")
def clip(step: Step) -> Flow:
    """Cut at bounds; from 0 on it is ReLU."""
    low, high = _bound(step, "min", 1), _bound(step, "max", 2)
    if low == 0 and high is None:
        step.only(0)
        write, flow = step.write, step.of(0)
        zero = write.number(0.0)
        above = write.op("Greater", [flow.value, zero])
        value = write.op("Relu", [flow.value])
        tangent = None if flow.tangent is None else write.where(above, flow.tangent, write.op("Mul", [value, zero]))
        return Flow(value, tangent, flow.scale)

    def slope(write: Writer, x: ir.Value, _: ir.Value) -> ir.Value:
        inside = [
            write.op("Cast", [write.op("Greater" if low_end else "Less", [x, write.number(bound)])], to=1)
            for low_end, bound in ((True, low), (False, high))
            if bound is not None
        ]
        return inside[0] if len(inside) == 1 else write.op("Mul", inside)

    return _bounded(step, slope)


@rule("Sigmoid")
def sigmoid(step: Step) -> Flow:
    """Y' = y (1 - y) x'."""
    return _bounded(step, lambda write, _, y: write.op("Mul", [y, write.op("Sub", [write.number(1.0), y])]))


@rule("Tanh")
def tanh(step: Step) -> Flow:
    """Y' = (1 - y^2) x'."""
    return _bounded(step, lambda write, _, y: write.op("Sub", [write.number(1.0), write.op("Mul", [y, y])]))


@rule("Erf")
def erf(step: Step) -> Flow:
    """Y' = 2 / sqrt(pi) exp(-x^2) x'."""
    return _bounded(step, lambda write, x, _: _bell(write, x, 2 / math.sqrt(math.pi), 1.0))


@rule("HardSigmoid")
def hard_sigmoid(step: Step) -> Flow:
    """Y' = alpha x' strictly between 0 and 1."""
    alpha = step.node.attributes.get_float("alpha", 0.2)

    def slope(write: Writer, _: ir.Value, y: ir.Value) -> ir.Value:
        above = write.op("Cast", [write.op("Greater", [y, write.number(0.0)])], to=1)
        below = write.op("Cast", [write.op("Less", [y, write.number(1.0)])], to=1)
        return write.op("Mul", [write.op("Mul", [above, below]), write.number(alpha)])

    return _bounded(step, slope)


@rule("HardSwish")
def hard_swish(step: Step) -> Flow:
    """X times clip(x / 6 + 1/2, 0, 1); the slope is (2 x + 3) / 6 where that is between its ends."""

    def parts(write: Writer, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        gate = write.op("HardSigmoid", [x], alpha=1 / 6, beta=0.5)
        half, third = write.number(0.5), write.number(1 / 3)
        inside = write.op("Add", [write.op("Mul", [x, third]), half])
        within = write.op("Less", [write.op("Abs", [x]), write.number(3.0)])
        return gate, write.where(within, inside, gate)

    return _swished(step, parts)


@rule("Gelu")
def gelu(step: Step) -> Flow:
    """X times the normal distribution function, or its approximation by Tanh; the slope is exact for the former."""
    if step.node.attributes.get_string("approximate", "none") != "none":
        raise step.refuse("approximates by Tanh")

    def parts(write: Writer, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        half, one = write.number(0.5), write.number(1.0)
        bent = write.op("Erf", [write.op("Mul", [x, write.number(1 / math.sqrt(2))])])
        gate = write.op("Mul", [write.op("Add", [bent, one]), half])
        density = _bell(write, x, 1 / math.sqrt(2 * math.pi), 0.5)
        return gate, write.op("Add", [gate, write.op("Mul", [x, density])])

    return _swished(step, parts)


@rule("Elu")
def elu(step: Step) -> Flow:
    """Alpha (exp(x) - 1) below 0; its gate is that over x."""
    alpha = step.node.attributes.get_float("alpha", 1.0)

    def parts(write: Writer, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        one = write.number(1.0)
        ones = write.op("Add", [write.op("Mul", [x, write.number(0.0)]), one])
        below = write.op("Less", [x, write.number(-1e-6)])  # where the quotient is resolved
        power = write.op("Exp", [write.op("Min", [x, write.number(0.0)])])
        safe = write.where(below, x, ones)
        quotient = write.op("Div", [write.op("Sub", [power, one]), safe])
        scaled = write.op("Mul", [quotient, write.number(alpha)])
        above = write.op("Greater", [x, write.number(0.0)])
        slope = write.where(above, ones, write.op("Mul", [power, write.number(alpha)]))
        return write.where(below, scaled, write.where(above, ones, write.op("Mul", [ones, write.number(alpha)]))), slope

    return _swished(step, parts)


def _bell(write: Writer, x: ir.Value, height: float, rate: float) -> ir.Value:
    """Return height * exp(-rate x^2)."""
    square = write.op("Mul", [write.op("Mul", [x, x]), write.number(-rate)])
    return write.op("Mul", [write.op("Exp", [square]), write.number(height)])


def _bounded(step: Step, slope: Callable[[Writer, ir.Value, ir.Value], ir.Value]) -> Flow:
    """Apply the operator to the value as it is; slope: of x and y, its derivative, 0 where x is far away."""
    step.only(0)
    write, flow = step.write, step.of(0)
    factor = write.factor(flow.scale)
    x = _near(write, write.times(flow.value, factor))
    value = step.again({0: x})
    tangent = write.times(flow.tangent, factor)
    if tangent is not None:
        tangent = write.op("Mul", [slope(write, x, value), _near(write, tangent, 1e30)])
    return Flow(value, tangent)


def _swished(step: Step, parts: Callable[[Writer, ir.Value], tuple[ir.Value, ir.Value]]) -> Flow:
    """Multiply by a gate; parts: the gate and the slope of the whole, of x."""
    step.only(0)
    write, flow = step.write, step.of(0)
    x = _near(write, write.times(flow.value, write.factor(flow.scale)))
    gate, slope = parts(write, x)
    value = write.op("Mul", [flow.value, gate])
    return Flow(value, write.times(flow.tangent, slope), flow.scale)


def _near(write: Writer, value: ir.Value | None, most: float = _FARTHEST) -> ir.Value:
    assert value is not None
    return write.op("Max", [write.op("Min", [value, write.number(most)]), write.number(-most)])


def _bound(step: Step, name: str, slot: int) -> float | None:
    if name in step.node.attributes:
        return step.node.attributes.get_float(name)
    if not step.has(slot):
        return None
    bound = step.number(slot)
    if bound is None:
        raise step.refuse(f"its {name} is computed")
    return None if abs(bound) >= np.finfo(np.float32).max else bound
