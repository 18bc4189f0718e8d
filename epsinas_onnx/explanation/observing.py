"""Says what one value is for a constant: range, magnitude and variation; and the metric between both constants."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epsinas_onnx.evaluate_lumped.scaled import Scaled
from epsinas_onnx.evaluate_lumped.value import Value
from epsinas_onnx.explanation.result import LOG10_OF_2, Number, Observed
from epsinas_onnx.lump.value import Lumped
from epsinas_onnx.scoring.metric import normalised_dispersion

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Seen:
    """One value: for each constant, the metric between both, and the classes of its axes where it is lumped."""

    observed: tuple[Observed, Observed]
    dispersion: float | None
    shape: tuple[int, ...] | None
    classes: tuple[int, ...] | None


def seen_as(observed: tuple[Observed, Observed], entries: Sequence[Array], lumped: Lumped | None) -> Seen:
    """Return a value for both constants. entries: what the metric takes of it; none where that could not be held."""
    shape, classes = (None, None) if lumped is None or lumped.parts is None else (lumped.shape, lumped.counts)
    return Seen(observed, _dispersion(*entries) if entries else None, shape, classes)


def _dispersion(first: Array, second: Array) -> float | None:
    if first.size != second.size or not first.size or first.dtype.kind not in "fiu":
        return None
    one, other = (array if array.dtype.kind == "f" else array.astype(np.float64) for array in (first, second))
    with np.errstate(all="ignore"):
        found = normalised_dispersion(one, other)
    return found if math.isfinite(found) else None


def exact(values: Sequence[Value]) -> Observed:
    """Return one value over runs of some samples each."""
    wholes = [Scaled(np.zeros(1)) if (part := value.whole()) is None else part for value in values]
    deviations = [value.deviation for value in values if value.deviation is not None]
    finite = all(bool(np.isfinite(part.array).all()) for part in _parts(values))
    wholes = [part for part in wholes if part.array.size]
    lows = [(part, _range(part.array)[0]) for part in wholes]
    highs = [(part, _range(part.array)[1]) for part in wholes]
    low = min((_number(part, least) for part, least in lows), key=_sortable, default=Number(0.0, 0))
    high = max((_number(part, most) for part, most in highs), key=_sortable, default=Number(0.0, 0))
    return Observed(low, high, _log10(wholes), _log10(deviations), finite)


def merged(turns: Sequence[Observed]) -> Observed:
    """Return a value over all turns of a loop."""
    low = min((one.low for one in turns), key=_sortable)
    high = max((one.high for one in turns), key=_sortable)
    sizes = [one.magnitude for one in turns if one.magnitude is not None]
    moves = [one.variation for one in turns if one.variation is not None]
    finite = all(one.finite for one in turns)
    return Observed(low, high, max(sizes, default=None), max(moves, default=None), finite)


def _parts(values: Iterable[Value]) -> Iterator[Scaled]:
    for value in values:
        yield from (part for part in (value.base, value.deviation) if part is not None)


def _number(part: Scaled, entry: float) -> Number:
    mantissa, exponent = math.frexp(part.mantissa)
    return Number.of(entry * mantissa, part.exponent + exponent)


def _sortable(number: Number) -> tuple[float, float, float]:
    """Return a key that orders numbers of any size; NaN is the least."""
    sign = math.copysign(1.0, number.mantissa) if number.mantissa else 0.0
    if math.isnan(number.mantissa):
        return (-2.0, 0.0, 0.0)
    if math.isinf(number.mantissa):
        return (sign, math.inf * sign if sign else 0.0, 0.0)
    return (sign, sign * number.exponent, number.mantissa)


def _log10(parts: Iterable[Scaled]) -> float | None:
    logs = [part.log2 * LOG10_OF_2 for part in parts]
    return max((log for log in logs if math.isfinite(log)), default=None)


def observed(array: Array, base: Array) -> Observed:
    """Return a value that is an array; base: what it is where every sample is the first one."""
    if array.size == 0 or array.dtype.kind not in "fiub":
        return Observed(Number(0.0, 0), Number(0.0, 0), None, None, True)
    array = array.astype(np.float64)
    finite = bool(np.isfinite(array).all())
    with np.errstate(all="ignore"):
        apart = np.abs(array - base) if _fits(base.shape, array.shape) else np.zeros(1)
        moved = float(np.nanmax(apart, initial=0.0))
        size = float(np.nanmax(np.abs(array), initial=0.0))
    low, high = _range(array)
    return Observed(Number.of(low), Number.of(high), _log(size), _log(moved), finite)


def _fits(base: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether one shape broadcasts to another; how large a value is may depend on the samples."""
    try:
        return np.broadcast_shapes(base, shape) == shape
    except ValueError:
        return False


def _range(array: Array) -> tuple[float, float]:
    """Return the smallest and the largest entry, NaN left aside unless all are."""
    known = array[~np.isnan(array)]
    return (float(known.min()), float(known.max())) if known.size else (math.nan, math.nan)


def _log(number: float) -> float | None:
    return math.log10(number) if number > 0 and math.isfinite(number) else None
