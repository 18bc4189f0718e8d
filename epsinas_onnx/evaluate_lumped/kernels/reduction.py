"""Kernels that go over whole axes: reductions, cumulative sums, normalisations, softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.kernels.layout import Kernel, listed
from epsinas_onnx.evaluate_lumped.scaled import Array


def axes_of(call: Call) -> Callable[[Any], tuple[int, ...] | None]:
    """Return what reads the axes to reduce: None for all of them, empty for none."""
    read = listed(call, "axes", 1)
    nothing = bool(call.attribute("noop_with_empty_axes", 0))

    def axes(operands: Any) -> tuple[int, ...] | None:
        found = read(operands)
        if not found:
            return () if nothing else None
        return tuple(found)

    return axes


def keeps(call: Call) -> bool:
    """Whether reduced axes stay, with size 1."""
    return bool(call.attribute("keepdims", 1))


def reduce(function: Callable[..., Any]) -> Callable[[Call], Kernel]:
    """Return what makes a kernel of a NumPy reduction."""

    def make(call: Call) -> Kernel:
        axes, keep = axes_of(call), keeps(call)
        return lambda *operands: function(operands[0], axis=axes(operands), keepdims=keep)

    return make


def level_mean(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """Return the mean, which is exactly any entry where all are equal."""
    first = x[tuple(slice(0, 1) if axis is None or place in _places(axis, x.ndim) else slice(None)
                    for place in range(x.ndim))]  # fmt: skip
    made = (x - first).mean(axis=axis, keepdims=True) + first
    return made if keepdims else np.squeeze(made, axis if axis is None else _places(axis, x.ndim))  # type: ignore[no-any-return]


def _places(axis: Any, rank: int) -> tuple[int, ...]:
    return tuple(one % rank for one in axis)


def l1(x: Array, **how: Any) -> Any:
    """Return the sum of magnitudes."""
    return np.abs(x).sum(**how)


def l2(x: Array, **how: Any) -> Any:
    """Return the root of the sum of squares."""
    return np.sqrt(np.square(x).sum(**how))


def sum_square(x: Array, **how: Any) -> Any:
    """Return the sum of squares."""
    return np.square(x).sum(**how)


def log_sum(x: Array, **how: Any) -> Any:
    """Return the logarithm of the sum."""
    return np.log(x.sum(**how))


def log_sum_exp(x: Array, axis: Any = None, keepdims: bool = False) -> Any:
    """Return the logarithm of the sum of exponentials."""
    top = x.max(axis=axis, keepdims=True)
    made = np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top
    return made if keepdims else np.squeeze(made, axis)


def arg(function: Callable[..., Any], last: Callable[..., Any]) -> Callable[[Call], Kernel]:
    """Return what makes a kernel of the place of an extreme along an axis."""

    def make(call: Call) -> Kernel:
        axis, keep = int(call.attribute("axis", 0)), keeps(call)
        behind = bool(call.attribute("select_last_index", 0))

        def kernel(x: Array) -> Array:
            if behind:
                made = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis, keepdims=keep)
            else:
                made = function(x, axis=axis, keepdims=keep)
            return np.asarray(made, np.int64)

        return kernel

    return make


def cumulative(call: Call) -> Kernel:
    """Sums of all entries before, along an axis."""
    exclusive, backward = bool(call.attribute("exclusive", 0)), bool(call.attribute("reverse", 0))

    def kernel(x: Array, axis: Any) -> Array:
        place = int(np.asarray(axis).reshape(-1)[0])
        turned = np.flip(x, place) if backward else x
        made = np.cumsum(turned, place, dtype=x.dtype)
        made = made - turned if exclusive else made
        return np.flip(made, place) if backward else made

    return kernel


def softmax(call: Call) -> Kernel:
    """e^x over its sum along an axis; until operator set 13 along all axes from one on."""
    wide = call.opset < 13
    axis = int(call.attribute("axis", 1 if wide else -1))

    def kernel(x: Array) -> Array:
        axes = tuple(range(axis % x.ndim, x.ndim)) if wide else (axis,)
        raised = np.exp(x - x.max(axis=axes, keepdims=True))
        made: Array = raised / raised.sum(axis=axes, keepdims=True)
        return made

    return kernel


def log_softmax(call: Call) -> Kernel:
    """The logarithm of the softmax."""
    wide = call.opset < 13
    axis = int(call.attribute("axis", 1 if wide else -1))

    def kernel(x: Array) -> Array:
        axes = tuple(range(axis % x.ndim, x.ndim)) if wide else (axis,)
        low = x - x.max(axis=axes, keepdims=True)
        made: Array = low - np.log(np.exp(low).sum(axis=axes, keepdims=True))
        return made

    return kernel


def standardise(call: Call) -> Kernel:
    """(x - mean) / sqrt(variance + epsilon), times a scale of one entry; then mean and variance.

    Operands: x, how much each position weighs in a mean (None where all weigh the same), the scale (None for 1).
    """
    axes, epsilon = tuple(call.attribute("axes")), float(call.attribute("epsilon"))

    def kernel(x: Array, weights: Any = None, scale: Any = None) -> tuple[Array, Array, Array]:
        average = averaged(axes, None if weights is None else weights.astype(x.dtype, copy=False), x.ndim)
        mean = average(x)
        centred = x - mean
        variance = average(centred * centred)
        spread = np.sqrt(variance + x.dtype.type(epsilon))
        made = centred / spread if scale is None else centred * (scale.reshape((1,) * x.ndim) / spread)
        return made, mean, variance

    return kernel


def averaged(axes: tuple[int, ...], weights: Array | None, rank: int) -> Callable[[Array], Array]:
    """Return what takes the mean over axes; weights: of the positions along them, each axis with a sum of 1 or size 1.

    An axis of weights that has size 1 weighs every position of x alike.
    """
    if weights is None:
        return lambda x: x.mean(axis=axes, keepdims=True)
    sizes = (1,) * (rank - weights.ndim) + weights.shape
    lead = next((place for place, size in enumerate(sizes) if size != 1), rank)
    rest = tuple(axis for axis in axes if axis < lead or sizes[axis] == 1)
    if all(sizes[axis] != 1 and axis in axes for axis in range(lead, rank)):
        flat = np.ascontiguousarray(weights).reshape(-1)

        def average(x: Array) -> Array:
            made = np.dot(x.reshape(*x.shape[:lead], -1), flat).reshape(*x.shape[:lead], *(1,) * (rank - lead))
            return made.mean(axis=rest, keepdims=True) if rest else made  # type: ignore[no-any-return]

        return average
    weighed = tuple(axis for axis in axes if sizes[axis] != 1)

    def average_apart(x: Array) -> Array:
        made = (x * weights).sum(axis=weighed, keepdims=True)
        return made.mean(axis=rest, keepdims=True) if rest else made  # type: ignore[no-any-return]

    return average_apart


def instance_normalise(call: Call) -> Kernel:
    """Standardise every map of every sample."""
    epsilon = float(call.attribute("epsilon", 1e-5))

    def kernel(x: Array, scale: Array, shift: Array) -> Array:
        axes, column = tuple(range(2, x.ndim)), (1, -1, *(1,) * (x.ndim - 2))
        centred = x - x.mean(axis=axes, keepdims=True)
        variance = np.square(centred).mean(axis=axes, keepdims=True)
        made: Array = centred * (scale.reshape(column) / np.sqrt(variance + x.dtype.type(epsilon)))
        return made + shift.reshape(column)

    return kernel
