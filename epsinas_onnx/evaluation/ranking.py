"""Statistics of scores against accuracies: rank correlations, shares of the best, intervals, and Steiger's test."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Statistic = Callable[[FloatArray, FloatArray], float]

TOP = 0.1
"""Share of the scored architectures that count as the top."""
BEST, ELITE = 64, 0.05
"""How many of the best-scored are looked at, and the share of the most accurate that they are sought in."""
FEWEST = 3
"""With fewer scored architectures no statistic is given."""


@dataclass(frozen=True)
class Estimate:
    """A statistic and its bootstrap interval; None where it is not defined, or no interval was asked for."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Ranking:
    """How well scores rank accuracies, over the architectures that have a score.

    total, scored: how many architectures there are, and how many of them have a score; both accuracies and scores of
    `scored` are finite. The rest are estimates:
    spearman, kendall: Spearman's rho and Kendall's tau-b over all scored.
    top_spearman, top_kendall: the same over the tenth of the scored with the best accuracies.
    top_share: which share of the best-scored tenth is in the tenth with the best accuracies.
    best: how many of the 64 best-scored are in the twentieth with the best accuracies.
    """

    total: int
    scored: int
    spearman: Estimate
    kendall: Estimate
    top_spearman: Estimate
    top_kendall: Estimate
    top_share: Estimate
    best: Estimate


@dataclass(frozen=True)
class Proxy:
    """One score beside others on the same architectures.

    scored: how many architectures have this score, whatever the others do. z, p: Steiger's test of its Spearman
    correlation against that of the first proxy, two-sided; None for the first itself.
    """

    name: str
    scored: int
    spearman: float | None
    kendall: float | None
    top_share: float | None
    best: float | None
    z: float | None
    p: float | None


@dataclass(frozen=True)
class Comparison:
    """Several scores on the architectures that have all of them: how many those are, and one entry a score."""

    total: int
    common: int
    proxies: tuple[Proxy, ...] = field(default=())


def evaluate_ranking(
    scores: FloatArray,
    accuracies: FloatArray,
    *,
    lower_is_better: bool = False,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Ranking:
    """Return the statistics of `scores` against `accuracies`, float64 `[architectures]`, NaN where there is none.

    lower_is_better: the accuracies are losses: correlations are taken as they are, so good ones are negative, and the
    best are those of the lowest loss. resamples: of the percentile bootstrap over architectures; 0 gives no intervals.
    Equal values are ranked in the order of the arrays where a place has to be decided.

    Source: the statistics that the epsinas paper tabulates.
    """
    has = np.isfinite(scores) & np.isfinite(accuracies)
    x, y = scores[has], accuracies[has]
    # A resample draws architectures with repetition; the same draws serve all statistics.
    rng = np.random.default_rng(seed)
    draws = [rng.integers(0, len(x), len(x)) for _ in range(resamples)] if len(x) >= FEWEST else []
    estimates = {
        name: _estimated(statistic, x, y, draws, confidence) for name, statistic in _statistics(lower_is_better).items()
    }
    return Ranking(int(np.isfinite(accuracies).sum()), len(x), **estimates)


def compare(proxies: Mapping[str, FloatArray], accuracies: FloatArray, *, lower_is_better: bool = False) -> Comparison:
    """Return all proxies (name to float64 `[architectures]`) side by side where each of them has a finite number.

    Every proxy is tested against the first with Steiger's test on Spearman's correlations.
    """
    known = np.isfinite(accuracies)
    common = known & np.all([np.isfinite(values) for values in proxies.values()], axis=0)
    y = accuracies[common]
    statistics = {name: s for name, s in _statistics(lower_is_better).items() if not name.startswith("top_s")}
    statistics["top_share"] = _statistics(lower_is_better)["top_share"]
    spearman = statistics["spearman"]
    first = next(iter(proxies.values()))[common]
    found: list[Proxy] = []
    for name, values in proxies.items():
        x = values[common]
        figures = {key: _defined(statistic, x, y) for key, statistic in statistics.items()}
        z = p = None
        if found:
            r = (_defined(spearman, first, y), figures["spearman"], _defined(spearman, first, x))
            if None not in r:
                z, p = steiger(*r, len(y))  # type: ignore[arg-type]
        found.append(
            Proxy(
                name, int((np.isfinite(values) & known).sum()), figures["spearman"], figures["kendall"],
                figures["top_share"], figures["best"], z, p,
            )
        )  # fmt: skip
    return Comparison(int(known.sum()), len(y), tuple(found))


def steiger(r_ab: float, r_ac: float, r_bc: float, n: int) -> tuple[float, float]:
    """Return z and two-sided p of Steiger's test of r_ab = r_ac, two correlations that share the variable a.

    r_bc: the correlation between the other two. n: how many observations, more than 3. z is positive where r_ab is the
    larger. With fewer observations, or where |r| is 1, z is NaN and p is 1.

    Source: J. H. Steiger, Psychological Bulletin 87 (1980), pages 245 to 251: Fisher's z of both, with the covariance
    estimated at their mean.
    """
    if n <= 3 or max(abs(r_ab), abs(r_ac)) >= 1:
        return math.nan, 1.0
    mean = (r_ab + r_ac) / 2
    covariance = r_bc * (1 - 2 * mean**2) - mean**2 * (1 - 2 * mean**2 - r_bc**2) / 2
    shared = covariance / (1 - mean**2) ** 2
    if shared >= 1:
        return (0.0, 1.0) if r_ab == r_ac else (math.nan, 1.0)
    z = (math.atanh(r_ab) - math.atanh(r_ac)) * math.sqrt((n - 3) / (2 - 2 * shared))
    return z, math.erfc(abs(z) / math.sqrt(2))


def _statistics(lower_is_better: bool) -> dict[str, Statistic]:
    from scipy.stats import kendalltau, spearmanr

    sign = -1.0 if lower_is_better else 1.0

    def spearman(x: FloatArray, y: FloatArray) -> float:
        return float(spearmanr(x, y).statistic)

    def kendall(x: FloatArray, y: FloatArray) -> float:
        return float(kendalltau(x, y).statistic)

    def at_top(statistic: Statistic) -> Statistic:
        def of_top(x: FloatArray, y: FloatArray) -> float:
            chosen = _first(sign * y, math.ceil(TOP * len(y)))
            return statistic(x[chosen], y[chosen])

        return of_top

    def top_share(x: FloatArray, y: FloatArray) -> float:
        count = math.ceil(TOP * len(y))
        return len(np.intersect1d(_first(x, count), _first(sign * y, count))) / count

    def best(x: FloatArray, y: FloatArray) -> float:
        return float(len(np.intersect1d(_first(x, BEST), _first(sign * y, math.ceil(ELITE * len(y))))))

    return {
        "spearman": spearman, "kendall": kendall, "top_spearman": at_top(spearman), "top_kendall": at_top(kendall),
        "top_share": top_share, "best": best,
    }  # fmt: skip


def _estimated(
    statistic: Statistic, x: FloatArray, y: FloatArray, draws: list[npt.NDArray[np.int64]], confidence: float
) -> Estimate:
    value = _defined(statistic, x, y)
    if value is None or not draws:
        return Estimate(value)
    resampled = [found for draw in draws if (found := _defined(statistic, x[draw], y[draw])) is not None]
    if not resampled:
        return Estimate(value)
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high))


def _defined(statistic: Statistic, x: FloatArray, y: FloatArray) -> float | None:
    """Return a statistic, None where it is not defined: too few values, or all of them equal."""
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the top tenth alone may be constant, which the result says too
        value = statistic(x, y)
    return value if math.isfinite(value) else None


def _first(values: FloatArray, count: int) -> npt.NDArray[np.int64]:
    """Return the indices of the `count` largest values, equal ones in their order."""
    return np.argsort(-values, kind="stable")[:count]
