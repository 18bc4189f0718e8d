"""Rules of operators that make images larger or smaller without weights: padding, interpolation, pixel shuffles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.interpolation import Interpolation, interpolated
from epsinas_onnx.lump.partition import LONGEST_LABELLED, Partition, check_length, every
from epsinas_onnx.lump.registry import Operands, rule
from epsinas_onnx.lump.reshape import reshaped
from epsinas_onnx.lump.rules.layout import chosen, known_ints, permuted, relabelled
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.value import Array, Dims, Lumped
from epsinas_onnx.lump.windows import Along


@rule("Pad")
def pad(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """More entries at both ends of axes.

    Constant padding puts a class in front of and behind the others of each axis; where they hold the same number along
    all other axes, that is one class. The other modes copy entries of the axis, which is a choice of indices.
    """
    x = operands[0]
    if x is None:
        return None
    if len(operands) > 1:
        if any(operand is not None and operand.known is None for operand in operands[1:]):
            return None
        pads = known_ints(operands[1])
        fill = operands[2].known if len(operands) > 2 and operands[2] is not None else None
        number = 0.0 if fill is None else float(fill.reshape(-1)[0])
        axes = known_ints(operands[3]) if len(operands) > 3 else None
    else:
        pads, number, axes = step.integers("pads"), step.number("value", 0.0), None
    if pads is None or (not x.dtype.is_floating_point() and step.text("mode", "constant") == "constant"):
        return None
    chosen_axes = range(x.rank) if axes is None else [axis % x.rank for axis in axes]
    for place, axis in enumerate(chosen_axes):
        front, behind = pads[place], pads[place + len(pads) // 2]
        x = _padded(context, x, axis, front, behind, step.text("mode", "constant"), number)
    return x


def _padded(context: Context, x: Lumped, axis: int, front: int, behind: int, mode: str, number: float) -> Lumped:
    size = x.shape[axis]
    if front < 0 or behind < 0:
        x = chosen(context, x, axis, every(max(0, -front), size + min(0, behind)))
        front, behind, size = max(0, front), max(0, behind), x.shape[axis]
    if front == behind == 0:
        return x
    if mode != "constant":
        check_length(size + front + behind)
        kind = {"edge": "edge", "reflect": "reflect", "wrap": "wrap"}[mode]
        return chosen(context, x, axis, np.pad(every(size), (front, behind), kind))  # type: ignore[call-overload]
    if x.zero and number == 0:
        parts = (*x.axes[:axis], Partition.one(size + front + behind), *x.axes[axis + 1 :])
        return context.zeros(tuple(part.size for part in parts), x.dtype, x.cause)
    check_length(size + front + behind)
    part = x.axes[axis]
    extra = tuple(Partition.one(have.count) if i != axis else Partition.one(1) for i, have in enumerate(x.axes))
    dims = (*((context.constants,) if x.varied else ()), *(p.size for p in extra))
    ring = context.repeated(number, dims, x.dtype)
    tensor = context.canonical(x)
    place = axis + x.varied
    # One class of padding serves both ends; it is the first where there is padding in front.
    shape = tuple(dim + 1 if index == place else dim for index, dim in enumerate(tensor.dims))
    pieces = [ring, tensor] if front else [tensor, ring]
    made = context.op("Concat", pieces, shape, axis=place)
    outside = 0 if front else part.count
    inner = part.labels + 1 if front else part.labels
    labels = np.concatenate([np.full(front, outside), inner, np.full(behind, outside)])
    whole = Partition(labels.size, part.count + 1, labels) if part.count + 1 < labels.size else Partition.of(labels)
    return context.result(made, (*x.axes[:axis], whole, *x.axes[axis + 1 :]), [x])


@rule("DepthToSpace", scaled=True)
def depth_to_space(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Blocks of channels become squares of positions: a Reshape, a Transpose and a Reshape (ONNX DepthToSpace)."""
    (x,) = operands
    if x is None:
        return None
    n, c, h, w = x.shape
    size = step.integer("blocksize", 1)
    inner = c // (size * size)
    if step.text("mode", "DCR") == "DCR":
        cut_up, order = (n, size, size, inner, h, w), (0, 3, 4, 1, 5, 2)
    else:
        cut_up, order = (n, inner, size, size, h, w), (0, 1, 4, 2, 5, 3)
    return reshaped(context, permuted(context, reshaped(context, x, cut_up), order), (n, inner, h * size, w * size))


@rule("SpaceToDepth", scaled=True)
def space_to_depth(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Squares of positions become blocks of channels (ONNX SpaceToDepth)."""
    (x,) = operands
    if x is None:
        return None
    n, c, h, w = x.shape
    size = step.integer("blocksize", 1)
    cut_up = (n, c, h // size, size, w // size, size)
    moved = permuted(context, reshaped(context, x, cut_up), (0, 3, 5, 1, 2, 4))
    return reshaped(context, moved, (n, c * size * size, h // size, w // size))


@rule("Resize", "Upsample")
def resize(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Interpolate along axes: an axis of one class stays one, and so do the classes of axes of scale 1.

    ONNX interpolates one axis after the other, with weights that sum to 1 (it repeats the last entry past an end).
    The operator runs on a stack of maps of representatives, with scale 1 along the axes that keep their classes, and
    along those whose classes become others: these are multiplied by a matrix of the weights.
    """
    x = operands[0]
    shape = step.out_shape()
    if x is None or shape is None or len(shape) != x.rank or x.rank < 3 or 0 in x.shape or 0 in shape:
        return None
    if step.text("coordinate_transformation_mode", "") == "tf_crop_and_resize" or step.integers("axes") is not None:
        return None
    if step.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    if any(operand is not None and operand.known is None for operand in operands[1:]):
        return None
    arrays = [None if operand is None else operand.known for operand in operands[1:]]
    attributes = step.attributes()
    place = 0 if len(arrays) == 1 else 1  # the region of interest came in front of the scales with operator set 11
    sizes = arrays[2] if len(arrays) > 2 else None
    sized = sizes is not None and sizes.size > 0
    if sized:
        scales = np.asarray(shape) / np.asarray(x.shape)
    else:
        scales = np.asarray(arrays[place] if arrays else attributes["scales"].value)
    if scales.size != x.rank or (scales[:2] != 1).any():
        return None
    # ONNX Runtime copies where no size changes, whatever the scales are: then it matters which axes come along.
    if ((scales != 1) & np.equal(shape, x.shape)).any():
        return None
    kept = [part.is_one or scale == 1 for part, scale in zip(x.axes, scales, strict=True)]
    parts = tuple(
        (Partition.one(size) if part.is_one else part) if keep else Partition.discrete(size)
        for part, keep, size in zip(x.axes, kept, shape, strict=True)
    )
    if all(kept):
        return relabelled(context, x, parts)
    maps = _matrices(context, step, x, shape, scales, kept)
    kept = [keep or axis in maps for axis, keep in enumerate(kept)]
    if all(kept):
        y = x
    else:
        fine = tuple(part if keep else Partition.discrete(part.size) for part, keep in zip(x.axes, kept, strict=True))
        y = _interpolate(context, step, context.refine(x, fine), shape, arrays, np.where(kept, 1, scales))
    y = context.mix_along(y, maps)
    return relabelled(context, y, tuple(y.axes[a] if a in maps else part for a, part in enumerate(parts)))


def _interpolate(
    context: Context, step: Step, x: Lumped, shape: Dims, arrays: list[Array | None], scales: Array
) -> Lumped:
    """Return what the operator makes of a stack of maps, with scales of 1 along the axes that keep their classes."""
    attributes = step.attributes()
    place = 0 if len(arrays) == 1 else 1
    maps = context.as_batch(x)
    parts = tuple(part if scale == 1 else Partition.discrete(size) for part, scale, size in zip(
        x.axes, scales, shape, strict=True))  # fmt: skip
    out = (*maps.dims[:2], *(part.count for part in parts[2:]))
    if len(arrays) > 2 and arrays[2] is not None and arrays[2].size:
        arrays[2] = np.asarray(out, np.int64)
    elif arrays:
        arrays[place] = scales.astype(np.float32)
    else:
        attributes["scales"] = scales.astype(np.float32).tolist()
    rest = [None if array is None else context.constant(array) for array in arrays]
    made = context.op(step.node.op_type, [maps, *rest], out, **attributes)
    return context.result(made, parts, [x], x.factor)


def _matrices(
    context: Context, step: Step, x: Lumped, shape: Dims, scales: Array, kept: Sequence[bool]
) -> dict[int, Along]:
    """Return what the axes are multiplied by whose positions fall into classes, where the weights are known."""
    mode = step.text("mode", "nearest")
    if step.integer("antialias", 0) or mode not in ("nearest", "linear", "cubic"):
        return {}
    if step.node.op_type == "Upsample":
        how = Interpolation(mode, "asymmetric", "floor", -0.75, False)
    elif context.opset < 11:
        return {}
    else:
        how = Interpolation(
            mode, step.text("coordinate_transformation_mode", "half_pixel"),
            step.text("nearest_mode", "round_prefer_floor"), step.number("cubic_coeff_a", -0.75),
            bool(step.integer("exclude_outside", 0)),
        )  # fmt: skip
    found = {}
    for axis, keep in enumerate(kept):
        if not keep and not x.axes[axis].is_discrete and shape[axis] * x.axes[axis].count <= LONGEST_LABELLED:
            made = interpolated(x.axes[axis], shape[axis], float(scales[axis]), how)
            if made is not None:
                found[axis] = made
    return found
