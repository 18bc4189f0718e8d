"""Says where the signal ends: the node that `score` names, or the one in its body that loses the signal first."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx._util.text import sentence
from epsinas_onnx.errors import ModelError
from epsinas_onnx.evaluate_lumped.watch import Turn
from epsinas_onnx.explanation.float_bodies import FloatBodies
from epsinas_onnx.explanation.inside import Unrolled
from epsinas_onnx.explanation.listed import operator_of
from epsinas_onnx.explanation.nested import Nested, bodies
from epsinas_onnx.explanation.result import Ending, ExplainedValue
from epsinas_onnx.explanation.sight import Sight
from epsinas_onnx.explanation.turns import State
from epsinas_onnx.graph.traversal import operands
from epsinas_onnx.inputs.generate import perturbed
from epsinas_onnx.inputs.minibatch import rolled
from epsinas_onnx.scoring.diagnosis import compare, multiplies_by_zero
from epsinas_onnx.scoring.executors import LumpedExecutor
from epsinas_onnx.scoring.judged import Judged, Task
from epsinas_onnx.scoring.reruns import nudged, trace_few
from epsinas_onnx.scoring.result import Status

Array = npt.NDArray[Any]
States = Mapping[str, Mapping[Turn, State]]


def ending(task: Task, nested: Nested, judged: Judged, seen: Sight | None) -> Ending | None:
    """Return where the signal ends, None where it arrives. seen: what exact arithmetic saw; None for float32."""
    verdict = judged.verdict
    if verdict.status is Status.OK:
        return None
    arithmetic = "float32" if seen is None else "exact"
    node = nested.nodes.get(str(verdict.node)) if verdict.node else None
    if node is not None and bodies(node):
        constant = task.options.weights[0] if verdict.constant is None else verdict.constant
        with contextlib.suppress(ModelError):  # the node that holds the body is named then
            states = _in_float32(task, judged, constant) if seen is None else _exactly(task, seen, constant)
            unrolled = Unrolled(nested, node, states)
            if verdict.status is Status.OVERFLOW:
                inner = unrolled.exploded()
            else:
                inner = unrolled.lost(multiplies_by_zero if seen is None else lambda one: one.op_type == "Mul")
            node = node if inner is None else inner
    name = verdict.node if node is None else str(node.name)
    operator, feeding = (None, ()) if node is None else (operator_of(node), feeding_names(node, nested))
    around = () if node is None else tuple(str(holder.name) for holder in nested.holders(node))
    reason = sentence(verdict.reason or "")
    return Ending(verdict.status, reason, name, operator, verdict.constant, feeding, arithmetic, around)


def fed_by(ending: Ending | None, values: Sequence[ExplainedValue]) -> Ending | None:
    """Return an ending with the operands alone that follow from an input."""
    if ending is None:
        return None
    names = {value.name for value in values}
    return dataclasses.replace(ending, operands=tuple(name for name in ending.operands if name in names))


def feeding_names(node: ir.Node, nested: Nested) -> tuple[str, ...]:
    """Return the names of what a node reads."""
    inner = {place.value for place in nested.places() if node in place.holders}
    return tuple(dict.fromkeys(nested.names[value] for value in operands(node) if value not in inner))


def _exactly(task: Task, seen: Sight, constant: float) -> States:
    index = task.options.weights.index(constant) if constant in task.options.weights else 0
    outside: dict[str, Mapping[Turn, State]] = {}
    for name, one in seen.values.items():
        found = one.observed[index]
        outside[name] = {(): State(found.variation is not None or not found.finite, found.finite)}
    return {**outside, **seen.inside.states[index]}


def _in_float32(task: Task, judged: Judged, constant: float) -> States:
    """Return whether values change with the order of the samples by more than with the last bits, as `score` asks."""
    lumped = judged.executor is None or isinstance(judged.executor, LumpedExecutor)
    found: dict[str, Mapping[Turn, State]] = {}
    axes, cut, seed = task.feeds.axes, task.cut_axes, task.planned.options.seed
    executor, feeds = trace_few(task.loaded, task.planned, task.batching, task.config, task.feeds, lumped)

    def three(feeds: Mapping[str, Array]) -> list[tuple[float, Mapping[str, Array]]]:
        moved = perturbed(feeds, seed)
        return [(constant, feeds), (nudged(constant), moved), (constant, rolled(feeds, axes))]

    for names in executor.tracer.chunks():
        plain, bits, other = (executor.values(weight, fed, names, cut) for weight, fed in three(feeds))
        for name in names:
            found[name] = {(): State(*compare(plain[name], bits[name], other[name]))}
    inner = FloatBodies(task, lumped)
    for names in inner.chunks():
        first, second, third = (inner.turns(weight, fed, names) for weight, fed in three(inner.feeds))
        for name, turns in first.items():
            if name in second and name in third:
                found[name] = {
                    turn: State(*compare(array, second[name].get(turn, array), third[name].get(turn, array)))
                    for turn, array in turns.items()
                }
    return found
