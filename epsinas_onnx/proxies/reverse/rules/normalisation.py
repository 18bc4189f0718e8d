"""Derivatives of normalisations, by what they normalise and by their scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from epsinas_onnx.proxies.reverse.call import Call
from epsinas_onnx.proxies.reverse.registry import Gradients, rule


@dataclass(frozen=True)
class _Normalised:
    """x - mean over its deviation, as it was normalised: computed anew. inverse: 1 over the deviation."""

    value: ir.Value
    inverse: ir.Value
    axes: Sequence[int]
    centred: bool

    def backward(self, call: Call, g: ir.Value) -> ir.Value:
        """Return the gradient by x, of which `g` is that by the normalised value."""
        shared = call.write.reduce("ReduceMean", call.mul(g, self.value), self.axes)
        rest = call.sub(g, call.mul(self.value, shared))
        if self.centred:
            rest = call.sub(rest, call.write.reduce("ReduceMean", g, self.axes))
        return call.mul(rest, self.inverse)


def _normalised(call: Call, x: ir.Value, axes: Sequence[int], epsilon: float, centred: bool = True) -> _Normalised:
    if centred:
        x = call.sub(x, call.write.reduce("ReduceMean", x, axes))
    variance = call.write.reduce("ReduceMean", call.mul(x, x), axes)
    inverse = call.op("Reciprocal", call.op("Sqrt", call.add(variance, epsilon)))
    return _Normalised(call.mul(x, inverse), inverse, axes, centred)


def _with_parameters(
    call: Call, normal: _Normalised, scale: ir.Value | None, target: Sequence[int], others: Sequence[int]
) -> dict[int | ir.Value, ir.Value | None]:
    """Return the gradients of an operator that scales and shifts what it normalised.

    target: the shape that scale and shift have. others: the axes along which they are the same.
    """
    found: dict[int | ir.Value, ir.Value | None] = {}
    if 0 in call.wanted:
        found[0] = normal.backward(call, call.grad if scale is None else call.mul(call.grad, scale))
    if 1 in call.wanted:
        total = call.write.reduce("ReduceSum", call.mul(call.grad, normal.value), others)
        found[1] = call.write.reshape(total, target)
    if 2 in call.wanted:
        found[2] = call.write.reshape(call.write.reduce("ReduceSum", call.grad, others), target)
    return found


def _per_channel(call: Call, slot: int) -> ir.Value:
    rank = len(call.shape())
    return call.write.reshape(call.input(slot), [1, call.shape()[1], *([1] * (rank - 2))])


@rule("BatchNormalization")
def batch_normalisation(call: Call) -> Gradients:
    """Scale / deviation in inference form; in training mode that of the minibatch's own mean and variance too."""
    if call.wanted - {0, 1, 2}:
        raise call.refuse("its statistics depend on what is differentiated by")
    epsilon, shape = call.number("epsilon", 1e-5), call.shape()
    axes = [axis for axis in range(len(shape)) if axis != 1]
    scale, target = _per_channel(call, 1), call.shape(1)
    if _trains(call):
        return _with_parameters(call, _normalised(call, call.x, axes, epsilon), scale, target, axes)
    mean, variance = _per_channel(call, 3), _per_channel(call, 4)
    inverse = call.op("Reciprocal", call.op("Sqrt", call.add(variance, epsilon)))
    found: dict[int | ir.Value, ir.Value | None] = {}
    if 0 in call.wanted:
        found[0] = call.mul(call.grad, call.mul(scale, inverse))
    if 1 in call.wanted:
        value = call.mul(call.sub(call.x, mean), inverse)
        found[1] = call.write.reshape(call.write.reduce("ReduceSum", call.mul(call.grad, value), axes), target)
    if 2 in call.wanted:
        found[2] = call.write.reduce("ReduceSum", call.grad, axes, keepdims=False)
    return found


def _trains(call: Call) -> bool:
    if call.opset >= 14:
        return call.integer("training_mode", 0) == 1
    return sum(bool(output.name) for output in call.node.outputs) > 1


@rule("InstanceNormalization")
def instance_normalisation(call: Call) -> Gradients:
    """Over the places of each channel of each sample."""
    rank = len(call.shape())
    normal = _normalised(call, call.x, list(range(2, rank)), call.number("epsilon", 1e-5))
    return _with_parameters(call, normal, _per_channel(call, 1), call.shape(1), [0, *range(2, rank)])


@rule("LayerNormalization", "RMSNormalization")
@rule("SimplifiedLayerNormalization")
def layer_normalisation(call: Call) -> Gradients:
    """Over the last axes; without the mean where only the square is normalised."""
    rank, axis = len(call.shape()), call.axis(default=-1)
    centred = call.node.op_type == "LayerNormalization"
    axes = list(range(axis, rank))
    normal = _normalised(call, call.x, axes, call.number("epsilon", 1e-5), centred)
    scale, target = call.optional(1), call.shape(1)
    ahead = rank - len(target)
    others = [a for a in range(rank) if a < ahead or target[a - ahead] == 1]
    return _with_parameters(call, normal, scale, target, others)


@rule("GroupNormalization")
def group_normalisation(call: Call) -> Gradients:
    """Over the channels of each group; scale and shift are one a group before operator set 21, then one a channel."""
    if call.wanted - {0}:
        raise call.refuse("the scale depends on what is differentiated by")
    n, c, *space = call.shape()
    groups = call.integer("num_groups", 1)
    apart = [n, groups, c // groups, math.prod(space)]
    per_channel = call.shape(1) == (c,) and (call.opset >= 21 or groups == c)
    scale = call.write.reshape(call.input(1), [1, groups, c // groups if per_channel else 1, 1])
    normal = _normalised(call, call.write.reshape(call.x, apart), [2, 3], call.number("epsilon", 1e-5))
    g = call.mul(call.write.reshape(call.grad, apart), scale)
    return call.write.reshape(normal.backward(call, g), call.shape())


@rule("LpNormalization")
def unit_norm(call: Call) -> Gradients:
    """(g - n' sum of g y) / n, with n' the derivative of the norm."""
    axis, p = call.axis(default=-1), call.integer("p", 2)
    op_type = "ReduceL2" if p == 2 else "ReduceL1"
    norm = call.write.reduce(op_type, call.x, [axis])
    slope = call.y if p == 2 else call.op("Sign", call.x)
    shared = call.write.reduce("ReduceSum", call.mul(call.grad, call.y), [axis])
    return call.div(call.sub(call.grad, call.mul(slope, shared)), norm)


@rule("LRN")
def local_response(call: Call) -> Gradients:
    """G d^-b - 2 a b / n x (sum over the channels around of g x d^(-b - 1)), with d what is divided by."""
    alpha, beta, bias = call.number("alpha", 1e-4), call.number("beta", 0.75), call.number("bias", 1.0)
    size, (n, c, *space) = call.integer("size", 1), call.shape()
    distance = np.arange(c)[None] - np.arange(c)[:, None]  # of the channel that is added from the one that is made
    near = (distance >= -((size - 1) // 2)) & (distance <= size - 1 - (size - 1) // 2)
    flat = [n, c, math.prod(space)]
    matrix = near.astype(call.dtype.numpy())
    x, g = call.write.reshape(call.x, flat), call.write.reshape(call.grad, flat)
    around = call.op("MatMul", call.write.constant(matrix), call.mul(x, x))
    divisor = call.add(call.mul(around, alpha / size), bias)
    shared = call.mul(call.mul(g, x), call.op("Pow", divisor, -beta - 1))
    back = call.op("MatMul", call.write.constant(np.ascontiguousarray(matrix.T)), shared)
    direct = call.mul(g, call.op("Pow", divisor, -beta))
    indirect = call.mul(call.mul(x, back), 2 * alpha * beta / size)
    return call.write.reshape(call.sub(direct, indirect), call.shape())


def minibatch_normalised(call: Call) -> Gradients | None:
    """Return the gradient of a normalisation that is written out, from its product back to what is normalised.

    call: a product. None where it is not (x - mean) * (scale / sqrt(mean of (x - mean)^2 + epsilon)), with means over
    the same axes, or where a part of it is differentiated by. A third of the nodes do it that rules one by one take.
    """
    for slot in (0, 1):
        centred, factor = call.input(slot), call.input(1 - slot)
        division, deviation = _made_by(factor, "Div"), None
        if division is not None and division.inputs[0] not in call.active:
            deviation = _made_by(division.inputs[1], "Sqrt")
        total = None if deviation is None else _made_by(deviation.inputs[0], "Add")
        variance = None if total is None else _made_by(total.inputs[0], "ReduceMean")
        square = None if variance is None else _made_by(variance.inputs[0], "Mul")
        difference = _made_by(centred, "Sub")
        mean = None if difference is None else _made_by(difference.inputs[1], "ReduceMean")
        if square is None or variance is None or total is None or mean is None or difference is None:
            continue
        x, sized = difference.inputs[0], deviation.inputs[0] if deviation is not None else None
        if x is None or sized is None or any(value is not centred for value in square.inputs):
            continue
        axes = _reduced(call, mean)
        parts = {centred, factor, sized, *_made(deviation, variance, square, mean)}
        fits = mean.inputs[0] is x and axes is not None and axes == _reduced(call, variance)
        inner = total.inputs[1] in call.active or parts & call.wrt  # a part has a derivative of its own
        if not fits or axes is None or inner or call.out != call.shape_of(x) or x not in call.active:
            continue
        g = call.grad
        share = call.div(call.write.reduce("ReduceMean", call.mul(g, centred), axes), sized)
        rest = call.sub(g, call.mul(centred, share))
        rest = call.sub(rest, call.write.reduce("ReduceMean", g, axes))
        return {x: call.mul(rest, factor)}
    return None


def _made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type and node.domain == "" else None


def _made(*nodes: ir.Node | None) -> list[ir.Value]:
    """Return what nodes make."""
    return [output for node in nodes if node is not None for output in node.outputs]


def _reduced(call: Call, node: ir.Node) -> list[int] | None:
    """Return the axes of a mean that keeps its dimensions, None for another one."""
    attribute = node.attributes.get("axes")
    given = None if attribute is None else list(attribute.as_ints())
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        known = call.scope.constants.of(node.inputs[1])
        given = None if known is None else known.reshape(-1).tolist()
    if not given or node.attributes.get_int("keepdims", 1) != 1:
        return None
    rank = len(call.out)
    return sorted(axis % rank for axis in given)
