"""Owns embedding tables: rows are computed by the formula of their entries, and only where they are read."""

from __future__ import annotations

import math

import numpy as np

from epsinas_onnx.graph.random_table import uniform_rows, uniform_table
from epsinas_onnx.lump.operators import FLOAT, INT64, Operators, check_stored
from epsinas_onnx.lump.partition import every
from epsinas_onnx.lump.value import Lumped, Tensor

_STORED_SIZE = 2**22
"""Tables up to this many entries are stored; larger ones are computed where they are read."""


def whole_table(operators: Operators, table: Lumped) -> Tensor:
    """Return all rows of an embedding table."""
    assert table.table is not None
    if math.prod(table.shape) <= _STORED_SIZE or operators.opset < 11:
        check_stored(math.prod(table.shape))
        return operators.constant(uniform_table(table.shape, table.table))
    rows = operators.constant(every(table.shape[0])[:, None])
    return _drawn(operators, table, rows)


def table_rows(operators: Operators, table: Lumped, indices: Tensor) -> Tensor:
    """Return the rows of an embedding table at `indices`, `[..., width]`, by the formula of its entries."""
    rows, width = table.shape
    stored = rows <= indices.elements and rows * width <= _STORED_SIZE
    if operators.opset < 11 or stored:
        whole = whole_table(operators, table)
        return operators.op("Gather", [whole, indices], (*indices.dims, width), table.dtype, axis=0)
    if indices.dtype != INT64:
        indices = operators.op("Cast", [indices], indices.dims, INT64, to=int(INT64))
    return _drawn(operators, table, operators.reshape(indices, (*indices.dims, 1)))


def _drawn(operators: Operators, table: Lumped, indices: Tensor) -> Tensor:
    assert table.table is not None
    rows, width = table.shape
    drawn = uniform_rows(_Integers(operators), indices, rows, width, table.table)
    return (
        drawn if table.dtype == FLOAT else operators.op("Cast", [drawn], drawn.dims, table.dtype, to=int(table.dtype))
    )


class _Integers:
    """What `uniform_rows` computes with: int64 tensors of the lowered graph."""

    def __init__(self, operators: Operators) -> None:
        self._operators = operators

    def number(self, value: int) -> Tensor:
        return self._operators.constant(np.asarray(value, np.int64))

    def range(self, count: int) -> Tensor:
        return self._operators.constant(every(count))

    def op(self, op_type: str, first: Tensor, second: Tensor) -> Tensor:
        shape = np.broadcast_shapes(first.dims, second.dims)
        return self._operators.op(op_type, [first, second], shape)

    def floats(self, tensor: Tensor, step: float) -> Tensor:
        operators = self._operators
        cast = operators.op("Cast", [tensor], tensor.dims, FLOAT, to=int(FLOAT))
        return operators.op("Mul", [cast, operators.number(step)], cast.dims)
