"""The statistics of a set ranked by several scores: ranks, the sum of their logarithms, and how far they agree."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_ROUNDING = 1e-6
"""Numbers apart by no more than this share of the larger, or of the median, are equal: runtimes round otherwise."""
_DIGITS = 9
"""Decimals of a sum of logarithms that tell places apart: further ones are rounding."""


@dataclass(frozen=True)
class Column:
    """One score of a set of n networks; larger is better.

    Attributes:
        values: float64 `[n]`, NaN where there is no number.
        last: bool `[n]`, which of the networks without a number are worse than any with one, because the score itself
            says so: the logarithm of 0, or an output that does not depend on the input. None for none of them.
        groups: float64 `[n]`, where numbers compare within one group alone, such as epsinas within one order; None
            where all compare. NaN is a group like any other.
    """

    values: FloatArray
    last: BoolArray | None = None
    groups: FloatArray | None = None

    @property
    def places(self) -> BoolArray:
        """Which networks the score can put in a place, bool `[n]`."""
        known = np.isfinite(self.values)
        return known if self.last is None else known | self.last


@dataclass(frozen=True)
class Pair:
    """How far two scores agree.

    Attributes:
        one: the name of a score.
        other: the name of another.
        tau: Kendall's tau-b, None where one of them does not tell the networks apart.
    """

    one: str
    other: str
    tau: float | None


@dataclass(frozen=True)
class Combined:
    """A set of n networks, ranked by several scores together.

    Attributes:
        ranked: bool `[n]`, which networks have a place: those that every member can put in one.
        ranks: of each member, float64 `[n]`, from 1 for the worst to the number of the ranked for the best, ties
            averaged; NaN for the others.
        sums: float64 `[n]`, the sum over members of log(rank / number of the ranked), at most 0; NaN for the others.
        places: float64 `[n]`, 1 for the best; equal sums share the better place. NaN for the others.
        concordance: Kendall's W of the members that tell networks apart, from 0 to 1; None with fewer than two.
        pairs: Kendall's tau of every two members.
        left_out: scores that put none of the networks in a place by a number, and so are no members.
    """

    ranked: BoolArray
    ranks: Mapping[str, FloatArray]
    sums: FloatArray
    places: FloatArray
    concordance: float | None
    pairs: tuple[Pair, ...] = field(default=())
    left_out: tuple[str, ...] = ()

    def spread(self) -> FloatArray:
        """Return how far apart the members put each network, float64 `[n]`.

        It is the difference between the best and the worst of a network's ranks as a share of the largest there can be,
        from 0 to 1; NaN for those without a place.
        """
        count = int(self.ranked.sum())
        if count < 2 or not self.ranks:
            return np.where(self.ranked, 0.0, np.nan)
        stacked = np.stack(list(self.ranks.values()))
        return np.asarray(np.ptp(stacked, axis=0) / (count - 1), np.float64)


def combine(columns: Mapping[str, Column]) -> Combined:
    """Return a set ranked by the sum over scores of log(rank / n), the ranks taken among the networks with a place.

    columns: the scores by name, at least one, of the same n networks each. A score that has no number for any network
    is left out, since it would leave every network without a place.

    Source: the sum of log ranks is AZ-NAS's (Lee and Ham, CVPR 2024, arXiv 2403.19232).
    """
    members = {name: column for name, column in columns.items() if np.isfinite(column.values).any()}
    left_out = tuple(name for name in columns if name not in members)
    size = len(next(iter(columns.values())).values)
    ranked = np.full(size, bool(members))
    for column in members.values():
        ranked &= column.places
    ranks = {name: ranks_of(column, ranked) for name, column in members.items()}
    sums = np.full(size, np.nan)
    if members:
        sums[ranked] = sum(np.log(found[ranked] / ranked.sum()) for found in ranks.values())
    telling = {name: found[ranked] for name, found in ranks.items() if _tells_apart(found[ranked])}
    return Combined(
        ranked, ranks, sums, places_of(sums), kendall_w(list(telling.values())), _pairs(ranks, ranked), left_out
    )  # fmt: skip


def ranks_of(column: Column, among: BoolArray) -> FloatArray:
    """Return the ranks among some networks, float64 `[n]`, 1 for the worst, ties averaged; NaN for the other networks.

    Where numbers compare within groups alone, a network's rank is that of its percentile within its group, counted
    from the middle of its step: (rank - 1/2) / size. The only network of a group is then in the middle of the set, and
    no group stands above another.
    """
    from scipy.stats import rankdata

    worth = np.where(np.isfinite(column.values), column.values, -np.inf)[among]
    if column.groups is None:
        worth = _levelled(worth)
    else:
        groups = column.groups[among]
        number = np.unique(groups, return_inverse=True)[1]
        known = np.isfinite(worth)
        for group in np.unique(number[known]):
            inside = known & (number == group)
            worth[inside] = (rankdata(_levelled(worth[inside])) - 0.5) / inside.sum()
    found = np.full(len(column.values), np.nan)
    found[among] = rankdata(worth)
    return found


def _levelled(values: FloatArray) -> FloatArray:
    """Return numbers of which those that rounding alone tells apart are equal; whole numbers are counts, and exact."""
    known = np.flatnonzero(np.isfinite(values))
    if (values[known] == np.round(values[known])).all():
        return values
    level, found, usual = -np.inf, values.copy(), float(np.median(np.abs(values[known])))
    for i in known[np.argsort(values[known], kind="stable")]:
        if values[i] - level > _ROUNDING * max(abs(values[i]), usual):
            level = values[i]
        found[i] = level
    return found


def places_of(sums: FloatArray) -> FloatArray:
    """Return places, float64 `[n]`: 1 for the largest, equal ones share the better place, NaN where there is none."""
    from scipy.stats import rankdata

    found = np.full(len(sums), np.nan)
    known = np.isfinite(sums)
    found[known] = rankdata(-np.round(sums[known], _DIGITS), method="min")
    return found


def kendall_w(ranks: Sequence[FloatArray]) -> float | None:
    """Return Kendall's coefficient of concordance of m scores, corrected for ties; None with m < 2, or fewer than two
    networks.

    ranks: float64 `[n]` each, ties averaged, no score with all n alike. It is 1 where all give the same order, and 1/m
    on average where they have nothing to do with each other.

    Source: M. G. Kendall and B. Babington Smith, The problem of m rankings (1939): with R the sum of a network's ranks
    and T the sum of t^3 - t over a score's ties, W = 12 sum (R - mean R)^2 / (m^2 (n^3 - n) - m sum T).
    """
    m = len(ranks)
    if m < 2 or len(ranks[0]) < 2:
        return None
    n = len(ranks[0])
    totals = np.sum(ranks, axis=0)
    deviation = float(((totals - totals.mean()) ** 2).sum())
    ties = 0.0
    for one in ranks:
        counts = np.unique(one, return_counts=True)[1].astype(np.float64)
        ties += float((counts**3 - counts).sum())
    return float(min(12 * deviation / (m**2 * (float(n) ** 3 - n) - m * ties), 1.0))


def mean_spearman(concordance: float, members: int) -> float:
    """Return the mean of Spearman's rho over the pairs of `members` scores, at least 2, that Kendall's W amounts to."""
    return (members * concordance - 1) / (members - 1)


def _pairs(ranks: Mapping[str, FloatArray], ranked: BoolArray) -> tuple[Pair, ...]:
    from scipy.stats import kendalltau

    found = []
    for one, other in itertools.combinations(ranks, 2):
        x, y = ranks[one][ranked], ranks[other][ranked]
        apart = _tells_apart(x) and _tells_apart(y)
        found.append(Pair(one, other, float(kendalltau(x, y).statistic) if apart else None))
    return tuple(found)


def _tells_apart(ranks: FloatArray) -> bool:
    return len(ranks) > 1 and bool(np.ptp(ranks) > 0)
