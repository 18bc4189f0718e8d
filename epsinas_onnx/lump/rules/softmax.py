"""Rules of softmax and its kin: the sum in the denominator counts a class as often as it has indices."""

from __future__ import annotations

import math

import numpy as np

from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.registry import Operands, rule
from epsinas_onnx.lump.reshape import reshaped
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.value import Cause, Lumped

_EVEN = "gives identical values equal shares, whatever they are"


@rule("Softmax", "LogSoftmax")
def softmax(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """exp(x_j) / sum over k: exp(x_k), along one axis; before operator set 13 along all axes from `axis` on.

    With classes of n_j indices the softmax over classes of x_j + log n_j is n_j times the wanted share. A single class
    of n indices gets 1 / n, which does not depend on anything.
    """
    (x,) = operands
    if x is None:
        return None
    if context.opset < 13:
        axis = step.integer("axis", 1) % max(1, x.rank)
        flat = reshaped(context, x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
        return reshaped(context, shares(context, step, flat, 1, step.node.op_type), x.shape)
    return shares(context, step, x, step.integer("axis", -1) % max(1, x.rank), step.node.op_type)


def shares(context: Context, step: Step, x: Lumped, axis: int, op_type: str = "Softmax") -> Lumped:
    """Return the softmax, or its logarithm, along one axis."""
    part = x.axes[axis]
    sizes = part.sizes
    logarithm = op_type == "LogSoftmax"
    if part.is_one and part.size:
        cause = Cause(step.node, _EVEN, step.order) if x.depends else x.cause
        context.guard(x)
        return context.filled(-math.log(part.size) if logarithm else 1 / part.size, x.shape, x.dtype, cause)
    if not part.uniform:
        x = context.add(x, _along(context, x, axis, part, np.log(sizes)))
    tensor = context.canonical(x)
    place = axis + x.varied
    # Before operator set 13 the axes behind the given one belong to it, so it is moved to the end.
    last = len(tensor.dims) - 1
    order = [index for index in range(last + 1) if index != place] + [place]
    moved = context.opset < 13 and place != last
    if moved:
        tensor = context.transpose(tensor, order)
    made = context.op(op_type, [tensor], tensor.dims, axis=last if moved else place)
    if moved:
        made = context.transpose(made, [order.index(index) for index in range(last + 1)])
    y = context.result(made, x.axes, [x])
    if part.uniform and sizes[0] == 1:
        return y
    if logarithm:
        return context.elementwise("Sub", [y, _along(context, x, axis, part, np.log(sizes))])
    if part.uniform:
        return context.settle(y.replace(factor=1 / int(sizes[0])))
    return context.elementwise("Div", [y, _along(context, x, axis, part, sizes)])


def _along(context: Context, x: Lumped, axis: int, part: Partition, numbers: np.ndarray) -> Lumped:
    shape = [1] * x.rank
    shape[axis] = numbers.size
    parts = tuple(part if index == axis else Partition.one(1) for index in range(x.rank))
    return Lumped(parts, x.dtype, context.constant(numbers.astype(x.dtype.numpy()).reshape(shape)))
