"""Entries that only rounding makes the minimum of an output, or not: which they are, and how far they move a score."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from epsinas_onnx.scoring.metric import Mask, normalise, normalised_dispersion

Array = npt.NDArray[Any]


def suspected(output: Array, depth: int, epsilon: float) -> tuple[Mask, ...]:
    """Return the sets of entries that the formula might skip, by a cheap look at one pass; the first is what it skips.

    epsilon: spacing of numbers next to 1. The second, where it differs, are all within rounding at the largest
    magnitude of the output: a small entry may be the difference of two large ones. A minimum of 0 is what a
    rectifier or a saturation cut off, and any arithmetic resolves what lies beside it.
    """
    exact = _smallest(output)
    if output.min() == 0:
        return (exact,)
    return _different(exact, exact | _close(output, _gathered(float(np.abs(output).max()), depth, epsilon)))


def choices(output: Array, again: Array, depth: int, margin: float, epsilon: float) -> tuple[Mask, ...]:
    """Return the sets of entries that another order of operations might have the formula skip; the first is its own.

    again: the output with other last bits. The second set is what lies within `margin` times the change of the
    minimum, or within what roundings at the minimum's own magnitude gather. The third is one entry alone, because
    others that are exactly the minimum may be so by chance; where the minimum did not change at all, as that of a
    saturated function, they are so by structure.
    """
    exact, *near = suspected(output, depth, epsilon)
    there = exact | _smallest(again)
    change = float(np.abs(output[there].astype(np.float64) - again[there]).max())
    distance = max(margin * change, _gathered(abs(float(output.min())), depth, epsilon))
    sets = _different(exact, *(exact | (mask & _close(output, distance)) for mask in near))
    if len(sets) == 1 or change == 0:
        return sets
    alone = np.zeros_like(exact)
    alone[np.argmin(output)] = True
    return (*sets, alone)


def score_range(first: Array, second: Array, skipped: tuple[Sequence[Mask], Sequence[Mask]]) -> tuple[float, float]:
    """Return the least and the largest score over every pairing of sets to skip; both NaN where one leaves nothing."""
    scores = [normalised_dispersion(first, second, pair) for pair in itertools.product(*skipped)]
    return (math.nan, math.nan) if any(map(math.isnan, scores)) else (min(scores), max(scores))


def _smallest(output: Array) -> Mask:
    missing: Mask = np.isnan(normalise(output))
    return missing


def _close(output: Array, distance: float) -> Mask:
    close: Mask = output - output.min() <= distance
    return close


def _gathered(magnitude: float, depth: int, epsilon: float) -> float:
    """Return by how much a value of this magnitude may be off: roundings over a path add up as its root."""
    return epsilon * math.sqrt(depth) * magnitude


def _different(exact: Mask, *others: Mask) -> tuple[Mask, ...]:
    """Return the sets that differ; one of all entries is none, since reruns told the output from rounding."""
    return (exact, *(mask for mask in others if not np.array_equal(mask, exact) and not mask.all()))
