"""Makes the nodes of the reverse pass, in the spelling of the graph's operator set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.graph.emitter import Emitter

Array = npt.NDArray[Any]


class Writer(Emitter):
    """An emitter that knows what changed its spelling between the operator sets, and keeps one constant of a kind."""

    def __init__(self, opset: int, prefix: str) -> None:
        super().__init__(opset, prefix)
        self.prefix = prefix
        self._kept: dict[tuple[Any, ...], ir.Value] = {}

    def adopt(self, node: ir.Node) -> None:
        """Append a node that was made elsewhere, with names of this writer for what has none."""
        node.name = node.name or self._fresh(node.op_type)
        for output in node.outputs:
            output.name = output.name or self._fresh(node.op_type)
        self.nodes.append(node)

    def kept(self, array: Array) -> ir.Value:
        """Return a constant, the same for equal small arrays."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if array.nbytes > 1024:
            return self.constant(array)
        if key not in self._kept:
            self._kept[key] = self.constant(array)
        return self._kept[key]

    def ints(self, values: Sequence[int]) -> ir.Value:
        """Return an int64 vector."""
        return self.kept(np.asarray(values, np.int64))

    def scalar(self, value: float, dtype: ir.DataType) -> ir.Value:
        """Return a scalar of a float type."""
        return self.kept(np.asarray(value, dtype.numpy()))

    def reduce(self, op_type: str, value: ir.Value, axes: Sequence[int], keepdims: bool = True) -> ir.Value:
        """Append a reduction; axes became an input of ReduceSum with operator set 13, of the others with 18."""
        if not axes:
            return value
        kept: dict[str, Any] = {} if keepdims else {"keepdims": 0}
        if self.opset >= (13 if op_type == "ReduceSum" else 18):
            return self.op(op_type, [value, self.ints(axes)], **kept)
        return self.op(op_type, [value], axes=list(axes), **kept)

    def reshape(self, value: ir.Value | None, shape: Sequence[int]) -> ir.Value:
        """Append a Reshape to concrete sizes, of which one may be 0 only where all are known."""
        return self.op("Reshape", [value, self.ints(shape)])

    def transpose(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        """Append a Transpose unless it would change nothing."""
        if list(perm) == list(range(len(perm))):
            return value
        return self.op("Transpose", [value], perm=list(perm))

    def expand(self, value: ir.Value, shape: Sequence[int], dtype: ir.DataType) -> ir.Value:
        """Append an Expand, or a product with ones before operator set 8."""
        if self.opset >= 8:
            return self.op("Expand", [value, self.ints(shape)])
        return self.op("Mul", [value, self.constant(np.ones(shape, dtype.numpy()))])

    def cut(
        self, value: ir.Value, axes: Sequence[int], starts: Sequence[int], ends: Sequence[int],
        steps: Sequence[int] | None = None,
    ) -> ir.Value:  # fmt: skip
        """Append a Slice; its bounds became inputs, and steps possible, with operator set 10."""
        if self.opset >= 10:
            given = [value, self.ints(starts), self.ints(ends), self.ints(axes)]
            return self.op("Slice", [*given, self.ints(steps)] if steps is not None else given)
        assert steps is None or set(steps) == {1}
        return self.op("Slice", [value], axes=list(axes), starts=list(starts), ends=list(ends))

    def flip(self, value: ir.Value, axes: Sequence[int], shape: Sequence[int]) -> ir.Value:
        """Append what reverses the order along axes."""
        if not axes:
            return value
        if self.opset >= 10:
            least = [-(2**62)] * len(axes)
            return self.cut(value, axes, [shape[axis] - 1 for axis in axes], least, [-1] * len(axes))
        for axis in axes:
            value = self.op("Gather", [value, self.ints(range(shape[axis] - 1, -1, -1))], axis=axis)
        return value

    def pad(self, value: ir.Value, before: Sequence[int], after: Sequence[int]) -> ir.Value:
        """Append what surrounds a value with zeros, or cuts it where a number is negative."""
        cuts = [axis for axis, pair in enumerate(zip(before, after, strict=True)) if min(pair) < 0]
        if cuts:
            ends = [after[axis] if after[axis] < 0 else 2**62 for axis in cuts]
            value = self.cut(value, cuts, [max(-before[axis], 0) for axis in cuts], ends)
        pads = [max(size, 0) for size in (*before, *after)]
        if not any(pads):
            return value
        if self.opset >= 11:
            return self.op("Pad", [value, self.ints(pads)])
        return self.op("Pad", [value], pads=pads)

    def place(
        self, value: ir.Value, shape: Sequence[int], starts: Sequence[int], steps: Sequence[int], sizes: Sequence[int]
    ) -> ir.Value:
        """Append zeros of `sizes` with entry i of the value, along each axis, at `starts + i * steps`.

        shape: of the value. Steps are positive. It is what a strided Slice is the adjoint of.
        """
        rank = len(shape)
        lengths = list(shape)
        wide = [axis for axis in range(rank) if steps[axis] > 1 and shape[axis] > 1]
        if wide:
            apart: list[int] = []
            pads: list[int] = []
            for axis in range(rank):
                apart.append(shape[axis])
                pads.append(0)
                if axis in wide:
                    apart.append(1)
                    pads.append(steps[axis] - 1)
                    lengths[axis] = shape[axis] * steps[axis]
            value = self.pad(self.reshape(value, apart), [0] * len(pads), pads)
            value = self.reshape(value, lengths)
        after = [sizes[axis] - starts[axis] - lengths[axis] for axis in range(rank)]
        return self.pad(value, list(starts), after)

    def where(self, condition: ir.Value, then: ir.Value, other: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Append a Where, or its arithmetic before operator set 9."""
        if self.opset >= 9:
            return self.op("Where", [condition, then, other])
        yes = self.op("Cast", [condition], to=int(dtype))
        no = self.op("Cast", [self.op("Not", [condition])], to=int(dtype))
        return self.op("Add", [self.op("Mul", [then, yes]), self.op("Mul", [other, no])])

    def zeros(self, shape: Sequence[int], dtype: ir.DataType) -> ir.Value:
        """Append zeros."""
        return self.full(0.0, shape, dtype)

    def full(self, filling: float, shape: Sequence[int], dtype: ir.DataType) -> ir.Value:
        """Append a tensor of one number."""
        if not shape:
            return self.scalar(filling, dtype)
        if self.opset >= 9:
            number = ir.tensor(np.asarray([filling], dtype.numpy()))
            return self.op("ConstantOfShape", [self.ints(shape)], value=number)
        return self.constant(np.full(shape, filling, dtype.numpy()))

    def sum_to(self, value: ir.Value, shape: Sequence[int], target: Sequence[int]) -> ir.Value:
        """Append the adjoint of broadcasting `target` to `shape`: sums along the axes that were repeated."""
        if tuple(shape) == tuple(target):
            return value
        ahead = len(shape) - len(target)
        axes = [axis for axis in range(len(shape)) if axis < ahead or (target[axis - ahead] == 1 and shape[axis] != 1)]
        value = self.reduce("ReduceSum", value, axes)
        return self.reshape(value, target) if ahead else value

    def along(self, value: ir.Value, matrix: Array, axis: int, rank: int, dtype: ir.DataType) -> ir.Value:
        """Append the product with a matrix `[n, m]` along an axis of n entries, which then has m."""
        axis %= rank
        if axis == rank - 2:
            return self.op("MatMul", [self.kept(np.ascontiguousarray(matrix.T).astype(dtype.numpy())), value])
        moved = [*(a for a in range(rank) if a != axis), axis]
        product = self.op("MatMul", [self.transpose(value, moved), self.kept(matrix.astype(dtype.numpy()))])
        return self.transpose(product, [moved.index(a) for a in range(rank)])
