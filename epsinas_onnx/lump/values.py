"""Owns how lumped values are made, and read back: settled, refined, expanded, laid out as the kernels like it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from epsinas_onnx.graph.passes.constant_weights import WEIGHT_INPUT
from epsinas_onnx.lump.graph import LoweredGraph
from epsinas_onnx.lump.operators import FLOAT, Operators
from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.step import SeparateRuns, Target
from epsinas_onnx.lump.tables import whole_table
from epsinas_onnx.lump.value import Array, Cause, Dims, Lumped, Parts, Tensor, known_value


class Values(Operators):
    """Makes lumped values and reads them back."""

    def __init__(self, graph: LoweredGraph, target: Target) -> None:
        super().__init__(graph)
        self.target = target
        self.precise = target.whole_norms
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
        tensor = self.repeated(value, tuple(part.count for part in parts), dtype)
        return Lumped(parts, dtype, tensor, cause=cause)

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
        return whole_table(self, value)

    def settle(self, value: Lumped) -> Lumped:
        """Return the value with its factor multiplied into its tensor."""
        if value.factor == 1.0:
            return value
        tensor = self.tensor(value)
        number = self.real(value.factor, value.dtype)
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


def _rank(cause: Cause) -> tuple[bool, int]:
    return cause.zero, cause.order
