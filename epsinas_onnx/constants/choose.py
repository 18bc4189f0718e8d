"""Which pair of constants to take: the paper's rule, and the one that ranks known accuracies best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from epsinas_onnx.scoring.pairs import Pair

MOST_UNSCORED = 0.1
"""The paper's rule takes a pair with which less than this share of the networks have no score."""

LEAST_SCORED = 0.3
"""A pair that scores a smaller share of the networks is not taken for its correlation."""

ALIKE = 0.005
"""Correlations that are no further below the best are as good: figures of two decimals hardly tell them apart."""

FEWEST = 3
"""Networks without which there is no correlation."""


@dataclass(frozen=True)
class PairCoverage:
    """What one pair of constants does for a set of networks.

    Attributes:
        weights: the two constants, the smaller one first.
        scored: how many networks have a score with them.
        total: how many networks could be run.
        statuses: how many networks have which status.
        spearman: the rank correlation of the scores with the accuracies, over the networks that have both; None where
            no accuracies were given, or it is not defined.
        kendall: Kendall's tau-b of the same.
        ranked: how many networks the correlations are over.
    """

    weights: Pair
    scored: int
    total: int
    statuses: dict[str, int] = field(default_factory=dict)
    spearman: float | None = None
    kendall: float | None = None
    ranked: int = 0

    @property
    def coverage(self) -> float:
        """Return the share of the networks that have a score, 0 where none could be run."""
        return self.scored / self.total if self.total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "weights": list(self.weights), "scored": self.scored, "total": self.total, "coverage": self.coverage,
            "statuses": dict(self.statuses), "spearman": self.spearman, "kendall": self.kendall, "ranked": self.ranked,
        }  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A pair, None where none gives a score, and one sentence that says why it."""

    weights: Pair | None
    reason: str


def widest(pairs: Sequence[PairCoverage]) -> Choice:
    """Return the pair furthest apart with which fewer than a tenth of the networks have no score.

    Constants are apart by their ratio; of equally wide pairs the one of the smaller constants is taken. Where no pair
    leaves so few, it is the widest of those that leave the fewest.

    Source: `search_weights` in the epsinas paper's published code, which asks windows of powers of ten from the widest
    to the narrowest, each from the smallest constant on.
    """
    scoring = [pair for pair in pairs if pair.scored]
    if not scoring:
        return Choice(None, "no pair of constants gives any network a score")
    fitting = [pair for pair in scoring if pair.total - pair.scored < MOST_UNSCORED * pair.total]
    if fitting:
        chosen = min(fitting, key=_by_width)
        why = f"the widest pair with which fewer than {MOST_UNSCORED:.0%} are unscored"
    else:
        most = max(pair.scored for pair in scoring)
        chosen = min((pair for pair in scoring if pair.scored == most), key=_by_width)
        why = f"no pair leaves fewer than {MOST_UNSCORED:.0%} unscored; it is the widest of those that leave the fewest"
    return Choice(chosen.weights, f"{why}: {_scored(chosen)}")


def most_correlated(pairs: Sequence[PairCoverage], *, lower_is_better: bool = False) -> Choice:
    """Return the pair whose scores rank the accuracies best, the widest of those that do so equally well.

    Pairs that score less than three tenths of the networks are left out, where any scores more.
    """
    known = [pair for pair in pairs if pair.spearman is not None]
    if not known:
        return Choice(None, "no pair of constants scores enough networks for a correlation")
    covering = [pair for pair in known if pair.coverage >= LEAST_SCORED]
    sign = -1.0 if lower_is_better else 1.0
    best = max(sign * (pair.spearman or 0.0) for pair in covering or known)
    alike = [pair for pair in covering or known if sign * (pair.spearman or 0.0) >= best - ALIKE]
    chosen = min(alike, key=_by_width)
    others = f", the widest of {len(alike)} pairs within {ALIKE:g} of the best" if len(alike) > 1 else ", the best"
    few = "" if covering else f", though no pair scores {LEAST_SCORED:.0%} of the networks"
    reason = f"Spearman {chosen.spearman:.3f}{others}{few}: {_scored(chosen)}"
    return Choice(chosen.weights, reason)


def _by_width(pair: PairCoverage) -> tuple[float, float]:
    low, high = pair.weights
    return -round(math.log10(high) - math.log10(low), 9), low  # powers of ten are no further apart than others


def _scored(pair: PairCoverage) -> str:
    return f"{pair.scored:,} of {pair.total:,} networks scored, {pair.coverage:.1%}"
