"""Owns which part of the score arises in which node: what goes in and out of each is compared, and all parts add up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_ADD_UP = frozenset(("Add", "Sub", "Sum", "Mean", "Concat", "Max", "Min"))
"""Operators of which an operand counts as much as it varies."""


@dataclass(frozen=True)
class Step:
    """One value: its operator, those of its operands that follow from an input, its dispersion (None where it has
    none), and log10 of its variation for both constants.
    """

    operator: str
    operands: Sequence[str]
    dispersion: float | None
    variation: Sequence[float | None]


def shares(steps: Mapping[str, Step], outputs: Sequence[str]) -> dict[str, float]:
    """Return for each value the part of the outputs' dispersion that arises in it; steps are in graph order.

    A value's own part is its dispersion less that of its operands, weighed with weights that add up to 1; it counts as
    often as the value reaches the outputs by the same weights. Whatever the weights, the parts add up to the outputs'
    mean dispersion less what the inputs have, because each operand's is taken away exactly as often as it is added.
    """
    weights_of = {name: _weights(step, steps) for name, step in steps.items()}
    held: dict[str, float] = {}  # what has no dispersion of its own passes on what its operands have
    for name, step in steps.items():
        passed = sum(weight * held[one] for one, weight in weights_of[name].items())
        held[name] = passed if step.dispersion is None else step.dispersion
    reached: dict[str, float] = {}
    for name in outputs:
        reached[name] = reached.get(name, 0.0) + 1 / len(outputs)
    found: dict[str, float] = {}
    for name in reversed(list(steps)):
        often = reached.get(name, 0.0)
        weights = weights_of[name]
        found[name] = often * (held[name] - sum(weight * held[one] for one, weight in weights.items()))
        for one, weight in weights.items():
            reached[one] = reached.get(one, 0.0) + often * weight
    return {name: found[name] for name in steps}


def _weights(step: Step, steps: Mapping[str, Step]) -> dict[str, float]:
    known = [name for name in dict.fromkeys(step.operands) if name in steps]
    known = [name for name in known if any(log is not None for log in steps[name].variation)] or known
    if not known:
        return {}
    if step.operator not in _ADD_UP:
        return dict.fromkeys(known, 1 / len(known))
    total = dict.fromkeys(known, 0.0)
    for constant in range(2):
        for name, weight in _by_variation(known, lambda name, c=constant: steps[name].variation[c]).items():  # type: ignore[misc]
            total[name] += weight / 2
    return total


def _by_variation(names: Sequence[str], variation: Callable[[str], float | None]) -> dict[str, float]:
    """Return weights in proportion to what varies; equal ones where nothing does."""
    logs = {name: log for name in names if (log := variation(name)) is not None}
    if not logs:
        return dict.fromkeys(names, 1 / len(names))
    largest = max(logs.values())
    parts = {name: 10.0 ** max(logs[name] - largest, -300.0) if name in logs else 0.0 for name in names}
    total = math.fsum(parts.values())
    return {name: part / total for name, part in parts.items()}
