"""Kernels of sums of products: convolutions, matrix products, contractions, means over windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.kernels.layout import Kernel, first_behind, first_in_front, first_innermost, turned
from epsinas_onnx.evaluate_lumped.kernels.long_windows import Row, window_sums
from epsinas_onnx.evaluate_lumped.kernels.sparse import all_at_once
from epsinas_onnx.evaluate_lumped.kernels.taps import LARGEST_KEPT, Sums, sums_along
from epsinas_onnx.evaluate_lumped.scaled import Array

_SPARSE = 3
"""A matrix with so many times more entries than are not 0 is added up run by run sooner than multiplied."""
_SEPARATED = 4
"""Sums over so many positions in a row are added up as slices, longer ones as a product with a matrix."""


def matmul(call: Call) -> Kernel:
    """Matrix product; a matrix on the right takes all rows of the left one at once."""
    right = call.shape(1)
    left = call.shape(0)
    if right is not None and left is not None and len(right) == len(left) == 2:
        return lambda x, y: np.dot(y.T, x.T).T if first_innermost(x) else np.dot(x, y)
    if right is not None and left is not None and len(right) == 2 and len(left) > 2:
        width = right[0]
        return lambda x, y: np.dot(x.reshape(-1, width), y).reshape(*x.shape[:-1], y.shape[1])
    if right is not None and left is not None and len(left) == 2 and len(right) > 2 and right[-1] == 1:
        return lambda x, y: np.dot(y[..., 0], x.T)[..., None]
    return lambda x, y: np.matmul(x, y)


def gemm(call: Call) -> Kernel:
    """A'B', the sum aside."""
    first, second = bool(call.attribute("transA", 0)), bool(call.attribute("transB", 0))
    return lambda x, y: np.matmul(x.T if first else x, y.T if second else y)


def einsum(call: Call) -> Kernel:
    """A contraction by its equation."""
    equation = str(call.attribute("equation"))
    return lambda *operands: np.einsum(equation, *operands, optimize=len(operands) > 1)


def _last(*index: Any) -> Any:
    """Return an index into the last axes."""
    return (..., *index)


class Window:
    """Where the windows of a convolution or a pooling lie.

    pads: front and behind of each axis. out: windows along each axis.
    """

    def __init__(self, call: Call, kernel: Sequence[int], space: Sequence[int], up: bool = False) -> None:
        rank = len(kernel)
        self._sums: dict[int, Sums] = {}
        self.kernel = list(kernel)
        self.space = list(space)
        self.strides = call.attribute("strides") or [1] * rank
        self.dilations = call.attribute("dilations") or [1] * rank
        self.reach = [d * (k - 1) + 1 for d, k in zip(self.dilations, kernel, strict=True)]
        mode = str(call.attribute("auto_pad", "NOTSET"))
        given = call.attribute("pads") or [0] * (2 * rank)
        self.pads = []
        self.out = []
        for axis, size in enumerate(space):
            stride, reach = self.strides[axis], self.reach[axis]
            front, behind = given[axis], given[axis + rank]
            if mode in ("SAME_UPPER", "SAME_LOWER"):
                needed = max(0, (-(-size // stride) - 1) * stride + reach - size)
                front = needed // 2 if mode == "SAME_UPPER" else needed - needed // 2
                behind = needed - front
            elif mode == "VALID":
                front = behind = 0
            free = size + front + behind - reach
            count = (-(-free // stride) if up else free // stride) + 1
            if up and (count - 1) * stride >= size + front:
                count -= 1
            self.pads.append((front, behind))
            self.out.append(count)

    def padded(self, x: Array, level: float) -> Array:
        """Return `[.., *space]` with pads, and behind them what windows reach beyond."""
        widths = []
        for axis, (front, behind) in enumerate(self.pads):
            end = (self.out[axis] - 1) * self.strides[axis] + self.reach[axis]
            widths.append((front, max(behind, end - self.space[axis] - front)))
        if not any(a or b for a, b in widths):
            return x
        made = np.full(
            (*x.shape[: -len(widths)], *(a + n + b for (a, b), n in zip(widths, self.space, strict=True))),
            level, x.dtype,
        )  # fmt: skip
        made[_last(*(slice(a, a + n) for (a, _), n in zip(widths, self.space, strict=True)))] = x
        return made

    def at(self, x: Array, offset: Sequence[int]) -> Array:
        """Return what a padded value has at one offset of every window."""
        places = []
        for axis, place in enumerate(offset):
            start, stride = place * self.dilations[axis], self.strides[axis]
            places.append(slice(start, start + (self.out[axis] - 1) * stride + 1, stride))
        made: Array = x[_last(*places)]
        return made

    def offsets(self) -> list[tuple[int, ...]]:
        """Return every offset of a window."""
        return list(itertools.product(*(range(size) for size in self.kernel)))

    def sums(self, x: Array) -> Array:
        """Return the sum over every window: along one axis, then the next."""
        rank = len(self.kernel)
        if not first_innermost(x) and x.shape[0] > x.shape[-1] > 1:
            x = turned(x)
        for axis in range(rank):
            place = x.ndim - rank + axis
            x = self._along(x, axis, place)
        return x

    def _along(self, x: Array, axis: int, place: int) -> Array:
        if self.kernel[axis] == 1 and self.strides[axis] == 1 and not any(self.pads[axis]):
            return x
        row = Row(self.kernel[axis], self.strides[axis], self.dilations[axis], self.pads[axis][0], self.out[axis])
        if row.is_long(self.space[axis]):
            return window_sums(x, place, row)
        sums = self._sums.get(axis)
        if sums is None:
            matrix = self.matrix(axis)
            few = self.kernel[axis] <= _SEPARATED
            sums = self._sums[axis] = sums_along(matrix, place) if few else _product_with(matrix, place)
        return sums(x)

    def matrix(self, axis: int) -> Array:
        """Return `[out, space]`: how often a window along an axis holds a position."""
        made = np.zeros((self.out[axis], self.space[axis]))
        rows = np.arange(self.out[axis])
        for index in range(self.kernel[axis]):
            places = rows * self.strides[axis] - self.pads[axis][0] + index * self.dilations[axis]
            inside = (places >= 0) & (places < self.space[axis])
            made[rows[inside], places[inside]] += 1
        return made


def along(call: Call) -> Kernel:
    """Some axes multiplied by a matrix each, one after the other: as sums of slices where it holds little but zeros."""
    axes = tuple(int(axis) for axis in call.attribute("axes"))
    matrices = [np.asarray(call.constant(slot + 1), np.float64) for slot in range(len(axes))]
    if sum(matrix.nbytes for matrix in matrices) > LARGEST_KEPT:
        return _along(axes, matrices)
    return _kept_along(axes, tuple((matrix.shape, matrix.tobytes()) for matrix in matrices))


@lru_cache(maxsize=256)
def _kept_along(axes: tuple[int, ...], held: tuple[tuple[tuple[int, int], bytes], ...]) -> Kernel:
    """Return the same for matrices as shape and bytes of float64: networks of one space have few different ones."""
    return _along(axes, [np.frombuffer(data).reshape(shape) for shape, data in held])


def _along(axes: tuple[int, ...], matrices: Sequence[Array]) -> Kernel:
    few = [_SPARSE * np.count_nonzero(matrix) < matrix.size for matrix in matrices]
    small = all_at_once(matrices, axes) if any(few) else None
    sums = [
        sums_along(matrix, axis) if sparse else _product_with(matrix, axis)
        for axis, matrix, sparse in zip(axes, matrices, few, strict=True)
    ]

    def kernel(x: Array, *_: Array) -> Array:
        if not first_innermost(x) and x.shape[0] > x.shape[-1]:
            x = turned(x)
        made = None if small is None else small(x)
        if made is not None:
            return made
        for one in sums:
            x = one(x)
        return x

    return kernel


def _product_with(matrix: Array, axis: int) -> Sums:
    return lambda x: multiplied(x, matrix.astype(x.dtype, copy=False), axis)


def multiplied(x: Array, matrix: Array, place: int) -> Array:
    """Return x with one axis multiplied by `[out, in]`."""
    if first_innermost(x) and place > 0:
        return first_in_front(multiplied(first_behind(x), matrix, place - 1))
    if place == x.ndim - 1:
        product: Array = np.dot(x, matrix.T)
        return product
    shape = x.shape
    flat = x.reshape(math.prod(shape[:place]), shape[place], -1)
    made: Array = np.matmul(matrix, flat).reshape(*shape[:place], len(matrix), *shape[place + 1 :])
    return made


def conv(call: Call) -> Kernel:
    """Convolution, its bias aside. A kernel of ones over one channel is a sum over windows."""
    groups = int(call.attribute("group", 1))
    stored = call.constant(1)
    ones = stored is not None and stored.shape[1] == 1 and bool((stored == 1).all())
    windows: dict[tuple[int, ...], Window] = {}

    def kernel(x: Array, w: Array) -> Array:
        key = (*w.shape[2:], *x.shape[2:])
        window = windows.get(key)
        if window is None:
            window = windows[key] = Window(call, w.shape[2:], x.shape[2:])
        if ones and x.shape[1] == groups == w.shape[0]:
            return window.sums(x)
        if len(w) == groups and w.shape[1] == 1:
            wide = window.padded(x, 0.0)
            column = w.reshape(1, groups, *w.shape[2:], *(1,) * (x.ndim - 2))
            whole: Any = 0.0
            for offset in window.offsets():
                lead: Any = (slice(None), slice(None), *offset)
                whole = whole + window.at(wide, offset) * column[lead]
            return whole  # type: ignore[no-any-return]
        return _grouped(x, w, window, groups)

    return kernel


def _grouped(x: Array, w: Array, window: Window, groups: int) -> Array:
    batch, space = len(x), math.prod(window.out)
    wide = window.padded(x, 0.0)
    rows = w.reshape(groups, len(w) // groups, w.shape[1], -1)
    made: Any = 0.0
    for index, offset in enumerate(window.offsets()):
        cut = window.at(wide, offset).reshape(batch, groups, w.shape[1], space)
        made = made + np.matmul(rows[None, ..., index], cut)
    out: Array = made.reshape(batch, len(w), *window.out)
    return out


def conv_transpose(call: Call) -> Kernel:
    """Transposed convolution, its bias aside: every input spreads the kernel over the output."""
    groups = int(call.attribute("group", 1))

    def kernel(x: Array, w: Array) -> Array:
        rank = x.ndim - 2
        strides = call.attribute("strides") or [1] * rank
        dilations = call.attribute("dilations") or [1] * rank
        more = call.attribute("output_padding") or [0] * rank
        reach = [d * (k - 1) + 1 for d, k in zip(dilations, w.shape[2:], strict=True)]
        full = [s * (n - 1) + r + p for s, n, r, p in zip(strides, x.shape[2:], reach, more, strict=True)]
        front, out = _cut(call, full, strides, x.shape[2:])
        batch, outputs = len(x), w.shape[1] * groups
        rows = w.reshape(groups, w.shape[0] // groups, w.shape[1], *w.shape[2:])
        cut = x.reshape(batch, groups, w.shape[0] // groups, -1)
        made = np.zeros((batch, outputs, *(max(f, a + o) for f, a, o in zip(full, front, out, strict=True))), x.dtype)
        for offset in itertools.product(*(range(size) for size in w.shape[2:])):
            part = np.matmul(rows[_last(*offset)].swapaxes(1, 2)[None], cut).reshape(batch, outputs, *x.shape[2:])
            places = tuple(
                slice(o * d, o * d + (n - 1) * s + 1, s)
                for o, d, n, s in zip(offset, dilations, x.shape[2:], strides, strict=True)
            )
            made[_last(*places)] += part
        cut_off: Array = made[_last(*(slice(a, a + o) for a, o in zip(front, out, strict=True)))]
        return cut_off

    return kernel


def _cut(call: Call, full: Sequence[int], strides: Sequence[int], space: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return how much of the front is cut off, and how much is left, along each axis."""
    rank = len(full)
    mode = str(call.attribute("auto_pad", "NOTSET"))
    wanted = call.attribute("output_shape")
    pads = call.attribute("pads") or [0] * (2 * rank)
    if wanted is None and mode.startswith("SAME"):
        wanted = [size * stride for size, stride in zip(space, strides, strict=True)]
    if wanted is None:
        return list(pads[:rank]), [size - pads[axis] - pads[axis + rank] for axis, size in enumerate(full)]
    wanted = list(wanted)[-rank:]
    lost = [size - want for size, want in zip(full, wanted, strict=True)]
    return [one // 2 if mode != "SAME_LOWER" else one - one // 2 for one in lost], wanted


def average_pool(call: Call) -> Kernel:
    """The mean of every window, of what it holds of the image or of everything."""
    size = call.attribute("kernel_shape")
    counted = bool(call.attribute("count_include_pad", 0))
    up = bool(call.attribute("ceil_mode", 0))
    windows: dict[tuple[int, ...], tuple[Window, Array]] = {}

    def kernel(x: Array) -> Array:
        found = windows.get(x.shape[2:])
        if found is None:
            window = Window(call, size, x.shape[2:], up)
            found = windows[x.shape[2:]] = window, _held(window, counted).astype(x.dtype)
        window, held = found
        made: Array = window.sums(x) / held
        return made

    return kernel


def _held(window: Window, counted: bool) -> Array:
    """Return how many positions each window has; counted: those of the pads too, but none beyond."""
    lengths = []
    for axis, (front, behind) in enumerate(window.pads):
        starts = np.arange(window.out[axis]) * window.strides[axis] - front
        places = starts[:, None] + np.arange(window.kernel[axis]) * window.dilations[axis]
        low, high = (-front, window.space[axis] + behind) if counted else (0, window.space[axis])
        lengths.append(((places >= low) & (places < high)).sum(1))
    made = lengths[0]
    for one in lengths[1:]:
        made = made[..., None] * one
    return made  # type: ignore[no-any-return]


def max_windows(call: Call) -> tuple[Any, Any]:
    """Return what takes the largest of every window, and what gives the windows themselves along a last axis."""
    size = call.attribute("kernel_shape")
    up = bool(call.attribute("ceil_mode", 0))
    windows: dict[tuple[int, ...], Window] = {}

    def window_of(x: Array) -> Window:
        found = windows.get(x.shape[2:])
        if found is None:
            found = windows[x.shape[2:]] = Window(call, size, x.shape[2:], up)
        return found

    def largest(x: Array) -> Array:
        window = window_of(x)
        wide = window.padded(x, -np.inf)
        made = np.array(window.at(wide, window.offsets()[0]))
        for offset in window.offsets()[1:]:
            np.maximum(made, window.at(wide, offset), out=made)
        return made

    def laid_out(x: Array, level: float) -> Array:
        window = window_of(x)
        wide = window.padded(x, level)
        return np.stack([window.at(wide, offset) for offset in window.offsets()], -1)

    return largest, laid_out


def max_pool(call: Call) -> Kernel:
    """The largest of every window."""
    return max_windows(call)[0]  # type: ignore[no-any-return]


def mean_of_rest(call: Call) -> Kernel:
    """The mean over all positions."""
    return lambda x: x.mean(axis=tuple(range(2, x.ndim)), keepdims=True)
