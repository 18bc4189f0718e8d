"""The way of one model from what was loaded to its Score: batching, plan, run, judge, in that order."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from epsinas_onnx.errors import ModelError
from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.analysis.shapes import input_specs
from epsinas_onnx.graph.load import LoadedModel
from epsinas_onnx.inputs.minibatch import Minibatch
from epsinas_onnx.runtime.memory import refuse_if_too_large
from epsinas_onnx.runtime.providers import CPU, Provider, provider_name
from epsinas_onnx.scoring.batching import decide_batching
from epsinas_onnx.scoring.executors import ExecutionConfig
from epsinas_onnx.scoring.feeds import Feeds
from epsinas_onnx.scoring.judged import Facts, Judged, Task, judge_model
from epsinas_onnx.scoring.options import ScoreOptions
from epsinas_onnx.scoring.plan import plan
from epsinas_onnx.scoring.result import Score, Status
from epsinas_onnx.scoring.warnings import warnings_for
from epsinas_onnx.versions import versions


class Scored(NamedTuple):
    """A Score, what was run for it, and what the judge said."""

    score: Score
    task: Task
    judged: Judged


def score_loaded(
    loaded: LoadedModel,
    options: ScoreOptions,
    providers: Sequence[Provider],
    attempt: int,
    load_seconds: float,
    last: bool = False,
) -> Scored:
    """Score a model; attempt: which default size to take for dimensions that nobody named.

    last: whether nobody needs `loaded` afterwards; otherwise it is not modified.

    Raises ModelError for whatever keeps the model from being scored.
    """
    started = time.perf_counter()
    task, minibatch = make_task(loaded, options, providers, attempt, options.weights, last)
    seconds = {"load": load_seconds, "rewrite": time.perf_counter() - started}
    judged = judge_model(task)
    executor = judged.executor
    seconds |= {"session": 0.0, "run": 0.0} if executor is None else executor.seconds
    return Scored(_record(task, minibatch, judged, seconds), task, judged)


def make_task(
    loaded: LoadedModel,
    options: ScoreOptions,
    providers: Sequence[Provider],
    attempt: int,
    constants: tuple[float, ...],
    last: bool = False,
) -> tuple[Task, Minibatch]:
    """Plan a model for its minibatch and return both; attempt and last: as of `score_loaded`. Raises what it does."""
    config = ExecutionConfig(providers, 1 if options.jobs > 1 else options.threads, options.jobs, options.lump)
    minibatch = Minibatch(options.inputs, options.seed, loaded.name)
    first = input_specs(loaded.model, loaded.name, 1, options.shapes, attempt)
    if not first:
        raise ModelError(f"{loaded.name}: the model has no input, so its output cannot depend on one")
    wanted = options.graph_options(shapes=minibatch.shapes(first), attempt=attempt)
    batching = decide_batching(loaded, first, minibatch, options.batch, wanted, config)
    last = last and not batching.options.loosen  # what is traced of a loosened graph is planned anew
    planned = plan(loaded, batching.planned, batching.options, last=last)
    fixed = minibatch.fixed(planned.specs, planned.demands)
    specs = [spec.with_batch(batching.samples) for spec in planned.specs]
    axes = {spec.name: spec.batch_axis for spec in specs if spec.batch_axis is not None}
    refuse_if_too_large(_fed_bytes(specs), loaded.name, options.jobs)
    drawn = minibatch.drawn(specs, planned.demands)
    feeds = Feeds(lambda: minibatch.feeds(specs, planned.demands), axes, fixed, drawn)
    return Task(loaded, planned, batching, config, feeds, options, Facts.of(planned), constants), minibatch


def _fed_bytes(specs: Sequence[InputSpec]) -> tuple[int, str]:
    """Return the least bytes that a minibatch takes, of which images may be one number each; and the largest input."""
    sizes = {spec.name: 4 * (spec.shape[0] if spec.layout else math.prod(spec.shape)) for spec in specs}
    return sum(sizes.values()), max(sizes, key=lambda name: sizes[name])


def _record(task: Task, minibatch: Minibatch, judged: Judged, seconds: Mapping[str, float]) -> Score:
    loaded, planned, batching, options = task.loaded, task.planned, task.batching, task.options
    verdict, ran = judged.verdict, judged.executor is not None
    notes = [*loaded.notes(), *([batching.note] if batching.note else []), *warnings_for(planned)]
    return Score(
        model=loaded.name,
        score=verdict.raw_score if verdict.status is Status.OK else None,
        raw_score=verdict.raw_score if ran else None,
        status=verdict.status,
        reason=verdict.reason,
        weights=options.weights,
        input=minibatch.text(planned.specs, planned.demands),
        batch=batching.samples,
        provider=_provider(judged, task.config),
        parameters=planned.decisions.parameters(),
        nodes=loaded.nodes,
        seconds={key: round(value, 6) for key, value in seconds.items()},
        output=planned.outputs,
        warnings=(*notes, *([verdict.note] if verdict.note else [])),
        norm_stats=options.norm_stats,
        seed=options.seed,
        arithmetic=judged.arithmetic,
        order=judged.order,
        float32_status=judged.float32,
        versions=versions(),
    )


def _provider(judged: Judged, config: ExecutionConfig) -> str | None:
    if judged.executor is None:
        return None
    return CPU if judged.arithmetic == "exact" else provider_name(config.providers[0])
