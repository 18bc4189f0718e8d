"""Owns what values in bodies are in each turn: what is said of all turns together, and in which the signal is there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from epsinas_onnx.errors import RunError
from epsinas_onnx.evaluate_lumped.trace import Trace
from epsinas_onnx.evaluate_lumped.value import Value
from epsinas_onnx.evaluate_lumped.watch import Turn
from epsinas_onnx.explanation.float_bodies import FloatBodies
from epsinas_onnx.explanation.nested import Nested
from epsinas_onnx.explanation.observing import Seen, exact, merged, observed, seen_as
from epsinas_onnx.explanation.result import Observed
from epsinas_onnx.inputs.minibatch import all_first
from epsinas_onnx.scoring.evaluated import ExactExecutor
from epsinas_onnx.scoring.judged import Task

Array = npt.NDArray[Any]

_HELD = 2**27
"""Bytes of values in bodies that are held for the metric between both constants; what is more has none."""


class State(NamedTuple):
    """Whether samples differ in a value in one turn, and whether all its entries are finite."""

    differs: bool
    finite: bool


States: TypeAlias = Mapping[str, Mapping[Turn, State]]
"""Values in bodies by name and turn."""


@dataclass
class Inside:
    """What was seen in bodies. states: for each constant. independent: names of values that follow from no input."""

    values: dict[str, Seen] = field(default_factory=dict)
    states: tuple[States, States] = ({}, {})
    independent: set[str] = field(default_factory=set)


class Collected:
    """What an exact evaluation passes by, turn by turn, for one constant."""

    def __init__(self) -> None:
        self.observed: dict[str, dict[Turn, list[Observed]]] = {}
        self.values: dict[str, list[Value]] = {}
        self._dropped: set[str] = set()
        self._bytes = 0

    def look(self, name: str, turn: Turn, value: Value) -> None:
        """Take in one value in one turn."""
        self.observed.setdefault(name, {}).setdefault(turn, []).append(exact([value]))
        self._bytes += sum(part.array.nbytes for part in (value.base, value.deviation) if part is not None)
        if self._bytes > _HELD:
            self._dropped.add(name)
        if name in self._dropped:
            self.values.pop(name, None)
        else:
            self.values.setdefault(name, []).append(value)

    def states(self) -> dict[str, dict[Turn, State]]:
        """Return in which turns samples differ."""
        return {
            name: {turn: _state(merged(seen)) for turn, seen in turns.items()} for name, turns in self.observed.items()
        }


def exactly(
    executor: ExactExecutor, traced: Trace, found: tuple[Collected, Collected], not_run: Collection[str]
) -> Inside:
    """Return what was seen while an executor evaluated every value for each constant. not_run: what did not."""
    one, other = found
    values = {}
    for name in (one.observed.keys() & other.observed.keys()) - set(not_run):
        lumped = traced.inner[name]
        kept = [each.values.get(name) for each in found]
        entries = [executor.entries_of(lumped, each) for each in kept if each]
        both = _over_all_turns(one.observed[name]), _over_all_turns(other.observed[name])
        values[name] = seen_as(both, entries if len(entries) == 2 else (), lumped)
    return Inside(values, (one.states(), other.states()), set(traced.independent))


def in_float32(task: Task, lumped: bool) -> Inside:
    """Return the same as ONNX Runtime gives it for a few samples; nothing where it refuses."""
    try:
        bodies = FloatBodies(task, lumped)
    except RunError:
        return Inside()
    axes, cut, weights = task.feeds.axes, task.cut_axes, task.options.weights
    still = all_first(bodies.feeds, axes)
    nested = Nested.of(task.planned.model)
    not_run = nested.without(bodies.idle(weights[0]) | bodies.idle(weights[1]))
    values: dict[str, Seen] = {}
    states: tuple[dict[str, dict[Turn, State]], dict[str, dict[Turn, State]]] = ({}, {})
    for names in bodies.chunks():
        ran = [bodies.turns(constant, bodies.feeds, names) for constant in weights]
        bases = ran if cut else [bodies.turns(constant, still, names) for constant in weights]
        for name in names:
            if name in not_run or not all(name in each for each in (*ran, *bases)):
                continue
            both, entries = [], []
            for constant in range(2):
                made, base = ran[constant][name], bases[constant][name]
                seen = {
                    turn: observed(array, base[turn][:1] if cut else base.get(turn, array))
                    for turn, array in made.items()
                }
                states[constant][name] = {turn: _state(one) for turn, one in seen.items()}
                both.append(merged(list(seen.values())))
                entries.append(_entries(bodies, name, list(made.values()), cut is not None))
            known = seen_as((both[0], both[1]), entries, bodies.lumped(name))
            shape = known.shape or next(iter(ran[0][name].values())).shape[int(cut is not None) :]
            values[name] = Seen(known.observed, known.dispersion, shape, known.classes)
    return Inside(values, states, bodies.independent)


def _entries(bodies: FloatBodies, name: str, turns: Sequence[Array], stacked: bool) -> Array:
    each = [sample for turn in turns for sample in turn] if stacked else turns
    return np.concatenate([bodies.entries_of(name, array) for array in each])


def _over_all_turns(turns: Mapping[Turn, Sequence[Observed]]) -> Observed:
    return merged([one for seen in turns.values() for one in seen])


def _state(seen: Observed) -> State:
    return State(seen.variation is not None or not seen.finite, seen.finite)
