"""Explains one model: scores it, looks at every value on the way, and says in which node the signal ends."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from epsinas_onnx._util.gc import collection_paused
from epsinas_onnx._util.text import sentence
from epsinas_onnx.errors import ModelError, RunError
from epsinas_onnx.explanation import sight
from epsinas_onnx.explanation.endings import ending, fed_by, feeding_names
from epsinas_onnx.explanation.failing import find_failure
from epsinas_onnx.explanation.listed import listed, operator_of
from epsinas_onnx.explanation.nested import Nested
from epsinas_onnx.explanation.result import Ending, Explanation
from epsinas_onnx.graph.analysis.shapes import Shapes
from epsinas_onnx.graph.load import LoadedModel, ModelSource, load_model
from epsinas_onnx.graph.passes.constant_weights import NormStats
from epsinas_onnx.runtime.providers import choose_providers
from epsinas_onnx.scoring.evaluated import ExactExecutor
from epsinas_onnx.scoring.executors import LumpedExecutor
from epsinas_onnx.scoring.judged import Task, in_float32, lowered_or_reason
from epsinas_onnx.scoring.options import DEFAULT_BATCH, DEFAULT_WEIGHTS, Arithmetic, ScoreOptions, score_options
from epsinas_onnx.scoring.pipeline import Scored, make_task
from epsinas_onnx.scoring.result import Status
from epsinas_onnx.scoring.single import scored_with_parts


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
    nested = Nested.of(task.planned.model)
    ending32 = None
    if arithmetic == "exact" and score.float32_status not in (None, Status.OK):
        with contextlib.suppress(ModelError):  # the node alone is missing then
            ending32 = ending(task, nested, in_float32(task), None)
    lost = ending(task, nested, judged, seen if arithmetic == "exact" else None)
    if lost is not None and ending32 is not None and (lost.status, lost.node) == (ending32.status, ending32.node):
        ending32 = None
    found = listed(task, nested, seen, score.score)
    return Explanation(
        score.model, score.status, score.score, score.weights, arithmetic, score.float32_status, score.input,
        score.batch, seen.samples, found.dispersion, found.values, fed_by(lost, found.values),
        fed_by(ending32, found.values), found.unobserved, found.not_taken, (*score.warnings, *warnings),
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
    nested = Nested.of(task.planned.model)
    lost = Ending(
        Status.ERROR, reason, str(node.name), operator_of(node), None, feeding_names(node, nested), "float32"
    )  # fmt: skip
    found = listed(task, nested, failure.sight, None)
    return Explanation(
        loaded.name, Status.ERROR, None, options.weights, "float32", None,
        minibatch.text(task.planned.specs, task.planned.demands), task.batching.samples, failure.sight.samples, None,
        found.values, fed_by(lost, found.values), None, found.unobserved, found.not_taken, tuple(loaded.notes()),
    )  # fmt: skip


def _maker(task: Task, names: Sequence[str]) -> ir.Node | None:
    """Return the user's node that makes one of some values."""
    return next((node for node in task.planned.model.graph if any(v.name in names for v in node.outputs)), None)
