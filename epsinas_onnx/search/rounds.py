"""Searches for an accuracy out of a table, repeated: how fast each finds the best, with and without scores."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from epsinas_onnx.errors import UsageError
from epsinas_onnx.search.evolution import AgeingEvolution, Guide, Individual, Move, RandomSearch, best_first

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace
    from epsinas_onnx.search.strategy import Strategy

FloatArray = npt.NDArray[np.float64]
_ATTEMPTS = 100
"""Mutations after which one that is in no row of the table is given up, and an architecture of it is drawn."""


@dataclass(frozen=True)
class Variant:
    """One line of a figure. sampler: `random` or `evolution`. guide: the score that warm-up and move go by."""

    sampler: str
    warmup: bool = False
    move: Move = "none"
    guide: str | None = None

    def __str__(self) -> str:
        name = "random search" if self.sampler == "random" else "ageing evolution"
        parts = [*(["warm-up"] if self.warmup else []), *([] if self.move == "none" else [f"move ({self.move})"])]
        return name + (f", {' and '.join(parts)} by {self.guide}" if parts else "")


@dataclass(frozen=True)
class Curve:
    """The best accuracy so far, over the architectures that were trained. best: float64 `[rounds, trials]`."""

    variant: Variant
    best: FloatArray = field(repr=False)

    def quantile(self, share: float) -> FloatArray:
        """Return a quantile over the rounds, float64 `[trials]`; 0.5 for the median."""
        return np.asarray(np.quantile(self.best, share, axis=0), np.float64)


@dataclass(frozen=True)
class Rounds:
    """Searches compared. lower_is_better: whether accuracies are losses. optimum: the best of the table.

    scored: by guide, how many architectures of the table have a number. sizes: what was compared, in words.
    """

    space: str
    column: str
    lower_is_better: bool
    optimum: float
    curves: tuple[Curve, ...] = field(repr=False)
    scored: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def regret(self, curve: Curve) -> FloatArray:
        """Return how far the best so far is from the best of the table, float64 `[rounds, trials]`, at least 0."""
        return curve.best - self.optimum if self.lower_is_better else self.optimum - curve.best

    def limits(self) -> tuple[float, float]:
        """Return between which accuracies a picture shows something: the medians but for the first few networks."""
        first = int(self.settings["trials"]) // 30
        medians = np.concatenate([curve.quantile(0.5)[first:] for curve in self.curves])
        worst = float(medians.max() if self.lower_is_better else medians.min())
        span = abs(self.optimum - worst) or 1.0
        beyond = -span if self.lower_is_better else span
        return worst - 0.15 * beyond, self.optimum + 0.05 * beyond

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types only: quartiles of each line by the number of architectures trained."""
        return {
            "space": self.space, "column": self.column, "lower_is_better": self.lower_is_better,
            "optimum": self.optimum, "scored": dict(self.scored), "settings": dict(self.settings),
            "notes": list(self.notes),
            "curves": [
                {
                    "name": str(one.variant), "sampler": one.variant.sampler, "warmup": one.variant.warmup,
                    "move": one.variant.move, "guide": one.variant.guide,
                    **{name: one.quantile(share).tolist() for name, share in _QUARTILES.items()},
                }
                for one in self.curves
            ],
        }  # fmt: skip


_QUARTILES = {"low": 0.25, "median": 0.5, "high": 0.75}


class TableSpace:
    """The part of a search space that a table holds: draws rows, and mutates into other rows."""

    def __init__(self, space: SearchSpace, archs: Sequence[str]) -> None:
        self._space, self._archs, self._known = space, list(archs), set(archs)
        self.name = space.name

    def draw(self, rng: random.Random) -> str:
        """Return the architecture of a row."""
        return rng.choice(self._archs)

    def mutate(self, arch: str, rng: random.Random) -> str:
        """Return a neighbour that is in the table; where none comes, any row."""
        for _ in range(_ATTEMPTS):
            found = self._space.mutate(arch, rng)
            if found in self._known:
                return found
        return self.draw(rng)


def published_variants(guide: str, move: Move = "parent") -> list[Variant]:
    """Return the lines of the paper's figure for a guide."""
    return [
        Variant("random", True, "none", guide),
        Variant("evolution", True, "none", guide),
        Variant("evolution", False, move, guide),
        Variant("evolution", True, move, guide),
    ]


PLAIN = (Variant("random"), Variant("evolution"))
"""The lines that need no score."""


def run_round(
    variant: Variant, space: SearchSpace, accuracies: Mapping[str, float], guide: Mapping[str, float | None],
    strategy: Strategy, trials: int, number: int, lower_is_better: bool,
) -> FloatArray:  # fmt: skip
    """Return the best accuracy so far of one search, float64 `[trials]`.

    guide: the score of each architecture that it may be asked of; the warm-up is drawn from these. The warm-up of a
    round is the same for every variant.
    """
    scores: Guide = lambda archs: [guide.get(arch) for arch in archs]  # noqa: E731
    seeds: list[str] = []
    if variant.warmup:
        pool = list(guide)
        warm = random.Random(f"{strategy.seed}:{number}:warm-up").sample(pool, min(strategy.warmup, len(pool)))
        seeds = best_first(warm, scores)
    rng = random.Random(f"{strategy.seed}:{number}:{variant.sampler}:{variant.warmup}:{variant.move}")
    proposer: RandomSearch | AgeingEvolution
    if variant.sampler == "random":
        proposer = RandomSearch(space, seeds)
    else:
        proposer = AgeingEvolution(
            space, strategy.population, strategy.tournament, seeds, variant.move, strategy.proposals,
            None if variant.move == "none" else scores,
        )  # fmt: skip
    history: list[Individual] = []
    tried: set[str] = set()
    sign = -1.0 if lower_is_better else 1.0
    for index in range(trials):
        arch = proposer.propose(history, index, tried, rng)
        tried.add(arch)
        history.append(Individual(arch, (sign * accuracies[arch],)))
    found = np.array([one.worths[0] for one in history], np.float64)
    return sign * np.maximum.accumulate(found)


def compare_rounds(
    space: SearchSpace, accuracies: Mapping[str, float], guides: Mapping[str, Mapping[str, float | None]],
    strategy: Strategy, trials: int, rounds: int, *, column: str = "accuracy", lower_is_better: bool = False,
    move: Move = "parent",
) -> Iterator[tuple[int, int, Rounds | None]]:  # fmt: skip
    """Yield how many searches are done, of how many, and at the end the comparison.

    guides: by name, the score of each architecture that has been scored, None where that gave no number. A guide that
    lacks architectures of the table has no move, which would ask for them.
    """
    archs = list(accuracies)
    of_table = cast("SearchSpace", TableSpace(space, archs))
    variants, notes = list(PLAIN), []
    for name, guide in guides.items():
        known = {arch: guide[arch] for arch in archs if arch in guide}
        if not any(value is not None for value in known.values()):
            raise UsageError(f"no architecture of the table has a number of {name} among the results of --scores")
        mine = published_variants(name, move)
        if len(known) < len(archs):
            mine = [one for one in mine if one.move == "none"]
            notes.append(
                f"only {len(known):,} of {len(archs):,} architectures were scored for {name}: the warm-up is drawn "
                "from those, and there is no move"
            )
        variants += mine
        guides = {**guides, name: known}
    curves: list[Curve] = []
    for variant in variants:
        best = np.empty((rounds, trials))
        guide = guides[variant.guide] if variant.guide is not None else {}
        for number in range(rounds):
            best[number] = run_round(variant, of_table, accuracies, guide, strategy, trials, number, lower_is_better)
            yield len(curves) * rounds + number + 1, len(variants) * rounds, None
        curves.append(Curve(variant, best))
    optimum = (min if lower_is_better else max)(accuracies.values())
    scored = {name: sum(value is not None for value in guide.values()) for name, guide in guides.items()}
    settings = {
        "architectures": len(archs), "trials": trials, "rounds": rounds, "warmup": strategy.warmup,
        "population": strategy.population, "tournament": strategy.tournament, "seed": strategy.seed,
    }  # fmt: skip
    found = Rounds(space.name, column, lower_is_better, optimum, tuple(curves), scored, settings, tuple(notes))
    yield len(variants) * rounds, len(variants) * rounds, found
