"""Owns operators whose form depends on the operator set, or which can be left out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from epsinas_onnx.lump.graph import LoweredGraph
from epsinas_onnx.lump.partition import Integers
from epsinas_onnx.lump.unlumpable import TooLong
from epsinas_onnx.lump.value import Array, Dims, Tensor

_STORED_SIZE = 2**28
"""Entries of the largest tensor that is made before the graph runs."""

FLOAT, INT64, BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL


def check_stored(entries: int) -> None:
    """Raise TooLong for a tensor that is too large to be made before the graph runs."""
    if entries > _STORED_SIZE:
        raise TooLong


class Operators:
    """Appends operators to the lowered graph."""

    precise = False
    """Whether numbers that the file does not hold are stored in float64, as only our own evaluator takes them."""

    def __init__(self, graph: LoweredGraph) -> None:
        self.graph = graph
        self.op = graph.op
        self.constant = graph.constant
        self.reshape = graph.reshape
        self.opset = graph.opset

    def number(self, value: float, dtype: ir.DataType = FLOAT) -> Tensor:
        """Return a stored scalar."""
        return self.real(value, dtype)

    def real(self, numbers: float | Array, dtype: ir.DataType) -> Tensor:
        """Return stored numbers that the file does not hold: weights of windows, shares, factors."""
        kind = np.float64 if self.precise and dtype == FLOAT else dtype.numpy()
        return self.constant(np.asarray(numbers, kind), dtype)

    def repeated(self, value: float, shape: Dims, dtype: ir.DataType) -> Tensor:
        """Return a stored tensor full of a number; raises TooLong where it would be too large."""
        check_stored(math.prod(shape))
        return self.constant(np.full(shape, value, dtype.numpy()))

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

    def at(self, tensor: Tensor, constant: int) -> Tensor:
        """Return the part of a tensor `[constants, ...]` that belongs to one constant."""
        return self.op(
            "Gather", [tensor, self.constant(np.asarray(constant, np.int64))], tensor.dims[1:], axis=0
        )  # fmt: skip

    def stack(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return one tensor `[constants, ...]` of one tensor a constant."""
        rows = [self.reshape(tensor, (1, *tensor.dims)) for tensor in tensors]
        return self.op("Concat", rows, (len(rows), *tensors[0].dims), axis=0)
