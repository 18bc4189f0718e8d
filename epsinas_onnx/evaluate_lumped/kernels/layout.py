"""Kernels that move entries about without computing anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.scaled import Array

Kernel: TypeAlias = Callable[..., Any]
"""Takes a node's operands as arrays, None where one is left out; gives its output, or a tuple of them."""
Operand: TypeAlias = Array | None

_BEHIND = [tuple(range(1, rank)) + (0,) * (rank > 0) for rank in range(65)]
_IN_FRONT = [tuple(range(rank - 1, rank)) + tuple(range(rank - 1)) for rank in range(65)]
"""Orders of axes by rank. `np.moveaxis` takes as long as a small network's arithmetic."""


def first_innermost(x: Array) -> bool:
    """Whether the first axis lies innermost in memory, as that of the samples of an image does."""
    return x.ndim > 1 and x.shape[0] > 1 and x.strides[0] == x.itemsize


def turned(x: Array) -> Array:
    """Return an image with its samples innermost in memory, as everything that is made of it then lies too.

    Windows and sums then go over long runs of samples, where the rows of a lumped image are a few entries.
    """
    return first_in_front(np.ascontiguousarray(first_behind(x)))


def first_behind(x: Array) -> Array:
    """Return a view with the first axis behind all others."""
    return x.transpose(_BEHIND[x.ndim])


def first_in_front(x: Array) -> Array:
    """Return a view with the last axis in front of all others."""
    return x.transpose(_IN_FRONT[x.ndim])


def positive(x: Array) -> Array:
    """Return max(x, 0). A row of zeros is compared with several times faster than a number is."""
    inner = 0 if first_innermost(x) else x.ndim - 1
    made: Array = np.maximum(x, _zeros(x.shape[inner] if x.ndim else 1, inner, x.ndim, x.dtype))
    return made


@lru_cache(maxsize=16)
def _zeros(count: int, axis: int, rank: int, dtype: np.dtype[Any]) -> Array:
    made = np.zeros([count if place == axis else 1 for place in range(rank)], dtype)
    made.flags.writeable = False
    return made


def listed(call: Call, name: str, slot: int) -> Callable[[Sequence[Operand]], list[int] | None]:
    """Return what reads a list of integers: an attribute in old operator sets, an operand in new ones."""
    given = call.attribute(name)
    stored = call.constant(slot)
    if given is None and stored is not None:
        given = stored.reshape(-1).tolist()
    if given is not None or not call.has(slot):
        known = None if given is None else [int(item) for item in np.atleast_1d(given)]
        return lambda operands: known
    return lambda operands: [int(item) for item in np.asarray(operands[slot]).reshape(-1)]


def identity(call: Call) -> Kernel:
    """Return the first operand as it is."""
    return lambda x, *_: x


def reshape(call: Call) -> Kernel:
    """Reshape; 0 stands for the size before, -1 for what is left."""
    read = listed(call, "shape", 1)
    keeps_zero = bool(call.attribute("allowzero", 0))
    known, before = call.node.outputs[0].shape, call.shape(0)

    def planned(x: Array, *rest: Any) -> Array:
        assert known is not None
        assert before is not None
        if x.shape == before:
            return x.reshape(known)
        # In a loop a tensor may have more axes than it had where shapes were inferred.
        return x.reshape(for_fewer(before, known, x.shape)) if x.ndim == len(before) else kernel(x, *rest)

    def kernel(*operands: Any) -> Array:
        x, shape = operands[0], read(operands) or []
        if not keeps_zero:
            shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
        made: Array = x.reshape(shape)
        return made

    return kernel if known is None or before is None or call.constant(1) is None else planned


@lru_cache(maxsize=1024)
def for_fewer(before: tuple[int, ...], after: tuple[int, ...], actual: tuple[int, ...]) -> tuple[int, ...]:
    """Return what a reshape of `before` to `after` makes of a tensor that is shorter along one axis, its samples'.

    Raises ValueError where the indices of that axis do not stay within one.
    """
    (changed,) = (axis for axis, (size, own) in enumerate(zip(before, actual, strict=True)) if size != own)
    first, lead = math.prod(before[:changed]), 1
    for axis, size in enumerate(after):
        fewer, rest = divmod(size * actual[changed], before[changed])
        if first % lead == 0 and lead * size > first and not rest:
            return (*after[:axis], fewer, *after[axis + 1 :])
        lead *= size
    raise ValueError(f"{before} as {after} for {actual}")


def flatten(call: Call) -> Kernel:
    """Two axes of all."""
    axis = int(call.attribute("axis", 1))

    def kernel(x: Array) -> Array:
        place = axis + x.ndim if axis < 0 else axis
        return x.reshape(math.prod(x.shape[:place]), math.prod(x.shape[place:]))

    return kernel


def squeeze(call: Call) -> Kernel:
    """Leave out axes of size 1."""
    read = listed(call, "axes", 1)

    def kernel(*operands: Any) -> Array:
        axes = read(operands)
        return np.squeeze(operands[0], None if axes is None else tuple(axes))  # type: ignore[no-any-return]

    return kernel


def unsqueeze(call: Call) -> Kernel:
    """Put in axes of size 1."""
    read = listed(call, "axes", 1)
    return lambda *operands: np.expand_dims(operands[0], tuple(read(operands) or ()))


def transpose(call: Call) -> Kernel:
    """Axes in another order."""
    order = call.attribute("perm")
    return lambda x: np.transpose(x, order)


def slice_(call: Call) -> Kernel:
    """Slice along some axes."""
    reads = [listed(call, name, slot) for slot, name in enumerate(("starts", "ends", "axes", "steps"), 1)]

    def cut(operands: Sequence[Operand], rank: int) -> tuple[slice, ...]:
        starts, ends, axes, steps = (read(operands) for read in reads)
        starts, ends = starts or [], ends or []
        chosen = [slice(None)] * rank
        for index, axis in enumerate(axes if axes is not None else range(len(starts))):
            step = 1 if steps is None else steps[index]
            start, end = starts[index], ends[index]
            # what lies before the first index is no count from the end
            chosen[axis] = slice(start, None if step < 0 and end < -(2**31) + 1 else end, step)
        return tuple(chosen)

    if all(not call.has(slot) or call.constant(slot) is not None for slot in range(1, 5)) and call.shape(0) is not None:
        ready = cut(call.stored, len(call.shape(0) or ()))
        return lambda x, *_: x[ready]

    def kernel(*operands: Any) -> Array:
        x = operands[0]
        places = []
        for piece, size in zip(cut(operands, x.ndim), x.shape, strict=True):
            start, end, step = piece.start, piece.stop, piece.step
            if step is not None and step < 0 and end is not None and end < -size:
                end = None
            places.append(slice(start, end, step))
        made: Array = x[tuple(places)]
        return made

    return kernel


def concat(call: Call) -> Kernel:
    """One behind the other."""
    axis = int(call.attribute("axis", 0))
    return lambda *operands: np.concatenate(operands, axis)


def gather(call: Call) -> Kernel:
    """Entries at indices along an axis."""
    axis = int(call.attribute("axis", 0))

    def kernel(x: Array, indices: Array) -> Array:
        if not first_innermost(x) or indices.ndim != 1 or axis % x.ndim == 0:
            return np.take(x, indices, axis)
        return first_in_front(first_behind(x).take(indices, axis % x.ndim - 1))

    return kernel


def gather_elements(call: Call) -> Kernel:
    """Entry by entry along an axis."""
    axis = int(call.attribute("axis", 0))

    def kernel(x: Array, indices: Array) -> Array:
        where = np.where(indices < 0, indices + x.shape[axis], indices)
        places = list(np.ogrid[tuple(map(slice, indices.shape))])
        places[axis] = where
        made: Array = x[tuple(places)]
        return made

    return kernel


def gather_nd(call: Call) -> Kernel:
    """Slices at tuples of indices."""
    batch = int(call.attribute("batch_dims", 0))

    def kernel(x: Array, indices: Array) -> Array:
        if batch == 0:
            made: Array = x[tuple(np.moveaxis(indices, -1, 0))]
            return made
        lead = indices.shape[:batch]
        flat, where = x.reshape(-1, *x.shape[batch:]), indices.reshape(-1, *indices.shape[batch:])
        rows = [one[tuple(np.moveaxis(at, -1, 0))] for one, at in zip(flat, where, strict=True)]
        return np.stack(rows).reshape(*lead, *rows[0].shape)

    return kernel


def pad(call: Call) -> Kernel:
    """Pad with a number, by reflection, by the edge, or around."""
    read = listed(call, "pads" if call.attribute("pads") is not None else "paddings", 1)
    axes_of = listed(call, "axes", 3)
    mode = str(call.attribute("mode", "constant"))
    level = call.attribute("value")

    def kernel(*operands: Any) -> Array:
        x, pads = operands[0], read(operands) or []
        axes = axes_of(operands)
        axes = list(range(x.ndim)) if axes is None else axes
        widths = [(0, 0)] * x.ndim
        for index, axis in enumerate(axes):
            widths[axis] = (pads[index], pads[index + len(axes)])
        cut = tuple(slice(max(0, -a), n - max(0, -b)) for (a, b), n in zip(widths, x.shape, strict=True))
        wide = [(max(0, a), max(0, b)) for a, b in widths]
        if mode == "constant":
            fill = operands[2] if len(operands) > 2 and operands[2] is not None else level
            return np.pad(x[cut], wide, constant_values=0 if fill is None else np.asarray(fill).reshape(()))
        return np.pad(x[cut], wide, {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}[mode])  # type: ignore[call-overload,no-any-return]

    return kernel


def expand(call: Call) -> Kernel:
    """Broadcast to a shape."""
    read = listed(call, "shape", 1)
    return lambda *operands: np.broadcast_to(
        operands[0], np.broadcast_shapes(operands[0].shape, tuple(read(operands) or ()))
    )


def tile(call: Call) -> Kernel:
    """Repeat."""
    return lambda x, times: np.tile(x, [int(count) for count in times])


def split(call: Call) -> Kernel:
    """Cut along an axis, into given or equal sizes."""
    axis = int(call.attribute("axis", 0))
    read = listed(call, "split", 1)
    outputs = len(call.node.outputs)

    def kernel(*operands: Any) -> tuple[Array, ...]:
        x, sizes = operands[0], read(operands)
        if sizes is None:
            size = -(-x.shape[axis] // outputs)
            places = [size * index for index in range(1, outputs)]
        else:
            places = list(np.cumsum(sizes)[:-1])
        return tuple(np.split(x, places, axis))

    return kernel


def depth_to_space(call: Call) -> Kernel:
    """Channels to blocks of positions."""
    block, mode = int(call.attribute("blocksize")), str(call.attribute("mode", "DCR"))

    def kernel(x: Array) -> Array:
        n, c, h, w = x.shape
        if mode == "DCR":
            cut = x.reshape(n, block, block, c // block**2, h, w).transpose(0, 3, 4, 1, 5, 2)
        else:
            cut = x.reshape(n, c // block**2, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
        return cut.reshape(n, c // block**2, h * block, w * block)

    return kernel


def space_to_depth(call: Call) -> Kernel:
    """Blocks of positions to channels."""
    block = int(call.attribute("blocksize"))

    def kernel(x: Array) -> Array:
        n, c, h, w = x.shape
        cut = x.reshape(n, c, h // block, block, w // block, block).transpose(0, 3, 5, 1, 2, 4)
        return cut.reshape(n, c * block**2, h // block, w // block)

    return kernel


def trilu(call: Call) -> Kernel:
    """The upper or the lower triangle."""
    upper = bool(call.attribute("upper", 1))

    def kernel(x: Array, offset: Operand = None) -> Array:
        k = 0 if offset is None else int(offset)
        return np.triu(x, k) if upper else np.tril(x, k)

    return kernel


def shape(call: Call) -> Kernel:
    """The shape, or part of it."""
    start, end = int(call.attribute("start", 0)), call.attribute("end")
    return lambda x: np.asarray(x.shape[start:end], np.int64)


def size(call: Call) -> Kernel:
    """The number of entries."""
    return lambda x: np.asarray(x.size, np.int64)


def constant_of_shape(call: Call) -> Kernel:
    """A shape full of one number."""
    given = call.attribute("value")
    level = np.zeros(1, np.float32) if given is None else np.asarray(given)
    return lambda wanted: np.full(tuple(int(item) for item in wanted), level.reshape(-1)[0], level.dtype)


def range_(call: Call) -> Kernel:
    """Numbers at equal steps."""
    return lambda start, end, step: np.arange(start, end, step, dtype=np.asarray(start).dtype)


def one_hot(call: Call) -> Kernel:
    """One number at an index, another elsewhere."""
    axis = int(call.attribute("axis", -1))

    def kernel(indices: Array, depth: Array, values: Array) -> Array:
        count = int(np.asarray(depth).reshape(-1)[0])
        rank = indices.ndim + 1
        place = axis % rank
        grid = np.arange(count).reshape((-1,) + (1,) * (rank - place - 1))
        hit = np.expand_dims(np.where(indices < 0, indices + count, indices), place) == grid
        return np.where(hit, values[1], values[0])  # type: ignore[no-any-return]

    return kernel


def cast(call: Call) -> Kernel:
    """Another type."""
    import onnx_ir as ir

    kind = ir.DataType(int(call.attribute("to"))).numpy()
    return lambda x: np.asarray(x).astype(kind, copy=False)
