"""Rules of pooling: windows over positions, each channel by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.registry import Operands, rule
from epsinas_onnx.lump.rules.convolution import countable, merged_positions, small_axes
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.value import Array, Lumped
from epsinas_onnx.lump.windows import Window, averaged, except_at, held, pads_of, seen


@rule("AveragePool", "MaxPool", scaled=True, repeats=True)
def pool(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The mean or the largest of every window: equal channels stay equal, and a positive factor comes out unchanged."""
    (x,) = operands
    shape = _pooled(step, x) or step.out_shape()
    if x is None or shape is None or (len(step.node.outputs) > 1 and step.node.outputs[1].uses()):
        return None
    if x.zero:
        return context.zeros(shape, x.dtype, x.cause)
    if x.factor < 0:
        x = context.settle(x)
    return windows(context, step, x, shape[2:])


@rule("LpPool")
def norm_pool(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The p-norm of every window: equal channels stay equal."""
    (x,) = operands
    shape = step.out_shape()
    if x is None or shape is None:
        return None
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
    """Apply the user's pooling to the maps of a value, in the layout that the provider is fast at.

    All poolings go along one axis after the other. Those whose positions fall into classes are left out by the
    operator, and follow as matrices (sums), or precede as what each window holds of classes (maxima).
    """
    kernel = step.integers("kernel_shape")
    known = kernel is not None and kernel and step.node.op_type in ("AveragePool", "MaxPool", "LpPool")
    found = None
    if known and kernel is not None:
        x = countable(context, x, kernel, space)
        axes = merged_positions(x)
        if context.target.whole_norms and step.node.op_type == "AveragePool":
            axes = small_axes(x, space)
        found = _windows(step, x, kernel, space, axes)
    if found is None:
        x = context.refine(x, (*x.axes[:2], *(Partition.discrete(size) for size in x.shape[2:])))
        found = {}
    if step.node.op_type == "MaxPool":
        return _largest(context, step, x, space, found)
    if step.node.op_type == "AveragePool" and found and context.target.whole_norms:
        return _averaged(context, step, x, space, found)
    power = float(step.integer("p", 2)) if step.node.op_type == "LpPool" else 1.0
    y = _operator(context, step, x, space, dict.fromkeys(found, 1))
    if step.node.op_type == "LpPool" and found:
        y = context.elementwise("Pow", [context.elementwise("Abs", [y]), context.scalar(power, y.dtype)])
    rows = {axis: seen(x.axes[2 + axis], window) for axis, window in found.items()}
    y = context.mix_along(y, {2 + axis: along for axis, along in rows.items()})
    if step.node.op_type == "AveragePool":
        whole = bool(step.integer("count_include_pad", 0))
        counts = [
            np.full(found[axis].count, found[axis].length) if whole else along.rows.sum(axis=1)
            for axis, along in rows.items()
        ]
        return _divided(context, y, [2 + axis for axis in rows], counts)
    return context.elementwise("Pow", [y, context.scalar(1 / power, y.dtype)]) if found else y


def _averaged(context: Context, step: Step, x: Lumped, space: tuple[int, ...], found: dict[int, Window]) -> Lumped:
    """Return the means as one product along some axes; what most windows hold is a factor."""
    whole = bool(step.integer("count_include_pad", 0))
    y = _operator(context, step, x, space, dict.fromkeys(found, 1))
    rows = {axis: averaged(x.axes[2 + axis], window, whole) for axis, window in found.items()}
    y = context.mix_along(y, {2 + axis: along for axis, (along, _) in rows.items()})
    return y.replace(factor=y.factor / math.prod(most for _, most in rows.values()))


def _divided(context: Context, y: Lumped, axes: list[int], counts: list[Array]) -> Lumped:
    """Return sums over how many entries went into each; one number for all is a factor."""
    divisor, parts = np.ones((1,) * y.rank), [Partition.one(1)] * y.rank
    factor = y.factor
    for axis, numbers in zip(axes, counts, strict=True):
        if (numbers == numbers[0]).all():
            factor /= int(numbers[0])
        else:
            parts[axis] = y.axes[axis]
            shape = [1] * y.rank
            shape[axis] = -1
            divisor = divisor * numbers[y.axes[axis].representatives].reshape(shape)
    if divisor.size > 1:
        number = Lumped(tuple(parts), y.dtype, context.constant(divisor.astype(y.dtype.numpy())))
        y = context.elementwise("Div", [y.replace(factor=1.0), number])
    return y.replace(factor=factor)


def _windows(
    step: Step, x: Lumped, kernel: tuple[int, ...], space: tuple[int, ...], axes: list[int]
) -> dict[int, Window] | None:
    """Return the windows along those axes whose positions fall into classes; None where they are not that simple."""
    rank = len(kernel)
    strides, dilations = step.integers("strides") or (1,) * rank, step.integers("dilations") or (1,) * rank
    pads = pads_of(
        step.text("auto_pad", "NOTSET"), step.integers("pads"), kernel, x.shape[2:], strides, dilations
    )  # fmt: skip
    found = {axis: Window(kernel[axis], strides[axis], dilations[axis], pads[axis], space[axis]) for axis in axes}
    for axis, window in found.items():
        end = (window.count - 1) * window.stride + (window.length - 1) * window.dilation + 1
        counted = step.node.op_type == "AveragePool" and step.integer("count_include_pad", 0)
        if counted and end > x.shape[2 + axis] + pads[axis] + pads[axis + rank]:
            return None  # versions of the operator count differently what lies behind the pads
        if not seen(x.axes[2 + axis], window).rows.any(axis=1).all():
            return None  # a window of padding alone
    return found


def _operator(context: Context, step: Step, x: Lumped, space: tuple[int, ...], steps: Mapping[int, int]) -> Lumped:
    """Return the user's operator along all axes but some, along which it takes so many entries at a time."""
    rank = len(space)
    if len(steps) == rank and all(size == 1 for size in steps.values()):
        return x.replace(tensor=context.tensor(x), known=None)
    attributes = step.attributes()
    if steps:
        for name, default in (("kernel_shape", 1), ("strides", 1), ("dilations", 1)):
            given = list(step.integers(name) or (default,) * rank)
            for axis, size in steps.items():
                given[axis] = 1 if name == "dilations" else size
            if name != "dilations" or name in attributes:
                attributes[name] = given
        if "pads" in attributes:
            both = [*steps, *(axis + rank for axis in steps)]
            attributes["pads"] = list(except_at(step.integers("pads") or (), both, 0))
    # Our own evaluator goes over windows wherever they lie.
    maps = context.tensor(x) if context.target.whole_norms and not x.varied else context.as_maps(x)
    out = tuple(x.counts[2 + axis] // steps[axis] if axis in steps else space[axis] for axis in range(rank))
    made = context.op(step.node.op_type, [maps], (*maps.dims[:2], *out), **attributes)
    parts = (x.axes[2 + axis] if steps.get(axis) == 1 else Partition.discrete(out[axis]) for axis in range(rank))
    return context.result(made, (*x.axes[:2], *parts), [x], x.factor)


def _largest(context: Context, step: Step, x: Lumped, space: tuple[int, ...], found: Mapping[int, Window]) -> Lumped:
    """Return the largest of every window: the classes that it holds, one behind the other, are what is looked at."""
    maps = context.worth(x, {2 + axis: held(x.axes[2 + axis], window) for axis, window in found.items()})
    steps = {}
    for axis in found:
        rows = maps[2 + axis].matrix
        steps[axis] = int(rows.sum(axis=1).max())
        # A window with fewer classes than others holds its first one again.
        order = np.argsort(~rows, axis=1, kind="stable")[:, : steps[axis]]
        inside = np.take_along_axis(rows, order, axis=1)
        classes = np.where(inside, order, order[:, :1]).reshape(-1)
        tensor = context.gather(context.canonical(x.replace(factor=1.0)), classes, 2 + axis + x.varied)
        parts = (*x.axes[: 2 + axis], Partition.discrete(classes.size), *x.axes[3 + axis :])
        x = context.result(tensor, parts, [x], x.factor)
    y = _operator(context, step, x, space, steps)
    wanted = (maps[axis].part if axis in maps else y.axes[axis] for axis in range(2, y.rank))
    return y.replace(parts=(*y.axes[:2], *wanted))


@rule("GlobalAveragePool", "GlobalMaxPool", scaled=True, repeats=True)
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
