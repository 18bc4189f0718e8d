"""How a search chooses what to try: its sampler, and what training-free scores decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from epsinas_onnx.errors import UsageError
from epsinas_onnx.search.evolution import Move
from epsinas_onnx.search.optuna_samplers import OWN

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace


@dataclass(frozen=True)
class Strategy:
    """How a search chooses what to try.

    Attributes:
        sampler: `evolution` (ageing evolution), `random`, or Optuna's: `tpe`, `nsga2`, `nsga3`, `gp`, `cmaes`, `qmc`,
            `bruteforce`, or the name of its class.
        seed: of everything that is drawn.
        warmup: how many architectures are drawn and ordered by `guide` before the search; the best of them are tried
            first. 0 for none. Of `evolution` and `random` alone.
        guide: the training-free score that warm-up and move go by; None for the first objective that is one, or
            epsinas.
        move: where the guide decides in evolution: `none`; `parent`, which of a tournament is mutated; or `child`,
            which of `proposals` mutations is tried.
        proposals: how many mutations the move `child` chooses from.
        population: how many of the youngest evolution draws from.
        tournament: how many it draws.
        reference: how many networks, drawn once, ranks are taken among.
    """

    sampler: str = "evolution"
    seed: int = 0
    warmup: int = 0
    guide: str | None = None
    move: Move = "none"
    proposals: int = 10
    population: int = 64
    tournament: int = 10
    reference: int = 200

    def __post_init__(self) -> None:
        if self.sampler not in OWN and (self.warmup or self.move != "none"):
            raise UsageError(f"warm-up and move are of {' and '.join(OWN)}; Optuna's sampler {self.sampler} has none")
        if self.sampler == "random" and self.move != "none":
            raise UsageError("random search has no move; it draws every architecture anew")
        if self.warmup < 0 or self.reference < 2:
            raise UsageError("a warm-up is of at least 0 networks, and a reference of at least 2")


def found_space(space: SearchSpace | str) -> SearchSpace:
    """Return a search space, an installed one by its name; raises UsageError where there is none."""
    if not isinstance(space, str):
        return space
    from epsinas_exporters import spaces

    try:
        return spaces.get(space)
    except LookupError as error:
        raise UsageError(str(error)) from None
