"""One evaluation as a whole: the ranking, the paper's figures, other proxies, and what is needed to show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from epsinas_onnx.evaluation.paper import PaperFigures, paper_figures
from epsinas_onnx.evaluation.ranking import Comparison, Ranking, compare, evaluate_ranking
from epsinas_onnx.evaluation.scoring import Scores
from epsinas_onnx.evaluation.table import FloatArray

OURS = "epsinas"
"""What the scores of this package are called beside other proxies."""


MOST_ORDERS = 12
"""With more different orders than this each holds too few networks for a ranking of its own."""


@dataclass(frozen=True)
class Architecture:
    """One architecture as a list of the best shows it; parameters is None where nobody knows them."""

    arch: str
    score: float
    accuracy: float
    parameters: int | None


@dataclass(frozen=True)
class Outcome:
    """How the scores of one table rank its architectures.

    archs, scores, accuracies: one entry a row; scores are NaN where there is none. published: the ranking of those
    alone that float32 scores too, None where these are all, or nobody knows. by_order: the ranking of the networks of
    each order, empty where all have the same. comparison: None where no other proxy was named. paper: None where the
    paper has no figures for this space and column. name: what the scores are called. alone: the ranking by each of
    several scores, over the architectures that it puts in a place, empty where there is one score. agreement: how far
    scores that rank together agree, None where one ranks alone.
    """

    space: str
    column: str
    lower_is_better: bool
    archs: Sequence[str] = field(repr=False)
    scores: Scores = field(repr=False)
    accuracies: FloatArray = field(repr=False)
    ranking: Ranking
    published: Ranking | None
    by_order: Mapping[float, Ranking]
    comparison: Comparison | None
    paper: PaperFigures | None
    name: str = OURS
    alone: Mapping[str, Ranking] = field(default_factory=dict)
    agreement: str | None = None

    def best(self, count: int) -> list[Architecture]:
        """Return the `count` best-scored architectures, best first, equal scores in the order of the table."""
        values = self.scores.values
        order = np.argsort(-np.where(np.isfinite(values), values, -np.inf), kind="stable")
        chosen = [int(index) for index in order[:count] if np.isfinite(values[index])]
        parameters = self.scores.parameters
        return [
            Architecture(
                self.archs[index],
                float(values[index]),
                float(self.accuracies[index]),
                int(parameters[index]) if np.isfinite(parameters[index]) else None,
            )
            for index in chosen
        ]

    def coverage(self) -> str:
        """Return how many architectures have a score, and what became of the others, as a sentence."""
        rest = ", ".join(f"{count:,} {status}" for status, count in self.scores.statuses.items() if status != "ok")
        text = _share(self.ranking) + (f" ({rest})" if rest else "")
        return text if self.published is None else f"{text}; {_share(self.published)} in float32"

    def _plotted(self) -> str:
        source = self.scores.source
        return source if source.startswith(self.name) else f"{self.name} score ({source})"

    def plot(self, path: Path) -> None:
        """Draw score against accuracy into `path`; its ending chooses the format."""
        from epsinas_onnx.evaluation.plots import PlotData, plot

        rho, ranking = self.ranking.spearman.value, self.ranking
        share = _share(ranking)
        plot(
            path,
            PlotData(
                scores=self.scores.values,
                accuracies=self.accuracies,
                parameters=self.scores.parameters if np.isfinite(self.scores.parameters).any() else None,
                labels=tuple(self.archs),
                title=self.space,
                x_label=self._plotted(),
                y_label=self.column,
                orders=self.scores.orders if self.by_order else None,
                subtitle=share if rho is None else f"Spearman {rho:.2f} over {share}",
            ),
        )


def evaluate(
    space: str,
    column: str,
    archs: Sequence[str],
    scores: Scores,
    accuracies: FloatArray,
    proxies: Mapping[str, FloatArray] | None = None,
    *,
    name: str = OURS,
    others: Mapping[str, FloatArray] | None = None,
    agreement: str | None = None,
    lower_is_better: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> Outcome:
    """Return the statistics of `scores` against `accuracies`, float64 `[rows]` each, and beside other proxies.

    proxies: by name, float64 `[rows]`, NaN where there is none; they are compared on the architectures that all have.
    name: what `scores` are called. others: the same as proxies, each of them ranked on its own architectures as well.
    agreement: what is said of scores that rank together. seed: of the bootstrap.
    """
    ranking = evaluate_ranking(
        scores.values, accuracies, lower_is_better=lower_is_better, resamples=resamples, seed=seed
    )  # fmt: skip
    published = None
    if scores.published is not None and not scores.published[np.isfinite(scores.values)].all():
        known = np.where(scores.published, scores.values, np.nan)
        published = evaluate_ranking(
            known, accuracies, lower_is_better=lower_is_better, resamples=resamples, seed=seed
        )  # fmt: skip
    comparison = None
    if proxies:
        comparison = compare({name: scores.values, **proxies}, accuracies, lower_is_better=lower_is_better)
    paper = paper_figures(space, column) if name == OURS else None
    alone = {
        other: evaluate_ranking(values, accuracies, lower_is_better=lower_is_better, resamples=resamples, seed=seed)
        for other, values in (others or {}).items()
    }
    if alone:
        alone = {name: ranking, **alone}
    return Outcome(
        space, column, lower_is_better, archs, scores, accuracies, ranking, published,
        _by_order(scores, accuracies, lower_is_better), comparison, paper, name, alone, agreement,
    )  # fmt: skip


def _by_order(scores: Scores, accuracies: FloatArray, lower_is_better: bool) -> dict[float, Ranking]:
    """Return the ranking within each order, without intervals; nothing where there is one order, or very many."""
    if scores.orders is None:
        return {}
    known = np.isfinite(scores.values) & np.isfinite(scores.orders)
    orders = np.unique(scores.orders[known])
    if not 1 < len(orders) <= MOST_ORDERS:
        return {}
    return {
        float(order): evaluate_ranking(
            np.where(scores.orders == order, scores.values, np.nan), accuracies, lower_is_better=lower_is_better,
            resamples=0,
        )
        for order in orders
    }  # fmt: skip


def _share(ranking: Ranking) -> str:
    return f"{ranking.scored:,} of {ranking.total:,} scored, {ranking.scored / ranking.total:.1%}"
