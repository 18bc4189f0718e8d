"""Owns arrays with a scale of their own, mantissa times a power of two, whose exponent has no bounds."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Array: TypeAlias = npt.NDArray[Any]

_LASTS = 8
"""So many linear steps an array may be from the last look at its magnitude: each changes it by 2^40 at most."""
_NEAR = 40
"""Scales no further apart than this many powers of two are aligned without a look at the magnitudes."""
_FAR = 300
"""Scales no further apart than this are too, where the arrays are settled; how large the sum is, is not known then."""
_WIDE = 2.0**100
"""Arrays whose largest magnitude lies between this and its reciprocal stay as they are."""
_BEYOND = 900
"""Of settled arrays whose scales are further apart the one with the larger scale is larger, unless it is all 0."""
_FEW = 2**10
"""Of no more entries the magnitudes are written down sooner than they are gone through twice."""
_MODEST = 2.0**-100
"""The least sum of squares of fewer than 2^80 numbers that says that one of them is above 2^-100."""
_largest, _smallest = np.maximum.reduce, np.minimum.reduce


class Scaled:
    """`mantissa * 2**exponent * array`; never modified. mantissa: positive. array: float64.

    age: linear steps since its largest magnitude was between 2^-100 and 2^100, so that no product of two leaves the
    range of float64. Entries may be lost that are 2^-900 of the largest.
    """

    __slots__ = ("_peak", "age", "array", "exponent", "mantissa")

    def __init__(self, array: Floats, mantissa: float = 1.0, exponent: int = 0, age: int = _LASTS) -> None:
        self.array = array
        self.mantissa = mantissa
        self.exponent = exponent
        self.age = age
        self._peak = -1.0

    @property
    def peak(self) -> float:
        """Return the largest magnitude in the array, its scale aside; NaN where there is one."""
        if self._peak < 0:
            array = self.array
            if array.size <= _FEW:
                self._peak = float(_largest(np.abs(array), None, initial=0.0))
            else:
                self._peak = max(float(_largest(array, None)), -float(_smallest(array, None)))
        return self._peak

    @property
    def log2(self) -> float:
        """Return the logarithm of the largest magnitude, -inf for zeros."""
        peak = self.peak
        return math.log2(peak) + math.log2(self.mantissa) + self.exponent if peak > 0 else -math.inf

    def become(self, array: Floats, steps: int = 1) -> Scaled:
        """Return another array with the same scale, which so many linear steps made."""
        return Scaled(array, self.mantissa, self.exponent, self.age + steps)

    def times(self, mantissa: float, exponent: int) -> Scaled:
        """Return the product with a positive number."""
        mantissa, more = math.frexp(self.mantissa * mantissa)
        made = Scaled(self.array, mantissa, self.exponent + exponent + more, self.age)
        made._peak = self._peak
        return made

    def settled(self) -> Scaled:
        """Return the same numbers with a largest magnitude between 2^-100 and 2^100, where they are not all 0."""
        if self.age < _LASTS:
            return self
        if self._peak < 0:  # the sum of squares, which is found faster, is enough where it is moderate
            flat = self.array.ravel("K")
            if _MODEST < flat.dot(flat) < _WIDE:
                self.age = 0
                return self
        peak = self.peak
        if peak == 0 or not math.isfinite(peak) or 1 / _WIDE < peak < _WIDE:
            self.age = 0
            return self
        shift = math.frexp(peak)[1]
        return Scaled(np.ldexp(self.array, -shift), self.mantissa, self.exponent + shift, 0)

    def plain(self) -> Floats:
        """Return the numbers in float64, 0 or infinite where they are beyond its range."""
        if self.mantissa == 1.0 and self.exponent == 0:
            return self.array
        factor = _power(self.mantissa, self.exponent)
        if factor not in (0.0, math.inf):
            return self.array * factor
        return np.ldexp(self.array * self.mantissa, max(-20000, min(20000, self.exponent)))

    def in_units_of(self, other: Scaled) -> Floats:
        """Return the numbers as multiples of another's scale; what lies beyond float64 is 0 or very large there."""
        if other.exponent == self.exponent and other.mantissa == self.mantissa:
            return self.array
        factor = _power(self.mantissa / other.mantissa, self.exponent - other.exponent)
        return self.array * min(factor, 2.0**900)

    def negative(self) -> Scaled:
        """Return the numbers with the other sign."""
        made = Scaled(-self.array, self.mantissa, self.exponent, self.age)
        made._peak = self._peak
        return made


def number(value: float) -> Scaled:
    """Return a number without axes."""
    return Scaled(np.asarray(value, np.float64))


def add(first: Scaled, second: Scaled, negate: bool = False) -> Scaled:
    """Return the sum, or the difference; a term is dropped where it is below the last bit of the other.

    A sum is the same, to the bit, with the terms the other way round.
    """
    apart = second.exponent - first.exponent
    age = max(first.age, second.age) + 1
    if not -_NEAR <= apart <= _NEAR:
        first, second = first.settled(), second.settled()
        apart = second.exponent - first.exponent
        age = _LASTS
    if -_FAR <= apart <= _FAR:
        swap = apart > 0 or (apart == 0 and second.mantissa > first.mantissa)
    elif abs(apart) > _BEYOND and 0 < (second if apart > 0 else first).peak < math.inf:
        swap = apart > 0
    else:
        swap = second.log2 > first.log2
    larger, smaller = (second, first) if swap else (first, second)
    same = smaller.exponent == larger.exponent and smaller.mantissa == larger.mantissa
    if same or (smaller.exponent - larger.exponent > _FAR and smaller.peak == 0):
        array = smaller.array
    else:
        array = smaller.array * _power(smaller.mantissa / larger.mantissa, smaller.exponent - larger.exponent)
        if not negate and array.shape == larger.array.shape:
            array += larger.array
            return Scaled(array, larger.mantissa, larger.exponent, age)
    if not negate:
        made = larger.array + array
    elif swap:
        made = array - larger.array
    else:
        made = larger.array - array
    return Scaled(made, larger.mantissa, larger.exponent, age)


def multiply(first: Scaled, second: Scaled) -> Scaled:
    """Return the product; a factor of one entry changes the scale alone."""
    for one, other in ((first, second), (second, first)):
        if one.array.size == 1 and one.array.ndim <= other.array.ndim:
            value = one.array.item()
            if value != 0 and math.isfinite(value):
                mantissa, exponent = math.frexp(abs(value))
                made = other.times(one.mantissa * mantissa, one.exponent + exponent)
                return made if value > 0 else made.negative()
    first, second = first.settled(), second.settled()
    mantissa, exponent = math.frexp(first.mantissa * second.mantissa)
    return Scaled(first.array * second.array, mantissa, first.exponent + second.exponent + exponent)


def divide(first: Scaled, second: Scaled) -> Scaled:
    """Return the quotient; NaN or infinite where the second is 0."""
    return multiply(first, reciprocal(second))


def reciprocal(value: Scaled) -> Scaled:
    """Return 1 over every entry."""
    value = value.settled()
    mantissa, exponent = math.frexp(1.0 / value.mantissa)
    return Scaled(1.0 / value.array, mantissa, exponent - value.exponent)


def root(value: Scaled) -> Scaled:
    """Return the square root of every entry."""
    value = value.settled()
    odd = value.exponent % 2
    mantissa = math.sqrt(value.mantissa * 2**odd)
    return Scaled(np.sqrt(value.array), mantissa, (value.exponent - odd) // 2)


def _power(mantissa: float, exponent: int) -> float:
    """Return `mantissa * 2**exponent`, 0 or infinite beyond float64."""
    if exponent > 1100:
        return math.inf
    return math.ldexp(mantissa, exponent) if exponent > -1200 and exponent < 1000 else _far(mantissa, exponent)


def _far(mantissa: float, exponent: int) -> float:
    try:
        return math.ldexp(mantissa, exponent)
    except OverflowError:
        return math.inf
