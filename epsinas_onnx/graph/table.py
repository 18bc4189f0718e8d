"""A table drawn from U(0, 1) by integer arithmetic: the same numbers in NumPy, in a graph, and on any runtime."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.graph.emitter import Emitter

# x -> x^5 permutes the integers modulo this Mersenne prime (5 does not divide 2^31 - 2), and products of two
# residues fit an int64, so the mixing is exact wherever int64 is.
_PRIME = 2**31 - 1
_MULTIPLIER = 48_271
_SEED_STEP = 1_640_531_527
_DROPPED, _STEP = 2**7, 2.0**-24  # float32 holds 24 of the 31 bits exactly, so that no entry is rounded up to 1


def uniform_table(shape: Sequence[int], seed: int = 0) -> npt.NDArray[np.float32]:
    """Return a float32 table of `shape`, drawn from U(0, 1); the same `seed` gives the same table everywhere."""
    x = (np.arange(math.prod(shape), dtype=np.int64) * _MULTIPLIER + _offset(seed)) % _PRIME
    square = x * x % _PRIME
    mixed = square * square % _PRIME * x % _PRIME
    return ((mixed // _DROPPED).astype(np.float32) * np.float32(_STEP)).reshape(tuple(shape))


def uniform_table_nodes(emitter: Emitter, shape: Sequence[int], seed: int = 0) -> ir.Value:
    """Append nodes that compute `uniform_table(shape, seed)`; Range needs operator set 11, Mod 10."""
    if emitter.opset < 11:
        return emitter.constant(uniform_table(shape, seed))

    def number(value: int) -> ir.Value:
        return emitter.constant(np.asarray(value, np.int64))

    prime = number(_PRIME)

    def times(a: ir.Value, b: ir.Value) -> ir.Value:
        return emitter.op("Mod", [emitter.op("Mul", [a, b]), prime])

    index = emitter.op("Range", [number(0), number(math.prod(shape)), number(1)])
    start = emitter.op("Add", [emitter.op("Mul", [index, number(_MULTIPLIER)]), number(_offset(seed))])
    x = emitter.op("Mod", [start, prime])
    square = times(x, x)
    mixed = emitter.op("Div", [times(times(square, square), x), number(_DROPPED)])
    mixed = emitter.op("Cast", [mixed], to=int(ir.DataType.FLOAT))
    scaled = emitter.op("Mul", [mixed, emitter.constant(np.asarray(_STEP, np.float32))])
    return emitter.op("Reshape", [scaled, emitter.constant(np.asarray(shape, np.int64))])


def _offset(seed: int) -> int:
    return (seed * _SEED_STEP + 12_345) % _PRIME
