"""A table drawn from U(0, 1) by integer arithmetic: the same numbers in NumPy, in a graph, and on any runtime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.graph.emitter import Emitter

# x -> x^5 permutes the integers modulo this Mersenne prime (5 does not divide 2^31 - 2), and products of two
# residues fit an int64, so the mixing is exact wherever int64 is.
_PRIME = 2**31 - 1
_MULTIPLIER = 48_271
_SEED_STEP = 1_640_531_527
T = TypeVar("T")
_DROPPED, _STEP = 2**7, 2.0**-24  # float32 holds 24 of the 31 bits exactly, so that no entry is rounded up to 1


def uniform_table(shape: Sequence[int], seed: int = 0) -> npt.NDArray[np.float32]:
    """Return a float32 table of `shape`, drawn from U(0, 1); the same `seed` gives the same table everywhere."""
    x = (np.arange(math.prod(shape), dtype=np.int64) * _MULTIPLIER + _offset(seed)) % _PRIME
    square = x * x % _PRIME
    mixed = square * square % _PRIME * x % _PRIME
    return ((mixed // _DROPPED).astype(np.float32) * np.float32(_STEP)).reshape(tuple(shape))


class Arithmetic(Protocol[T]):
    """Integer arithmetic in some graph, which `uniform_rows` computes with."""

    def number(self, value: int) -> T:
        """Return an int64 scalar."""

    def range(self, count: int) -> T:
        """Return the int64 vector 0, 1, ..., count - 1."""

    def op(self, op_type: str, first: T, second: T) -> T:
        """Return a broadcasting ONNX operator of two int64 operands."""

    def floats(self, value: T, step: float) -> T:
        """Return the integers as float32, times `step`."""


def uniform_rows(graph: Arithmetic[T], indices: T, rows: int, width: int, seed: int = 0) -> T:
    """Append nodes that compute the rows of `uniform_table([rows, width], seed)` at `indices`, int64 `[..., 1]`.

    Returns float32 `[..., width]`. Negative indices count from the end. Mod needs operator set 10.
    """
    prime = graph.number(_PRIME)

    def times(a: T, b: T) -> T:
        return graph.op("Mod", graph.op("Mul", a, b), prime)

    row = graph.op("Mod", indices, graph.number(rows))
    index = graph.op("Add", graph.op("Mul", row, graph.number(width)), graph.range(width))
    start = graph.op("Add", graph.op("Mul", index, graph.number(_MULTIPLIER)), graph.number(_offset(seed)))
    x = graph.op("Mod", start, prime)
    square = times(x, x)
    mixed = graph.op("Div", times(times(square, square), x), graph.number(_DROPPED))
    return graph.floats(mixed, _STEP)


def uniform_table_nodes(emitter: Emitter, shape: Sequence[int], seed: int = 0) -> ir.Value:
    """Append nodes that compute `uniform_table(shape, seed)`; Range needs operator set 11, Mod 10."""
    if emitter.opset < 11:
        return emitter.constant(uniform_table(shape, seed))
    width = shape[-1]
    rows = math.prod(shape) // max(1, width)
    graph = _Emitted(emitter)
    every = emitter.op("Reshape", [graph.range(rows), emitter.constant(np.asarray([rows, 1], np.int64))])
    drawn = uniform_rows(graph, every, rows, width, seed)
    return emitter.op("Reshape", [drawn, emitter.constant(np.asarray(shape, np.int64))])


class _Emitted:
    """Arithmetic with onnx-ir values."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter

    def number(self, value: int) -> ir.Value:
        return self._emitter.constant(np.asarray(value, np.int64))

    def range(self, count: int) -> ir.Value:
        return self._emitter.op("Range", [self.number(0), self.number(count), self.number(1)])

    def op(self, op_type: str, first: ir.Value, second: ir.Value) -> ir.Value:
        return self._emitter.op(op_type, [first, second])

    def floats(self, value: ir.Value, step: float) -> ir.Value:
        cast = self._emitter.op("Cast", [value], to=int(ir.DataType.FLOAT))
        return self._emitter.op("Mul", [cast, self._emitter.constant(np.asarray(step, np.float32))])


def _offset(seed: int) -> int:
    return (seed * _SEED_STEP + 12_345) % _PRIME
