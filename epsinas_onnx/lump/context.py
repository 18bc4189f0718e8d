"""Owns what the rules compute with: arithmetic on lumped values, and what they leave for the judge to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from epsinas_onnx.lump.graph import LoweredGraph
from epsinas_onnx.lump.operators import BOOL, FLOAT, INT64
from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.step import Step, Target
from epsinas_onnx.lump.value import Array, Dims, Lumped, Parts, Tensor
from epsinas_onnx.lump.values import Values
from epsinas_onnx.lump.windows import Along, adds_up, chooses

__all__ = ["BOOL", "FLOAT", "INT64", "Bodies", "Context"]


_SMALL_PRODUCT = 10_000
"""Entries of a matrix over two axes at once up to which it takes less time than one over each."""


class Bodies(Protocol):
    """Lowers the graphs that a node holds; the walker does."""

    def inlined(self, graph: ir.Graph) -> list[Lumped]:
        """Lower a body without inputs into the graph at hand; return its outputs."""

    def lowered(self, graph: ir.Graph, bound: Mapping[ir.Value, Lumped]) -> list[Lumped]:
        """Lower a body into the one that was opened, with its inputs bound; return its outputs."""

    def shape(self, value: ir.Value) -> Dims | None:
        """Return the shape that a value is declared with, where that is concrete."""

    def at(self, step: Step) -> None:
        """Go on with the node that holds the bodies."""


class Context(Values):
    """Computes with lumped values.

    observed: batch normalisations by name, with mean and variance. guards: sums that are NaN where what a proof skipped
    is not finite. doubtful: of the node at hand, whether rounding alone may be what a normalisation enlarges.
    """

    bodies: Bodies

    def __init__(self, graph: LoweredGraph, target: Target) -> None:
        super().__init__(graph, target)
        self.observed: list[tuple[str, Lumped, Lumped]] = []
        self.guards: list[Lumped] = []
        self.doubtful = True

    def elementwise(self, op_type: str, operands: Sequence[Lumped], dtype: ir.DataType | None = None,
                    **attributes: Any) -> Lumped:  # fmt: skip
        """Append a broadcasting operator: along every axis the result has the operands' common refinement.

        dtype: of the result, that of the first operand unless given. Operands of size 1 along an axis are stretched,
        as ONNX broadcasting does. Factors are settled first.
        """
        operands = [self.settle(operand) for operand in operands]
        first = operands[0]
        if all(operand.parts == first.parts and operand.varied == first.varied for operand in operands):
            tensors = self._side_by_side([self.tensor(operand) for operand in operands])
            return self.result(self.op(op_type, tensors, tensors[0].shape, dtype, **attributes), first.parts, operands)
        parts = self.broadcast([operand.axes for operand in operands])
        rank = len(parts)
        fitted = [
            self.refine(
                operand,
                tuple(
                    have if have.size == 1 else want
                    for have, want in zip(operand.axes, parts[rank - operand.rank :], strict=True)
                ),
                broadcast=True,
            )
            for operand in operands
        ]
        varied = any(operand.varied for operand in fitted)
        counts = tuple(
            max(operand.counts[axis - rank + operand.rank] for operand in fitted if axis >= rank - operand.rank)
            for axis in range(rank)
        )
        shape = (self.constants, *counts) if varied else counts
        tensors = self._laid_out(fitted, shape)
        layout = np.broadcast_shapes(*(tensor.dims for tensor in tensors))
        made = self.op(op_type, tensors, layout, dtype, **attributes)
        return self.result(made, parts, operands)

    def _side_by_side(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return tensors of equally many entries in the shape of the one that was laid out last."""
        shape = tensors[-1].dims
        return [self.reshape(tensor, shape) for tensor in tensors]

    def _laid_out(self, operands: Sequence[Lumped], shape: Dims) -> list[Tensor]:
        """Return tensors that broadcast to `shape`, or to the layout in which the largest operands already lie."""
        own = [self.tensor(operand) for operand in operands]
        elements = math.prod(shape)
        whole = [tensor for tensor in own if tensor.elements == elements]
        if whole and all(tensor.elements in (1, elements) for tensor in own):
            layout = next((tensor.dims for tensor in whole if tensor.dims != shape), shape)
            return [self.reshape(t, layout if t.elements == elements else ()) for t in own]
        return [self.aligned(operand, len(shape) - any(o.varied for o in operands)) for operand in operands]

    def broadcast(self, shapes: Sequence[Parts]) -> Parts:
        """Return the common refinement of partitions whose axes are aligned at the end; size 1 is stretched."""
        rank = max(map(len, shapes))
        parts: list[Partition] = []
        for axis in range(rank):
            aligned = [shape[axis - rank + len(shape)] for shape in shapes if axis >= rank - len(shape)]
            longer = [part for part in aligned if part.size != 1]
            part = longer[0] if longer else aligned[0]
            for other in longer[1:]:
                part = part.join(other)
            parts.append(part)
        return tuple(parts)

    def mul(self, first: Lumped, second: Lumped) -> Lumped:
        """Return the product; pending factors are multiplied, and stay pending."""
        factor = first.factor * second.factor
        y = self.elementwise("Mul", [first.replace(factor=1.0), second.replace(factor=1.0)])
        return y.replace(factor=factor)

    def add(self, first: Lumped, second: Lumped) -> Lumped:
        """Return the sum; a zero operand costs nothing."""
        for value, other in ((first, second), (second, first)):
            if other.zero and self.broadcast([value.axes, other.axes]) == value.axes:
                return self.less_zero(value, other)
        return self.elementwise("Add", [first, second])

    def less_zero(self, value: Lumped, zero: Lumped) -> Lumped:
        """Return a value plus or minus a zero of no more axes, which leaves at most the reason why nothing depends."""
        if value.depends or zero.cause is None:
            return value
        return self.result(self.tensor(value), value.axes, [value, zero], value.factor).replace(zero=value.zero)

    def per_channel(self, value: Lumped, rank: int) -> Lumped:
        """Return a vector `[channels]` in a shape that broadcasts with `[n, channels, *space]` of `rank` axes."""
        one = Partition.one(1)
        parts = (*value.axes, *(one,) * (rank - 2))
        return value.replace(parts=parts, tensor=self.tensor(value), known=None)

    def observe(self, mean: Lumped, variance: Lumped) -> None:
        """Remember a minibatch's mean and variance, a channel at a time, for the judge to look at."""
        if not self.graph.in_body:
            self.observed.append((self.graph.source, mean, variance))

    def guard(self, value: Lumped) -> None:
        """Have a value looked at that a proof makes superfluous: where it is infinite, what was proven is NaN."""
        if value.depends and not self.graph.in_body:
            nothing = self.elementwise("Mul", [value, self.scalar(0.0, value.dtype)])
            self.guards.append(self.settle(self.total(nothing, list(range(value.rank)))))

    def same(self, first: Lumped, second: Lumped) -> bool:
        """Whether two values are equal wherever they meet, because one tensor of the lowered graph holds both."""
        if first.tensor is None or first.tensor is not second.tensor or first.factor != second.factor:
            return False
        if first.rank != second.rank or first.varied != second.varied:
            return False
        return all(
            a == b or (a.is_one and b.is_one and 1 in (a.size, b.size))
            for a, b in zip(first.axes, second.axes, strict=True)
        )

    def scalar(self, value: float, dtype: ir.DataType = FLOAT) -> Lumped:
        """Return a known number without axes."""
        return Lumped((), dtype, self.number(value, dtype))

    def total(self, value: Lumped, axes: Sequence[int]) -> Lumped:
        """Return the sum over axes, which keep size 1: classes count as often as they have indices."""
        factor = value.factor
        parts = list(value.axes)
        value = self._weighed(value.replace(factor=1.0), axes)
        factor *= value.factor
        for axis in axes:
            if value.axes[axis].size:
                factor *= int(value.axes[axis].sizes[0])
        value = value.replace(factor=1.0)
        even = [axis for axis in axes if value.axes[axis].count != 1]
        result = tuple(Partition.one(1) if axis in axes else part for axis, part in enumerate(parts))
        if not even:
            return value.replace(parts=result, factor=factor, known=None, tensor=self.tensor(value))
        tensor = self.reduce("ReduceSum", self.canonical(value), [axis + value.varied for axis in even])
        return self.result(tensor, result, [value], factor)

    def mean(self, value: Lumped, axes: Sequence[int]) -> Lumped:
        """Return the mean over axes, which keep size 1: classes weigh as much as they have indices.

        The number of indices divides last, as behind a sum over all of them.
        """
        count = math.prod(value.axes[axis].size for axis in axes)
        summed = self._weighed(value, axes)
        result = tuple(Partition.one(1) if axis in axes else part for axis, part in enumerate(value.axes))
        rest = math.prod(summed.axes[axis].size for axis in axes)
        factor = summed.factor * (rest / count if count else 1.0)
        tensor = self.tensor(summed)
        longer = [axis for axis in axes if summed.axes[axis].count != 1]
        if longer:
            tensor = self.reduce("ReduceMean", self.canonical(summed.replace(factor=1.0)),
                                 [axis + summed.varied for axis in longer])  # fmt: skip
        return summed.replace(parts=result, tensor=tensor, known=None, factor=factor)

    def _weighed(self, value: Lumped, axes: Sequence[int]) -> Lumped:
        """Return the value summed up, class by class, over those axes whose classes have different sizes.

        Neighbouring axes go into one product, with all of them from the first such axis to the last.
        """
        for run in _runs(sorted(axes)):
            uneven = [axis for axis in run if not value.axes[axis].uniform]
            if not uneven:
                continue
            run = list(range(uneven[0], uneven[-1] + 1))
            weights = np.ones(1, np.int64)
            for axis in run:
                weights = np.multiply.outer(weights, value.axes[axis].sizes).reshape(-1)
            y = self.mix(self._flat(value, run), run[0], weights[None, :], Partition.one(1))
            ones = (Partition.one(1),) * len(run)
            value = y.replace(parts=(*value.axes[: run[0]], *ones, *value.axes[run[-1] + 1 :]))
        return value

    def _flat(self, value: Lumped, run: Sequence[int]) -> Lumped:
        """Return a value with neighbouring axes merged into one, whose indices are their combinations of classes."""
        count = math.prod(value.counts[axis] for axis in run)
        parts = (*value.axes[: run[0]], Partition.discrete(count), *value.axes[run[-1] + 1 :])
        return value.replace(parts=parts, tensor=self.tensor(value), known=None)

    def worth(self, value: Lumped, maps: Mapping[int, Along]) -> dict[int, Along]:
        """Return what axes are multiplied by, without the classes that save less than they cost.

        What they cost are nodes: a normalisation that weighs classes by their sizes takes ten, where one will do over
        classes of equal sizes, and a window takes three. One class along all axes costs nothing, and where a
        normalisation is one node in either case no classes do.
        """
        if self.target.whole_norms:
            return dict(maps)
        others = math.prod(count for axis, count in enumerate(value.counts) if axis not in maps)
        parts = [along.part for along in maps.values()]
        whole, classes = math.prod(part.size for part in parts), math.prod(part.count for part in parts)
        cost = self.target.node_cost * (3 if all(part.uniform for part in parts) else 10)
        if all(part.is_one for part in parts) or others * (whole - classes) >= cost:
            return dict(maps)
        return {axis: along.apart for axis, along in maps.items()}

    def mix_along(self, value: Lumped, maps: Mapping[int, Along]) -> Lumped:
        """Return the value with some axes multiplied by a matrix each, as `mix` does with one.

        Small matrices of neighbouring axes become one, which is a single large product, where the first axis of two
        takes one small product for each map.
        """
        maps = self.worth(value, maps)
        axes = sorted(maps)
        if not axes:
            return value
        if self.target.whole_norms:
            for axis in axes:
                if maps[axis].is_simple:
                    value = self.mix(value, axis, maps[axis].matrix, maps[axis].part)
            return self._along(value, {a: (maps[a].matrix, maps[a].part) for a in axes if not maps[a].is_simple})
        shapes = [maps[axis].matrix.shape for axis in axes]
        rows, columns = (math.prod(shape[i] for shape in shapes) for i in (0, 1))
        near = axes[-1] - axes[0] + 1 == len(axes)
        if len(axes) == 1 or not near or rows * columns > _SMALL_PRODUCT:
            for axis in reversed(axes):
                value = self.mix(value, axis, maps[axis].matrix, maps[axis].part)
            return value
        matrix: Array = np.ones((1, 1))
        for axis in axes:
            matrix = np.kron(matrix, maps[axis].matrix)
        y = self.mix(self._flat(value, axes), axes[0], matrix, Partition.discrete(rows))
        parts = tuple(maps[axis].part if axis in maps else part for axis, part in enumerate(value.axes))
        return y.replace(parts=parts, tensor=self.tensor(y), known=None)

    def mix(self, value: Lumped, axis: int, matrix: Array, part: Partition) -> Lumped:
        """Return the value with an axis multiplied by `matrix` `[part.count, count]`, which gives it a new partition.

        A multiple of one class is a factor, a choice of classes a Gather, equal numbers a ReduceSum.
        """
        rows, columns = matrix.shape
        parts = tuple(part if index == axis else have for index, have in enumerate(value.axes))
        place = axis + value.varied
        if rows == columns == 1:
            return value.replace(
                parts=parts, factor=value.factor * float(matrix[0, 0]), known=None, tensor=self.tensor(value)
            )
        if chooses(matrix):
            tensor = self.gather(self.canonical(value.replace(factor=1.0)), matrix.argmax(axis=1), place)
            return self.result(tensor, parts, [value], value.factor)
        if adds_up(matrix):
            tensor = self.reduce("ReduceSum", self.canonical(value.replace(factor=1.0)), [place])
            return self.result(tensor, parts, [value], value.factor * float(matrix[0, 0]))
        if self.target.whole_norms:
            return self._along(value, {axis: (matrix, part)})
        tensor = self.canonical(value.replace(factor=1.0))
        shape = tensor.dims
        before, after = math.prod(shape[:place]), math.prod(shape[place + 1 :])
        out = (*shape[:place], rows, *shape[place + 1 :])
        if after == 1:
            flat = self.reshape(tensor, (before, columns))
            product = self.op("MatMul", [flat, self.real(matrix.T, value.dtype)], (before, rows))
        else:
            flat = self.reshape(tensor, (before, columns, after))
            product = self.op("MatMul", [self.real(matrix, value.dtype), flat], (before, rows, after))
        return self.result(self.reshape(product, out), parts, [value], value.factor)

    def _along(self, value: Lumped, maps: Mapping[int, tuple[Array, Partition]]) -> Lumped:
        """Return the value with some axes multiplied by a matrix each, in one node of our own."""
        if not maps:
            return value
        tensor = self.canonical(value.replace(factor=1.0))
        shape = list(tensor.dims)
        for axis, (matrix, _) in maps.items():
            shape[axis + value.varied] = len(matrix)
        stored = [self.constant(np.asarray(matrix, np.float64)) for matrix, _ in maps.values()]
        axes = [axis + value.varied for axis in maps]
        made = self.op("Along", [tensor, *stored], tuple(shape), domain="epsinas", axes=axes)
        parts = tuple(maps[axis][1] if axis in maps else part for axis, part in enumerate(value.axes))
        return self.result(made, parts, [value], value.factor)


def _runs(axes: Sequence[int]) -> list[list[int]]:
    """Return ascending axes in runs of neighbours."""
    runs: list[list[int]] = []
    for axis in axes:
        if runs and runs[-1][-1] == axis - 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    return runs
