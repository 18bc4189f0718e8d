"""What a search found: what was tried, the best in order, and the Pareto front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from epsinas_onnx.search.quantities import Constraint, Objective


@dataclass(frozen=True)
class Tried:
    """One architecture that a search tried.

    Attributes:
        number: of the trial in the study, from 0.
        arch: the architecture.
        values: its numbers by the name of the quantity; of one without all of them, those that it has.
        status: `ok`, or why a number is missing.
        reason: a sentence that says so, None where the status is `ok`.
        violation: how far it lies outside the constraints, as shares of the bounds, 0 within all of them.
        notes: how a latency was measured.
    """

    number: int
    arch: str
    values: Mapping[str, float]
    status: str = "ok"
    reason: str | None = None
    violation: float = 0.0
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether it has all numbers, and lies within the constraints."""
        return self.status == "ok" and self.violation <= 0


@dataclass(frozen=True)
class SearchResult:
    """A search so far.

    Attributes:
        space: the name of the search space.
        objectives: what was looked for.
        constraints: the bounds.
        tried: every trial that was finished, in order.
        settings: what the search was begun with, as JSON has it.
    """

    space: str
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    tried: tuple[Tried, ...] = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all quantities, objectives first."""
        bounds = (one.quantity.name for one in self.constraints)
        return tuple(dict.fromkeys([*(one.quantity.name for one in self.objectives), *bounds]))

    def ranked(self) -> list[Tried]:
        """Return what fits, each architecture once: the best first; with several objectives the front, by the first."""
        fitting = self._fitting()
        if not fitting:
            return []
        worths = self._worths(fitting)
        is_front = _is_front(worths) if len(self.objectives) > 1 else np.zeros(len(fitting), np.bool_)
        order = sorted(range(len(fitting)), key=lambda i: (not is_front[i], *(-worths[i]), fitting[i].number))
        return [fitting[i] for i in order]

    def front(self) -> list[Tried]:
        """Return the Pareto front: what fits, and no other beats in every objective; by the first objective."""
        fitting = self._fitting()
        if not fitting:
            return []
        is_front = _is_front(self._worths(fitting))
        kept = {one.number for one, of in zip(fitting, is_front, strict=True) if of}
        return [one for one in self.ranked() if one.number in kept]

    def without(self) -> Counter[str]:
        """Return how many have no number, by why."""
        return Counter(one.status for one in self.tried if one.status != "ok")

    def sentences(self) -> list[str]:
        """Return what a reader has to know of the search."""
        different = len({one.arch for one in self.tried})
        outside = sum(one.status == "ok" and one.violation > 0 for one in self.tried)
        said = [f"{len(self.tried):,} trials, {different:,} different architectures of {self.space}"]
        if missing := self.without():
            first = next(one for one in self.tried if one.status != "ok")
            each = ", ".join(f"{count:,} {status}" for status, count in missing.most_common())
            said.append(f"{missing.total():,} without a value ({each}), the first of them: {first.reason}")
        if outside:
            said.append(f"{outside:,} outside {', '.join(one.text for one in self.constraints)}")
        notes = next((one.notes["latency"] for one in self.tried if "latency" in one.notes), None)
        if notes is not None:
            said.append(
                f"latency in milliseconds: the median of up to {notes['runs']} runs of a batch of {notes['batch']} on "
                f"{notes['provider']} with {notes['threads'] or 'all'} thread{'' if notes['threads'] == 1 else 's'}"
            )
        return said

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types only."""
        front = {one.number for one in self.front()}
        return {
            "space": self.space,
            "objectives": [str(one) for one in self.objectives],
            "constraints": [one.text for one in self.constraints],
            "settings": dict(self.settings),
            "ranked": [self._record(one, one.number in front) for one in self.ranked()],
            "others": [self._record(one, False) for one in self.tried if not one.fits],
        }

    def _record(self, one: Tried, front: bool) -> dict[str, Any]:
        values = {name: plain(value) for name, value in one.values.items()}
        return {
            "trial": one.number, "arch": one.arch, "values": values, "front": front, "status": one.status,
            "reason": one.reason, "violation": one.violation, **({"notes": dict(one.notes)} if one.notes else {}),
        }  # fmt: skip

    def _fitting(self) -> list[Tried]:
        first: dict[str, Tried] = {}
        for one in self.tried:
            if one.fits:
                first.setdefault(one.arch, one)
        return list(first.values())

    def _worths(self, fitting: Sequence[Tried]) -> npt.NDArray[np.float64]:
        rows = [[of.worth(one.values[of.quantity.name]) for of in self.objectives] for one in fitting]
        return np.array(rows, np.float64)


def plain(value: float) -> float | int:
    """Return a count as a whole number, and any other number as it is."""
    return int(value) if float(value).is_integer() else value


def _is_front(worths: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which rows of float64 `[n, objectives]` no other row beats, bool `[n]`."""
    return np.array([not ((worths >= row).all(axis=1) & (worths > row).any(axis=1)).any() for row in worths], np.bool_)
