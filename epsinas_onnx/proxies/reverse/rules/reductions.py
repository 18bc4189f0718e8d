"""Derivatives of reductions along axes."""

from __future__ import annotations

import math

import onnx_ir as ir

from epsinas_onnx.proxies.reverse.call import Call
from epsinas_onnx.proxies.reverse.registry import Gradients, rule


class _Reduced:
    """The output of a reduction and its gradient with all axes kept, and what the input is summed over."""

    def __init__(self, call: Call) -> None:
        shape = call.shape()
        rank = len(shape)
        listed = call.integers("axes")
        if call.optional(1) is not None:
            listed = call.array(1).reshape(-1).tolist()
        if not listed:
            listed = [] if call.integer("noop_with_empty_axes", 0) else list(range(rank))
        self.axes = sorted(axis % rank for axis in listed)
        self.kept = tuple(1 if axis in self.axes else size for axis, size in enumerate(shape))
        self.count = math.prod(shape[axis] for axis in self.axes)
        self.call, self.shape = call, shape

    @property
    def grad(self) -> ir.Value:
        return self._kept(self.call.grad)

    @property
    def y(self) -> ir.Value:
        return self._kept(self.call.y)

    def _kept(self, value: ir.Value) -> ir.Value:
        return value if self.call.out == self.kept else self.call.write.reshape(value, self.kept)

    def spread(self, value: ir.Value) -> ir.Value:
        """Append a gradient that is the same for all entries of a sum."""
        return self.call.write.expand(value, self.shape, self.call.dtype)


@rule("ReduceSum")
def total(call: Call) -> Gradients:
    """The gradient for each term."""
    reduced = _Reduced(call)
    return reduced.spread(reduced.grad)


@rule("ReduceMean")
def mean(call: Call) -> Gradients:
    """The gradient over the number of terms."""
    reduced = _Reduced(call)
    return reduced.spread(call.mul(reduced.grad, 1 / max(reduced.count, 1)))


@rule("ReduceMax", "ReduceMin")
def extreme(call: Call) -> Gradients:
    """The gradient for the extreme entries, in equal shares."""
    reduced = _Reduced(call)
    further = "Less" if call.node.op_type == "ReduceMax" else "Greater"
    yes = call.op("Cast", call.op("Not", call.op(further, call.x, reduced.y)), to=int(call.dtype))
    count = call.write.reduce("ReduceSum", yes, reduced.axes)
    return call.mul(yes, call.div(reduced.grad, count))


@rule("ReduceProd")
def product(call: Call) -> Gradients:
    """G y / x, which is no number where an entry is 0."""
    reduced = _Reduced(call)
    return call.div(call.mul(reduced.grad, reduced.y), call.x)


@rule("ReduceL1")
def absolute(call: Call) -> Gradients:
    """The sign of each entry."""
    return call.mul(_Reduced(call).grad, call.op("Sign", call.x))


@rule("ReduceL2")
def norm(call: Call) -> Gradients:
    """X / y, and 0 for a norm of 0."""
    reduced = _Reduced(call)
    y = reduced.y
    positive = call.op("Greater", y, 0.0)
    share = call.where(positive, call.div(reduced.grad, call.where(positive, y, 1.0)), 0.0)
    return call.mul(call.x, share)


@rule("ReduceSumSquare")
def squares(call: Call) -> Gradients:
    """Twice each entry."""
    return call.mul(call.x, call.mul(_Reduced(call).grad, 2.0))


@rule("ReduceLogSum")
def logarithm(call: Call) -> Gradients:
    """1 over the sum, for each term."""
    reduced = _Reduced(call)
    return reduced.spread(call.div(reduced.grad, call.op("Exp", reduced.y)))


@rule("ReduceLogSumExp")
def soft_maximum(call: Call) -> Gradients:
    """exp(x - y)."""
    reduced = _Reduced(call)
    return call.mul(reduced.grad, call.op("Exp", call.sub(call.x, reduced.y)))


@rule("GlobalAveragePool")
def global_average(call: Call) -> Gradients:
    """The gradient over the number of places."""
    shape = call.shape()
    return call.write.expand(call.mul(call.grad, 1 / math.prod(shape[2:])), shape, call.dtype)


@rule("GlobalMaxPool")
def global_maximum(call: Call) -> Gradients:
    """The gradient for the largest entries of each channel, in equal shares."""
    yes = call.op("Cast", call.op("Not", call.op("Less", call.x, call.y)), to=int(call.dtype))
    count = call.write.reduce("ReduceSum", yes, list(range(2, len(call.shape()))))
    return call.mul(yes, call.div(call.grad, count))
