"""Owns what windows see of an axis: which of them see the same, and how often a class of positions occurs in each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from typing import Any, TypeVar, cast

import numpy as np

from epsinas_onnx.lump.partition import Partition, of_slices
from epsinas_onnx.lump.value import Array, Dims

_WORTH = 0.75
"""Up to which share of its size an axis may have classes that are told apart. Beyond it a position of its own for each
index costs less: what goes over all of them is a convolution, and not a matrix of the squared number of classes."""


_KEPT = 512
"""What is remembered of each function of a partition."""
_LARGEST_KEPT = 2**13
"""Entries of the largest matrix that is remembered, of 8 bytes each."""

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Window:
    """What slides along one axis. front: how much padding lies before its first entry. count: how often it stops."""

    length: int
    stride: int
    dilation: int
    front: int
    count: int

    def leaves(self, part: Partition) -> bool:
        """Whether it leaves every position of an axis to itself."""
        return self.length == 1 and self.stride == 1 and self.front == 0 and self.count == part.size


@dataclass(frozen=True, eq=False)
class Along:
    """What an axis is multiplied by. rows: `[indices after, classes before]`. part: which of the rows are equal."""

    rows: Array
    part: Partition

    @classmethod
    def of(cls, rows: Array, decimals: int | None = None) -> Along:
        """Return a matrix whose equal rows, up to so many decimals, are one class; most of them apart are all apart."""
        part = of_slices(rows if decimals is None else np.round(rows, decimals) + 0.0, 0)
        return cls(rows, part if part.count <= _WORTH * part.size else Partition.discrete(part.size))

    @cached_property
    def matrix(self) -> Array:
        """Return one row a class."""
        return self.rows[self.part.representatives]

    @cached_property
    def is_simple(self) -> bool:
        """Whether there is an operator for what the matrix does, or none is needed."""
        return adds_up(self.matrix) or chooses(self.matrix)

    @property
    def apart(self) -> Along:
        """Return the same without classes."""
        return Along(self.rows, Partition.discrete(self.part.size))


def chooses(matrix: Array) -> bool:
    """Whether each row is one of the columns."""
    return bool(((matrix != 0).sum(axis=1) == 1).all() and (matrix.max(axis=1) == 1).all())


def adds_up(matrix: Array) -> bool:
    """Whether it is the sum of all columns, or a multiple of it."""
    return len(matrix) == 1 and bool((matrix == matrix[0, 0]).all())


def kept(make: Function) -> Function:
    """Have what a function gives for a partition and a window, or a number of rows, remembered where that is small."""
    remembered = lru_cache(maxsize=_KEPT)(make)

    @wraps(make)
    def known(part: Partition, window: Window | int, *rest: Any) -> Any:
        rows = window if isinstance(window, int) else window.count
        return (make if rows * part.count > _LARGEST_KEPT else remembered)(part, window, *rest)

    return cast(Function, known)


@kept
def seen(part: Partition, window: Window) -> Along:
    """Return how often each class occurs in the windows, int64 `[window.count, part.count]`; padding is no class."""
    rows = np.zeros((window.count, part.count), np.int64)
    starts = np.arange(window.count) * window.stride - window.front
    for tap in range(window.length):
        at = starts + tap * window.dilation
        inside = (at >= 0) & (at < part.size)
        rows[np.flatnonzero(inside), part.labels[at[inside]]] += 1
    return Along.of(rows)


@kept
def averaged(part: Partition, window: Window, whole: bool) -> tuple[Along, int]:
    """Return the means over windows times what most of them hold, and that number.

    whole: whether padding counts. Most rows then hold integers, of which sums of slices are made.
    """
    rows = seen(part, window).rows
    counts = np.full(window.count, window.length) if whole else rows.sum(axis=1)
    most = int(np.bincount(counts).argmax())
    return Along.of(rows * (most / counts)[:, None]), most


@kept
def held(part: Partition, window: Window) -> Along:
    """Return which classes occur in the windows, bool `[window.count, part.count]`."""
    return Along.of(seen(part, window).rows > 0)


@kept
def spread(part: Partition, window: Window) -> Along:
    """Return how often each class reaches the outputs of a transposed convolution, int64 `[window.count, part.count]`.

    Entry i reaches the outputs `i * stride - front + tap * dilation`.
    """
    rows = np.zeros((window.count, part.count), np.int64)
    starts = np.arange(part.size) * window.stride - window.front
    for tap in range(window.length):
        at = starts + tap * window.dilation
        inside = (at >= 0) & (at < window.count)
        rows[at[inside], part.labels[inside]] += 1
    return Along.of(rows)


def pads_of(mode: str, pads: Dims | None, kernel: Dims, space: Dims, strides: Dims, dilations: Dims) -> Dims:
    """Return the pads of all axes, first those in front, then those behind (ONNX Conv, attribute auto_pad)."""
    rank = len(kernel)
    if mode == "VALID":
        return (0,) * (2 * rank)
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        front, behind = [], []
        for size, length, stride, dilation in zip(space, kernel, strides, dilations, strict=True):
            needed = max(0, (math.ceil(size / stride) - 1) * stride + dilation * (length - 1) + 1 - size)
            small, large = needed // 2, needed - needed // 2
            front.append(small if mode == "SAME_UPPER" else large)
            behind.append(large if mode == "SAME_UPPER" else small)
        return (*front, *behind)
    return pads or (0,) * (2 * rank)


def except_at(values: Sequence[int], axes: Sequence[int], value: int) -> Dims:
    """Return integers with those at some places replaced by `value`."""
    return tuple(value if axis in axes else have for axis, have in enumerate(values))
