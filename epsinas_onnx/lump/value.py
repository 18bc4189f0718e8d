"""Owns what a rule works on: a tensor of the lowered graph, and a value of the user's graph lumped into one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.lump.partition import Partition

Array: TypeAlias = npt.NDArray[Any]
Parts: TypeAlias = tuple[Partition, ...]
Dims: TypeAlias = tuple[int, ...]


# Not frozen, because a frozen dataclass takes four times as long to make, and there are thousands of these.
@dataclass(eq=False, slots=True)
class Tensor:
    """A tensor of the lowered graph; never modified. shape: None where it is known at run time only."""

    name: str
    shape: Dims | None
    dtype: ir.DataType

    @property
    def dims(self) -> Dims:
        """Return the shape of a tensor that has a known one."""
        assert self.shape is not None, f"{self.name} has no known shape"
        return self.shape

    @property
    def elements(self) -> int:
        """Return the number of elements, 0 where the shape is unknown."""
        return 0 if self.shape is None else math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a value does not depend on the input although an operand in front of it does.

    node: the user's node. why: the end of a sentence. order: place in the graph. zero: it is a multiplication by 0.
    """

    node: ir.Node
    why: str
    order: int
    zero: bool = False


@dataclass(eq=False, slots=True)
class Lumped:
    """A value of the user's graph: one representative for each class of indices, along every axis; never modified.

    parts: one partition an axis; None where the shape is unknown, and then `tensor` is the whole value.
    tensor: holds the representatives. Its data, in row-major order, are those of `[constants, *counts]` where the
    value varies with the constant, else of `[*counts]`; its own shape may be another one of the same size.
    None where the value is known and nothing has needed it in the graph yet, or where it is an embedding table.
    factor: what `tensor` must be multiplied by to give the value; an exact number, which a layer that normalises can do
    without, and which is multiplied in before any other weight is.
    weighted: whether it is computed from the constant; varied: whether it has one copy for each constant.
    depends: whether it is computed from an input. cause: where that ended.
    zero: whether it is 0 everywhere. known: the whole value, small, the same for every input and constant.
    table: the seed, where the value is an embedding table that the graph computes by a formula.
    """

    parts: Parts | None
    dtype: ir.DataType
    tensor: Tensor | None = None
    factor: float = 1.0
    weighted: bool = False
    varied: bool = False
    depends: bool = False
    cause: Cause | None = None
    zero: bool = False
    known: Array | None = None
    table: int | None = None

    @property
    def axes(self) -> Parts:
        """Return the partitions of a value whose shape is known."""
        assert self.parts is not None
        return self.parts

    @property
    def rank(self) -> int:
        """Return the number of axes of the whole value."""
        return len(self.axes)

    @property
    def shape(self) -> Dims:
        """Return the shape of the whole value."""
        return tuple([part.size for part in self.axes])  # a list is made in half the time of a generator

    @property
    def counts(self) -> Dims:
        """Return the number of classes along each axis."""
        return tuple([part.count for part in self.axes])

    @property
    def is_single(self) -> bool:
        """Whether all entries are equal (for one constant)."""
        return self.parts is not None and all(part.count == 1 for part in self.parts)

    def replace(self, **changes: Any) -> Lumped:
        """Return a copy with some fields changed."""
        own = self.parts, self.dtype, self.tensor, self.factor, self.weighted, self.varied, self.depends, self.cause
        copy = Lumped(*own, self.zero, self.known, self.table)
        for name, value in changes.items():
            setattr(copy, name, value)
        return copy


def known_value(array: Array, dtype: ir.DataType) -> Lumped:
    """Return a small array that is the same for every input and constant, as a lumped value."""
    from epsinas_onnx.lump.partition import of_array

    return Lumped(of_array(array), dtype, known=array, zero=bool(array.size) and not np.any(array))
