"""Derivatives of poolings over windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from epsinas_onnx.proxies.reverse.call import Call
from epsinas_onnx.proxies.reverse.registry import Gradients, rule
from epsinas_onnx.proxies.reverse.rules.windows import Windows, windows


@rule("AveragePool")
def average(call: Call) -> Gradients:
    """The gradient over the number of entries, for each entry of a window."""
    at = _windows(call)
    counts = _counts(call, at)
    g = call.mul(call.grad, 1 / counts) if isinstance(counts, int) else call.mul(
        call.grad, call.write.kept((1 / counts).astype(call.dtype.numpy()))
    )  # fmt: skip
    return window_sum(call, g, at)


@rule("LpPool")
def norm(call: Call) -> Gradients:
    """sign(x) |x|^(p - 1) y^(1 - p) for each entry of a window."""
    p = call.integer("p", 2)
    at = _windows(call)
    positive = call.op("Greater", call.y, 0.0)
    scaled = call.div(call.grad, call.op("Pow", call.where(positive, call.y, 1.0), float(p - 1)))
    summed = window_sum(call, call.where(positive, scaled, 0.0), at)
    slope = call.mul(call.op("Sign", call.x), call.op("Pow", call.op("Abs", call.x), float(p - 1)))
    return call.mul(summed, slope)


def window_sum(call: Call, g: ir.Value, at: Windows) -> ir.Value:
    """Append, for each entry of the input, the sum of `g` over the windows that it is in."""
    shape, rank = call.shape(), len(at.size)
    if not at.spread and set(at.dilations) == {1}:
        pads = [
            extent - 1 - reach for reaches in (at.before, at.after)
            for extent, reach in zip(at.extent, reaches, strict=True)
        ]  # fmt: skip
        if min(pads) >= 0 and all(p < e for p, e in zip(pads, at.size * 2, strict=True)):
            pooled = call.op("AveragePool", g, kernel_shape=list(at.size), strides=[1] * rank, pads=pads,
                             count_include_pad=1)  # fmt: skip
            return call.mul(pooled, float(math.prod(at.size)))
    if at.size == at.strides and set(at.dilations) == {1}:
        return _apart(call, g, at)
    n, c, *space = shape
    ones = call.write.kept(np.ones((1, 1, *at.size), call.dtype.numpy()))
    summed = call.op(
        "ConvTranspose", call.write.reshape(g, [n * c, 1, *call.out[2:]]), ones, kernel_shape=list(at.size),
        strides=list(at.strides), dilations=list(at.dilations),
        pads=[*at.before, *(max(size, 0) for size in at.after)],
        output_padding=[max(-size, 0) for size in at.after],
    )  # fmt: skip
    return call.write.reshape(summed, [n, c, *space])


def _apart(call: Call, g: ir.Value, at: Windows) -> ir.Value:
    """Append the same for windows side by side: each entry is in one."""
    n, c, *made = call.out
    split = [n, c, *itertools.chain.from_iterable((size, 1) for size in made)]
    full = [n, c, *itertools.chain.from_iterable(zip(made, at.size, strict=True))]
    repeated = call.write.expand(call.write.reshape(g, split), full, call.dtype)
    whole = call.write.reshape(repeated, [n, c, *(a * b for a, b in zip(made, at.size, strict=True))])
    return call.write.pad(whole, [0, 0, *(-size for size in at.before)], [0, 0, *(-size for size in at.after)])


def _windows(call: Call) -> Windows:
    return windows(call, call.integers("kernel_shape") or [], call.shape()[2:], call.out[2:])


def _counts(call: Call, at: Windows) -> int | np.ndarray:
    """Return by how many entries each window divides: one number, or `[1, 1, ...]` in space."""
    counted = call.integer("count_include_pad", 0) == 1
    per_axis = []
    for axis, (size, inside, outside) in enumerate(zip(at.size, call.shape()[2:], call.out[2:], strict=True)):
        first = np.arange(outside) * at.strides[axis] - at.before[axis]
        places = first[:, None] + np.arange(size) * at.dilations[axis]
        low, high = (-at.before[axis], inside + at.declared[axis]) if counted else (0, inside)
        per_axis.append(((places >= low) & (places < high)).sum(1))
    total = per_axis[0]
    for counts in per_axis[1:]:
        total = np.multiply.outer(total, counts)
    if (total == math.prod(at.size)).all():
        return math.prod(at.size)
    found: np.ndarray = total[None, None]
    return found


@rule("MaxPool")
def maximum(call: Call) -> Gradients:
    """The gradient where the first maximum of each window lies, as the operator's own second output tells."""
    if call.opset < 9:
        raise call.refuse(f"its derivative needs operator set 9, and the model has {call.opset}")
    shape = call.shape()
    if call.integer("storage_order", 0):
        raise call.refuse("its indices are counted column by column")
    where = _places(call)
    at = _windows(call)
    sets = [math.ceil(extent / stride) for extent, stride in zip(at.extent, at.strides, strict=True)]
    if math.prod(sets) == 1 or call.opset >= 16:
        return _put(call, call.grad, where, shape, reduction=math.prod(sets) > 1)
    return _in_turns(call, where, sets, shape)


def _places(call: Call) -> ir.Value:
    """Return where each maximum lies; the pooling is run once more for it, so that the first one stays a fast one."""
    outputs = call.node.outputs
    if len(outputs) > 1 and outputs[1].name:
        return outputs[1]
    again = ir.Node("", "MaxPool", call.node.inputs, call.node.attributes.values(), num_outputs=2)
    call.write.adopt(again)
    return again.outputs[1]


def _put(call: Call, g: ir.Value, where: ir.Value, shape: Sequence[int], reduction: bool) -> ir.Value:
    """Append zeros with the entries of `g` at places that are counted over the whole tensor."""
    write = call.write
    op_type = "ScatterElements" if call.opset >= 11 else "Scatter"
    attributes = {"reduction": "add"} if reduction else {}
    zeros = write.zeros([math.prod(shape)], call.dtype)
    flat = write.op(op_type, [zeros, write.reshape(where, [-1]), write.reshape(g, [-1])], axis=0, **attributes)
    return write.reshape(flat, shape)


def _in_turns(call: Call, where: ir.Value, sets: Sequence[int], shape: Sequence[int]) -> ir.Value:
    """Append the same without a sum in one place: windows in turns of which no two overlap, then the sum of turns."""
    axes = list(range(2, 2 + len(sets)))
    total = None
    for turn in itertools.product(*(range(min(count, size)) for count, size in zip(sets, call.out[2:], strict=True))):
        parts = []
        for value in (call.grad, where):
            if call.opset >= 10:
                value = call.write.cut(value, axes, list(turn), [2**62] * len(axes), list(sets))
            else:
                for axis, first, step in zip(axes, turn, sets, strict=True):
                    picked = call.write.ints(range(first, call.out[axis], step))
                    value = call.write.op("Gather", [value, picked], axis=axis)
            parts.append(value)
        put = _put(call, parts[0], parts[1], shape, reduction=False)
        total = put if total is None else call.add(total, put)
    assert total is not None
    return total
