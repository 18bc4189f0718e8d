"""Which architecture comes next: random search and ageing evolution, with warm-up and moves by a training-free score.

Source: E. Real et al., Regularized evolution for image classifier architecture search (AAAI 2019); warm-up and move as
in M. Abdelfattah et al., Zero-cost proxies for lightweight NAS (ICLR 2021), whose settings the epsinas paper keeps.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from epsinas_onnx.errors import UsageError

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace

Move: TypeAlias = Literal["none", "parent", "child"]
"""Where a training-free score decides: nowhere; which of the tournament is the parent, instead of what is searched for,
as the published code has it; or which of several mutations of the parent is tried."""

Guide: TypeAlias = Callable[[Sequence[str]], Sequence[float | None]]
"""Gives the training-free score of architectures, larger for the better, None where there is none."""

_ATTEMPTS = 100
"""How often something new is drawn before an architecture that was tried may come again."""


@dataclass(frozen=True)
class Individual:
    """An architecture that was tried. worths: of each objective, larger for the better. violation: 0 within bounds."""

    arch: str
    worths: tuple[float, ...]
    violation: float = 0.0

    def beats(self, other: Individual) -> bool:
        """Whether it is the better one: less outside the bounds, or as good in every objective and better in one."""
        if self.violation != other.violation:
            return self.violation < other.violation
        pairs = list(zip(self.worths, other.worths, strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def front(individuals: Sequence[Individual]) -> list[Individual]:
    """Return those that no other beats, in their order: the Pareto front."""
    return [one for one in individuals if not any(other.beats(one) for other in individuals)]


@dataclass(frozen=True)
class RandomSearch:
    """Takes the architectures of the warm-up, the best first, and draws when there are no more."""

    space: SearchSpace
    seeds: Sequence[str] = ()

    def propose(self, history: Sequence[Individual], number: int, tried: Collection[str], rng: random.Random) -> str:
        """Return the architecture to try as the `number`-th, from 0."""
        return self.seeds[number] if number < len(self.seeds) else _new(self.space, tried, rng)


@dataclass(frozen=True)
class AgeingEvolution:
    """Mutates the best of a few drawn from the youngest, so that everything dies of age.

    population: how many of the youngest there are. tournament: how many of them are drawn. seeds: the first population,
    the best first; the rest of it is drawn. move: where `guide` decides. proposals: how many mutations it chooses from.
    """

    space: SearchSpace
    population: int = 64
    tournament: int = 10
    seeds: Sequence[str] = ()
    move: Move = "none"
    proposals: int = 10
    guide: Guide | None = None

    def __post_init__(self) -> None:
        if self.population < 2 or not 1 <= self.tournament <= self.population:
            raise UsageError(
                f"a population of {self.population} with a tournament of {self.tournament} makes no evolution; the "
                "population is at least 2, and the tournament from 1 to the population"
            )
        if self.move not in get_args(Move):
            raise UsageError(f"there is no move {self.move!r}; choose one of {', '.join(get_args(Move))}")
        if self.proposals < 1:
            raise UsageError(f"a move chooses from at least 1 mutation, not {self.proposals}")
        if self.move != "none" and self.guide is None:
            raise UsageError(f"the move {self.move} needs a training-free score to go by, --guide")

    def propose(self, history: Sequence[Individual], number: int, tried: Collection[str], rng: random.Random) -> str:
        """Return the architecture to try as the `number`-th, from 0.

        history: what was tried so far and has all numbers, the oldest first.
        """
        if number < self.population:
            return self.seeds[number] if number < len(self.seeds) else _new(self.space, tried, rng)
        pool = history[-self.population :]
        if not pool:
            return _new(self.space, tried, rng)
        parent = self._parent(rng.sample(pool, min(self.tournament, len(pool))), rng)
        children = [self.space.mutate(parent.arch, rng) for _ in range(self.proposals if self.move == "child" else 1)]
        return children[0] if self.guide is None or len(children) == 1 else children[_largest(self.guide(children))]

    def _parent(self, drawn: Sequence[Individual], rng: random.Random) -> Individual:
        if self.move == "parent" and self.guide is not None:
            return drawn[_largest(self.guide([one.arch for one in drawn]))]
        if len(drawn[0].worths) == 1:
            return max(drawn, key=lambda one: (-one.violation, one.worths))
        return rng.choice(front(drawn))


def best_first(archs: Sequence[str], guide: Guide) -> list[str]:
    """Return architectures by their training-free score, the best first; those without one are last."""
    scores = guide(archs)
    order = sorted(range(len(archs)), key=lambda i: (scores[i] is None, -(scores[i] or 0.0)))
    return [archs[i] for i in order]


def _largest(scores: Sequence[float | None]) -> int:
    return max(range(len(scores)), key=lambda i: (scores[i] is not None, scores[i] or 0.0))


def _new(space: SearchSpace, tried: Collection[str], rng: random.Random) -> str:
    for _ in range(_ATTEMPTS):
        arch = space.draw(rng)
        if arch not in tried:
            break
    return arch
