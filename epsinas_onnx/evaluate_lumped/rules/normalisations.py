"""Rules of normalisations that lowering leaves as they are, and of Fourier transforms: made of smaller rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from epsinas_onnx.evaluate_lumped import algebra, smooth
from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.families import Operands, Run, as_formed, first_free, formed, none_free, through
from epsinas_onnx.evaluate_lumped.kernels import normalisation, reduction, spectral
from epsinas_onnx.evaluate_lumped.normalise import standardised
from epsinas_onnx.evaluate_lumped.rules.functions import plus, scaled_by, square
from epsinas_onnx.evaluate_lumped.scaled import Array
from epsinas_onnx.evaluate_lumped.value import Operand, Shape, Value, depends


def shaped(value: Value, shape: Shape) -> Value:
    """Return a value whose parts have the full size along every axis in another shape."""
    return algebra.mapped(value, lambda part: part.become(np.broadcast_to(part.array, value.shape).reshape(shape), 0),
                          shape)  # fmt: skip


def moved(value: Value, kernel: Callable[[Array], Array]) -> Value:
    """Return what something linear makes of a value."""
    return through(kernel, value, none_free)[0]


def _column(value: Value, rank: int) -> Value:
    return shaped(value, (1, *value.shape, *(1,) * (rank - 2)))


def _affine(value: Value, scale: Operand | None, shift: Operand | None) -> Value:
    """Return a value times a scale plus a shift, where there are any."""
    value = algebra.multiply(value, scale) if isinstance(scale, Value) else value
    return algebra.add(value, shift) if isinstance(shift, Value) else value


def batch_normalise(call: Call) -> Run:
    """Each channel with the statistics of the minibatch, where none are given."""
    normalisation.one_output(call)
    epsilon, stored = normalisation.epsilon_of(call), normalisation.is_stored(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        x, *rest = operands
        assert isinstance(x, Value)
        scale, shift, *statistics = (
            _column(operand, len(x.shape)) if isinstance(operand, Value) else None for operand in rest
        )
        if not stored:
            return [_affine(standardised(x, (0, *range(2, len(x.shape))), epsilon), scale, shift)]
        mean, variance = statistics
        assert mean is not None
        assert variance is not None
        spread = smooth.square_root(plus(variance, epsilon))
        return [_affine(algebra.divide(algebra.subtract(x, mean), spread), scale, shift)]

    return run


def layer_normalise(call: Call) -> Run:
    """Over all axes from one on."""
    normalisation.one_output(call)
    axis, epsilon = int(call.attribute("axis", -1)), normalisation.epsilon_of(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        x, scale, shift = [*operands, None, None][:3]
        assert isinstance(x, Value)
        rank = len(x.shape)
        return [_affine(standardised(x, tuple(range(axis % rank, rank)), epsilon), scale, shift)]

    return run


def root_mean_square_normalise(call: Call) -> Run:
    """X over the root of the mean of squares, over all axes from one on."""
    normalisation.one_output(call)
    axis, epsilon = int(call.attribute("axis", -1)), normalisation.epsilon_of(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        x, scale = [*operands, None][:2]
        assert isinstance(x, Value)
        spread = smooth.square_root(plus(_mean(square(x), range(axis % len(x.shape), len(x.shape))), epsilon))
        return [_affine(algebra.divide(x, spread), scale, None)]

    return run


def group_normalise(call: Call) -> Run:
    """Over the positions and channels of each group; scale and shift are per group until operator set 21."""
    groups, epsilon = int(call.attribute("num_groups")), normalisation.epsilon_of(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        x, *rest = operands
        assert isinstance(x, Value)
        cut = shaped(x, (x.shape[0], groups, int(np.prod(x.shape[1:])) // groups))
        made = shaped(standardised(cut, (2,), epsilon), x.shape)
        columns = []
        for value in rest:
            assert isinstance(value, Value)
            each = x.shape[1] // value.shape[0]
            full = moved(value, lambda array, times=each: np.repeat(array, times))  # type: ignore[misc]
            columns.append(_column(full, len(x.shape)))
        return [_affine(made, *columns)]

    return run


def mean_variance_normalise(call: Call) -> Run:
    """Centred, over the deviation plus 1e-9."""
    axes = tuple(call.attribute("axes", [0, 2, 3]))

    def run(operands: Operands) -> Sequence[Operand | None]:
        (x,) = operands
        assert isinstance(x, Value)
        centred = algebra.subtract(x, _mean(x, axes))
        return [algebra.divide(centred, plus(smooth.square_root(_mean(square(centred), axes)), 1e-9))]

    return run


def _mean(value: Value, axes: Sequence[int]) -> Value:
    places = tuple(axes)
    return moved(value, lambda array: reduction.level_mean(array, places, keepdims=True))


def local_response(call: Call) -> Run:
    """X over a power of a sum of squares of channels near it."""
    response = normalisation.Response(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        (x,) = operands
        assert isinstance(x, Value)
        total = moved(square(x), response.summed)
        below = plus(scaled_by(response.alpha / response.size, total), response.bias)
        return [algebra.divide(x, smooth.power(below, response.beta))]

    return run


def stft(call: Call) -> Run:
    """The transform of every window of a signal: linear in the signal and in the numbers of the window."""
    transform = spectral.spectrum(bool(call.attribute("onesided", 1)))
    plain = as_formed(spectral.stft)(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        signal, step, window, length = [*operands, None, None][:4]
        if not isinstance(signal, Value) or depends(step) or depends(length):
            return plain(operands)
        size = spectral.length_of(window, formed(length))
        hop = int(np.asarray(formed(step)).reshape(-1)[0])
        made = through(lambda array: spectral.framed(array, hop, size), signal, first_free)[0]
        made = algebra.multiply(made, window) if isinstance(window, Value) else made
        return [through(transform, made, lambda axis, rank: axis < rank - 1)[0]]

    return run
