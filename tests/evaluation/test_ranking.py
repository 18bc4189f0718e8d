"""Statistics of rankings against brute-force formulas, published figures and simulation."""

from __future__ import annotations

import csv
import gzip
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from epsinas_onnx.evaluation.ranking import FloatArray, compare, evaluate_ranking, steiger

TABLE = Path(__file__).parents[3] / "shared" / "data" / "nasbench201.csv.gz"

values = st.floats(-100, 100).map(lambda value: round(value, 1))
pairs = st.integers(4, 30).flatmap(
    lambda n: st.tuples(hnp.arrays(np.float64, n, elements=values), hnp.arrays(np.float64, n, elements=values))
)


def mean_ranks(x: FloatArray) -> FloatArray:
    return np.array([(x < value).sum() + ((x == value).sum() - 1) / 2 for value in x])


def tau_b(x: FloatArray, y: FloatArray) -> float:
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in itertools.combinations(range(len(x)), 2)]
    untied_x, untied_y = sum(a != 0 for a, _ in signs), sum(b != 0 for _, b in signs)
    return float(sum(a * b for a, b in signs) / math.sqrt(untied_x * untied_y))


@settings(deadline=None)
@given(pairs)
def test_correlations_follow_their_definitions(pair: tuple[FloatArray, FloatArray]) -> None:
    x, y = pair
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    found = evaluate_ranking(x, y, resamples=0)
    assert found.spearman.value == pytest.approx(np.corrcoef(mean_ranks(x), mean_ranks(y))[0, 1], abs=1e-9)
    assert found.kendall.value == pytest.approx(tau_b(x, y), abs=1e-9)


@settings(deadline=None)
@given(pairs, st.floats(0.1, 10))
def test_only_the_order_of_scores_and_accuracies_matters(pair: tuple[FloatArray, FloatArray], factor: float) -> None:
    x, y = pair
    moved = evaluate_ranking(np.arctan(x / 50) + 3, factor * y - 7, resamples=0)
    assert moved.best == evaluate_ranking(x, y, resamples=0).best
    assert moved.spearman.value == pytest.approx(evaluate_ranking(x, y, resamples=0).spearman.value)


@settings(deadline=None)
@given(pairs)
def test_a_loss_turns_the_correlation_around_and_leaves_the_best_where_they_are(
    pair: tuple[FloatArray, FloatArray],
) -> None:
    x, y = pair
    accuracy, loss = evaluate_ranking(x, y, resamples=0), evaluate_ranking(x, -y, lower_is_better=True, resamples=0)
    assert loss.top_share == accuracy.top_share
    assert loss.best == accuracy.best
    for mine, its in ((loss.spearman, accuracy.spearman), (loss.top_kendall, accuracy.top_kendall)):
        assert (mine.value is None) == (its.value is None)
        assert mine.value is None or mine.value == pytest.approx(-its.value)


def test_what_has_no_score_counts_in_the_coverage_alone() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random(200), rng.random(200)
    has = rng.random(200) < 0.6
    found = evaluate_ranking(np.where(has, x, np.nan), y, resamples=50)
    alone = evaluate_ranking(x[has], y[has], resamples=50)
    assert (found.total, found.scored) == (200, has.sum())
    assert found.spearman == alone.spearman
    assert found.best == alone.best


def test_shares_count_the_best_of_those_that_are_scored() -> None:
    y = np.arange(1000.0)
    x = y.copy()
    x[-100:-50] = -1.0  # half of the most accurate tenth are scored worst
    found = evaluate_ranking(x, y, resamples=0)
    assert found.top_share.value == 0.5
    assert found.best.value == 50


@pytest.mark.parametrize(
    ("x", "y"),
    [([], []), ([1.0, 2.0], [1.0, 2.0]), ([1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]), ([np.nan] * 5, [1.0] * 5)],
)
def test_what_is_not_defined_is_none(x: list[float], y: list[float]) -> None:
    found = evaluate_ranking(np.array(x), np.array(y))
    assert found.spearman.value is None
    assert found.best.low is None


def test_intervals_cover_the_true_correlation_as_often_as_they_say() -> None:
    """Of 60 samples from one distribution, 95 % intervals should miss its correlation in about 3."""
    rng = np.random.default_rng(1)
    true = 6 / math.pi * math.asin(0.7 / 2)  # Spearman's rho of a bivariate normal distribution
    missed = 0
    for seed in range(60):
        x = rng.standard_normal(150)
        y = 0.7 * x + math.sqrt(1 - 0.49) * rng.standard_normal(150)
        spearman = evaluate_ranking(x, y, resamples=60, seed=seed).spearman
        assert spearman.low is not None
        assert spearman.high is not None
        missed += not spearman.low <= true <= spearman.high
    assert 1 <= missed <= 8


def test_the_same_seed_gives_the_same_intervals() -> None:
    x, y = np.random.default_rng(0).random((2, 60))
    assert evaluate_ranking(x, y, resamples=20, seed=3) == evaluate_ranking(x, y, resamples=20, seed=3)
    assert evaluate_ranking(x, y, resamples=20, seed=3) != evaluate_ranking(x, y, resamples=20, seed=4)


def test_the_published_scores_give_the_papers_figures() -> None:
    if not TABLE.exists():
        pytest.skip(f"the published scores are in {TABLE}, which is not here")
    with gzip.open(TABLE, "rt") as file:
        rows = list(csv.DictReader(file))
    scores = np.array([float(row["cifar10_epsinas_published"] or "nan") for row in rows])
    found = evaluate_ranking(scores, np.array([float(row["cifar10_test"]) for row in rows]), resamples=0)
    assert (found.total, found.scored) == (15_625, 9_226)
    figures = (found.spearman, found.kendall, found.top_spearman, found.top_share)
    # The paper rounds to two places; its accuracies come from another version of the benchmark's file.
    for figure, paper in zip(figures, (0.87, 0.69, 0.50, 0.67), strict=True):
        assert figure.value == pytest.approx(paper, abs=0.011)


@given(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9), st.floats(-0.3, 0.3), st.integers(10, 1000))
def test_steigers_test_does_not_depend_on_which_correlation_comes_first(a: float, b: float, c: float, n: int) -> None:
    z, p = steiger(a, b, c, n)
    assert steiger(b, a, c, n) == (pytest.approx(-z, nan_ok=True), pytest.approx(p))


def test_steigers_test_is_fishers_where_the_correlations_share_nothing() -> None:
    """With r_bc such that the covariance is 0, it is the test of two independent correlations."""
    z, _ = steiger(0.2, -0.2, 0.0, 103)
    assert z == pytest.approx((math.atanh(0.2) - math.atanh(-0.2)) / math.sqrt(2 / 100))


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 2**32))
def test_steigers_test_rejects_what_is_true_as_often_as_it_says(seed: int) -> None:
    """400 samples with equal correlations: p below 0.05 in 4 to 42 of them with probability 0.99999."""
    rng = np.random.default_rng(seed)
    rejected = 0
    for _ in range(400):
        a, shared, b, c = rng.standard_normal((4, 120))
        x, y = a + shared + b, a + shared + c
        r = np.corrcoef([a, x, y])
        rejected += steiger(r[0, 1], r[0, 2], r[1, 2], 120)[1] < 0.05
    assert 4 <= rejected <= 42


def test_proxies_are_compared_where_all_of_them_have_a_number() -> None:
    rng = np.random.default_rng(2)
    y = rng.random(300)
    good, bad = y + 0.1 * rng.random(300), y + 5 * rng.random(300)
    good[:50], bad[25:100], y[290:] = np.nan, np.inf, np.nan
    found = compare({"good": good, "bad": bad}, y)
    assert (found.total, found.common) == (290, 190)
    first, second = found.proxies
    assert (first.name, first.scored, first.z) == ("good", 240, None)
    assert second.scored == 215
    rest = slice(100, 290)
    assert first.spearman == evaluate_ranking(good[rest], y[rest], resamples=0).spearman.value
    assert second.z is not None
    assert second.p is not None
    assert second.z > 5
    assert second.p < 1e-6
