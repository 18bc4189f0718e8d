"""Explains one model: scores it, looks at every value on the way, and says in which node the signal ends."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from epsinas_onnx._util.gc import collection_paused
from epsinas_onnx._util.text import sentence
from epsinas_onnx.errors import ModelError, RunError
from epsinas_onnx.explanation import sight
from epsinas_onnx.explanation.failing import find_failure
from epsinas_onnx.explanation.result import Ending, ExplainedValue, Explanation
from epsinas_onnx.explanation.shares import Step, shares
from epsinas_onnx.graph.analysis.shapes import Shapes, known_shape
from epsinas_onnx.graph.load import LoadedModel, ModelSource, load_model
from epsinas_onnx.graph.passes.constant_weights import REPLACES, NormStats
from epsinas_onnx.graph.traversal import all_graphs, operands
from epsinas_onnx.runtime.providers import choose_providers
from epsinas_onnx.scoring.evaluated import ExactExecutor
from epsinas_onnx.scoring.executors import LumpedExecutor
from epsinas_onnx.scoring.judged import Task, in_float32, lowered_or_reason
from epsinas_onnx.scoring.options import DEFAULT_BATCH, DEFAULT_WEIGHTS, Arithmetic, ScoreOptions, score_options
from epsinas_onnx.scoring.pipeline import Scored, make_task
from epsinas_onnx.scoring.result import Status
from epsinas_onnx.scoring.single import scored_with_parts
from epsinas_onnx.scoring.verdict import Verdict

_MEASURES = ("Shape", "Size")
"""Operators behind which nothing follows from the values of an input."""


def explain(
    model: ModelSource,
    *,
    weights: tuple[float, float] = DEFAULT_WEIGHTS,
    inputs: Any = "auto",
    batch: int = DEFAULT_BATCH,
    shapes: Shapes | None = None,
    outputs: str | Sequence[str] | None = None,
    roles: Mapping[str, str] | None = None,
    norm_stats: NormStats = "batch",
    seed: int = 0,
    restore_batchnorm: str = "auto",
    arithmetic: Arithmetic = "auto",
) -> Explanation:
    """Say where the signal of one model goes: every value for both constants, and the node in which it ends.

    The arguments are those of `score`, and so are status, reason and node.

    Args:
        model: a path, the file's bytes, an `onnx.ModelProto` or an `onnx_ir.Model`; it is not modified.
        weights: the two constants.
        inputs: what is fed, as for `score`.
        batch: samples in the minibatch, at least 2; the values are looked at over all of them where they fit in
            memory together, else over 16 (over the first and the last where a file takes one at a time).
        shapes: sizes of free dimensions by name, and whole shapes by input name.
        outputs: which values to compare. None: the first float output.
        roles: glob over `NODE:SLOT`, node or tensor name to a role.
        norm_stats: what BatchNormalization uses: `batch`, `reset` or `stored`.
        seed: of random inputs and of embedding tables.
        restore_batchnorm: behind which layers a folded BatchNormalization is put back.
        arithmetic: `float32`, `exact` or `auto`. What cannot be evaluated exactly is looked at in float32.

    Returns:
        An Explanation. A graph that does not run has the status `error`, with the node that fails.

    Raises:
        UsageError: an argument is wrong.
        ModelError: the model cannot be read or planned, or fails in no node of its own.

    Examples:
        >>> found = explain("models/transformer.onnx", batch=16)
        >>> print(found.status, found.lost.node, found.lost.operands)
        constant output ('mean_token',)
    """
    options = score_options(
        weights=weights, inputs=inputs, batch=batch, shapes=shapes, outputs=outputs, roles=roles, norm_stats=norm_stats,
        seed=seed, restore_batchnorm=restore_batchnorm, arithmetic=arithmetic,
    )  # fmt: skip
    with collection_paused():
        loaded = load_model(model, options.named_inputs)
        try:
            scored = scored_with_parts(lambda: loaded, options)
        except RunError as error:
            return _failed(loaded, options, error)
        return _explained(scored)


def _explained(scored: Scored) -> Explanation:
    score, task, judged = scored
    arithmetic = score.arithmetic or "float32"
    seen, warnings = _look(scored)
    if arithmetic == "exact" and score.float32_status not in (None, Status.OK):
        ending32 = None
        with contextlib.suppress(ModelError):  # the node alone is missing then
            ending32 = _ending(task, in_float32(task).verdict, "float32")
    else:
        ending32 = None
    lost = _ending(task, judged.verdict, arithmetic)
    if lost is not None and ending32 is not None and (lost.status, lost.node) == (ending32.status, ending32.node):
        ending32 = None
    values, dispersion = _values(task, seen, score.score)
    return Explanation(
        score.model, score.status, score.score, score.weights, arithmetic, score.float32_status, score.input,
        score.batch, seen.samples, dispersion, values, _fed_by(lost, values), _fed_by(ending32, values), _inside(task),
        (*score.warnings, *warnings),
    )  # fmt: skip


def _look(scored: Scored) -> tuple[sight.Sight, list[str]]:
    """Look at every value in the arithmetic of the score; in float32 where that cannot be done."""
    task, executor = scored.task, scored.judged.executor
    warnings: list[str] = []
    if scored.judged.arithmetic == "exact":
        try:
            if not isinstance(executor, ExactExecutor):
                lowered = lowered_or_reason(task)
                if isinstance(lowered, str):
                    raise RunError(lowered)
                executor = ExactExecutor(lowered, task.planned.outputs, task.feeds.axes)
            return sight.exactly(task, executor), warnings
        except RunError as error:
            warnings.append(f"the values were looked at in float32, because not all can be evaluated exactly: {error}")
    lumped = executor is None or isinstance(executor, LumpedExecutor | ExactExecutor)
    try:
        return sight.in_float32(task, lumped), warnings
    except RunError:
        if not lumped:
            raise
        return sight.in_float32(task, False), warnings


def _failed(loaded: LoadedModel, options: ScoreOptions, error: RunError) -> Explanation:
    """Return where a graph fails to run; raises the error again where that is in no node."""
    task, minibatch = make_task(loaded, options, choose_providers(options.providers), 0, options.weights)
    failure = find_failure(task)
    node = None if failure is None else _maker(task, failure.outputs)
    if failure is None or node is None:
        raise error
    reason = sentence(str(error))
    lost = Ending(Status.ERROR, reason, str(node.name), _operator(node), None, _feeding(node), "float32")
    values, _ = _values(task, failure.sight, None)
    return Explanation(
        loaded.name, Status.ERROR, None, options.weights, "float32", None,
        minibatch.text(task.planned.specs, task.planned.demands), task.batching.samples, failure.sight.samples, None,
        values, _fed_by(lost, values), None, _inside(task), tuple(loaded.notes()),
    )  # fmt: skip


def _ending(task: Task, verdict: Verdict, arithmetic: str) -> Ending | None:
    if verdict.status is Status.OK:
        return None
    node = next((node for node in task.planned.model.graph if node.name == verdict.node), None)
    operator, feeding = (None, ()) if node is None else (_operator(node), _feeding(node))
    reason = sentence(verdict.reason or "")
    return Ending(verdict.status, reason, verdict.node, operator, verdict.constant, feeding, arithmetic)


def _fed_by(ending: Ending | None, values: Sequence[ExplainedValue]) -> Ending | None:
    """Return an ending with the operands alone that follow from an input."""
    if ending is None:
        return None
    names = {value.name for value in values}
    return dataclasses.replace(ending, operands=tuple(name for name in ending.operands if name in names))


def _values(task: Task, seen: sight.Sight, score: float | None) -> tuple[tuple[ExplainedValue, ...], float | None]:
    """Return every value that follows from an input, with its share of the score, and the output's dispersion."""
    graph = task.planned.model.graph
    found: dict[str, ExplainedValue] = {}
    for name, one in sight.of_inputs(task).items():
        found[name] = ExplainedValue(name, "", "Input", 0, one.shape, None, (), one.observed, one.dispersion)
    for node in graph:
        feeding = tuple(name for name in _feeding(node) if name in found)
        if not feeding or node.op_type in _MEASURES:
            continue
        depth = 1 + max(found[name].depth for name in feeding)
        for value in node.outputs:
            if not value.name:
                continue
            known = seen.values.get(str(value.name))
            shape = known_shape(value) if known is None or known.shape is None else known.shape
            found[str(value.name)] = ExplainedValue(
                str(value.name), str(node.name), _operator(node), depth, None if shape is None else tuple(shape),
                None if known is None else known.classes, feeding,
                (None, None) if known is None else known.observed, None if known is None else known.dispersion,
            )  # fmt: skip
    return _with_shares(found, [name for name in task.planned.outputs if name in found], score)


def _with_shares(
    found: Mapping[str, ExplainedValue], outputs: Sequence[str], score: float | None
) -> tuple[tuple[ExplainedValue, ...], float | None]:
    known = [one for name in outputs if (one := found[name].dispersion) is not None]
    dispersion = sum(known) / len(known) if known else None
    if not score or not dispersion or len(known) < len(outputs):
        return tuple(found.values()), dispersion
    steps = {
        name: Step(
            one.operator, one.operands, one.dispersion,
            [None if seen is None else seen.variation for seen in one.observed],
        )
        for name, one in found.items()
    }  # fmt: skip
    parts = shares(steps, outputs)
    return tuple(dataclasses.replace(one, share=parts[name] / dispersion) for name, one in found.items()), dispersion


def _maker(task: Task, names: Sequence[str]) -> ir.Node | None:
    """Return the user's node that makes one of some values."""
    return next((node for node in task.planned.model.graph if any(v.name in names for v in node.outputs)), None)


def _feeding(node: ir.Node) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(value.name) for value in operands(node)))


def _operator(node: ir.Node) -> str:
    return str(node.meta.get(REPLACES, node.op_type))


def _inside(task: Task) -> int:
    """Return how many nodes lie in bodies."""
    graph = task.planned.model.graph
    return sum(len(list(one)) for one in all_graphs(graph) if one is not graph)
