"""Rules of pooling: windows over positions, each channel by itself."""

from __future__ import annotations

import math

from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.registry import Operands, rule
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.value import Lumped


@rule("AveragePool", "MaxPool", scaled=True)
def pool(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The mean or the largest of every window: equal channels stay equal, and a positive factor comes out unchanged."""
    (x,) = operands
    shape = _pooled(step, x) or step.out_shape()
    if x is None or shape is None or (len(step.node.outputs) > 1 and step.node.outputs[1].uses()):
        return None
    if x.factor < 0:
        x = context.settle(x)
    space = tuple(Partition.discrete(size) for size in x.shape[2:])
    x = context.refine(x, (*x.axes[:2], *space))
    return windows(context, step, x, shape[2:])


@rule("LpPool")
def norm_pool(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The p-norm of every window: equal channels stay equal."""
    (x,) = operands
    shape = step.out_shape()
    if x is None or shape is None:
        return None
    x = context.refine(x, (*x.axes[:2], *(Partition.discrete(size) for size in x.shape[2:])))
    return windows(context, step, x, shape[2:])


def _pooled(step: Step, x: Lumped | None) -> tuple[int, ...] | None:
    """Return the output's shape where pads are given; it needs no inference.

    Rounding up, ONNX Runtime leaves out a window that would begin in the pads behind; ONNX's inference counts it.
    """
    kernel = step.integers("kernel_shape")
    if x is None or kernel is None or step.text("auto_pad", "NOTSET") != "NOTSET":
        return None
    rank = len(kernel)
    strides, dilations = step.integers("strides") or (1,) * rank, step.integers("dilations") or (1,) * rank
    pads = step.integers("pads") or (0,) * (2 * rank)
    up = step.integer("ceil_mode", 0) == 1
    space = []
    for axis, size in enumerate(x.shape[2:]):
        stride = strides[axis]
        free = size + pads[axis] + pads[axis + rank] - dilations[axis] * (kernel[axis] - 1) - 1
        count = (-(-free // stride) if up else free // stride) + 1
        if up and (count - 1) * stride >= size + pads[axis]:
            count -= 1
        space.append(count)
    return (*x.shape[:2], *space)


def windows(context: Context, step: Step, x: Lumped, space: tuple[int, ...]) -> Lumped:
    """Apply the user's pooling to the maps of a value, in the layout that the provider is fast at."""
    maps = context.as_maps(x)
    made = context.op(step.node.op_type, [maps], (*maps.dims[:2], *space), **step.attributes())
    return context.result(made, (*x.axes[:2], *(Partition.discrete(size) for size in space)), [x], x.factor)


@rule("GlobalAveragePool", "GlobalMaxPool", scaled=True)
def pool_everything(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The mean or the largest over all positions."""
    (x,) = operands
    if x is None:
        return None
    axes = list(range(2, x.rank))
    if step.node.op_type == "GlobalAveragePool":
        return context.mean(x, axes)
    x = context.settle(x)
    tensor = context.tensor(x)
    if math.prod(x.counts[2:]) != 1:
        tensor = context.reduce("ReduceMax", context.canonical(x), [axis + x.varied for axis in axes])
    parts = (*x.axes[:2], *(Partition.one(1),) * len(axes))
    return x.replace(parts=parts, tensor=tensor, known=None)
