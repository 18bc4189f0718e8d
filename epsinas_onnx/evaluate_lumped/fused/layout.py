"""Lays a chain of nodes out: where in memory each value lies while it is needed, and a table of what is done to it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from epsinas_onnx.evaluate_lumped.fused.matrices import Matrices, Rows
from epsinas_onnx.evaluate_lumped.fused.recognise import Code, Operation
from epsinas_onnx.lump.graph import Node
from epsinas_onnx.lump.value import Dims, Tensor


class Link(NamedTuple):
    """A node of a chain. values: its operands of samples. factor: the one that is a number, if there is one.

    done: the values that nobody reads afterwards. rest: the shape of what it gives behind the samples.
    """

    operation: Operation
    node: Node
    values: Sequence[Tensor]
    factor: Tensor | None
    done: Sequence[Tensor]
    output: Tensor
    rest: Dims

    @classmethod
    def of(cls, node: Node, operation: Operation, behind: Collection[Tensor]) -> Link:
        """Return the link of a node; behind: what is read behind it."""
        values = [tensor for slot in operation.operands if (tensor := node.inputs[slot]) is not None]
        factor = node.inputs[operation.number] if operation.number >= 0 else None
        done = [tensor for tensor in dict.fromkeys(values) if tensor not in behind]
        output = node.outputs[0]
        return cls(operation, node, values, factor, done, output, output.dims[1:])


@dataclass(slots=True)
class Block:
    """Memory for one value, of as many rows as the largest has. at: which of all blocks, once laid out its first row.

    held: how many values lie there, which differ in their scales or shapes.
    """

    at: int
    held: int = 0


class Held(NamedTuple):
    """A value of a chain. scale: the number of its scale. rest: its shape behind the samples."""

    scale: int
    block: Block
    rest: Dims


_PLACES = slice(6, 9)
"""Columns of the table that say where values lie."""


class Layout:
    """The memory and the table of a chain. operands: the values that it reads and does not make.

    values: by tensor. numbers: of the factors, by tensor. begins: the row of the table with which each link begins.
    rows: of memory, each of which holds an entry for every sample. scales: how many there are.
    """

    def __init__(self, links: Sequence[Link], operands: Iterable[Tensor], matrices: Matrices) -> None:
        self.values: dict[Tensor, Held] = {}
        self.numbers: dict[Tensor, int] = {}
        self._blocks: list[Block] = []
        self._widest = 1
        self.scales = 0
        self._matrices = matrices
        self._free: list[Block] = []
        self._table: list[tuple[int, ...]] = []
        self._epsilons: list[float] = []
        for tensor in operands:
            rest = tensor.dims[1:]
            self._widest = max(self._widest, math.prod(rest))
            self._hold(tensor, self._block(), rest)
        self.begins = [self._add(link) for link in links]
        self.table = np.array(self._table, np.int64)
        self.table[:, _PLACES] *= self._widest
        for block in self._blocks:
            block.at *= self._widest
        self.rows = len(self._blocks) * self._widest
        self.epsilons = np.array(self._epsilons)

    def _add(self, link: Link) -> int:
        """Append what a node does to the table; return where."""
        begin, operation, rest = len(self._table), link.operation, link.rest
        if not link.values:  # what reads it reads what it has copied
            return begin
        first = self.values[link.values[0]]
        if operation.code is Code.SAME:
            self.values[link.output] = first._replace(rest=rest)
            first.block.held += 1
        elif operation.code in (Code.LINEAR, Code.LEVEL, Code.LARGEST):
            self._products(operation, link, first)
        elif operation.code is Code.ADD and operation.parts:
            self._moved_sum(operation, link)
        else:
            block = self._reused(link) or self._block()
            self._row(operation, self._hold(link.output, block, rest), first, link)
        for tensor in link.done:
            self._release(self.values[tensor].block)
        return begin

    def _reused(self, link: Link) -> Block | None:
        """Return where an operand lies that nobody needs afterwards, which may be written over entry by entry."""
        for tensor in link.done:
            block = self.values[tensor].block
            if block.held == 1:
                return block
        return None

    def _products(self, operation: Operation, link: Link, source: Held) -> None:
        """Append a product with each matrix; what is between them has places in memory, too."""
        *before, last = operation.parts
        between: Block | None = None
        for matrix in before:
            assert matrix is not None
            block = self._block()
            block.held = 1
            made = Held(self._next_scale(), block, (len(matrix.starts) - 1,))
            self._row(operation, made, source, link, matrix)
            if between is not None:
                self._release(between)
            source, between = made, block
        held = self._hold(link.output, self._block(), link.rest)
        self._row(operation, held, source, link, last)
        if between is not None:
            self._release(between)

    def _moved_sum(self, operation: Operation, link: Link) -> None:
        """Append a sum of values, each of which is moved to where its rows belong first."""
        move = Operation(Code.LINEAR, (0,))
        moved = []
        for tensor, matrix in zip(link.values, operation.parts, strict=True):
            held = self.values[tensor]
            if matrix is not None:
                block = self._block()
                made = Held(self._next_scale(), block, link.rest)
                self._row(move, made, held, link, matrix)
                held = made
            held.block.held += 1
            moved.append(held)
        total, *rest = moved
        for index, held in enumerate(rest):
            last = index == len(rest) - 1
            block = self._block()
            made = self._hold(link.output, block, link.rest) if last else Held(self._next_scale(), block, link.rest)
            block.held += not last
            self._row(operation, made, total, link, second=held)
            self._release(total.block)
            self._release(held.block)
            total = made

    def _row(
        self, operation: Operation, made: Held, first: Held, link: Link, matrix: Rows | None = None,
        second: Held | None = None,
    ) -> None:  # fmt: skip
        number = -1
        if second is None:
            second = self.values[link.values[1]] if operation.code is Code.ADD else first
        if link.factor is not None:
            number = self.numbers.setdefault(link.factor, len(self.numbers))
        if operation.code is Code.STANDARDISE:
            (matrix,) = operation.parts
        at = 0 if matrix is None else self._matrices.place(matrix)
        rows = math.prod(made.rest)
        self._widest = max(self._widest, rows)
        places = made.block.at, first.block.at, second.block.at
        self._table.append((
            operation.code, made.scale, first.scale, second.scale, rows, at, *places, number, operation.flag
        ))  # fmt: skip
        self._epsilons.append(operation.epsilon)

    def _hold(self, tensor: Tensor, block: Block, rest: Dims) -> Held:
        block.held += 1
        held = self.values[tensor] = Held(self._next_scale(), block, rest)
        return held

    def _next_scale(self) -> int:
        self.scales += 1
        return self.scales - 1

    def _block(self) -> Block:
        """Return memory for a value, that of one which was needed last where there is one."""
        if self._free:
            return self._free.pop()
        block = Block(len(self._blocks))
        self._blocks.append(block)
        return block

    def _release(self, block: Block) -> None:
        block.held -= 1
        if not block.held:
            self._free.append(block)
