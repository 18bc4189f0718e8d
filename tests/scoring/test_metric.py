"""The normalised dispersion against its definition (docs/metric.md) and its symmetries."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from epsinas_onnx.scoring.metric import amplification, normalise, normalised_dispersion, varies

Floats = npt.NDArray[np.floating]
PROPERTY = settings(max_examples=80, deadline=None)

# Whole numbers, so that maps by powers of two and whole numbers are exact and no tie appears or disappears.
WHOLE = st.integers(-1000, 1000)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Floats, Floats]:
    size = draw(st.integers(3, 40))
    first, second = (draw(arrays(np.float64, size, elements=WHOLE)) for _ in range(2))
    assume(np.unique(first).size > 2 and np.unique(second).size > 2)
    assume(((first > first.min()) & (second > second.min())).any())
    return first, second


def by_definition(first: Floats, second: Floats) -> float:
    scaled = []
    for values in (first, second):
        low, high = np.nanmin(values), np.nanmax(values)
        entries = [(value - low) / (high - low) for value in values.reshape(-1)]
        scaled.append(np.array([np.nan if entry == 0 else entry for entry in entries]))
    return float(np.nanmean(np.abs(scaled[0] - scaled[1])) / np.nanmean(np.concatenate(scaled)))


@given(pair=pairs())
@PROPERTY
def test_dispersion_follows_its_definition(pair: tuple[Floats, Floats]) -> None:
    assert normalised_dispersion(*pair) == pytest.approx(by_definition(*pair), rel=1e-12, abs=1e-15)


@given(pair=pairs(), scale=st.integers(-20, 20), shift=WHOLE, which=st.integers(0, 1))
@PROPERTY
def test_positive_affine_map_of_either_output_changes_nothing(
    pair: tuple[Floats, Floats], scale: int, shift: int, which: int
) -> None:
    mapped = [values * 2.0**scale + shift * 2.0**scale if i == which else values for i, values in enumerate(pair)]
    assert normalised_dispersion(*mapped) == normalised_dispersion(*pair)


@given(pair=pairs(), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
@PROPERTY
def test_affine_map_that_rounds_changes_no_more_than_rounding_does(
    pair: tuple[Floats, Floats], scale: float, shift: float
) -> None:
    mapped = pair[0] * scale + shift
    assert normalised_dispersion(mapped, pair[1]) == pytest.approx(normalised_dispersion(*pair), rel=1e-8, abs=1e-8)


@given(pair=pairs(), seed=st.integers(0, 1000))
@PROPERTY
def test_permuting_both_outputs_alike_changes_nothing(pair: tuple[Floats, Floats], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(pair[0].size)
    permuted = normalised_dispersion(pair[0][order], pair[1][order])
    assert permuted == pytest.approx(normalised_dispersion(*pair), rel=1e-12, abs=1e-15)


@given(pair=pairs())
@PROPERTY
def test_swapping_the_constants_changes_nothing(pair: tuple[Floats, Floats]) -> None:
    assert normalised_dispersion(*pair[::-1]) == pytest.approx(normalised_dispersion(*pair), rel=1e-12, abs=1e-15)


@given(pair=pairs())
@PROPERTY
def test_dispersion_is_0_for_equal_outputs_and_never_negative(pair: tuple[Floats, Floats]) -> None:
    assert normalised_dispersion(pair[0], pair[0]) == 0
    assert normalised_dispersion(*pair) >= 0


def test_permuting_one_output_alone_changes_the_dispersion() -> None:
    first = np.array([0.0, 1.0, 2.0, 3.0])
    assert normalised_dispersion(first, first) == 0
    assert normalised_dispersion(first, first[::-1]) == pytest.approx(np.mean([1 / 3, 1 / 3]) / (2 / 3))


def test_smallest_entries_count_as_missing_in_both_means() -> None:
    # n1 = [-, 1/2, 1], n2 = [1, -, 1/2]: only the last entry is compared; four entries are averaged.
    score = normalised_dispersion(np.array([0.0, 1.0, 2.0]), np.array([4.0, 0.0, 2.0]))
    assert score == pytest.approx(0.5 / 0.75)


def test_normalised_entries_reach_from_above_0_to_1() -> None:
    scaled = normalise(np.array([[3.0, 5.0], [4.0, 3.0]]))
    np.testing.assert_array_equal(scaled, [np.nan, 1, 0.5, np.nan])


def test_arithmetic_is_that_of_the_output() -> None:
    values = np.array([1.0, 1.0 + 2**-23, 2.0], np.float32)
    scaled = normalise(values)
    assert scaled.dtype == np.float32
    assert scaled[1] == np.float32(2**-23)
    # float32 decides which entries are missing: the second differs from the first in float64 alone.
    doubles = np.array([1.0, 1.0 + 2**-40, 2.0])
    assert np.isnan(normalise(doubles.astype(np.float32))).sum() == 2
    assert np.isnan(normalise(doubles)).sum() == 1


def test_missing_entries_of_an_output_are_ignored() -> None:
    first, second = np.array([0.0, 1.0, np.nan, 2.0]), np.array([0.0, 3.0, 5.0, 4.0])
    assert normalised_dispersion(first, second) == pytest.approx(by_definition(first, second))
    assert np.isfinite(normalised_dispersion(first, second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1.0, 1.0], [1.0, 2.0]),
        ([np.nan, np.nan], [1.0, 2.0]),
        ([0.0, 1.0], [1.0, 0.0]),
        ([], []),
        ([0.0, np.inf], [0.0, np.inf]),
    ],
    ids=["constant", "all missing", "nothing in common", "empty", "infinite"],
)
def test_nothing_to_compare_is_not_a_number(first: list[float], second: list[float]) -> None:
    assert np.isnan(normalised_dispersion(np.array(first), np.array(second)))


def test_outputs_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2"):
        normalised_dispersion(np.zeros(3), np.zeros(2))


def test_outputs_are_not_modified() -> None:
    first, second = np.array([0.0, 1.0, 2.0]), np.array([4.0, 0.0, 2.0])
    normalised_dispersion(first, second)
    np.testing.assert_array_equal(first, [0, 1, 2])
    np.testing.assert_array_equal(second, [4, 0, 2])


def test_output_varies_where_any_two_entries_differ() -> None:
    assert varies(np.array([[1.0, 1.0], [1.0, np.nextafter(1.0, 2.0)]]))
    assert not varies(np.ones((2, 2)))
    assert not varies(np.array([]))


def test_amplification_is_the_size_over_the_spread() -> None:
    assert amplification(np.array([100.0, 101.0])) == 101
    assert amplification(np.array([-8.0, 4.0, 0.0])) == pytest.approx(8 / 12)
    assert amplification(np.ones(3)) == np.inf
