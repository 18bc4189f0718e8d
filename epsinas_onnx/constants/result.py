"""What every pair of constants does for a set of networks, and which of them is taken."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from epsinas_onnx.constants.choose import FEWEST, PairCoverage, most_correlated, widest
from epsinas_onnx.constants.run import PairScores
from epsinas_onnx.scoring.pairs import Pair, pairs_of
from epsinas_onnx.versions import versions


@dataclass(frozen=True)
class FoundWeights:
    """A pair of constants for a set of networks, and what every other pair would have done; see `find_weights`.

    Attributes:
        weights: the pair that was chosen, the smaller constant first; None where no pair gives any network a score.
        reason: one sentence that says why it.
        by: what chose it: `coverage`, or `correlation` where accuracies were given.
        constants: those that were run, the smallest first.
        pairs: one entry for each pair, in the order of their constants.
        networks: what each network gave, in the order of the models; those that could not be run have a reason.
        input: what was fed, in words, of the first network that ran.
        batch: how many samples it had.
        arithmetic: that was asked for.
    """

    weights: Pair | None
    reason: str
    by: str
    constants: tuple[float, ...]
    pairs: tuple[PairCoverage, ...]
    networks: tuple[PairScores, ...] = field(repr=False)
    input: str
    batch: int
    arithmetic: str

    @property
    def failed(self) -> tuple[PairScores, ...]:
        """Return the networks that could not be run, which no figure counts."""
        return tuple(network for network in self.networks if network.reason is not None)

    def of(self, weights: Pair) -> PairCoverage:
        """Return the entry of one pair; raises KeyError where it is none of those that were run."""
        for pair in self.pairs:
            if pair.weights == weights:
                return pair
        raise KeyError(weights)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types: the choice, and every pair, without the networks that could be run."""
        return {
            "weights": None if self.weights is None else list(self.weights), "reason": self.reason, "by": self.by,
            "constants": list(self.constants), "input": self.input, "batch": self.batch,
            "arithmetic": self.arithmetic, "networks": len(self.networks) - len(self.failed),
            "pairs": [pair.to_dict() for pair in self.pairs],
            "failed": [{"model": network.model, "reason": network.reason} for network in self.failed],
            "versions": dict(versions()),
        }  # fmt: skip


def found_weights(
    networks: Sequence[PairScores],
    constants: tuple[float, ...],
    arithmetic: str,
    accuracies: Sequence[float | None] | None = None,
    *,
    lower_is_better: bool = False,
) -> FoundWeights:
    """Return the choice among pairs that were run. accuracies: one for each network, None or NaN where unknown."""
    ran = [network for network in networks if network.reason is None]
    known = None
    if accuracies is not None:
        both = zip(networks, accuracies, strict=True)
        known = [accuracy for network, accuracy in both if network.reason is None]
    pairs = tuple(_covered(pair, ran, known) for pair in pairs_of(constants))
    choice = widest(pairs) if known is None else most_correlated(pairs, lower_is_better=lower_is_better)
    first = next(iter(ran or networks), None)
    return FoundWeights(
        choice.weights, choice.reason, "coverage" if known is None else "correlation", constants, pairs,
        tuple(networks), "" if first is None else first.input, 0 if first is None else first.batch, arithmetic,
    )  # fmt: skip


def _covered(
    pair: Pair, networks: Sequence[PairScores], accuracies: Sequence[float | None] | None
) -> PairCoverage:  # fmt: skip
    found = [network.pairs[pair] for network in networks]
    scored = sum(one.score is not None for one in found)
    statuses: Mapping[str, int] = Counter(str(one.status) for one in found)
    if accuracies is None:
        return PairCoverage(pair, scored, len(found), dict(statuses))
    both = [
        (one.score, accuracy)
        for one, accuracy in zip(found, accuracies, strict=True)
        if one.score is not None and accuracy is not None and math.isfinite(accuracy)
    ]
    spearman, kendall = _correlations(both)
    return PairCoverage(pair, scored, len(found), dict(statuses), spearman, kendall, len(both))


def _correlations(both: Sequence[tuple[float, float]]) -> tuple[float | None, float | None]:
    """Return Spearman's and Kendall's correlation, None where they are not defined."""
    if len(both) < FEWEST:
        return None, None
    scores, accuracies = zip(*both, strict=True)
    if len(set(scores)) == 1 or len(set(accuracies)) == 1:
        return None, None
    from scipy.stats import kendalltau, spearmanr

    return float(spearmanr(scores, accuracies).statistic), float(kendalltau(scores, accuracies).statistic)
