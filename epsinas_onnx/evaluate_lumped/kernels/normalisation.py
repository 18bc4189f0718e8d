"""Kernels of normalisations that lowering leaves as they are, because it does not know a shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from epsinas_onnx.evaluate_lumped.call import Call, Unsupported
from epsinas_onnx.evaluate_lumped.kernels.layout import Kernel
from epsinas_onnx.evaluate_lumped.scaled import Array


def epsilon_of(call: Call) -> float:
    """Return what is added to the variance."""
    return float(call.attribute("epsilon", 1e-5))


def one_output(call: Call) -> None:
    """Raise Unsupported for a node whose statistics are outputs too."""
    if len(call.node.outputs) > 1:
        raise Unsupported(f"{call.op_type} with its statistics as outputs")


def column(array: Array, rank: int) -> Array:
    """Return one number a channel in a shape that broadcasts with images of so many axes."""
    return array.reshape(1, -1, *(1,) * (rank - 2))


def _centred(x: Array, axes: Sequence[int]) -> Array:
    made: Array = x - x.mean(axis=tuple(axes), keepdims=True)
    return made


def _standardised(x: Array, axes: Sequence[int], epsilon: float) -> Array:
    centred = _centred(x, axes)
    variance = np.square(centred).mean(axis=tuple(axes), keepdims=True)
    made: Array = centred / np.sqrt(variance + x.dtype.type(epsilon))
    return made


def is_stored(call: Call) -> bool:
    """Whether mean and variance are operands, rather than those of the minibatch."""
    return call.has(3) and call.has(4) and not int(call.attribute("training_mode", 0))


def batch_normalise(call: Call) -> Kernel:
    """Each channel with the statistics of the minibatch, where none are given."""
    one_output(call)
    epsilon, stored = epsilon_of(call), is_stored(call)

    def kernel(x: Array, scale: Array, shift: Array, mean: Any = None, variance: Any = None) -> Array:
        if stored:
            spread = np.sqrt(variance + x.dtype.type(epsilon))
            made = (x - column(mean, x.ndim)) / column(spread, x.ndim)
        else:
            made = _standardised(x, (0, *range(2, x.ndim)), epsilon)
        return made * column(scale, x.ndim) + column(shift, x.ndim)

    return kernel


def layer_normalise(call: Call) -> Kernel:
    """Over all axes from one on."""
    one_output(call)
    axis, epsilon = int(call.attribute("axis", -1)), epsilon_of(call)

    def kernel(x: Array, scale: Any = None, shift: Any = None) -> Array:
        made = _standardised(x, range(axis % x.ndim, x.ndim), epsilon)
        made = made if scale is None else made * scale
        return made if shift is None else made + shift

    return kernel


def root_mean_square_normalise(call: Call) -> Kernel:
    """X over the root of the mean of squares, over all axes from one on."""
    one_output(call)
    axis, epsilon = int(call.attribute("axis", -1)), epsilon_of(call)

    def kernel(x: Array, scale: Any = None) -> Array:
        axes = tuple(range(axis % x.ndim, x.ndim))
        made: Array = x / np.sqrt(np.square(x).mean(axis=axes, keepdims=True) + x.dtype.type(epsilon))
        return made if scale is None else made * scale

    return kernel


def group_normalise(call: Call) -> Kernel:
    """Over the positions and channels of each group; scale and shift are per group until operator set 21."""
    groups, epsilon = int(call.attribute("num_groups")), epsilon_of(call)

    def kernel(x: Array, scale: Array, shift: Array) -> Array:
        made = _standardised(x.reshape(len(x), groups, -1), (2,), epsilon).reshape(x.shape)
        each = x.shape[1] // len(scale)
        return made * column(np.repeat(scale, each), x.ndim) + column(np.repeat(shift, each), x.ndim)

    return kernel


def mean_variance_normalise(call: Call) -> Kernel:
    """Centred, over the deviation plus 1e-9."""
    axes = tuple(call.attribute("axes", [0, 2, 3]))

    def kernel(x: Array) -> Array:
        centred = _centred(x, axes)
        made: Array = centred / (np.sqrt(np.square(centred).mean(axis=axes, keepdims=True)) + x.dtype.type(1e-9))
        return made

    return kernel


class Response:
    """How strongly channels near a channel answer (LRN): x / (bias + alpha / size * sum of squares)^beta."""

    def __init__(self, call: Call) -> None:
        self.size = int(call.attribute("size"))
        self.alpha = float(call.attribute("alpha", 1e-4))
        self.beta = float(call.attribute("beta", 0.75))
        self.bias = float(call.attribute("bias", 1.0))

    def summed(self, squares: Array) -> Array:
        """Return the sums over the channels near each channel."""
        count = squares.shape[1]
        before, behind = (self.size - 1) // 2, self.size - 1 - (self.size - 1) // 2
        made = np.zeros_like(squares)
        for offset in range(-before, behind + 1):
            low, high = max(0, -offset), min(count, count - offset)
            if low < high:
                made[:, low:high] += squares[:, low + offset : high + offset]
        return made


def local_response(call: Call) -> Kernel:
    """X over a power of a sum of squares of channels near it."""
    response = Response(call)

    def kernel(x: Array) -> Array:
        total = response.summed(np.square(x)) * x.dtype.type(response.alpha / response.size)
        made: Array = x / (total + x.dtype.type(response.bias)) ** x.dtype.type(response.beta)
        return made

    return kernel
