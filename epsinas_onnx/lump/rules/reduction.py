"""Rules of reductions: sums and means weigh classes by their sizes, extremes ask each class once."""

from __future__ import annotations

import numpy as np

from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.registry import Operands, rule
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.value import Lumped


def reduced_axes(step: Step, x: Lumped, axes: Lumped | None) -> list[int] | None:
    """Return the axes of a reduction, from its attribute or its second input; None where they are not known.

    Without axes all are meant, or none where `noop_with_empty_axes` says so.
    """
    given = step.integers("axes")
    if axes is not None:
        if axes.known is None:
            return None
        given = tuple(int(axis) for axis in np.atleast_1d(axes.known))
    if not given:
        return [] if step.integer("noop_with_empty_axes", 0) else list(range(x.rank))
    return sorted({axis % x.rank for axis in given})


@rule("ReduceSum", "ReduceMean", scaled=True)
def linear_reduction(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The sum or the mean over axes; a mean over one class is that class."""
    x, axes = _operands(context, step, operands)
    if x is None or axes is None:
        return None
    y = context.total(x, axes) if step.node.op_type == "ReduceSum" else context.mean(x, axes)
    return finished(context, step, y, axes)


@rule("ReduceMax", "ReduceMin")
def extreme(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The largest or smallest entry: how often it occurs does not matter."""
    x, axes = _operands(context, step, operands)
    if x is None or axes is None:
        return None
    longer = [axis for axis in axes if x.axes[axis].count != 1]
    y = _over(context, step.node.op_type, x, axes, longer)
    return finished(context, step, y, axes)


@rule("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
def sum_of_function(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """g(sum of f(x)): f is taken of each class, and the sum weighs classes by their sizes.

    ReduceLogSumExp takes the largest entry out of the exponents first, as ONNX Runtime does.
    """
    x, axes = _operands(context, step, operands)
    if x is None or axes is None or (not x.dtype.is_floating_point() and step.node.op_type != "ReduceSumSquare"):
        return None
    match step.node.op_type:
        case "ReduceL1":
            y = context.settle(context.total(context.elementwise("Abs", [x]), axes))
        case "ReduceL2":
            y = context.elementwise("Sqrt", [context.total(context.mul(x, x), axes)])
        case "ReduceSumSquare":
            y = context.total(context.mul(x, x), axes)
        case "ReduceLogSum":
            y = context.elementwise("Log", [context.total(x, axes)])
        case _:
            top = _over(context, "ReduceMax", x, axes, [axis for axis in axes if x.axes[axis].count != 1])
            powers = context.elementwise("Exp", [context.elementwise("Sub", [x, top])])
            y = context.add(context.elementwise("Log", [context.total(powers, axes)]), top)
    return finished(context, step, context.settle(y), axes)


@rule("ReduceProd")
def product(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The product over axes: a class of n equal entries contributes its n-th power."""
    x, axes = _operands(context, step, operands)
    if x is None or axes is None or not x.dtype.is_floating_point():
        return None
    for axis in axes:
        sizes = x.axes[axis].sizes
        if (sizes != 1).any():
            shape = [1] * x.rank
            shape[axis] = sizes.size
            powers = context.constant(sizes.astype(x.dtype.numpy()).reshape(shape))
            parts = tuple(part if i == axis else type(part).one(1) for i, part in enumerate(x.axes))
            x = context.elementwise("Pow", [x, Lumped(parts, x.dtype, powers)])
    longer = [axis for axis in axes if x.axes[axis].count != 1]
    return finished(context, step, _over(context, "ReduceProd", x, axes, longer), axes)


def _operands(context: Context, step: Step, operands: Operands) -> tuple[Lumped | None, list[int] | None]:
    x, given = [*operands, None][:2]
    return (None, None) if x is None else (x, reduced_axes(step, x, given))


def _over(context: Context, op_type: str, x: Lumped, axes: list[int], longer: list[int]) -> Lumped:
    tensor = context.tensor(x)
    if longer:
        tensor = context.reduce(op_type, context.canonical(x), [axis + x.varied for axis in longer])
    parts = tuple(type(part).one(1) if axis in axes else part for axis, part in enumerate(x.axes))
    return x.replace(parts=parts, tensor=tensor, known=None)


def finished(context: Context, step: Step, y: Lumped, axes: list[int]) -> Lumped:
    """Return a reduced value with its axes dropped where the node does not keep them."""
    if step.integer("keepdims", 1) or not axes:
        return y
    parts = tuple(part for axis, part in enumerate(y.axes) if axis not in axes)
    return y.replace(parts=parts, tensor=context.tensor(y), known=None)
