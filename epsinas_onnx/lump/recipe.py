"""Owns what a rule did to one node, in a form that can be done again in another graph."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import onnx_ir as ir

from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.graph import Kind, LoweredGraph, Operation
from epsinas_onnx.lump.registry import Operands
from epsinas_onnx.lump.value import Array, Dims, Lumped, Parts, Tensor

Tensors: TypeAlias = Sequence[Tensor | None]
"""Those of a recipe by their places: first of the operands, then what its actions made."""


class Action(Protocol):
    """One step of a recipe."""

    def again(self, graph: LoweredGraph, tensors: Tensors) -> tuple[Tensor | None, ...]:
        """Do it in a graph; return what it makes."""


class Stored(NamedTuple):
    """`LoweredGraph.stored`."""

    key: Hashable
    array: Array
    dtype: ir.DataType | None

    def again(self, graph: LoweredGraph, tensors: Tensors) -> tuple[Tensor | None, ...]:
        """Do it in a graph; return what it makes."""
        return (graph.stored(self.key, self.array, self.dtype),)


class Reshaped(NamedTuple):
    """`LoweredGraph.reshape`."""

    place: int
    shape: Dims

    def again(self, graph: LoweredGraph, tensors: Tensors) -> tuple[Tensor | None, ...]:
        """Do it in a graph; return what it makes."""
        tensor = tensors[self.place]
        assert tensor is not None
        return (graph.reshape(tensor, self.shape),)


class LaidOut(NamedTuple):
    """`LoweredGraph.laid_out`."""

    place: int
    shape: Dims
    change: Callable[[Array, Dims], Array]

    def again(self, graph: LoweredGraph, tensors: Tensors) -> tuple[Tensor | None, ...]:
        """Do it in a graph; return what it makes."""
        tensor = tensors[self.place]
        assert tensor is not None
        return (graph.laid_out(tensor, self.shape, self.change),)


class Appended(NamedTuple):
    """`LoweredGraph.append`; places: of the inputs, -1 for one that is left out."""

    operation: Operation
    places: tuple[int, ...]
    kind: Kind | None

    def again(self, graph: LoweredGraph, tensors: Tensors) -> tuple[Tensor | None, ...]:
        """Do it in a graph; return what it makes."""
        return graph.append(
            self.operation, tuple([None if place < 0 else tensors[place] for place in self.places]), self.kind
        )


class Made(NamedTuple):
    """A lumped value but for its tensor and its cause. tensor: its place. cause: of which operand, -1 for none."""

    tensor: int
    cause: int
    parts: Parts
    dtype: ir.DataType
    factor: float
    weighted: bool
    varied: bool
    depends: bool
    zero: bool

    def again(self, tensors: Tensors, operands: Operands) -> Lumped:
        """Return the value in another graph."""
        source = operands[self.cause] if self.cause >= 0 else None
        return Lumped(
            self.parts, self.dtype, tensors[self.tensor], self.factor, self.weighted, self.varied, self.depends,
            None if source is None else source.cause, self.zero,
        )  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """All that a rule did. result: an operand as it is, by its place, or a new value. observed: `Context.observe`."""

    actions: tuple[Action, ...]
    result: int | Made
    observed: tuple[tuple[Made, Made], ...]

    def again(self, context: Context, operands: Operands) -> Lumped | None:
        """Do it with other operands; return what the rule would."""
        graph = context.graph
        tensors: list[Tensor | None] = [None if operand is None else operand.tensor for operand in operands]
        for action in self.actions:
            tensors += action.again(graph, tensors)
        for mean, variance in self.observed:
            context.observe(mean.again(tensors, operands), variance.again(tensors, operands))
        return operands[self.result] if isinstance(self.result, int) else self.result.again(tensors, operands)
