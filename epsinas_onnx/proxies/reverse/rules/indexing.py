"""Derivatives of operators that pick entries by their indices, and of those that put them."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from epsinas_onnx.proxies.reverse.call import Call
from epsinas_onnx.proxies.reverse.registry import Gradients, rule

_LARGEST = 2**24
"""Entries of the largest matrix that stands for indices that nobody knows ahead."""


@rule("Gather")
def gather(call: Call) -> Gradients:
    """Each entry of the gradient added where it was picked."""
    shape, axis = call.shape(), call.axis()
    rank, size = len(shape), shape[axis]
    known = call.known(1)
    indices = call.shape(1)
    count = math.prod(indices)
    flat = (*shape[:axis], count, *shape[axis + 1 :])
    value = call.grad if flat == call.out else call.write.reshape(call.grad, flat)
    if known is not None:
        picked = np.where(known < 0, known + size, known).reshape(-1).astype(np.int64)
        steps = np.unique(np.diff(picked)) if count > 1 else np.asarray([1])
        if count and len(steps) == 1 and steps[0] > 0:  # a slice
            starts, apart = [0] * rank, [1] * rank
            starts[axis], apart[axis] = int(picked[0]), int(steps[0])
            return call.write.place(value, flat, starts, apart, shape)
        if count * size <= _LARGEST:
            return call.write.along(value, np.eye(size)[picked], axis, rank, call.dtype)
    if count * size > _LARGEST:
        raise call.refuse(f"it picks {count} of {size} entries by indices that are computed at run time")
    column = call.write.reshape(call.op("Cast", call.input(1), to=int(ir.DataType.INT64)), [count, 1])
    every = np.arange(size, dtype=np.int64)[None]
    picks = [call.op("Equal", column, call.write.kept(row)) for row in (every, every - size)]
    matrix = call.op("Cast", call.op("Or", *picks), to=int(call.dtype))
    moved = [*(a for a in range(rank) if a != axis), axis]
    product = call.op("MatMul", call.write.transpose(value, moved), matrix)
    return call.write.transpose(product, [moved.index(a) for a in range(rank)])


@rule("GatherElements")
def gather_elements(call: Call) -> Gradients:
    """Each entry of the gradient added where it was picked."""
    _needs(call, 16)
    zeros = call.write.zeros(call.shape(), call.dtype)
    return call.op("ScatterElements", zeros, call.input(1), call.grad, axis=call.axis(), reduction="add")


@rule("GatherND")
def gather_nd(call: Call) -> Gradients:
    """Each entry of the gradient added where it was picked."""
    _needs(call, 16)
    if call.integer("batch_dims", 0):
        raise call.refuse("it picks by sample (batch_dims)")
    zeros = call.write.zeros(call.shape(), call.dtype)
    return call.op("ScatterND", zeros, call.input(1), call.grad, reduction="add")


@rule("ScatterElements", "ScatterND")
def scatter(call: Call) -> Gradients:
    """Zeros where entries were put, and for these their own gradient."""
    if call.text("reduction", "none") not in ("none", "add"):
        raise call.refuse(f"it combines entries by {call.text('reduction', 'none')!r}")
    by_element = call.node.op_type == "ScatterElements"
    axis = {"axis": call.axis()} if by_element else {}
    found: dict[int | ir.Value, ir.Value | None] = {}
    if 0 in call.wanted:
        found[0] = call.grad
        if call.text("reduction", "none") == "none":
            zeros = call.write.zeros(call.shape(2), call.dtype)
            found[0] = call.op(call.node.op_type, call.grad, call.input(1), zeros, **axis)
    if 2 in call.wanted:
        found[2] = call.op("GatherElements" if by_element else "GatherND", call.grad, call.input(1), **axis)
    return found


@rule("TopK")
def top(call: Call) -> Gradients:
    """The gradient of each entry where it was found; no index occurs twice."""
    _needs(call, 11)
    gradient = call.gradients[0]
    if gradient is None:
        raise call.refuse("only its indices are used")
    axis = call.axis(default=-1)
    return call.op(
        "ScatterElements", call.write.zeros(call.shape(), call.dtype), call.node.outputs[1], gradient, axis=axis
    )


def _needs(call: Call, opset: int) -> None:
    if call.opset < opset:
        raise call.refuse(f"its derivative needs operator set {opset}, and the model has {call.opset}")
