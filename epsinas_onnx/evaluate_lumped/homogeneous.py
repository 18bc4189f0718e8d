"""Proves from values that a network is homogeneous in its weights, so that its score is exactly 0."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from epsinas_onnx.evaluate_lumped.evaluator import Constant, log2_range
from epsinas_onnx.evaluate_lumped.scaled import Floats, Scaled

Entries = Callable[[Constant], Scaled]
"""Gives what the metric takes of the outputs (`evaluator.variation`) for a constant."""

_BITS = 2.0**-40
"""Shares that are closer than this are the same: what rounding leaves of 53 bits after some thousand operations."""


def degree(entries: Entries, constants: Sequence[float]) -> int | None:
    """Return the k for which outputs are c^k times something that no constant c changes; None where there is none.

    An MLP without biases has the number of its layers, and so have convolutions with poolings and rectifiers. Outputs
    for two constants are then proportional, and the metric, which knows no scale, gives exactly 0 for any two.

    Doubling a constant of such a network changes exponents and no digit, by as much for every constant. A network that
    only comes near to that (a normalisation far below its epsilon) has another degree where it does not. Costs two runs
    for each constant.
    """
    found: int | None = None
    first: Floats | None = None
    for constant in constants:
        one = Constant(*math.frexp(constant))
        plain, doubled = (entries(c) for c in (one, dataclasses.replace(one, exponent=one.exponent + 1)))
        rise = log2_range(doubled) - log2_range(plain)
        if not math.isfinite(rise) or abs(rise - round(rise)) > _BITS * max(1.0, abs(log2_range(plain))):
            return None
        here = [_shares(part) for part in (plain, doubled)]
        first = here[0] if first is None else first
        found = round(rise) if found is None else found
        if round(rise) != found or not all(_same(first, shares) for shares in here):
            return None
    return found


def _shares(entries: Scaled) -> Floats:
    """Return the entries between 0 and 1, as the metric scales them."""
    array = entries.array
    low, high = array.min(), array.max()
    made: Floats = (array - low) / (high - low)
    return made


def _same(first: Floats, second: Floats) -> bool:
    return first.shape == second.shape and bool(np.abs(first - second).max(initial=0.0) <= _BITS)
