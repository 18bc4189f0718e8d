"""Looks at every value of a planned graph for both constants: exactly, or in float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.errors import RunError
from epsinas_onnx.explanation import turns
from epsinas_onnx.explanation.nested import Nested, bodies
from epsinas_onnx.explanation.observing import Seen, exact, observed, seen_as
from epsinas_onnx.explanation.turns import Collected, Inside
from epsinas_onnx.inputs.minibatch import all_first
from epsinas_onnx.scoring.evaluated import ExactExecutor
from epsinas_onnx.scoring.judged import Task
from epsinas_onnx.scoring.reruns import trace_few

Array = npt.NDArray[Any]

_HELD = 2**28
"""Bytes up to which every value is held for the whole minibatch; else a few samples are looked at."""


@dataclass(frozen=True)
class Sight:
    """Every value of the main graph by name, over how many samples they were looked at, and what lies in bodies."""

    values: Mapping[str, Seen]
    samples: int
    inside: Inside = field(default_factory=Inside)

    @property
    def everything(self) -> dict[str, Seen]:
        """Return what is in bodies too."""
        return {**self.values, **self.inside.values}


def exactly(task: Task, executor: ExactExecutor) -> Sight:
    """Return every value in exact arithmetic: for the whole minibatch where that fits, else for a few samples.

    Raises RunError where the graph cannot be evaluated.
    """
    with np.errstate(all="ignore"):
        return _exactly(task, executor)


def _exactly(task: Task, executor: ExactExecutor) -> Sight:
    traced = executor.tracer(_named)
    cut, weights = task.cut_axes, task.options.weights
    few = cut is None and 2 * traced.held_bytes() > _HELD
    tries = [task.of_few().feeds.arrays] if few else []
    for feeds in [*tries, task.feeds.arrays]:
        try:
            inside, idle = (Collected(), Collected()), set()
            ran = []
            for constant, collected in zip(weights, inside, strict=True):
                traced.watch(collected.look)
                ran.append(executor.every_value(traced, constant, feeds, cut))
                idle |= traced.idle()
            first, second = ran
            break
        except RunError:  # the graph may be made for the whole minibatch
            if feeds is task.feeds.arrays:
                raise
    seen = {}
    for name, lumped in traced.lumped.items():
        one, other = [made[name] for made in first], [made[name] for made in second]
        entries = [executor.entries_of(lumped, values) for values in (one, other)]
        seen[name] = seen_as((exact(one), exact(other)), entries, lumped)
    not_run = Nested.of(task.planned.model).without(idle)
    seen = {name: one for name, one in seen.items() if name not in not_run}
    samples = 2 if cut is not None else _samples(feeds, task.feeds.axes)
    return Sight(seen, samples, turns.exactly(executor, traced, inside, not_run))


def _named(model: ir.Model) -> dict[ir.Value, str]:
    """Return the names of all values in bodies."""
    return {value: name for value, name in Nested.of(model).names.items() if value.graph is not model.graph}


def in_float32(task: Task, lumped: bool) -> Sight:
    """Return every float value of a few samples as ONNX Runtime gives it; lumped: whether the lumped graph runs."""
    executor, feeds = trace_few(task.loaded, task.planned, task.batching, task.config, task.feeds, lumped)
    axes, cut = task.feeds.axes, task.cut_axes
    still = all_first(feeds, axes)
    seen = {}
    for names in executor.tracer.chunks():
        ran = [executor.values(constant, feeds, names, cut) for constant in task.options.weights]
        bases = ran if cut else [executor.values(constant, still, names, None) for constant in task.options.weights]
        for name in names:
            one, other = (
                observed(made[name], base[name][:1] if cut else base[name])
                for made, base in zip(ran, bases, strict=True)
            )
            entries = [_entries(executor, name, made[name], cut is not None) for made in ran]
            seen[name] = seen_as((one, other), entries, executor.lumped.get(name))
    has_bodies = any(bodies(node) for node in task.planned.model.graph)
    return Sight(seen, _samples(feeds, axes), turns.in_float32(task, lumped) if has_bodies else Inside())


def of_inputs(task: Task) -> dict[str, Seen]:
    """Return what is fed, which is the same for both constants."""
    found = {}
    for name, array in task.feeds.arrays.items():
        if array.dtype.kind not in "fiub":
            continue
        axis = task.feeds.axes.get(name)
        first = array if axis is None else np.take(array, [0], axis)
        one = observed(array.astype(np.float64), first)
        found[name] = Seen((one, one), None if axis is None else 0.0, array.shape, None)
    return found


def _samples(feeds: Mapping[str, Array], axes: Mapping[str, int]) -> int:
    return min((feeds[name].shape[axis] for name, axis in axes.items()), default=1)


def _entries(executor: Any, name: str, array: Array, stacked: bool) -> Array:
    if not stacked:
        return np.asarray(executor.entries_of(name, array))
    return np.concatenate([executor.entries_of(name, sample) for sample in array])
