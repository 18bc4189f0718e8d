"""Says what a node of the lowered graph is to the compiled program: rows of samples, and numbers that are added up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy import sparse

from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.fused.matrices import Rows
from epsinas_onnx.evaluate_lumped.fused.rows import grouped, in_a_row, in_windows, read_through, spread
from epsinas_onnx.evaluate_lumped.kernels.linear import Window
from epsinas_onnx.lump.value import Dims

_LARGEST = 2**20
"""Entries of the largest value: where arithmetic is all that counts, NumPy's is as fast."""
_MOST = 2**14
"""Entries of the largest matrix that is laid out by rows: what has more costs NumPy little for each of them."""
_WIDEST = 2**16
"""Entries of the largest matrix along an axis, those that are 0 included."""
_FULL = 8
"""Entries a row from which on a product along each axis is cheaper than one for all."""

_Step: TypeAlias = tuple[int, tuple[int, ...], bytes]
"""A matrix that is multiplied with: which axis behind the samples, its shape, and its entries in float64."""


class Code(IntEnum):
    """What is done to rows: sums of them, means of them, the largest of them, a multiplication by a number, a
    normalisation, a rectifier, a sum of values, nothing.
    """

    LINEAR, LEVEL, LARGEST, SCALE, STANDARDISE, RELU, ADD, SAME = range(8)


class Operation(NamedTuple):
    """What a node does to values of rows: `[samples, *rest]` is one of prod(rest) rows.

    operands: slots of the values. number: the slot of a factor of one entry, -1 for none. parts: the matrices that are
    applied one after the other, or to one value each, None for those that stay as they are; or what weighs rows.
    flag: whether the second value is taken away, or all rows weigh alike, or each row is one as it was.
    """

    code: Code
    operands: tuple[int, ...]
    number: int = -1
    parts: tuple[Rows | None, ...] = ()
    epsilon: float = 0.0
    flag: bool = False


def recognise(call: Call) -> Operation | None:
    """Return what a node does, None where it is nothing of the kind. Its first operand and output have known shapes.

    Samples are the first axis of each; what is done to them is done to each sample alike, but for means over all.
    """
    find = _KNOWN.get(call.node.domain, {}).get(call.op_type)
    shapes = call.shape(0), call.node.outputs[0].shape
    if find is None or None in shapes or (len(call.node.outputs) > 1 and call.op_type != "Standardise"):
        return None
    before, after = shapes
    assert before is not None
    assert after is not None
    if not before or not after or before[0] != after[0] or before[0] < 2 or 0 in before or 0 in after:
        return None
    if max(math.prod(before), math.prod(after)) > _LARGEST:
        return None
    return find(call, before, after)


def _scale(call: Call, before: Dims, after: Dims) -> Operation | None:
    for value, number in ((0, 1), (1, 0)):
        shape = call.shape(number)
        if call.shape(value) == after and shape is not None and math.prod(shape) == 1 and len(shape) <= len(after):
            return Operation(Code.SCALE, (value,), number)
    return None


def _sum(call: Call, before: Dims, after: Dims) -> Operation | None:
    if len(call.node.inputs) != 2 or call.constant(0) is not None or call.constant(1) is not None:
        return None
    shapes = before, call.shape(1)
    if shapes[1] is None or any(len(shape) != len(after) or shape[0] != after[0] for shape in shapes if shape):
        return None
    if math.prod(after[1:]) > _MOST and shapes != (after, after):
        return None
    parts = tuple(None if shape == after else spread(shape[1:], after[1:]) for shape in shapes if shape is not None)
    return Operation(Code.ADD, (0, 1), parts=parts if any(parts) else (), flag=call.op_type == "Sub")


def _concat(call: Call, before: Dims, after: Dims) -> Operation | None:
    axis = int(call.attribute("axis", 0)) % len(after)
    count = len(call.node.inputs)
    shapes = [call.shape(slot) for slot in range(count)]
    if not axis or count < 2 or math.prod(after[1:]) > _MOST:
        return None
    if any(not shape or shape[0] != after[0] or call.constant(slot) is not None for slot, shape in enumerate(shapes)):
        return None
    rest = tuple(shape[1:] for shape in shapes if shape)
    return Operation(Code.ADD, tuple(range(count)), parts=in_a_row(rest, axis - 1))


def _relu(call: Call, before: Dims, after: Dims) -> Operation | None:
    return Operation(Code.RELU, (0,))


def _reshape(call: Call, before: Dims, after: Dims) -> Operation | None:
    return Operation(Code.SAME, (0,))


def _along(call: Call, before: Dims, after: Dims) -> Operation | None:
    axes = [int(axis) % len(before) for axis in call.attribute("axes")]
    steps: list[_Step] = []
    for slot, axis in enumerate(axes):
        matrix = call.constant(slot + 1)
        if matrix is None or not axis or matrix.size > _WIDEST:
            return None
        steps.append((axis - 1, matrix.shape, np.asarray(matrix, np.float64).tobytes()))
    return _linear(before[1:], tuple(steps))


def _gather(call: Call, before: Dims, after: Dims) -> Operation | None:
    indices, axis = call.constant(1), int(call.attribute("axis", 0)) % len(before)
    if indices is None or indices.ndim != 1 or not axis or len(indices) * before[axis] > _WIDEST:
        return None
    matrix = np.zeros((len(indices), before[axis]))
    matrix[np.arange(len(indices)), indices] = 1  # an index beyond the axis is an error that its rule tells of
    return _linear(before[1:], ((axis - 1, matrix.shape, matrix.tobytes()),))


def _mean(call: Call, before: Dims, after: Dims) -> Operation | None:
    rows = _groups(call, before, alike=False)
    return None if rows is None else Operation(Code.LEVEL, (0,), parts=(rows,))


def _total(call: Call, before: Dims, after: Dims) -> Operation | None:
    rows = _groups(call, before, alike=True)
    return None if rows is None else Operation(Code.LINEAR, (0,), parts=(rows,))


def _groups(call: Call, before: Dims, alike: bool) -> Rows | None:
    """Return which rows a reduction puts together, None where it goes over samples; alike: whether it adds them up."""
    axes = call.integers("axes", 1) if call.attribute("axes") is not None or call.constant(1) is not None else None
    if not axes or math.prod(before[1:]) > _MOST:
        return None
    places = tuple(sorted({axis % len(before) for axis in axes}))
    return None if 0 in places else grouped(before[1:], places, alike)


def _largest(call: Call, before: Dims, after: Dims) -> Operation | None:
    size = call.attribute("kernel_shape")
    if math.prod(before[1:]) > _MOST or len(size) != len(before) - 2:
        return None
    window = Window(call, size, before[2:], bool(call.attribute("ceil_mode", 0)))
    if (*before[:2], *window.out) != after or math.prod(after[1:]) * math.prod(size) > _WIDEST:
        return None
    if any(max(pads) >= reach for pads, reach in zip(window.pads, window.reach, strict=True)):
        return None  # as no file may say
    rows = in_windows(window, before[1:])
    return Operation(Code.LARGEST, (0,), parts=(rows,)) if len(rows.columns) else None


def reading_through(operation: Operation, copies: Rows) -> Operation:
    """Return what an operation on copies of rows does to what was copied."""
    first, *rest = operation.parts
    assert first is not None
    return operation._replace(parts=(read_through(first, copies, operation.code is Code.LARGEST), *rest))


def _standardise(call: Call, before: Dims, after: Dims) -> Operation | None:
    axes = {int(axis) % len(before) for axis in call.attribute("axes")}
    if 0 not in axes or any(size > 1 and axis not in axes for axis, size in enumerate(before)):
        return None  # there is more than one mean
    number = 2 if call.has(2) else -1
    scale, rest = call.shape(2), before[1:]
    if math.prod(rest) > _MOST or (number >= 0 and (scale is None or math.prod(scale) != 1)):
        return None
    flat, given = np.ones(math.prod(rest)), call.constant(1)
    if given is not None:
        if given.ndim != len(before) or len(given) != 1:
            return None
        alike = math.prod(size for size, own in zip(rest, given.shape[1:], strict=True) if own == 1)
        flat = np.broadcast_to(np.asarray(given[0], np.float64) / alike, rest).reshape(-1)
    elif call.has(1):
        return None
    none = np.zeros(0, np.int64)
    return Operation(
        Code.STANDARDISE, (0,), number, (Rows(none, none, flat),), float(call.attribute("epsilon")), given is None
    )


@lru_cache(maxsize=512)
def _linear(rest: Dims, steps: tuple[_Step, ...]) -> Operation | None:
    """Return products along axes, as one matrix over all rows where it is sparse, else as one after the other."""
    shape = list(rest)
    kept: list[Any] = []
    for axis, size, data in steps:
        matrix = sparse.csr_array(np.frombuffer(data).reshape(size))
        lead, trail = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        if lead * trail * matrix.nnz > _MOST:
            return None
        shape[axis] = size[0]
        wide = sparse.csr_array(sparse.kron(sparse.kron(sparse.eye_array(lead), matrix), sparse.eye_array(trail)))
        if kept and _entries(wide) * _entries(kept[-1]) <= _FULL:
            kept[-1] = sparse.csr_array(wide @ kept[-1])
        else:
            kept.append(wide)
    parts = tuple(_rows_of(matrix) for matrix in kept)
    return Operation(Code.LINEAR, (0,), parts=parts, flag=len(parts) == 1 and _copies(parts[0]))


def _copies(rows: Rows) -> bool:
    """Whether each row is one row as it was."""
    return len(rows.columns) == len(rows.starts) - 1 and bool(
        (np.diff(rows.starts) == 1).all() and (rows.entries == 1).all()
    )


def _entries(matrix: Any) -> float:
    """Return how many entries a row has on average."""
    return float(matrix.nnz / matrix.shape[0])


def _rows_of(matrix: Any) -> Rows:
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return Rows(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data.astype(np.float64))


_KNOWN: Mapping[str, Mapping[str, Callable[[Call, Dims, Dims], Operation | None]]] = {
    "": {
        "Mul": _scale, "Add": _sum, "Sub": _sum, "Relu": _relu, "Reshape": _reshape, "Flatten": _reshape,
        "Squeeze": _reshape, "Unsqueeze": _reshape, "Identity": _reshape, "Gather": _gather, "ReduceMean": _mean,
        "ReduceSum": _total, "Concat": _concat, "MaxPool": _largest,
    },
    "epsinas": {"Along": _along, "Standardise": _standardise},
}  # fmt: skip
