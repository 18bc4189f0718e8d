"""Owns partitions: which indices of one axis hold equal values, and what becomes of them when axes are rearranged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from epsinas_onnx.lump.unlumpable import TooLong

Integers: TypeAlias = npt.NDArray[np.int64]

LONGEST = 2**25
"""Indices of the longest axis that are written down one by one."""
LONGEST_KEPT = 2**12
"""Entries of the longest axis whose partition is kept for others that ask for the same."""
_HASHED = 32
"""Labels by which partitions of one size and count are told apart before they are compared."""
LONGEST_LABELLED = 2**23
"""Entries of the longest axis whose classes are found, which takes half a gigabyte; honest models have none such."""


def check_length(size: int) -> None:
    """Raise TooLong for an axis that is too long for the classes of its entries to be found."""
    if size > LONGEST_LABELLED:
        raise TooLong


def every(start: int, stop: int | None = None) -> Integers:
    """Return the indices from `start`, or from 0 to it; raises TooLong where they are too many."""
    start, stop = (0, start) if stop is None else (start, stop)
    if stop - start > LONGEST:
        raise TooLong
    return np.arange(start, stop, dtype=np.int64)


class Partition:
    """The classes of one axis: indices of one class hold equal values, indices of different classes may too.

    size: the number of indices. count: the number of classes. Classes are numbered by their first index, so that
    equal partitions have equal labels. Immutable; made by `one`, `discrete` and `of`.
    """

    def __init__(self, size: int, count: int, labels: Integers | None = None) -> None:
        self.size = size
        self.count = count
        self._labels = labels

    @staticmethod
    def one(size: int) -> Partition:
        """Return the partition in which all indices are one class."""
        return _one(size)

    @staticmethod
    def discrete(size: int) -> Partition:
        """Return the partition in which every index is a class of its own."""
        return _discrete(size)

    @staticmethod
    def of(labels: npt.ArrayLike) -> Partition:
        """Return the partition whose indices are in one class where their labels, int `[size]`, are equal."""
        array = np.asarray(labels, np.int64)
        check_length(array.size)
        if array.size == 0:
            return _discrete(0)
        _, first, inverse = np.unique(array, return_index=True, return_inverse=True)
        count = first.size
        if count == array.size:
            return _discrete(count)
        if count == 1:
            return _one(array.size)
        number = np.empty(count, np.int64)
        number[np.argsort(first)] = np.arange(count)
        return Partition(array.size, count, number[inverse])

    @property
    def is_one(self) -> bool:
        """Whether all indices are one class; an axis of size 1 is that and discrete at once."""
        return self.count == 1

    @property
    def is_discrete(self) -> bool:
        """Whether every index is a class of its own."""
        return self.count == self.size

    @cached_property
    def labels(self) -> Integers:
        """Return the class of each index, int64 `[size]`."""
        if self._labels is not None:
            return self._labels
        return np.broadcast_to(np.int64(0), self.size) if self.count == 1 else every(self.size)

    @cached_property
    def sizes(self) -> Integers:
        """Return how many indices each class has, int64 `[count]`."""
        if self.is_discrete:
            return np.broadcast_to(np.int64(1), self.count)
        if self.count == 1:
            return np.asarray([self.size], np.int64)
        return np.bincount(self.labels, minlength=self.count).astype(np.int64)

    @cached_property
    def representatives(self) -> Integers:
        """Return the first index of each class, int64 `[count]`, ascending."""
        if self.is_discrete:
            return every(self.size)
        if self.count == 1:
            return np.zeros(1, np.int64)
        return np.unique(self.labels, return_index=True)[1].astype(np.int64)

    @cached_property
    def uniform(self) -> bool:
        """Whether all classes have equally many indices, so that an average over classes is one over indices."""
        return self.count <= 1 or self.is_discrete or bool((self.sizes == self.sizes[0]).all())

    def join(self, other: Partition) -> Partition:
        """Return the common refinement: indices are equal where both partitions say so.

        Raises ValueError where the sizes differ.
        """
        if self.size != other.size:
            raise ValueError(f"axes of {self.size} and {other.size} entries have no common partition")
        if self is other or other.is_one or self.is_discrete:
            return self
        if self.is_one or other.is_discrete:
            return other
        if self.size > LONGEST_KEPT:
            return _refined(self, other)
        return _joined(self, other)

    def classes_in(self, finer: Partition) -> Integers:
        """Return for each class of a finer partition the class of this one that holds it, int64 `[finer.count]`."""
        return self.labels[finer.representatives]

    def restrict(self, indices: npt.ArrayLike) -> tuple[Partition, Integers]:
        """Return the partition of the axis made of `indices`, and which class each of its classes was before."""
        chosen = self.labels[np.asarray(indices, np.int64)]
        part = Partition.of(chosen)
        return part, chosen[part.representatives] if chosen.size else chosen

    def split(self, sizes: Sequence[int]) -> tuple[tuple[Partition, ...], Integers | None]:
        """Return partitions of the axes into which this axis is cut in row-major order, and where classes go.

        Two rows of the grid are equal where all their entries are, and so for every axis; the product of these
        partitions is this one where it is a product, else a refinement. The second result is then the class of this
        partition for each cell of the product, int64 of the new counts; None where the classes stay as they are.
        """
        if self.is_one:
            return tuple(_one(size) for size in sizes), None
        if self.is_discrete:
            return tuple(_discrete(size) for size in sizes), None
        grid = self.labels.reshape(tuple(sizes))
        parts = tuple(of_slices(grid, axis) for axis in range(len(sizes)))
        if math.prod(part.count for part in parts) == self.count:
            return parts, None
        return parts, grid[np.ix_(*(part.representatives for part in parts))]

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Partition) or (self.size, self.count) != (other.size, other.count):
            return False
        return self.is_one or self.is_discrete or bool((self.labels == other.labels).all())

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        some = b"" if self.is_one or self.is_discrete else self.labels[:: self.size // _HASHED + 1].tobytes()
        return hash((self.size, self.count, some))

    def __repr__(self) -> str:
        if self.is_discrete or self.is_one:
            return f"Partition({self.size} -> {self.count})"
        return f"Partition({self.size} -> {self.count}: {self.labels.tolist()})"


def concatenate(parts: Sequence[Partition]) -> Partition:
    """Return the partition of axes laid end to end: indices of different operands are never merged."""
    if all(part.is_discrete for part in parts):
        return _discrete(sum(part.size for part in parts))
    check_length(sum(part.size for part in parts))
    offsets = np.cumsum([0, *(part.count for part in parts[:-1])])
    labels = np.concatenate([part.labels + offset for part, offset in zip(parts, offsets, strict=True)])
    return Partition(labels.size, int(offsets[-1]) + parts[-1].count, labels)


def repeated(parts: Sequence[Partition]) -> Partition | None:
    """Return the partition of axes laid end to end whose classes are those of the first; None where it lacks some."""
    size, count = sum(part.size for part in parts), parts[0].count
    if any(part.count > count for part in parts):
        return None
    if count <= 1:
        return _one(size)
    check_length(size)
    return Partition(size, count, np.concatenate([part.labels for part in parts]))


def product(parts: Sequence[Partition]) -> Partition:
    """Return the partition of axes merged in row-major order; class (i, j) becomes i * count + j."""
    size, count = math.prod(part.size for part in parts), math.prod(part.count for part in parts)
    if count == 1 and size:
        return _one(size)
    if count == size:
        return _discrete(size)
    check_length(size)
    labels = np.zeros(1, np.int64)
    for part in parts:
        labels = (labels[:, None] * part.count + part.labels[None, :]).reshape(-1)
    return Partition(size, count, labels)


def of_array(array: npt.NDArray[np.generic]) -> tuple[Partition, ...]:
    """Return for each axis of an array the partition of its indices into those with bitwise equal slices."""
    return tuple(of_slices(array, axis) for axis in range(array.ndim))


def of_slices(array: npt.NDArray[np.generic], axis: int) -> Partition:
    """Return the partition of the indices of one axis into those with bitwise equal slices."""
    if array.shape[axis] <= 1 or array.size == 0:
        return _one(array.shape[axis])
    rows = np.ascontiguousarray(np.moveaxis(array, axis, 0)).reshape(array.shape[axis], -1)
    seen: dict[bytes, int] = {}
    return Partition.of([seen.setdefault(row.tobytes(), len(seen)) for row in rows])


def _refined(first: Partition, second: Partition) -> Partition:
    return Partition.of(first.labels * second.count + second.labels)


@lru_cache(maxsize=1024)
def _joined(first: Partition, second: Partition) -> Partition:
    return _refined(first, second)


@lru_cache(maxsize=4096)
def _one(size: int) -> Partition:
    return Partition(size, min(size, 1))


def _discrete(size: int) -> Partition:
    return Partition(size, size) if size > LONGEST_KEPT else _short_discrete(size)


@lru_cache(maxsize=4096)
def _short_discrete(size: int) -> Partition:
    return _one(size) if size <= 1 else Partition(size, size)
