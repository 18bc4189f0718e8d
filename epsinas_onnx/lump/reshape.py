"""Owns reshaping: axes merge into products of partitions, and split where they are products."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.partition import Partition, product
from epsinas_onnx.lump.value import Dims, Lumped

_LARGEST = 2**22
"""Merged axes longer than this are not labelled index by index; they are expanded."""


def reshaped(context: Context, value: Lumped, shape: Dims) -> Lumped:
    """Return the value with the same entries, in row-major order, in another shape of the same size.

    The axes are cut into the smallest blocks of axes before and after that hold the same indices. Inside a block
    the axes merge: the classes of a merged axis are pairs of classes. The merged axis then splits: rows of the grid
    that hold the same classes throughout are one class, and so for columns; where the partition is no product of
    these, the tensor is refined to that product, which is never wrong.
    """
    if value.shape == shape:
        return value
    if math.prod(shape) == 0:
        empty = tuple(Partition.discrete(size) for size in shape)
        return context.result(context.reshape(context.expand(value), shape), empty, [value])
    parts: list[Partition] = []
    result = value
    for before, after in blocks(value.shape, shape):
        # Axes of the block in the value as it is by now: those in front have been replaced already.
        first = len(parts)
        axes = result.axes[first : first + len(before)]
        if len(before) == len(after) == 1:
            parts += axes
            continue
        result = _merged(context, result, first, len(before))
        merged = result.axes[first]
        pieces, cells = merged.split(after)
        if cells is not None:
            tensor = context.gather(context.canonical(result.replace(factor=1.0)), cells.reshape(-1),
                                    first + result.varied)  # fmt: skip
            result = result.replace(tensor=tensor)
        result = result.replace(
            parts=(*result.axes[:first], *pieces, *result.axes[first + 1 :]), tensor=context.tensor(result), known=None
        )
        parts += pieces
    return result


def _merged(context: Context, value: Lumped, first: int, count: int) -> Lumped:
    axes = value.axes[first : first + count]
    if math.prod(part.size for part in axes) > _LARGEST and not (
        all(part.is_discrete for part in axes) or all(part.is_one for part in axes)
    ):
        fine = tuple(Partition.discrete(part.size) for part in axes)
        value = context.refine(context.settle(value), (*value.axes[:first], *fine, *value.axes[first + count :]))
        axes = fine
    merged = product(axes)
    return value.replace(
        parts=(*value.axes[:first], merged, *value.axes[first + count :]), tensor=context.tensor(value), known=None
    )


def blocks(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[Dims, Dims]]:
    """Yield the smallest runs of sizes with equal products, front to back; sizes of 1 join a run that is there."""
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [*before[i : i + 1]], [*after[j : j + 1]]
        i, j = i + len(left), j + len(right)
        while math.prod(left) != math.prod(right):
            if math.prod(left) < math.prod(right):
                left.append(before[i])
                i += 1
            else:
                right.append(after[j])
                j += 1
        # Where one side is used up, what is left on the other is ones.
        if i == len(before):
            right += after[j:]
            j = len(after)
        if j == len(after):
            left += before[i:]
            i = len(before)
        yield tuple(left), tuple(right)
