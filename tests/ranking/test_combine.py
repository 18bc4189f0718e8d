"""Ranks, their combination, and agreement, against SciPy, textbook numbers and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import friedmanchisquare, spearmanr

from epsinas_onnx.ranking.combine import Column, combine, kendall_w, mean_spearman, places_of, ranks_of

NAN = math.nan


def column(*values: float, last: tuple[int, ...] = (), groups: tuple[float, ...] | None = None) -> Column:
    marked = np.zeros(len(values), np.bool_)
    marked[list(last)] = True
    return Column(np.array(values, np.float64), marked, None if groups is None else np.array(groups, np.float64))


def test_ranks_rise_with_the_number_and_ties_share_their_mean() -> None:
    assert ranks_of(column(5, 7, 5, -1), np.ones(4, np.bool_)).tolist() == [2.5, 4, 2.5, 1]


def test_what_rounding_tells_apart_shares_a_rank_and_counts_do_not() -> None:
    everyone = np.ones(4, np.bool_)
    assert ranks_of(column(0.5, 0.5 + 3e-7, 0.5 + 9e-6, -1), everyone).tolist() == [2.5, 2.5, 4, 1]
    assert ranks_of(column(1e9, 1e9 + 1, 1e9 - 1, 1), everyone).tolist() == [3, 4, 2, 1]
    # a chain of steps, each of which is rounding, is not one level
    assert len(set(ranks_of(column(0.5, 0.5 + 3e-7, 0.5 + 6e-7, 0.5 + 9e-7), everyone))) == 2


def test_the_combination_is_the_sum_of_log_ranks() -> None:
    found = combine({"a": column(1, 2, 3), "b": column(10, 30, 20)})
    wanted = [math.log(1 / 3) + math.log(1 / 3), math.log(2 / 3) + math.log(3 / 3), math.log(3 / 3) + math.log(2 / 3)]
    assert found.sums == pytest.approx(wanted)
    assert found.places.tolist() == [3, 1, 1]  # equal sums share the better place
    assert found.ranked.all()
    assert found.left_out == ()


def test_a_network_that_one_member_lacks_has_no_place_and_moves_nobody() -> None:
    with_it = combine({"a": column(1, 9, 3, 2), "b": column(4, NAN, 6, 5)})
    without = combine({"a": column(1, 3, 2), "b": column(4, 6, 5)})
    assert with_it.ranked.tolist() == [True, False, True, True]
    assert with_it.sums[[0, 2, 3]] == pytest.approx(without.sums)
    assert np.isnan(with_it.sums[1])
    assert np.isnan(with_it.places[1])


def test_an_absence_that_says_worse_is_the_last_rank() -> None:
    found = combine({"a": column(1, NAN, NAN, 2, last=(1, 2)), "b": column(1, 2, 3, 4)})
    assert found.ranked.all()
    assert found.ranks["a"].tolist() == [3, 1.5, 1.5, 4]


def test_a_score_that_nobody_has_is_left_out() -> None:
    found = combine({"a": column(1, 2, 3), "b": column(NAN, NAN, NAN, last=(0,))})
    assert found.left_out == ("b",)
    assert found.places.tolist() == [3, 2, 1]
    assert found.concordance is None


def test_nothing_is_ranked_where_no_score_has_a_number() -> None:
    found = combine({"a": column(NAN, NAN, NAN)})
    assert not found.ranked.any()
    assert np.isnan(found.sums).all()
    assert found.left_out == ("a",)


def test_numbers_compare_within_their_group_alone() -> None:
    """Multiplying the numbers of one group changes nothing; a group of one is in the middle of the set."""
    values, groups = np.array([1.0, 2, 3, 100, 200, 7]), np.array([6.0, 6, 6, 36, 36, 66])
    among = np.ones(6, np.bool_)
    ranks = ranks_of(Column(values, None, groups), among)
    scaled = ranks_of(Column(values * np.where(groups == 36, 1e-9, 1), None, groups), among)
    assert ranks.tolist() == scaled.tolist()
    # the percentiles are 1/6, 3/6, 5/6; 1/4, 3/4; 1/2
    assert ranks.tolist() == [1, 3.5, 6, 2, 5, 3.5]


def test_one_group_is_no_group() -> None:
    values, among = np.array([3.0, 1, 2, 2]), np.ones(4, np.bool_)
    assert (ranks_of(Column(values, None, np.full(4, 6.0)), among) == ranks_of(Column(values), among)).all()


def test_last_stays_last_in_groups() -> None:
    one = column(5, NAN, 1, 3, last=(1,), groups=(6, NAN, 36, 36))
    assert ranks_of(one, np.ones(4, np.bool_)).tolist() == [3, 1, 2, 4]


def test_kendalls_w_of_a_textbook() -> None:
    """Three judges and six works (Siegel and Castellan, Nonparametric Statistics, 1988): W is 0.162."""
    judges = [[1, 6, 3, 2, 5, 4], [1, 5, 6, 4, 2, 3], [6, 3, 2, 5, 4, 1]]
    assert kendall_w([np.array(one, np.float64) for one in judges]) == pytest.approx(0.162, abs=5e-4)


@given(hnp.arrays(np.int64, st.tuples(st.integers(3, 5), st.integers(4, 9)), elements=st.integers(0, 5)))
def test_kendalls_w_is_friedmans_statistic_and_the_mean_of_spearman(drawn: np.ndarray) -> None:  # type: ignore[type-arg]
    """W = chi-square / (m (n - 1)), ties included; without ties it is linear in the mean of all pairs' rho."""
    telling = [row.astype(np.float64) for row in drawn if np.ptp(row) > 0]
    if len(telling) < 3:
        return
    among = np.ones(drawn.shape[1], np.bool_)
    ranks = [ranks_of(Column(row), among) for row in telling]
    found = kendall_w(ranks)
    assert found is not None
    assert found == pytest.approx(friedmanchisquare(*np.array(telling).T).statistic / (len(ranks) * (len(among) - 1)))
    if all(len(np.unique(one)) == len(one) for one in ranks):
        pairs = [spearmanr(x, y).statistic for x, y in itertools.combinations(telling, 2)]
        assert mean_spearman(found, len(ranks)) == pytest.approx(np.mean(pairs))


def test_same_order_is_full_agreement_and_two_opposite_ones_none() -> None:
    assert combine({"a": column(1, 2, 3), "b": column(2, 4, 9)}).concordance == pytest.approx(1)
    opposite = combine({"a": column(1, 2, 3), "b": column(3, 2, 1)})
    assert opposite.concordance == pytest.approx(0)
    assert [(pair.one, pair.other, pair.tau) for pair in opposite.pairs] == [("a", "b", pytest.approx(-1))]


def test_a_score_that_tells_nothing_apart_takes_no_part_in_agreement() -> None:
    found = combine({"a": column(1, 2, 3), "b": column(2, 4, 9), "c": column(5, 5, 5)})
    assert found.concordance == pytest.approx(1)
    assert [pair.tau for pair in found.pairs] == [pytest.approx(1), None, None]


def test_the_spread_is_a_share_of_the_set() -> None:
    found = combine({"a": column(1, 2, 3, 4, 5), "b": column(5, 2, 3, 4, 1)})
    assert found.spread().tolist() == [1, 0, 0, 0, 1]


def test_rounding_tells_no_places_apart() -> None:
    assert places_of(np.array([-0.1 - 0.2, -0.3, NAN, -1])).tolist()[:2] == [1, 1]


@given(
    hnp.arrays(np.float64, (3, 6), elements=st.one_of(st.integers(-3, 3), st.just(NAN))),
    st.permutations(range(6)),
)
def test_the_order_of_the_files_and_rising_functions_change_nothing(drawn: np.ndarray, order: list[int]) -> None:  # type: ignore[type-arg]
    columns = {str(i): Column(row) for i, row in enumerate(drawn)}
    found = combine(columns)
    moved = combine({name: Column(np.exp(one.values[order])) for name, one in columns.items()})
    np.testing.assert_allclose(moved.sums, found.sums[order])
    np.testing.assert_array_equal(moved.places, found.places[order])
