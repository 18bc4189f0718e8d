"""Arrays with a scale of their own: sums against fractions, however far apart the scales and the numbers lie."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from epsinas_onnx.evaluate_lumped.scaled import Scaled, add

EXPONENTS = st.one_of(st.integers(-60, 60), st.integers(-700, 700), st.integers(-5000, 5000))
MANTISSAS = st.floats(0.5, 1.0, exclude_max=True)


@st.composite
def terms(draw: st.DrawFn) -> Scaled:
    """Return an array whose largest magnitude may be anywhere that its age allows, or that is all zeros."""
    age = draw(st.integers(0, 8))
    power = draw(st.integers(-100 - 40 * age, 100 + 40 * age)) if age < 8 else draw(st.integers(-420, 420))
    numbers = draw(st.lists(st.floats(-1.0, 1.0, width=32), min_size=3, max_size=3))
    array = np.ldexp(np.asarray([*numbers, draw(st.sampled_from([0.0, 1.0, -1.0]))]), power)
    return Scaled(array, draw(MANTISSAS), draw(EXPONENTS), age)


def exact(part: Scaled) -> list[Fraction]:
    """Return the numbers as they are."""
    scale = Fraction(part.mantissa) * Fraction(2) ** part.exponent
    return [Fraction(float(entry)) * scale for entry in part.array]


@given(terms(), terms(), st.booleans())
def test_a_sum_is_that_of_fractions_up_to_rounding(first: Scaled, second: Scaled, negate: bool) -> None:
    left, right = exact(first), exact(second)
    largest = max(map(abs, left + right))
    made = exact(add(first, second, negate))
    for one, other, found in zip(left, right, made, strict=True):
        wanted = one - other if negate else one + other
        assert abs(found - wanted) <= largest / 2**50


@given(terms(), terms())
def test_a_sum_is_the_same_with_its_terms_the_other_way_round(first: Scaled, second: Scaled) -> None:
    assert exact(add(first, second)) == exact(add(second, first))


@given(terms(), terms())
def test_a_sum_knows_how_large_it_is(first: Scaled, second: Scaled) -> None:
    """What its age says of its magnitude holds, or settling it looks."""
    made = add(first, second)
    settled = made.settled()
    largest = max(map(abs, exact(made)))
    assert all(abs(a - b) <= largest / 2**50 for a, b in zip(exact(settled), exact(made), strict=True))
    peak = float(np.abs(settled.array).max())
    cancelled = max(map(abs, exact(first) + exact(second))) > 2**40 * largest
    if peak and not cancelled and max(first.age, second.age) < 7:
        slack = 2.0 ** (100 + 40 * 8)
        assert 1 / slack < peak < slack


@pytest.mark.parametrize("apart", [41, 120, 299, 301, 900])
def test_a_term_that_is_small_by_its_scale_may_be_the_larger_one(apart: int) -> None:
    small = Scaled(np.array([3.0]) * 2.0**-90, 0.75, apart, 0)
    large = Scaled(np.array([5.0]) * 2.0**90, 0.5, 0, 0)
    wanted = exact(small)[0] + exact(large)[0]
    for made in (add(small, large), add(large, small)):
        assert abs(exact(made)[0] / wanted - 1) < Fraction(1, 2**51)


@example(Scaled(np.ones(4), 0.5, 0), Scaled(np.ones(4), 0.5, 1067), False, 2**140)
@given(terms(), terms(), st.booleans(), st.sampled_from([2**53, 2**140, -(2**140)]))
def test_a_sum_does_not_depend_on_where_both_terms_lie(first: Scaled, second: Scaled, negate: bool, by: int) -> None:
    """Exponents beyond 2^53 are told apart, though their logarithms, as floats, are not."""
    near = add(first, second, negate)
    far = add(*(Scaled(one.array, one.mantissa, one.exponent + by, one.age) for one in (first, second)), negate)
    largest = max(map(abs, exact(first) + exact(second)))
    moved = Scaled(far.array, far.mantissa, far.exponent - by)
    for one, other in zip(exact(near), exact(moved), strict=True):
        assert abs(one - other) <= largest * Fraction(1, 2**48)
