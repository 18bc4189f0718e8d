"""Derivatives of arithmetic between operands that are broadcast."""

from __future__ import annotations

import onnx_ir as ir

from epsinas_onnx.proxies.reverse.call import Call
from epsinas_onnx.proxies.reverse.registry import Gradients, rule
from epsinas_onnx.proxies.reverse.rules.normalisation import minibatch_normalised


@rule("Add", "Sum")
def add(call: Call) -> Gradients:
    """The gradient, summed down to each operand."""
    return {slot: call.sum_to(call.grad, slot) for slot in call.wanted}


@rule("Mean")
def mean(call: Call) -> Gradients:
    """The gradient over the number of operands."""
    share = call.div(call.grad, float(len(call.node.inputs)))
    return {slot: call.sum_to(share, slot) for slot in call.wanted}


@rule("Sub")
def subtract(call: Call) -> Gradients:
    """The gradient, and the negative one."""
    found: dict[int | ir.Value, ir.Value | None] = {}
    if 0 in call.wanted:
        found[0] = call.sum_to(call.grad, 0)
    if 1 in call.wanted:
        found[1] = call.op("Neg", call.sum_to(call.grad, 1))
    return found


@rule("Mul")
def multiply(call: Call) -> Gradients:
    """The gradient times the other operand; a normalisation that ends in this product is gone through as one."""
    normalised = minibatch_normalised(call) if len(call.wanted) == 2 else None
    if normalised is not None:
        return normalised
    return {slot: call.sum_to(call.mul(call.grad, call.input(1 - slot)), slot) for slot in call.wanted}


@rule("Div")
def divide(call: Call) -> Gradients:
    """G / b, and -g y / b."""
    share = call.div(call.grad, call.input(1))
    found: dict[int | ir.Value, ir.Value | None] = {}
    if 0 in call.wanted:
        found[0] = call.sum_to(share, 0)
    if 1 in call.wanted:
        found[1] = call.op("Neg", call.sum_to(call.mul(share, call.y), 1))
    return found


@rule("Mod")
def modulo(call: Call) -> Gradients:
    """1 by the dividend."""
    if 1 in call.wanted:
        raise call.refuse("the divisor depends on what is differentiated by")
    return call.sum_to(call.grad, 0)


@rule("Pow")
def power(call: Call) -> Gradients:
    """P x^(p - 1), and y log(x), which is taken for 0 where x is not positive."""
    found: dict[int | ir.Value, ir.Value | None] = {}
    x, exponent = call.x, call.input(1)
    if exponent.dtype is not None and exponent.dtype != call.dtype:
        exponent = call.op("Cast", exponent, to=int(call.dtype))
    if 0 in call.wanted:
        known = call.known(1)
        if known is not None and known.size == 1:
            p = float(known.reshape(()))
            slope = _slope(call, x, p)
        else:
            slope = call.mul(exponent, call.op("Pow", x, call.sub(exponent, 1.0)))
            zero = call.op("And", call.op("Not", call.op("Less", exponent, 0.0)),
                           call.op("Not", call.op("Greater", exponent, 0.0)))  # fmt: skip
            slope = call.where(zero, 0.0, slope)  # 0 times infinity at 0
        found[0] = call.sum_to(call.mul(call.grad, slope), 0)
    if 1 in call.wanted:
        positive = call.op("Greater", x, 0.0)
        slope = call.mul(call.y, call.op("Log", call.where(positive, x, 1.0)))
        found[1] = call.sum_to(call.mul(call.grad, slope), 1)
    return found


def _slope(call: Call, x: ir.Value, p: float) -> ir.Value:
    if p == 2:
        return call.mul(x, 2.0)
    if p == 1:
        return call.value(1.0)
    if p == 0:
        return call.value(0.0)
    return call.mul(call.op("Pow", x, p - 1), p)


@rule("Max", "Min")
def extreme(call: Call) -> Gradients:
    """The gradient where an operand is the extreme one, in equal shares where several are."""
    further = "Less" if call.node.op_type == "Max" else "Greater"
    if len(call.node.inputs) == 1:
        return call.grad
    yes = [
        call.op("Cast", call.op("Not", call.op(further, call.input(slot), call.y)), to=int(call.dtype))
        for slot in range(len(call.node.inputs))
    ]
    count = yes[0]
    for other in yes[1:]:
        count = call.add(count, other)
    share = call.div(call.grad, count)
    return {slot: call.sum_to(call.mul(share, yes[slot]), slot) for slot in call.wanted}


@rule("Where")
def where(call: Call) -> Gradients:
    """The gradient for what was chosen."""
    found: dict[int | ir.Value, ir.Value | None] = {}
    if 1 in call.wanted:
        found[1] = call.sum_to(call.only(call.x, call.grad), 1)
    if 2 in call.wanted:
        found[2] = call.sum_to(call.only(call.x, call.grad, unless=True), 2)
    return found
