"""The rules on coverages and correlations that are made up: against the words of the rule, and hypothesis."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from epsinas_onnx.constants.choose import ALIKE, PairCoverage, most_correlated, widest
from epsinas_onnx.constants.find import CONSTANTS

PAIRS = list(itertools.combinations(CONSTANTS, 2))
counts = st.lists(st.integers(0, 40), min_size=len(PAIRS), max_size=len(PAIRS))
correlations = st.lists(st.none() | st.floats(-1, 1), min_size=len(PAIRS), max_size=len(PAIRS))


def covered(scored: list[int], total: int = 40) -> list[PairCoverage]:
    return [PairCoverage(pair, count, total) for pair, count in zip(PAIRS, scored, strict=True)]


def published(scored: dict[tuple[float, float], int], total: int) -> tuple[float, float] | None:
    """Return what windows of powers of ten give, the widest first and each from the smallest constant on."""
    for window in range(7, 0, -1):
        for low in range(8 - window):
            pair = CONSTANTS[low], CONSTANTS[low + window]
            if (total - scored[pair]) / total < 0.1:
                return pair
    return None


@given(counts)
def test_the_rule_is_that_of_the_published_code(scored: list[int]) -> None:
    expected = published(dict(zip(PAIRS, scored, strict=True)), 40)
    choice = widest(covered(scored))
    if expected is not None:
        assert choice.weights == expected
        assert choice.reason.startswith("the widest pair with which fewer than 10% are unscored")


@given(counts)
def test_where_none_fits_it_is_the_widest_of_those_with_the_fewest_unscored(scored: list[int]) -> None:
    scored = [min(count, 36) for count in scored]  # 36 of 40 leave a tenth, which is not less than a tenth
    choice = widest(covered(scored))
    if not any(scored):
        assert choice.weights is None
        return
    assert choice.weights is not None
    low, high = choice.weights
    best = [pair for pair, count in zip(PAIRS, scored, strict=True) if count == max(scored)]
    assert (low, high) in best
    assert all(math.isclose(b / a, high / low) or b / a < high / low for a, b in best)
    assert "no pair leaves fewer than 10% unscored" in choice.reason


@given(counts, st.permutations(range(len(PAIRS))))
def test_the_order_of_the_pairs_makes_no_difference(scored: list[int], order: list[int]) -> None:
    pairs = covered(scored)
    assert widest(pairs) == widest([pairs[index] for index in order])


@given(correlations, st.booleans())
def test_the_best_correlation_is_taken_and_of_equals_the_widest(values: list[float | None], lower: bool) -> None:
    pairs = [PairCoverage(pair, 40, 40, spearman=value) for pair, value in zip(PAIRS, values, strict=True)]
    choice = most_correlated(pairs, lower_is_better=lower)
    known = [-value if lower else value for value in values if value is not None]
    if not known:
        assert choice.weights is None
        return
    assert choice.weights is not None
    (chosen,) = (pair for pair in pairs if pair.weights == choice.weights)
    assert chosen.spearman is not None
    assert (-chosen.spearman if lower else chosen.spearman) >= max(known) - ALIKE
    low, high = choice.weights
    for pair in pairs:
        if pair.spearman is not None and (-pair.spearman if lower else pair.spearman) >= max(known) - ALIKE:
            assert pair.weights[1] / pair.weights[0] <= high / low * (1 + 1e-9)


def test_a_pair_that_scores_few_networks_is_not_taken_for_its_correlation() -> None:
    few = PairCoverage((1e-7, 1e-6), 5, 40, spearman=0.99)
    many = PairCoverage((1e-3, 1.0), 30, 40, spearman=0.5)
    assert most_correlated([few, many]).weights == (1e-3, 1.0)
    choice = most_correlated([few])
    assert choice.weights == few.weights
    assert "though no pair scores 30% of the networks" in choice.reason


def test_the_published_coverages_of_nas_bench_201_give_1e_minus_3_and_1() -> None:
    """The counts of 5,000 that the author's notebook prints, with which its rule does not take 1e-7 and 1."""

    def count(pair: tuple[float, float]) -> int:
        return 2957 if pair[0] < 1e-3 else 4802 if pair[0] < 1e-2 else 4907

    choice = widest([PairCoverage(pair, count(pair), 5000) for pair in PAIRS])
    assert choice.weights == (1e-3, 1.0)
    assert "4,802 of 5,000 networks scored, 96.0%" in choice.reason
