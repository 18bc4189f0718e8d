"""Derivatives of convolutions: each is a convolution of the other direction with the same weights."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from epsinas_onnx.proxies.reverse.call import Call
from epsinas_onnx.proxies.reverse.registry import LARGEST, Gradients, rule
from epsinas_onnx.proxies.reverse.rules.windows import Windows, windows


@rule("Conv")
def convolution(call: Call) -> Gradients:
    """The transposed convolution of the gradient; of the weight the correlation of input and gradient."""
    weight = call.shape(1)
    at = windows(call, weight[2:], call.shape()[2:], call.out[2:])
    found: dict[int | ir.Value, ir.Value | None] = {}
    if 0 in call.wanted:
        found[0] = _by_input(call, at)
    if 1 in call.wanted:
        found[1] = _by_weight(call, at)
    if 2 in call.wanted:
        found[2] = _by_bias(call)
    return found


def _by_input(call: Call, at: Windows) -> ir.Value:
    groups = call.integer("group", 1)
    known = call.known(1) if math.prod(call.shape(1)) <= LARGEST else None
    if known is not None and not at.spread:
        return _as_convolution(call, at, groups, known)
    if known is not None and set(at.size) == {1} and not any(at.before) and max(at.after) <= 0:
        return _of_single_places(call, at, groups, known)
    return call.op(
        "ConvTranspose", call.grad, call.input(1), group=groups, kernel_shape=list(at.size), strides=list(at.strides),
        dilations=list(at.dilations), pads=[*at.before, *(max(size, 0) for size in at.after)],
        output_padding=[max(-size, 0) for size in at.after],
    )  # fmt: skip


def _as_convolution(call: Call, at: Windows, groups: int, weight: np.ndarray) -> ir.Value:
    """Append a Conv, which is faster than a ConvTranspose; windows that start at each place allow it."""
    rank = len(at.size)
    before = [extent - 1 - size for extent, size in zip(at.extent, at.before, strict=True)]
    after = [extent - 1 - size for extent, size in zip(at.extent, at.after, strict=True)]
    g = call.grad
    if min(*before, *after) < 0:
        g = call.write.pad(g, [0, 0, *(min(size, 0) for size in before)], [0, 0, *(min(size, 0) for size in after)])
    return call.op(
        "Conv", g, call.write.constant(_transposed(weight, groups)), group=groups, kernel_shape=list(at.size),
        dilations=list(at.dilations), strides=[1] * rank, pads=[max(size, 0) for size in (*before, *after)],
    )  # fmt: skip


def _of_single_places(call: Call, at: Windows, groups: int, weight: np.ndarray) -> ir.Value:
    """Append a Conv of the places that were looked at, and zeros between these."""
    made = call.op("Conv", call.grad, call.write.constant(_transposed(weight, groups)), group=groups)
    shape = (*call.shape()[:2], *call.out[2:])
    return call.write.place(made, shape, [0] * len(shape), [1, 1, *at.strides], call.shape())


def _transposed(weight: np.ndarray, groups: int) -> np.ndarray:
    """Return `[M, C / groups, ...]` as `[C, M / groups, ...]`, turned around in space."""
    out, ins, *space = weight.shape
    apart = weight.reshape(groups, out // groups, ins, *space).swapaxes(1, 2)
    turned = apart.reshape(groups * ins, out // groups, *space)
    return np.ascontiguousarray(np.flip(turned, tuple(range(2, turned.ndim))))


def _by_weight(call: Call, at: Windows) -> ir.Value:
    """Append the convolution of the input with the gradient, samples in place of channels."""
    groups = call.integer("group", 1)
    (n, c, *space), (_, _m, *made) = call.shape(), call.out
    write, rank = call.write, len(space)
    order = [2, 1, 0, *range(3, 3 + rank)]
    x = write.transpose(write.reshape(call.x, [n, groups, c // groups, *space]), order)
    x = write.reshape(x, [c // groups, groups * n, *space])
    g = write.transpose(call.grad, [1, 0, *range(2, 2 + rank)])
    pads = [*at.before, *(max(size, 0) for size in at.after)]
    weight = call.op("Conv", x, g, group=groups, kernel_shape=made, strides=list(at.dilations),
                     dilations=list(at.strides), pads=pads)  # fmt: skip
    axes = list(range(2, 2 + rank))
    weight = write.cut(weight, axes, [0] * rank, list(at.size))
    return write.transpose(weight, [1, 0, *axes])


@rule("ConvTranspose")
def transposed_convolution(call: Call) -> Gradients:
    """The convolution of the gradient with the same weights."""
    if 1 in call.wanted:
        raise call.refuse("the weight depends on what is differentiated by")
    found: dict[int | ir.Value, ir.Value | None] = {}
    if 0 in call.wanted:
        at = _transposed_windows(call)
        g = call.grad
        if min(*at.before, *at.after) < 0:
            g = call.write.pad(g, *([0, 0, *(min(size, 0) for size in side)] for side in (at.before, at.after)))
        found[0] = call.op(
            "Conv", g, call.input(1), group=call.integer("group", 1), kernel_shape=list(at.size),
            strides=list(at.strides), dilations=list(at.dilations),
            pads=[max(size, 0) for size in (*at.before, *at.after)],
        )  # fmt: skip
    if 2 in call.wanted:
        found[2] = _by_bias(call)
    return found


def _transposed_windows(call: Call) -> Windows:
    """Return the windows of the convolution that this is the transposed of."""
    size = call.shape(1)[2:]
    inside, outside = call.shape()[2:], call.out[2:]
    rank = len(size)
    strides = call.integers("strides") or [1] * rank
    dilations = call.integers("dilations") or [1] * rank
    mode, further = call.text("auto_pad", "NOTSET"), call.integers("output_padding") or [0] * rank
    before = (call.integers("pads") or [0] * (2 * rank))[:rank]
    needed = [(inside[i] - 1) * strides[i] + (size[i] - 1) * dilations[i] + 1 - outside[i] for i in range(rank)]
    if mode in ("SAME_UPPER", "SAME_LOWER") or call.integers("output_shape") is not None:
        total = [needed[i] + further[i] for i in range(rank)]
        # The specification: the larger half goes in front, unless SAME_UPPER says behind.
        before = [both // 2 if mode == "SAME_UPPER" else both - both // 2 for both in total]
    after = [needed[i] - before[i] for i in range(rank)]
    return Windows(size, tuple(strides), tuple(dilations), tuple(before), tuple(after), tuple(after))


def _by_bias(call: Call) -> ir.Value:
    axes = [axis for axis in range(len(call.out)) if axis != 1]
    return call.write.reduce("ReduceSum", call.grad, axes, keepdims=False)
