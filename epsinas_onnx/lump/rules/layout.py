"""Rules of operators that move entries about: reshaping, transposing, stretching, joining and cutting."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.partition import Integers, Partition, check_length, concatenate, every, repeated
from epsinas_onnx.lump.registry import Operands, Outcome, rule
from epsinas_onnx.lump.reshape import reshaped
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.tables import table_rows
from epsinas_onnx.lump.value import Dims, Lumped, Parts

_KNOWN_SIZE = 2**22
"""Entries up to which what is chosen of a known value is known as well."""


def known_ints(value: Lumped | None) -> tuple[int, ...] | None:
    """Return the integers of a value that is known while the graph is built, else None."""
    if value is None or value.known is None:
        return None
    return tuple(int(item) for item in np.atleast_1d(value.known))


def relabelled(context: Context, value: Lumped, parts: Parts) -> Lumped:
    """Return the value under other partitions of as many classes in the same order."""
    return value.replace(parts=parts, tensor=context.tensor(value), known=None, table=None)


@rule("Reshape", scaled=True)
def reshape(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The same entries in another shape: merged axes have product partitions, split ones where they are products."""
    x = operands[0]
    target = step.out_shape()
    if x is None:
        return None
    given = step.integers("shape") if len(operands) < 2 else known_ints(operands[1])
    if given is not None:
        target = _wanted(x.shape, given, bool(step.integer("allowzero", 0)))
    return None if target is None else reshaped(context, x, target)


def _wanted(shape: Dims, given: Sequence[int], zeros: bool) -> Dims:
    dims = [shape[axis] if dim == 0 and not zeros else dim for axis, dim in enumerate(given)]
    if -1 in dims:
        rest = math.prod(dim for dim in dims if dim != -1)
        dims[dims.index(-1)] = math.prod(shape) // max(1, rest)
    return tuple(dims)


@rule("Flatten", scaled=True, repeats=True)
def flatten(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Two axes: everything in front of `axis`, and the rest."""
    (x,) = operands
    if x is None:
        return None
    axis = step.integer("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    return reshaped(context, x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@rule("Squeeze", scaled=True)
def squeeze(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Drop axes of size 1."""
    x, axes = [*operands, None][:2]
    if x is None or (axes is not None and axes.known is None):
        return None
    given = step.integers("axes") if axes is None else known_ints(axes)
    chosen = {axis % x.rank for axis in given} if given is not None else {a for a, d in enumerate(x.shape) if d == 1}
    return relabelled(context, x, tuple(part for axis, part in enumerate(x.axes) if axis not in chosen))


@rule("Unsqueeze", scaled=True)
def unsqueeze(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Insert axes of size 1."""
    x, axes = [*operands, None][:2]
    given = step.integers("axes") if axes is None else known_ints(axes)
    if x is None or given is None:
        return None
    rank = x.rank + len(given)
    inserted = {axis % rank for axis in given}
    rest = iter(x.axes)
    return relabelled(context, x, tuple(Partition.one(1) if axis in inserted else next(rest) for axis in range(rank)))


@rule("Transpose", scaled=True, repeats=True)
def transpose(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Axes in another order take their partitions with them."""
    (x,) = operands
    if x is None:
        return None
    return permuted(context, x, step.integers("perm") or tuple(reversed(range(x.rank))))


def permuted(context: Context, x: Lumped, order: Sequence[int]) -> Lumped:
    """Return a value with its axes in another order; a pending factor stays."""
    tensor = context.canonical(x.replace(factor=1.0))
    made = context.transpose(tensor, [0, *(axis + 1 for axis in order)] if x.varied else order)
    return context.result(made, tuple(x.axes[axis] for axis in order), [x], x.factor)


@rule("Expand", scaled=True)
def expand(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Broadcast to a shape: an axis of size 1 becomes one class of any size, and nothing is computed."""
    x, target = operands
    if x is None:
        return None
    shape = known_ints(target) if target is not None else None
    shape = tuple(np.broadcast_shapes(x.shape, shape)) if shape is not None else step.out_shape()
    return None if shape is None else broadcast_to(context, x, shape)


def broadcast_to(context: Context, x: Lumped, shape: Dims) -> Lumped:
    """Return a value broadcast to a larger shape; new and stretched axes are one class each."""
    if 0 in shape:
        parts = tuple(Partition.discrete(size) for size in shape)
        return Lumped(parts, x.dtype, context.constant(np.zeros(shape, x.dtype.numpy())))
    aligned = (*(Partition.one(1),) * (len(shape) - x.rank), *x.axes)
    parts = tuple(part if part.size == size else Partition.one(size) for part, size in zip(aligned, shape, strict=True))
    return relabelled(context, x, parts)


@rule("ConstantOfShape")
def constant_of_shape(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """One number everywhere: one class along every axis."""
    shape = known_ints(operands[0]) if operands[0] is not None else None
    shape = step.out_shape() if shape is None else shape
    if shape is None or 0 in shape:
        return None
    value = step.node.attributes.get("value")
    number = np.zeros(1, np.float32) if value is None else value.as_tensor().numpy().reshape(-1)
    dtype = ir.DataType.from_numpy(number.dtype)
    tensor = context.constant(number.reshape((1,) * len(shape)))
    return Lumped(tuple(map(Partition.one, shape)), dtype, tensor, zero=not number.any())


@rule("Concat", scaled=True, repeats=True)
def join(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """[n, a] ++ [n, b] -> [n, a + b]: the classes of the operands one behind the other."""
    values = [operand for operand in operands if operand is not None]
    return joined(context, values, step.integer("axis", 1) % values[0].rank)


def joined(context: Context, values: Sequence[Lumped], axis: int) -> Lumped:
    """Return values laid end to end along an axis.

    Entries of different operands are never merged along the axis, unless they come from the very same tensor; along
    all other axes the operands are refined to a common partition. A common factor stays pending.
    """
    values = [value for value in values if 0 not in value.shape] or values
    if len(values) == 1:
        return values[0]
    factor = values[0].factor
    if any(value.factor != factor for value in values):
        values, factor = [context.settle(value) for value in values], 1.0
    values = [value.replace(factor=1.0) for value in values]
    parts = list(values[0].axes)
    for value in values[1:]:
        parts = [part.join(other) if i != axis else part for i, (part, other) in enumerate(
            zip(parts, value.axes, strict=True))]  # fmt: skip
    values = [context.refine(value, (*parts[:axis], value.axes[axis], *parts[axis + 1 :])) for value in values]
    varied = any(value.varied for value in values)
    first = values[0]
    if all(context.alike(first, value, axis) for value in values[1:]):
        whole = repeated([value.axes[axis] for value in values])
        if whole is not None:
            return relabelled(context, first, (*parts[:axis], whole, *parts[axis + 1 :])).replace(factor=factor)
    tensors = [context.in_all(value) if varied else context.canonical(value) for value in values]
    place = axis + varied
    shape = list(tensors[0].dims)
    shape[place] = sum(tensor.dims[place] for tensor in tensors)
    made = context.op("Concat", tensors, tuple(shape), axis=place)
    whole = concatenate([value.axes[axis] for value in values])
    y = context.result(made, (*parts[:axis], whole, *parts[axis + 1 :]), values, factor)
    return y.replace(zero=all(value.zero for value in values))


@rule("Split", scaled=True)
def split(context: Context, step: Step, operands: Operands) -> Outcome:
    """Cut an axis: each piece keeps the classes that it holds."""
    x, sizes = [*operands, None][:2]
    if x is None or (sizes is not None and sizes.known is None):
        return None
    axis = step.integer("axis", 0) % x.rank
    count = len(step.node.outputs)
    lengths = step.integers("split") if sizes is None else known_ints(sizes)
    if lengths is None:
        each = -(-x.shape[axis] // count)
        lengths = tuple(min(each, x.shape[axis] - each * index) for index in range(count))
    pieces, start = [], 0
    for length in lengths:
        pieces.append(chosen(context, x, axis, every(start, start + length)))
        start += length
    return pieces


def chosen(context: Context, x: Lumped, axis: int, indices: Integers) -> Lumped:
    """Return the entries of a value at known indices along an axis: the classes that are among them."""
    part, classes = x.axes[axis].restrict(indices)
    parts = (*x.axes[:axis], part, *x.axes[axis + 1 :])
    if x.known is not None and x.known.size // max(1, x.shape[axis]) * indices.size <= _KNOWN_SIZE:
        return context.known(np.take(x.known, indices, axis), x.dtype)
    have = x.axes[axis].count
    if classes.size == have and bool((classes == np.arange(have)).all()):
        return relabelled(context, x, parts)
    tensor = context.canonical(x.replace(factor=1.0))
    place = axis + x.varied
    steps = np.diff(classes)
    if classes.size > 1 and bool((steps == steps[0]).all()) and steps[0] > 0:
        tensor = context.slice(tensor, [int(classes[0])], [int(classes[-1]) + 1], [place], [int(steps[0])])
    else:
        tensor = context.gather(tensor, classes, place)
    return context.result(tensor, parts, [x], x.factor).replace(zero=x.zero)


@rule("Slice", scaled=True)
def cut(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """A range of an axis keeps the classes that it holds; negative steps turn it round."""
    x = operands[0]
    if x is None:
        return None
    if len(operands) > 1:
        if any(operand is not None and operand.known is None for operand in operands[1:]):
            return None
        starts, ends, axes, steps = ([known_ints(operand) for operand in operands[1:]] + [None, None])[:4]
    else:
        starts, ends, axes, steps = step.integers("starts"), step.integers("ends"), step.integers("axes"), None
    if starts is None or ends is None:
        return None
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    for start, end, axis, stride in zip(starts, ends, axes, steps, strict=True):
        axis %= x.rank
        size = x.shape[axis]
        # ONNX clamps a start in front of the axis to its first entry, whichever way the steps go; NumPy does not.
        start, stop = max(start, -size), None if stride < 0 and end < -size else end
        x = chosen(context, x, axis, every(size)[slice(start, stop, stride)])
    return x


@rule("Gather")
def gather(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Entries at indices along an axis: known indices pick classes, computed ones need every index by itself.

    A table of equal rows gives the same whatever the indices are. The rows of an embedding table are computed for the
    indices that occur, not for all there are.
    """
    x, indices = operands
    if x is None or indices is None:
        return None
    axis = step.integer("axis", 0) % x.rank
    if x.table is not None and x.tensor is None and axis == 0 and indices.known is None and not indices.varied:
        parts = (*indices.axes, Partition.discrete(x.shape[1]))
        return context.result(table_rows(context, x, context.canonical(indices)), parts, [x, indices])
    if indices.known is not None:
        numbers = np.where(indices.known < 0, indices.known + x.shape[axis], indices.known).astype(np.int64)
        y = chosen(context, x, axis, numbers.reshape(-1))
        shape = (*x.shape[:axis], *numbers.shape, *x.shape[axis + 1 :])
        return reshaped(context, y, shape)
    if x.axes[axis].is_one and 0 not in indices.shape:
        ones = tuple(Partition.one(size) for size in indices.shape)
        return relabelled(context, x, (*x.axes[:axis], *ones, *x.axes[axis + 1 :]))
    if indices.varied:
        return None
    x = context.refine(x, (*x.axes[:axis], Partition.discrete(x.shape[axis]), *x.axes[axis + 1 :]))
    tensor, places = context.canonical(x), context.canonical(indices)
    place = axis + x.varied
    shape = (*tensor.dims[:place], *places.dims, *tensor.dims[place + 1 :])
    made = context.op("Gather", [tensor, places], shape, axis=place)
    return context.result(made, (*x.axes[:axis], *indices.axes, *x.axes[axis + 1 :]), [x, indices])


@rule("Tile", scaled=True)
def tile(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Repeat axes: a repetition holds the classes of the original."""
    x = operands[0]
    repeats = known_ints(operands[1]) if len(operands) == 2 else None
    if x is None or repeats is None or 0 in repeats:
        return None
    for part, times in zip(x.axes, repeats, strict=True):
        check_length(part.size * times if times > 1 else 0)
    parts = tuple(
        part if times == 1 else Partition.of(np.tile(part.labels, times))
        for part, times in zip(x.axes, repeats, strict=True)
    )
    return relabelled(context, x, parts)
