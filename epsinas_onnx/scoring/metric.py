"""The normalised dispersion of two output vectors: pure NumPy, knows nothing of ONNX."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]

EPSILON = float(np.finfo(np.float32).eps)
"""Spacing of float32 numbers next to 1."""


@dataclass(frozen=True)
class Precision:
    """What an arithmetic resolves. epsilon: spacing of numbers next to 1. tiny: below this bits are lost with every
    halving. smallest: the step between numbers below that. Both are 0 where exponents have no bounds.
    """

    epsilon: float
    tiny: float
    smallest: float

    @property
    def change(self) -> float:
        """By which share everything moves when an output is suspected to be rounding alone.

        The last bits would not do: those of the terms of a long sum lie below the last bit of the sum, and leave its
        rounding as it was.
        """
        return 512 * self.epsilon


FLOAT32 = Precision(EPSILON, float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).smallest_subnormal))
EXACT = Precision(float(np.finfo(np.float64).eps), 0.0, 0.0)


def normalise(values: Floats, skipped: Mask | None = None) -> Floats:
    """Scale `values` to [0, 1] over all entries; entries that come out as exactly 0 become NaN.

    `values`: any shape, flattened; float32 as the network gave them. `skipped`: `[n]`, the entries that become NaN
    instead of those. Returns `[n]` of the same dtype, because the subtraction of the minimum in float32 decides which
    entries count as missing. NaN entries are ignored and stay NaN. Where all entries are equal the result is all NaN.

    Source: the epsinas paper's published code; docs/metric.md.
    """
    flat = values.reshape(-1)
    finite = flat[~np.isnan(flat)]
    if finite.size == 0:
        return np.full(flat.shape, np.nan, flat.dtype)
    low, high = finite.min(), finite.max()
    with np.errstate(all="ignore"):
        scaled: Floats = (flat - low) / (high - low)
    scaled[scaled == 0 if skipped is None else skipped] = np.nan
    return scaled


def normalised_dispersion(first: Floats, second: Floats, skipped: tuple[Mask, Mask] | None = None) -> float:
    """Return mean(|n1 - n2|) / mean(n1 and n2 together), where n is each output scaled to [0, 1].

    Entries that come out as exactly 0 are missing, and both means skip them; they accumulate in float64.

    Args:
        first: what the network gives for one constant, any shape, float32 as it came out.
        second: what it gives for the other constant, with as many entries.
        skipped: for each output the entries that count as missing, boolean `[n]`; None for those that are exactly the
            minimum.

    Returns:
        The score, no unit, at least 0; NaN where no entry is present in both outputs.

    Raises:
        ValueError: the sizes differ.

    Source:
        The epsinas paper's published code; docs/metric.md has the formula.

    Examples:
        >>> import numpy as np
        >>> normalised_dispersion(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 2.0]))
        0.0
        >>> round(normalised_dispersion(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 4.0])), 3)
        0.182
    """
    if first.size != second.size:
        raise ValueError(f"the two outputs have {first.size} and {second.size} entries; they must have equally many")
    of_first, of_second = skipped or (None, None)
    n1, n2 = normalise(first, of_first), normalise(second, of_second)
    difference = np.abs(n1 - n2)
    compared = ~np.isnan(difference)
    if not compared.any():
        return float("nan")
    together = np.concatenate([n1, n2])
    mean = together[~np.isnan(together)].mean(dtype=np.float64)
    return float(difference[compared].mean(dtype=np.float64) / mean)


def levels_compared(first: Floats, second: Floats) -> int:
    """Return how many different values the first output has among the entries that are missing in neither."""
    n1, n2 = normalise(first), normalise(second)
    return int(np.unique(n1[~(np.isnan(n1) | np.isnan(n2))]).size)


def varies(values: Floats) -> bool:
    """Return whether any two entries differ."""
    return bool(values.size) and bool(values.max() != values.min())


def amplification(values: Floats) -> float:
    """Return max|v| / (max v - min v): by how much normalising enlarges a relative rounding error (inf if constant)."""
    spread = float(values.max()) - float(values.min())
    return float(np.abs(values).max()) / spread if spread > 0 else float("inf")
