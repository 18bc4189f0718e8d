"""Kernels that go over whole axes: reductions, cumulative sums, normalisations, softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.kernels.layout import Kernel, first_behind, first_in_front, first_innermost, listed
from epsinas_onnx.evaluate_lumped.scaled import Array

_SHORT = 32
"""Rows of fewer samples are squared all at once sooner than one by one."""


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


def softmax_axes(call: Call) -> Callable[[int], tuple[int, ...]]:
    """Return what tells the axes of a softmax for a rank: one, and until operator set 13 all from one on."""
    wide = call.opset < 13
    axis = int(call.attribute("axis", 1 if wide else -1))
    return lambda rank: tuple(range(axis % rank, rank)) if wide else (axis % rank,)


def softmax(call: Call) -> Kernel:
    """e^x over its sum along an axis; until operator set 13 along all axes from one on."""
    axes_of_rank = softmax_axes(call)

    def kernel(x: Array) -> Array:
        axes = axes_of_rank(x.ndim)
        raised = np.exp(x - x.max(axis=axes, keepdims=True))
        made: Array = raised / raised.sum(axis=axes, keepdims=True)
        return made

    return kernel


def log_softmax(call: Call) -> Kernel:
    """The logarithm of the softmax."""
    axes_of_rank = softmax_axes(call)

    def kernel(x: Array) -> Array:
        axes = axes_of_rank(x.ndim)
        low = x - x.max(axis=axes, keepdims=True)
        made: Array = low - np.log(np.exp(low).sum(axis=axes, keepdims=True))
        return made

    return kernel


def standardise(call: Call) -> Kernel:
    """(x - mean) / sqrt(variance + epsilon), times a scale of one entry; then mean and variance.

    Operands: x, how much each position weighs in a mean (None where all weigh the same), the scale (None for 1).
    """
    axes, epsilon = tuple(call.attribute("axes")), float(call.attribute("epsilon"))
    averages: dict[tuple[int, np.dtype[Any]], Average] = {}  # what weighs positions is stored, and always the same

    def kernel(x: Array, weights: Any = None, scale: Any = None) -> tuple[Array, Array, Array]:
        average = averages.get((x.ndim, x.dtype))
        if average is None:
            own = None if weights is None else weights.astype(x.dtype, copy=False)
            average = averages[x.ndim, x.dtype] = Average(axes, own, x.ndim)
        centred, mean, variance = average.about_mean(x)
        spread = np.sqrt(variance + x.dtype.type(epsilon))
        made = centred / spread if scale is None else centred * (scale.reshape((1,) * x.ndim) / spread)
        return made, mean, variance

    return kernel


class Average:
    """The mean over axes; weights: of the positions along them, each axis with a sum of 1 or size 1.

    An axis of weights that has size 1 weighs every position of x alike.
    """

    def __init__(self, axes: tuple[int, ...], weights: Array | None, rank: int) -> None:
        self.axes = axes
        self.rank = rank
        self.weights = None if weights is None else weights.reshape((1,) * (rank - weights.ndim) + weights.shape)
        sizes = (1,) * rank if self.weights is None else self.weights.shape
        self._weighed = tuple(axis for axis in axes if sizes[axis] != 1)
        self._rest = tuple(axis for axis in axes if sizes[axis] == 1)
        self._rows: dict[tuple[int, ...], Array | None] = {}
        self._one: dict[tuple[int, ...], bool] = {}

    def __call__(self, x: Array) -> Array:
        """Return the mean, with size 1 along the axes."""
        weights = self._weights_of_rows(x)
        return self._over_axes(x) if weights is None else self._filled(_mean_of(weights, _rows_of(x)))

    def squares(self, x: Array) -> Array:
        """Return the mean of the squares."""
        if _adds_squares_by_rows(x):
            weights = self._weights_of_rows(x)
            if weights is not None:
                return self._filled(_square_of(weights, _rows_of(x)))
            if self.weights is None and self.is_one_number(x):
                flat = x.ravel("K")
                return self._filled(flat @ flat / x.size)
        return self._over_axes(x * x)

    def about_mean(self, x: Array) -> tuple[Array, Array, Array]:
        """Return x less its mean, the mean, and the mean of the squares of what is left."""
        weights = self._weights_of_rows(x) if _adds_squares_by_rows(x) else None
        if weights is None:
            mean = self(x)
            centred = x - mean
            return centred, mean, self.squares(centred)
        rows = _rows_of(x)
        level = _mean_of(weights, rows)
        left = rows - level
        squared = _square_of(weights, left)
        return first_in_front(left.reshape(*x.shape[1:], len(x))), self._filled(level), self._filled(squared)

    def _filled(self, value: Any) -> Array:
        """Return a number with as many axes as there are."""
        return np.asarray(value).reshape((1,) * self.rank)

    def is_one_number(self, x: Array) -> bool:
        """Whether the mean is one over everything."""
        shape = x.shape
        found = self._one.get(shape)
        if found is None:
            found = self._one[shape] = all(size == 1 or axis in self.axes for axis, size in enumerate(shape))
        return found

    def _weights_of_rows(self, x: Array) -> Array | None:
        """Return what each row of samples weighs, None where these do not lie innermost or a mean is not one number."""
        if self.weights is None or not first_innermost(x):
            return None
        shape = x.shape
        if shape not in self._rows:
            self._rows[shape] = self._spread_out(x) if 0 not in self._weighed and self.is_one_number(x) else None
        return self._rows[shape]

    def _spread_out(self, x: Array) -> Array:
        assert self.weights is not None
        weights = np.broadcast_to(self.weights[0], x.shape[1:]).reshape(-1).astype(x.dtype)
        rest = math.prod(x.shape[axis] for axis in self._rest if axis)
        made: Array = weights / x.dtype.type(rest)
        return made

    def _over_axes(self, x: Array) -> Array:
        weights, weighed, rest = self.weights, self._weighed, self._rest
        if weights is None:
            if x.dtype == np.float64 and self.is_one_number(x):
                return self._filled(np.add.reduce(x, axis=None) / x.size)
            return np.asarray(x.mean(axis=self.axes, keepdims=True))
        lead = weighed[0] if weighed else self.rank
        if weighed == tuple(range(lead, self.rank)):
            flat = np.ascontiguousarray(weights).reshape(-1)
            made = np.dot(x.reshape(*x.shape[:lead], -1), flat).reshape(*x.shape[:lead], *(1,) * (self.rank - lead))
        else:
            made = (x * weights).sum(axis=weighed, keepdims=True)
        return made.mean(axis=rest, keepdims=True) if rest else made  # type: ignore[no-any-return]


def _adds_squares_by_rows(x: Array) -> bool:
    """Whether squares may be added up by products of rows, which in float32 rounds long rows otherwise."""
    return x.size > 0 and (x.dtype == np.float64 or len(x) < _SHORT)


def _rows_of(x: Array) -> Array:
    """Return rows of samples, which lie innermost."""
    return first_behind(x).reshape(-1, len(x))


def _mean_of(weights: Array, rows: Array) -> Any:
    return np.add.reduce(weights.dot(rows)) / rows.dtype.type(rows.shape[1])


def _square_of(weights: Array, rows: Array) -> Any:
    count = rows.dtype.type(rows.shape[1])
    if rows.shape[1] < _SHORT:
        return np.add.reduce(weights.dot(rows * rows)) / count
    each = np.matmul(rows[:, None, :], rows[:, :, None])[:, 0, 0]
    return weights.dot(each) / count


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
