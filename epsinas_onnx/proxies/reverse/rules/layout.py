"""Derivatives of operators that move entries about: each moves the gradient back."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from epsinas_onnx.proxies.reverse.call import Call
from epsinas_onnx.proxies.reverse.registry import Gradients, rule


@rule("Identity")
def identity(call: Call) -> Gradients:
    """As it is."""
    return call.grad


@rule("Cast", "CastLike")
def cast(call: Call) -> Gradients:
    """Back to the float type that the input has."""
    return call.op("Cast", call.grad, to=int(call.x.dtype or ir.DataType.FLOAT))


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(call: Call) -> Gradients:
    """Back to the shape of the input."""
    return call.write.reshape(call.grad, call.shape())


@rule("Transpose")
def transpose(call: Call) -> Gradients:
    """The inverse order of axes."""
    rank = len(call.shape())
    perm = call.integers("perm") or list(range(rank - 1, -1, -1))
    return call.write.transpose(call.grad, [perm.index(axis) for axis in range(rank)])


@rule("Expand")
def expand(call: Call) -> Gradients:
    """The sum over what was repeated."""
    return call.sum_to(call.grad, 0)


@rule("Tile")
def tile(call: Call) -> Gradients:
    """The sum over the copies."""
    shape, out = call.shape(), call.out
    apart = [size for axis, n in enumerate(shape) for size in (out[axis] // n if n else 0, n)]
    value = call.write.reshape(call.grad, apart)
    return call.write.reduce("ReduceSum", value, list(range(0, len(apart), 2)), keepdims=False)


@rule("Concat")
def concat(call: Call) -> Gradients:
    """The part of each operand."""
    axis = call.axis(default=1)
    found: dict[int | ir.Value, ir.Value | None] = {}
    start = 0
    for slot in range(len(call.node.inputs)):
        end = start + call.shape(slot)[axis]
        if slot in call.wanted:
            found[slot] = call.write.cut(call.grad, [axis], [start], [end])
        start = end
    return found


@rule("Split")
def split(call: Call) -> Gradients:
    """The parts side by side, zeros for those that nothing depends on."""
    axis = call.axis()
    parts = [
        call.write.zeros(call.shape_of(output), call.dtype) if gradient is None else gradient
        for output, gradient in zip(call.node.outputs, call.gradients, strict=True)
        if output.shape is None or call.shape_of(output)[axis]
    ]
    return parts[0] if len(parts) == 1 else call.op("Concat", *parts, axis=axis)


@rule("Slice")
def cut(call: Call) -> Gradients:
    """Put back between zeros."""
    shape, out = call.shape(), call.out
    rank = len(shape)
    if call.opset >= 10:
        begin, end = call.array(1).tolist(), call.array(2).tolist()
        axes = call.array(3).tolist() if call.optional(3) is not None else list(range(len(begin)))
        strides = call.array(4).tolist() if call.optional(4) is not None else [1] * len(begin)
    else:
        begin, end = call.integers("starts") or [], call.integers("ends") or []
        axes, strides = call.integers("axes") or list(range(len(begin))), [1] * len(begin)
    starts, steps, backwards = [0] * rank, [1] * rank, []
    for axis, first, last, step in zip(axes, begin, end, strides, strict=True):
        axis %= rank
        picked = _picked(shape[axis], first, last, step)
        if len(picked) != out[axis]:
            raise call.refuse(f"its bounds along axis {axis} cannot be told")
        if not picked:
            return call.write.zeros(shape, call.dtype)
        if step < 0:
            backwards.append(axis)
        starts[axis], steps[axis] = min(picked), abs(step)
    value = call.write.flip(call.grad, backwards, out)
    return call.write.place(value, out, starts, steps, shape)


def _picked(size: int, first: int, last: int, step: int) -> range:
    """Return the entries of an axis that a Slice takes, its bounds clamped as the specification says."""
    first, last = (bound + size if bound < 0 else bound for bound in (first, last))
    if step < 0:
        return range(min(max(first, 0), size - 1), min(max(last, -1), size - 1), step)
    return range(min(max(first, 0), size), min(max(last, 0), size), step)


@rule("Pad")
def pad(call: Call) -> Gradients:
    """Cut off zeros; what repeats entries adds their gradients up."""
    if call.wanted - {0}:
        raise call.refuse("the filling depends on what is differentiated by")
    shape, mode = call.shape(), call.text("mode", "constant")
    rank = len(shape)
    given = call.array(1).tolist() if call.opset >= 11 else call.integers("pads") or []
    axes = call.array(3).tolist() if call.optional(3) is not None else list(range(rank))
    before, after = [0] * rank, [0] * rank
    for index, axis in enumerate(axes):
        before[axis], after[axis] = given[index], given[index + len(axes)]
    if mode == "constant":
        return call.write.pad(call.grad, [-size for size in before], [-size for size in after])
    value = call.grad
    for axis in range(rank):
        if before[axis] or after[axis]:
            if min(before[axis], after[axis]) < 0:
                raise call.refuse("it cuts entries off and repeats others")
            names = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
            source = np.pad(np.arange(shape[axis]), (before[axis], after[axis]), mode=names[mode])  # type: ignore[call-overload]
            value = call.write.along(value, np.eye(shape[axis])[source], axis, rank, call.dtype)
    return value


@rule("DepthToSpace")
def depth_to_space(call: Call) -> Gradients:
    """The blocks of space back into channels."""
    n, c, *space = call.shape()
    size = call.integer("blocksize", 1)
    apart = [n, c // size**2, space[0], size, space[1], size]
    order = [0, 3, 5, 1, 2, 4] if call.text("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]
    value = call.write.transpose(call.write.reshape(call.grad, apart), order)
    return call.write.reshape(value, call.shape())


@rule("SpaceToDepth")
def space_to_depth(call: Call) -> Gradients:
    """The channels back into blocks of space."""
    n, c, *space = call.shape()
    size = call.integer("blocksize", 1)
    apart = [n, size, size, c, space[0] // size, space[1] // size]
    value = call.write.transpose(call.write.reshape(call.grad, apart), [0, 3, 4, 1, 5, 2])
    return call.write.reshape(value, call.shape())


@rule("Trilu")
def triangle(call: Call) -> Gradients:
    """The same triangle of the gradient."""
    diagonal = call.optional(1)
    return call.op("Trilu", call.grad, *([] if diagonal is None else [diagonal]), upper=call.integer("upper", 1))


@rule("CumSum")
def cumulated(call: Call) -> Gradients:
    """The cumulated sum from the other end."""
    backwards = 1 - call.integer("reverse", 0)
    return call.op("CumSum", call.grad, call.input(1), reverse=backwards, exclusive=call.integer("exclusive", 0))


@rule("ReverseSequence")
def reversed_sequence(call: Call) -> Gradients:
    """The same reversal, which is its own inverse."""
    axes = {name: call.integer(name, default) for name, default in (("time_axis", 0), ("batch_axis", 1))}
    return call.op("ReverseSequence", call.grad, call.input(1), **axes)


@rule("CenterCropPad")
def center_crop_pad(call: Call) -> Gradients:
    """Cropped where it was padded, and padded where it was cropped."""
    shape, out = call.shape(), call.out
    before = []
    for size, made in zip(shape, out, strict=True):
        before.append(-((made - size) // 2) if made > size else (size - made) // 2)
    after = [size - made - first for size, made, first in zip(shape, out, before, strict=True)]
    return call.write.pad(call.grad, before, after)
