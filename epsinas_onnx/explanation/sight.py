"""Looks at every value of a planned graph for both constants: exactly, or in float32."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epsinas_onnx.errors import RunError
from epsinas_onnx.evaluate_lumped.scaled import Scaled
from epsinas_onnx.evaluate_lumped.value import Value
from epsinas_onnx.explanation.result import LOG10_OF_2, Number, Observed
from epsinas_onnx.lump.value import Lumped
from epsinas_onnx.scoring.evaluated import ExactExecutor
from epsinas_onnx.scoring.judged import Task
from epsinas_onnx.scoring.metric import normalised_dispersion
from epsinas_onnx.scoring.reruns import trace_few

Array = npt.NDArray[Any]

_HELD = 2**28
"""Bytes up to which every value is held for the whole minibatch; else a few samples are looked at."""


@dataclass(frozen=True)
class Seen:
    """One value: for each constant, the metric between both, and the classes of its axes where it is lumped."""

    observed: tuple[Observed, Observed]
    dispersion: float | None
    shape: tuple[int, ...] | None
    classes: tuple[int, ...] | None


@dataclass(frozen=True)
class Sight:
    """Every value by name, and over how many samples they were looked at."""

    values: Mapping[str, Seen]
    samples: int


def exactly(task: Task, executor: ExactExecutor) -> Sight:
    """Return every value in exact arithmetic: for the whole minibatch where that fits, else for a few samples.

    Raises RunError where the graph cannot be evaluated.
    """
    with np.errstate(all="ignore"):
        return _exactly(task, executor)


def _exactly(task: Task, executor: ExactExecutor) -> Sight:
    traced = executor.tracer()
    cut, weights = task.cut_axes, task.options.weights
    few = cut is None and 2 * traced.held_bytes() > _HELD
    tries = [task.of_few().feeds.arrays] if few else []
    for feeds in [*tries, task.feeds.arrays]:
        try:
            first, second = (executor.every_value(traced, constant, feeds, cut) for constant in weights)
            break
        except RunError:  # the graph may be made for the whole minibatch
            if feeds is task.feeds.arrays:
                raise
    seen = {}
    for name, lumped in traced.lumped.items():
        one, other = [made[name] for made in first], [made[name] for made in second]
        entries = [executor.entries_of(lumped, values) for values in (one, other)]
        seen[name] = _seen((_exact(one), _exact(other)), entries, lumped)
    return Sight(seen, 2 if cut is not None else _samples(feeds, task.feeds.axes))


def in_float32(task: Task, lumped: bool) -> Sight:
    """Return every float value of a few samples as ONNX Runtime gives it; lumped: whether the lumped graph runs."""
    executor, feeds = trace_few(task.loaded, task.planned, task.batching, task.config, task.feeds, lumped)
    axes, cut = task.feeds.axes, task.cut_axes
    still = {
        name: np.broadcast_to(np.take(array, [0], axes[name]), array.shape) if name in axes else array
        for name, array in feeds.items()
    }
    seen = {}
    for names in executor.tracer.chunks():
        ran = [executor.values(constant, feeds, names, cut) for constant in task.options.weights]
        bases = ran if cut else [executor.values(constant, still, names, None) for constant in task.options.weights]
        for name in names:
            one, other = (
                observed(made[name], base[name][:1] if cut else base[name])
                for made, base in zip(ran, bases, strict=True)
            )
            entries = [_entries(executor, name, made[name], cut is not None) for made in ran]
            seen[name] = _seen((one, other), entries, executor.lumped.get(name))
    return Sight(seen, _samples(feeds, axes))


def of_inputs(task: Task) -> dict[str, Seen]:
    """Return what is fed, which is the same for both constants."""
    found = {}
    for name, array in task.feeds.arrays.items():
        if array.dtype.kind not in "fiub":
            continue
        axis = task.feeds.axes.get(name)
        first = array if axis is None else np.take(array, [0], axis)
        one = observed(array.astype(np.float64), first)
        found[name] = Seen((one, one), None if axis is None else 0.0, array.shape, None)
    return found


def _samples(feeds: Mapping[str, Array], axes: Mapping[str, int]) -> int:
    return min((feeds[name].shape[axis] for name, axis in axes.items()), default=1)


def _entries(executor: Any, name: str, array: Array, stacked: bool) -> Array:
    if not stacked:
        return np.asarray(executor.entries_of(name, array))
    return np.concatenate([executor.entries_of(name, sample) for sample in array])


def _seen(observed: tuple[Observed, Observed], entries: Sequence[Array], lumped: Lumped | None) -> Seen:
    shape, classes = (None, None) if lumped is None or lumped.parts is None else (lumped.shape, lumped.counts)
    return Seen(observed, _dispersion(*entries), shape, classes)


def _dispersion(first: Array, second: Array) -> float | None:
    if first.size != second.size or not first.size or first.dtype.kind not in "fiu":
        return None
    one, other = (array if array.dtype.kind == "f" else array.astype(np.float64) for array in (first, second))
    with np.errstate(all="ignore"):
        found = normalised_dispersion(one, other)
    return found if math.isfinite(found) else None


def _exact(values: Sequence[Value]) -> Observed:
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
        apart = np.abs(array - base) if np.broadcast_shapes(array.shape, base.shape) == array.shape else np.zeros(1)
        moved = float(np.nanmax(apart, initial=0.0))
        size = float(np.nanmax(np.abs(array), initial=0.0))
    low, high = _range(array)
    return Observed(Number.of(low), Number.of(high), _log(size), _log(moved), finite)


def _range(array: Array) -> tuple[float, float]:
    """Return the smallest and the largest entry, NaN left aside unless all are."""
    known = array[~np.isnan(array)]
    return (float(known.min()), float(known.max())) if known.size else (math.nan, math.nan)


def _log(number: float) -> float | None:
    return math.log10(number) if number > 0 and math.isfinite(number) else None
