"""Rules of convolutions whose kernels are one constant: a sum over channels, then a box filter."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx_ir as ir

from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.partition import LONGEST_LABELLED, Partition, check_length
from epsinas_onnx.lump.registry import Operands, rule
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.value import Array, Dims, Lumped, Tensor
from epsinas_onnx.lump.windows import Window, except_at, pads_of, seen, spread

_LARGEST = 2**16
"""Entries of the largest matrix that stands for windows over positions of which none are equal."""


@rule("Conv", repeats=True)
def convolve(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """y[n, o, p] = sum over channels i of o's group, offsets k: w * x[n, i, p + k].

    With one w for the whole kernel, channels of x that are equal give equal terms, so a group's sum is one over
    classes, weighted by how many of each it holds; and output channels are equal where their groups hold equal
    classes equally often. What is left of the kernel is a box filter of ones. Along an axis whose positions fall into
    classes it is a small matrix: how often each class occurs in each window that differs from the others.

    Order of the multiplications: plain rounds each product w * x and sums up afterwards, so that a product below
    float32's smallest number is lost even where the sum of all products would not be. Here w therefore meets x before
    anything is summed, and how many channels there are comes last, which in the range where float32 loses bits is
    exact. Only a value that no weight has touched yet is summed first: it is as large as the input.
    """
    x, weight, bias = [*operands, None][:3]
    if x is None or weight is None or not weight.is_single or x.rank < 3:
        return None
    whole = weight.shape
    groups = step.integer("group", 1)
    if x.shape[1] != groups * whole[1]:
        return None
    counts, channels = channel_counts(x.axes[1], groups, whole[0])
    box = _box(
        whole[2:], x.shape[2:], step.text("auto_pad", "NOTSET"), step.integers("pads"), step.integers("strides"),
        step.integers("dilations"),
    )  # fmt: skip
    if min(box.space) < 1:
        return None
    if x.zero:
        y = context.zeros((x.shape[0], whole[0], *box.space), x.dtype, x.cause)
    else:
        y = _scaled_box(context, countable(context, x, whole[2:], box.space), weight, counts, channels, box)
    return y if bias is None or bias.zero else context.add(y, context.per_channel(bias, y.rank))


def channel_counts(part: Partition, groups: int, outputs: int) -> tuple[Array, Partition]:
    """Return how many channels of each class the different groups hold, `[rows, part.count]`, and the output channels.

    groups: how many of them the channels of `part` are cut into. The partition has one class for each row.
    """
    width = part.size // groups
    if groups == 1 or part.is_one:
        return part.sizes[None, :] // groups if part.is_one else part.sizes[None, :], Partition.one(outputs)
    check_length(max(outputs, groups * part.count))
    rows = np.zeros((groups, part.count), np.int64)
    np.add.at(rows, (np.repeat(np.arange(groups), width), part.labels), 1)
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    labels = np.repeat(number[inverse.reshape(-1)], outputs // groups)
    return rows[np.sort(first)], Partition.of(labels)


def _scaled_box(context: Context, x: Lumped, weight: Lumped, counts: Array, channels: Partition, box: _Box) -> Lumped:
    if not x.weighted:  # untouched by any weight: sum first, and once for all constants
        y = box.filter(context, context.mix(x, 1, counts, channels))
        return _times(context, y, weight)
    plain = counts.shape == (1, 1) or (np.count_nonzero(counts, axis=1) == 1).all()
    if (
        plain
        and box.is_filter
        and not merged_positions(x)
        and context.target.blocked
        and context.target.bound
        and weight.weighted
    ):
        # Groups of one class: the multiplication is the kernel's, and the sum over channels a number or a choice.
        y = box.filter(context, x, context.settle(weight))
        return context.mix(y, 1, counts, channels)
    x = _times(context, x, weight)
    return box.filter(context, context.mix(x, 1, counts, channels))


def _times(context: Context, x: Lumped, weight: Lumped) -> Lumped:
    """Return x times a weight of one class, whatever its shape."""
    if context.target.whole_norms and context.constants == 1:
        weight, tensor = context.settle(weight), context.tensor(x)
        product = context.op("Mul", [tensor, context.reshape(context.tensor(weight), ())], tensor.shape)
        return context.result(product, x.parts, [x, weight], x.factor)
    maps = context.as_channels(x) if context.target.blocked and x.varied and weight.varied else None
    if maps is not None:
        # The constants one behind the other, as the maps are, so that these stay as they lie.
        rank = len(maps.dims)
        column = context.reshape(context.tensor(weight), (context.constants, 1))
        spread = context.stretch(column, (context.constants, maps.dims[1] // context.constants))
        scale = context.reshape(spread, (1, maps.dims[1], *(1,) * (rank - 2)))
        product = context.op("Mul", [maps, scale], maps.dims)
        return context.result(product, x.parts, [x, weight], x.factor * weight.factor)
    number = weight.replace(parts=(Partition.one(1),), tensor=context.tensor(weight), known=None)
    return context.mul(x, number)


class _Box:
    """A filter of ones over the positions of an image, with a convolution's pads, strides and dilations."""

    def __init__(
        self, kernel: Dims, space: Dims, mode: str, pads: Dims | None, strides: Dims | None, dilations: Dims | None
    ) -> None:
        rank = len(kernel)
        self.kernel = kernel
        self.strides = strides or (1,) * rank
        self.dilations = dilations or (1,) * rank
        self.pads = pads_of(mode, pads, kernel, space, self.strides, self.dilations)
        self.space = tuple(
            (size + self.pads[axis] + self.pads[axis + rank] - dilation * (length - 1) - 1) // stride + 1
            for axis, (size, length, stride, dilation) in enumerate(
                zip(space, kernel, self.strides, self.dilations, strict=True)
            )
        )
        self.input_space = space
        # A kernel of size 1 without pads leaves every position to itself.
        self.is_filter = any(length > 1 for length in kernel) or any(self.pads)

    def filter(self, context: Context, x: Lumped, weight: Lumped | None = None) -> Lumped:
        """Return the sums over the kernel's positions, of x times a weight where one is given; the factor stays."""
        merged = merged_positions(x)
        rank = len(self.kernel)
        if context.target.whole_norms and weight is None:
            merged = small_axes(x, self.space)
        if not merged:
            return self._whole(context, x, weight)
        if len(merged) == rank:
            return self._along(context, x, merged)
        pads = except_at(self.pads, [*merged, *(axis + rank for axis in merged)], 0)
        rest = _box(
            except_at(self.kernel, merged, 1), x.counts[2:], "NOTSET", pads, except_at(self.strides, merged, 1),
            self.dilations,
        )  # fmt: skip
        y = rest._whole(context, x, weight)
        space = (x.axes[2 + axis] if axis in merged else y.axes[2 + axis] for axis in range(rank))
        return self._along(context, y.replace(parts=(*x.axes[:2], *space)), merged)

    def _along(self, context: Context, x: Lumped, axes: list[int]) -> Lumped:
        """Return the sums over the kernel's positions along some axes, which become products with matrices."""
        windows = {axis: self._window(axis) for axis in axes}
        maps = {2 + axis: seen(x.axes[2 + axis], window) for axis, window in windows.items()}
        return context.mix_along(x, {a: maps[a] for a in maps if not windows[a - 2].leaves(x.axes[a])})

    def _window(self, axis: int) -> Window:
        return Window(self.kernel[axis], self.strides[axis], self.dilations[axis], self.pads[axis], self.space[axis])

    def _whole(self, context: Context, x: Lumped, weight: Lumped | None) -> Lumped:
        parts = (*x.axes[:2], *(Partition.discrete(size) for size in self.space))
        if not self.is_filter:
            return self._stride(context, x, parts)
        channels = context.target.blocked
        maps = context.as_maps(x)
        kernel = self._kernel(context, maps.dims[1] if channels else 1, x.dtype, weight)
        return context.result(self._over_channels(context, maps, kernel), parts, [x, weight], x.factor)

    def _kernel(self, context: Context, maps: int, dtype: ir.DataType, weight: Lumped | None) -> Tensor:
        shape = (maps, 1, *self.kernel)
        if weight is None:
            return context.repeated(1, shape, dtype)
        constants = context.constants if weight.varied else 1
        rank = len(self.kernel)
        column = context.reshape(context.tensor(weight), (constants, *(1,) * (rank + 2)))
        full = context.stretch(column, (constants, maps // constants, 1, *self.kernel))
        return context.reshape(full, shape)

    def _over_channels(self, context: Context, maps: Tensor, kernel: Tensor) -> Tensor:
        """Append a depthwise convolution; vectors are images of height 1, which have kernels."""
        lift = len(self.kernel) == 1
        batch, channels = maps.dims[:2]
        extra = (1,) if lift else ()
        pads = [0, self.pads[0], 0, self.pads[1]] if lift else list(self.pads)
        image = context.reshape(maps, (batch, channels, *extra, *maps.dims[2:]))
        kernel = context.reshape(kernel, (*kernel.dims[:2], *extra, *self.kernel))
        made = context.op(
            "Conv", [image, kernel], (batch, channels, *extra, *self.space),
            group=channels, kernel_shape=[*extra, *self.kernel], pads=pads, strides=[*extra, *self.strides],
            dilations=[*extra, *self.dilations],
        )  # fmt: skip
        return context.reshape(made, (batch, channels, *self.space)) if lift else made

    def _stride(self, context: Context, x: Lumped, parts: tuple[Partition, ...]) -> Lumped:
        if all(stride == 1 for stride in self.strides):
            return x.replace(parts=parts)
        rank = len(self.kernel)
        tensor = context.canonical(x.replace(factor=1.0))
        first = len(tensor.dims) - rank
        made = context.slice(
            tensor, [0] * rank, list(self.input_space), list(range(first, first + rank)), list(self.strides)
        )
        return context.result(made, parts, [x], x.factor)


_box = lru_cache(maxsize=1024)(_Box)


def merged_positions(x: Lumped) -> list[int]:
    """Return the axes of an image, counted behind the channels, of which some indices are equal."""
    return [axis for axis, part in enumerate(x.axes[2:]) if not part.is_discrete]


def small_axes(x: Lumped, space: Dims) -> list[int]:
    """Return the same, and those for which a matrix over all positions is small."""
    merged, sizes = merged_positions(x), enumerate(zip(x.counts[2:], space, strict=True))
    return [axis for axis, (have, want) in sizes if axis in merged or have * want <= _LARGEST]


def countable(context: Context, x: Lumped, kernel: Dims, space: Dims) -> Lumped:
    """Return an image with those axes told apart along which counting classes in windows would take too much."""
    parts = (
        part if part.is_discrete or size * (part.count + length) <= LONGEST_LABELLED else Partition.discrete(part.size)
        for part, length, size in zip(x.axes[2:], kernel, space, strict=True)
    )
    return context.refine(x, (*x.axes[:2], *parts))


@rule("ConvTranspose")
def transposed_convolve(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The transpose of a convolution: every input spreads w times itself over the kernel's positions.

    Channels are summed up as in a convolution; the spreading is a ConvTranspose of one channel with a kernel of ones.
    The order of the multiplications is that of a convolution.
    """
    x, weight, bias = [*operands, None][:3]
    if x is None or weight is None or not weight.is_single or x.rank < 3:
        return None
    groups = step.integer("group", 1)
    shape = step.out_shape()
    if shape is None:
        return None
    counts, channels = channel_counts(x.axes[1], groups, weight.shape[1] * groups)
    if x.weighted:
        x = context.mix(_times(context, x, weight), 1, counts, channels)
    else:
        x = context.mix(x, 1, counts, channels)
    y = _spread_out(context, step, x, weight.shape[2:], shape[2:])
    if not y.weighted:
        y = _times(context, y, weight)
    return y if bias is None or bias.zero else context.add(y, context.per_channel(bias, y.rank))


def _spread_out(context: Context, step: Step, x: Lumped, kernel: Dims, space: Dims) -> Lumped:
    """Return each entry of x added up over the positions that it reaches: a ConvTranspose of ones, or matrices."""
    rank = len(kernel)
    strides, dilations = step.integers("strides") or (1,) * rank, step.integers("dilations") or (1,) * rank
    pads = step.integers("pads") or (0,) * 2 * rank
    x = countable(context, x, kernel, space)
    merged = merged_positions(x)
    if step.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or step.integers("output_shape") is not None:
        # How such pads are shared out has changed between versions of the operator.
        x, merged = context.refine(x, (*x.axes[:2], *map(Partition.discrete, x.shape[2:]))), []
    maps = context.as_batch(x)
    free = [axis for axis in range(rank) if axis not in merged]
    y = x
    if free:
        names = ("auto_pad", "dilations", "output_padding", "output_shape", "pads", "strides")
        attributes = step.attributes(*names)
        if merged:
            attributes = {
                "dilations": list(dilations),
                "output_padding": list(except_at(step.integers("output_padding") or (0,) * rank, merged, 0)),
                "pads": list(except_at(pads, [*merged, *(axis + rank for axis in merged)], 0)),
                "strides": list(except_at(strides, merged, 1)),
            }
        out = tuple(x.counts[2 + axis] if axis in merged else space[axis] for axis in range(rank))
        ones = context.repeated(1, (1, 1, *except_at(kernel, merged, 1)), x.dtype)
        made = context.op("ConvTranspose", [maps, ones], (*maps.dims[:2], *out), **attributes)
        parts = (x.axes[2 + axis] if axis in merged else Partition.discrete(space[axis]) for axis in range(rank))
        y = context.result(made, (*x.axes[:2], *parts), [x], x.factor)
    windows = {axis: Window(kernel[axis], strides[axis], dilations[axis], pads[axis], space[axis]) for axis in merged}
    return context.mix_along(y, {2 + axis: spread(x.axes[2 + axis], w) for axis, w in windows.items()})
