"""Owns what the rules share: how a lumped value is refined, expanded, broadcast, summed and laid out in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from epsinas_onnx.graph.rewrite import WEIGHT_INPUT
from epsinas_onnx.graph.table import uniform_rows, uniform_table
from epsinas_onnx.lump.graph import LoweredGraph
from epsinas_onnx.lump.partition import Integers, Partition
from epsinas_onnx.lump.step import SeparateRuns, Step, Target
from epsinas_onnx.lump.value import Array, Cause, Dims, Lumped, Parts, Tensor, known_value

FLOAT, INT64, BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL
KNOWN_SIZE = 4096
"""Values up to this many entries are computed while the graph is built, where nothing but stored numbers go in."""

_STORED_TABLE = 2**22
"""Embedding tables up to this many entries are stored; larger ones are computed where they are read."""


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


class Context:
    """Appends nodes to the lowered graph for the rules."""

    bodies: Bodies

    def __init__(self, graph: LoweredGraph, target: Target) -> None:
        self.graph = graph
        self.target = target
        self.constants = target.constants
        shape = (target.constants,)
        weight = (
            graph.derive(lambda weight: weight, shape, FLOAT)
            if target.bound
            else graph.input(WEIGHT_INPUT, shape, FLOAT)
        )
        self._weights: dict[ir.DataType, Tensor] = {FLOAT: weight}
        self._filled: dict[tuple[Dims, ir.DataType], Lumped] = {}
        self._zeros: dict[tuple[Dims, ir.DataType], Lumped] = {}
        self.op = graph.op
        self.constant = graph.constant
        self.reshape = graph.reshape
        self.opset = graph.opset
        self.observed: list[tuple[Lumped, Lumped]] = []
        self.guards: list[Lumped] = []
        self.doubtful = True  # of the node at hand: whether rounding alone may be what a normalisation enlarges

    # Making values.

    def weight(self, shape: Sequence[int], dtype: ir.DataType = FLOAT) -> Lumped:
        """Return a tensor of `shape` full of the constant."""
        key = (tuple(shape), dtype)
        found = self._filled.get(key)
        if found is not None:
            return found
        if dtype not in self._weights:
            source, shape = self._weights[FLOAT], (self.constants,)
            self._weights[dtype] = self.graph.outermost("Cast", [source], shape, dtype, to=int(dtype))
        found = self._filled[key] = Lumped(
            tuple(Partition.one(size) for size in shape), dtype, self._weights[dtype], weighted=True,
            varied=self.constants > 1,
        )  # fmt: skip
        return found

    def known(self, array: Array, dtype: ir.DataType | None = None) -> Lumped:
        """Return an array that is the same for every input and constant."""
        return known_value(array, dtype or ir.DataType.from_numpy(array.dtype))

    def zeros(self, shape: Sequence[int], dtype: ir.DataType, cause: Cause | None = None) -> Lumped:
        """Return zeros of `shape`, as one class along every axis."""
        key = (tuple(shape), dtype)
        found = self._zeros.get(key)
        if found is None:
            found = self._zeros[key] = self.filled(0.0, shape, dtype).replace(zero=True)
        return found if cause is None else found.replace(cause=cause)

    def filled(self, value: float, shape: Sequence[int], dtype: ir.DataType, cause: Cause | None = None) -> Lumped:
        """Return a tensor of `shape` full of a number that is known, as one class along every axis."""
        parts = tuple(Partition.one(size) for size in shape)
        array = np.full(tuple(part.count for part in parts), value, dtype.numpy())
        return Lumped(parts, dtype, self.constant(array), cause=cause)

    def result(
        self,
        tensor: Tensor,
        parts: Parts | None,
        operands: Sequence[Lumped | None],
        factor: float = 1.0,
    ) -> Lumped:
        """Return what a rule made of its operands: it depends on whatever one of them depends on."""
        weighted = varied = depends = False
        cause: Cause | None = None
        for operand in operands:
            if operand is not None:
                weighted |= operand.weighted
                varied |= operand.varied
                depends |= operand.depends
                if operand.cause is not None and (cause is None or _rank(operand.cause) < _rank(cause)):
                    cause = operand.cause
        return Lumped(
            parts, tensor.dtype, tensor, factor, weighted, varied, depends, None if depends else cause
        )  # fmt: skip

    # Reading values.

    def tensor(self, value: Lumped) -> Tensor:
        """Return the tensor of a value in whatever shape it has, its factor still to be applied."""
        if value.tensor is not None:
            return value.tensor
        if value.known is not None:
            index = np.ix_(*(part.representatives for part in value.axes))
            return self.constant(value.known[index] if value.known.ndim else value.known)
        assert value.table is not None
        if math.prod(value.shape) <= _STORED_TABLE or self.opset < 11:
            return self.constant(uniform_table(value.shape, value.table))
        every = self.constant(np.arange(value.shape[0], dtype=np.int64)[:, None])
        return self._drawn(value, every)

    def settle(self, value: Lumped) -> Lumped:
        """Return the value with its factor multiplied into its tensor."""
        if value.factor == 1.0:
            return value
        tensor = self.tensor(value)
        number = self.constant(np.asarray(value.factor, value.dtype.numpy()))
        return value.replace(tensor=self.op("Mul", [tensor, number], tensor.shape), factor=1.0)

    def dims(self, value: Lumped) -> Dims:
        """Return the shape that the rules reckon with: `[constants, *counts]`, or `[*counts]`."""
        return (self.constants, *value.counts) if value.varied else value.counts

    def canonical(self, value: Lumped) -> Tensor:
        """Return the representatives in the shape of `dims`."""
        value = self.settle(value)
        tensor = self.tensor(value)
        return tensor if value.parts is None else self.reshape(tensor, self.dims(value))

    def aligned(self, value: Lumped, rank: int) -> Tensor:
        """Return the representatives in a shape that broadcasts with values of `rank` axes."""
        if not value.varied:
            return self.canonical(value)
        missing = (1,) * (rank - value.rank)
        return self.reshape(self.tensor(self.settle(value)), (self.constants, *missing, *value.counts))

    def folded(self, value: Lumped, axis: int = 0) -> Tensor:
        """Return the representatives with the constants folded into an axis: `[*counts]` with that axis longer."""
        tensor = self.canonical(value)
        if not value.varied:
            return tensor
        counts = list(value.counts)
        if axis:
            order = [*range(1, axis + 1), 0, *range(axis + 1, len(counts) + 1)]
            tensor = self.transpose(tensor, order)
        counts[axis] *= self.constants
        return self.reshape(tensor, tuple(counts))

    def refine(self, value: Lumped, parts: Parts, broadcast: bool = False) -> Lumped:
        """Return the value with finer partitions; broadcast: single classes may stay, to be stretched by the node."""
        if value.parts == parts:
            return value
        tensor = None
        stretch: list[int] = []
        result = list(value.axes)
        for axis, (have, want) in enumerate(zip(value.axes, parts, strict=True)):
            if have.count == want.count or (broadcast and have.is_one):
                continue
            if tensor is None:
                tensor = self.canonical(value)
            if have.is_one:
                stretch.append(axis)
            else:
                tensor = self.gather(tensor, have.classes_in(want), axis + value.varied)
            result[axis] = want
        if tensor is None:
            return value
        value = value.replace(parts=tuple(result), factor=1.0)
        if stretch:
            tensor = self.stretch(tensor, self.dims(value))
        return value.replace(tensor=tensor, known=None)

    def expand(self, value: Lumped) -> Tensor:
        """Return the whole value, `[constants, *shape]` where it varies, else `[*shape]`."""
        if value.parts is None:
            return self.tensor(value)
        return self.canonical(self.refine(value, tuple(Partition.discrete(size) for size in value.shape)))

    def in_all(self, value: Lumped) -> Tensor:
        """Return the representatives with an axis of constants, copied for each where they do not vary."""
        tensor = self.canonical(value)
        if value.varied:
            return tensor
        return self.stretch(self.reshape(tensor, (1, *tensor.dims)), (self.constants, *tensor.dims))

    def alike(self, first: Lumped, other: Lumped, axis: int) -> bool:
        """Whether two values hold the same representatives, their partitions along one axis aside."""
        return (
            first.tensor is not None
            and first.tensor is other.tensor
            and first.varied == other.varied
            and first.factor == other.factor
            and all(i == axis or a == b for i, (a, b) in enumerate(zip(first.axes, other.axes, strict=True)))
        )

    def at(self, tensor: Tensor, constant: int) -> Tensor:
        """Return the part of a tensor `[constants, ...]` that belongs to one constant."""
        return self.op(
            "Gather", [tensor, self.constant(np.asarray(constant, np.int64))], tensor.dims[1:], axis=0
        )  # fmt: skip

    def stack(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return one tensor `[constants, ...]` of one tensor a constant."""
        rows = [self.reshape(tensor, (1, *tensor.dims)) for tensor in tensors]
        return self.op("Concat", rows, (len(rows), *tensors[0].dims), axis=0)

    def each(self, operands: Sequence[Lumped | None], make: Callable[[list[Tensor | None]], Sequence[Tensor]],
             read: Callable[[Lumped], Tensor]) -> list[tuple[Tensor, bool]]:  # fmt: skip
        """Return the outputs of `make` on tensors that `read` gives, once for each constant where operands vary.

        The second of each pair is whether the output has an axis of constants in front. Raises SeparateRuns where an
        output without a known shape would have to be stacked.
        """
        tensors = [None if operand is None else read(operand) for operand in operands]
        varied = [operand is not None and operand.varied for operand in operands]
        if not any(varied):
            return [(tensor, False) for tensor in make(tensors)]
        made = []
        for constant in range(self.constants):
            made.append(
                make([
                    self.at(tensor, constant) if has and tensor is not None else tensor
                    for tensor, has in zip(tensors, varied, strict=True)
                ])
            )  # fmt: skip
        if any(tensor.shape is None for tensor in made[0]):
            raise SeparateRuns
        return [(self.stack(column), True) for column in zip(*made, strict=True)]

    # Appending operators whose form depends on the operator set.

    def number(self, value: float, dtype: ir.DataType = FLOAT) -> Tensor:
        """Return a stored scalar."""
        return self.constant(np.asarray(value, dtype.numpy()))

    def gather(self, tensor: Tensor, indices: Integers, axis: int) -> Tensor:
        """Return the entries at `indices`, a vector, along an axis."""
        shape = list(tensor.dims)
        if indices.size == shape[axis] and bool((indices == np.arange(indices.size)).all()):
            return tensor
        shape[axis] = int(indices.size)
        return self.op("Gather", [tensor, self.constant(np.asarray(indices, np.int64))], tuple(shape), axis=axis)

    def stretch(self, tensor: Tensor, shape: Dims) -> Tensor:
        """Return a tensor broadcast to `shape`; Expand came with operator set 8."""
        if tensor.shape == shape:
            return tensor
        stored = self.graph.laid_out(tensor, shape, np.broadcast_to)
        if stored is not None:
            return stored
        if self.opset >= 8:
            return self.op("Expand", [tensor, self.constant(np.asarray(shape, np.int64))], shape)
        dims = (1,) * (len(shape) - len(tensor.dims)) + tensor.dims
        repeats = np.asarray([want // have for want, have in zip(shape, dims, strict=True)], np.int64)
        return self.op("Tile", [self.reshape(tensor, dims), self.constant(repeats)], shape)

    def transpose(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        """Return a tensor with its axes in another order; moving axes of size 1 costs no copy."""
        shape = tuple(tensor.dims[axis] for axis in order)
        moving = [axis for axis in order if tensor.dims[axis] != 1]
        if moving == sorted(moving):
            return self.reshape(tensor, shape)
        return self.op("Transpose", [tensor], shape, perm=list(order))

    def reduce(self, op_type: str, tensor: Tensor, axes: Sequence[int]) -> Tensor:
        """Append a reduction that keeps its axes with size 1; the axes became an input with operator set 13 or 18."""
        axes = sorted(axes)
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(tensor.dims))
        if shape == tensor.dims and op_type in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"):
            return tensor
        if self.opset >= (13 if op_type == "ReduceSum" else 18):
            return self.op(op_type, [tensor, self.constant(np.asarray(axes, np.int64))], shape)
        return self.op(op_type, [tensor], shape, axes=axes)

    def slice(self, tensor: Tensor, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int],
              steps: Sequence[int]) -> Tensor:  # fmt: skip
        """Append a Slice; everything but the data became an input with operator set 10, which brought the steps."""
        shape = list(tensor.dims)
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            shape[axis] = len(range(*slice(start, end, step).indices(shape[axis])))
        if self.opset >= 10:
            vectors = [self.constant(np.asarray(v, np.int64)) for v in (starts, ends, axes, steps)]
            return self.op("Slice", [tensor, *vectors], tuple(shape))
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            if step != 1:
                chosen = np.arange(*slice(start, end, step).indices(tensor.dims[axis]), dtype=np.int64)
                tensor = self.gather(tensor, chosen, axis)
                starts, ends = [0 if a == axis else s for a, s in zip(axes, starts, strict=True)], list(ends)
                ends = [len(chosen) if a == axis else e for a, e in zip(axes, ends, strict=True)]
        return self.op("Slice", [tensor], tuple(shape), starts=list(starts), ends=list(ends), axes=list(axes))

    # Arithmetic on values.

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
                return value
        return self.elementwise("Add", [first, second])

    def per_channel(self, value: Lumped, rank: int) -> Lumped:
        """Return a vector `[channels]` in a shape that broadcasts with `[n, channels, *space]` of `rank` axes."""
        one = Partition.one(1)
        parts = (*value.axes, *(one,) * (rank - 2))
        return value.replace(parts=parts, tensor=self.tensor(value), known=None)

    def observe(self, mean: Lumped, variance: Lumped) -> None:
        """Remember a minibatch's mean and variance, a channel at a time, for the judge to look at."""
        if not self.graph.in_body:
            self.observed.append((mean, variance))

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
        uneven = [axis for axis in axes if not parts[axis].uniform]
        for axis in axes:
            if axis not in uneven and parts[axis].size:
                factor *= int(parts[axis].sizes[0])
        value = value.replace(factor=1.0)
        for axis in uneven:
            value = self.mix(value, axis, value.axes[axis].sizes[None, :], Partition.one(1))
        even = [axis for axis in axes if axis not in uneven and value.axes[axis].count != 1]
        result = tuple(Partition.one(1) if axis in axes else part for axis, part in enumerate(parts))
        if not even:
            return value.replace(parts=result, factor=factor, known=None, tensor=self.tensor(value))
        tensor = self.reduce("ReduceSum", self.canonical(value), [axis + value.varied for axis in even])
        return self.result(tensor, result, [value], factor)

    def mean(self, value: Lumped, axes: Sequence[int]) -> Lumped:
        """Return the mean over axes, which keep size 1: classes weigh as much as they have indices."""
        if all(value.axes[axis].uniform for axis in axes):
            result = tuple(Partition.one(1) if axis in axes else part for axis, part in enumerate(value.axes))
            tensor = self.tensor(value)
            if any(value.axes[axis].count != 1 for axis in axes):
                tensor = self.reduce("ReduceMean", self.canonical(value.replace(factor=1.0)),
                                     [axis + value.varied for axis in axes])  # fmt: skip
            return value.replace(parts=result, tensor=tensor, known=None)
        for axis in axes:
            part = value.axes[axis]
            if part.uniform:
                value = self.mean(value, [axis])
            else:
                value = self.mix(value, axis, part.sizes[None, :] / part.size, Partition.one(1))
        return value

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
        if ((matrix != 0).sum(axis=1) == 1).all() and (matrix.max(axis=1) == 1).all():
            tensor = self.gather(self.canonical(value.replace(factor=1.0)), matrix.argmax(axis=1), place)
            return self.result(tensor, parts, [value], value.factor)
        if rows == 1 and (matrix == matrix[0, 0]).all():
            tensor = self.reduce("ReduceSum", self.canonical(value.replace(factor=1.0)), [place])
            return self.result(tensor, parts, [value], value.factor * float(matrix[0, 0]))
        tensor = self.canonical(value.replace(factor=1.0))
        shape = tensor.dims
        before, after = math.prod(shape[:place]), math.prod(shape[place + 1 :])
        out = (*shape[:place], rows, *shape[place + 1 :])
        stored = np.asarray(matrix, value.dtype.numpy())
        if after == 1:
            flat = self.reshape(tensor, (before, columns))
            product = self.op("MatMul", [flat, self.constant(stored.T)], (before, rows))
        else:
            flat = self.reshape(tensor, (before, columns, after))
            product = self.op("MatMul", [self.constant(stored), flat], (before, rows, after))
        return self.result(self.reshape(product, out), parts, [value], value.factor)

    # Embedding tables.

    def table_rows(self, table: Lumped, indices: Lumped) -> Tensor:
        """Return the rows of an embedding table, `[*counts of indices, width]`, by the formula of its entries."""
        rows, width = table.shape
        chosen = self.canonical(indices)
        stored = rows <= chosen.elements and rows * width <= _STORED_TABLE
        if self.opset < 11 or stored or indices.varied:
            dims = (*chosen.dims, width)
            return self.op("Gather", [self.tensor(table), chosen], dims, table.dtype, axis=0)
        if chosen.dtype != INT64:
            chosen = self.op("Cast", [chosen], chosen.dims, INT64, to=int(INT64))
        return self._drawn(table, self.reshape(chosen, (*chosen.dims, 1)))

    def _drawn(self, table: Lumped, rows: Tensor) -> Tensor:
        """Return rows of a table by the formula of its entries; rows: int64 `[..., 1]`."""
        assert table.table is not None
        count, width = table.shape
        drawn = uniform_rows(_Arithmetic(self), rows, count, width, table.table)
        return drawn if table.dtype == FLOAT else self.op("Cast", [drawn], drawn.dims, table.dtype, to=int(table.dtype))

    # Layouts that the kernels like.

    def as_channels(self, value: Lumped) -> Tensor:
        """Return an image value `[n, c, *space]` as `[1, constants * n * c, *space]`: all maps are channels."""
        space = value.counts[2:]
        maps = math.prod(self.dims(value)) // max(1, math.prod(space))
        return self.reshape(self.tensor(value), (1, maps, *space))

    def as_batch(self, value: Lumped) -> Tensor:
        """Return an image value `[n, c, *space]` as `[constants * n * c, 1, *space]`: all maps are samples."""
        space = value.counts[2:]
        maps = math.prod(self.dims(value)) // max(1, math.prod(space))
        return self.reshape(self.tensor(value), (maps, 1, *space))

    def as_maps(self, value: Lumped) -> Tensor:
        """Return an image value in the layout that the provider is fast at."""
        return self.as_channels(value) if self.target.blocked else self.as_batch(value)


class _Arithmetic:
    """What `uniform_rows` computes with: int64 tensors of the lowered graph."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def number(self, value: int) -> Tensor:
        return self._context.constant(np.asarray(value, np.int64))

    def range(self, count: int) -> Tensor:
        return self._context.constant(np.arange(count, dtype=np.int64))

    def op(self, op_type: str, first: Tensor, second: Tensor) -> Tensor:
        shape = np.broadcast_shapes(first.dims, second.dims)
        return self._context.op(op_type, [first, second], shape)

    def floats(self, tensor: Tensor, step: float) -> Tensor:
        context = self._context
        cast = context.op("Cast", [tensor], tensor.dims, FLOAT, to=int(FLOAT))
        return context.op("Mul", [cast, context.number(step)], cast.dims)


def _rank(cause: Cause) -> tuple[bool, int]:
    return cause.zero, cause.order
