"""The way of one model from what was loaded to its Score: batching, plan, run, judge, in that order."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from epsinas_onnx.errors import ModelError, RunError
from epsinas_onnx.graph.analysis.dynamic_sizes import check_sizes
from epsinas_onnx.graph.analysis.roles import Role
from epsinas_onnx.graph.analysis.shapes import input_specs
from epsinas_onnx.graph.load import LoadedModel
from epsinas_onnx.inputs.minibatch import Minibatch
from epsinas_onnx.runtime.providers import Provider, provider_name
from epsinas_onnx.scoring.batching import Batching, decide_batching
from epsinas_onnx.scoring.diagnosis import longest_path
from epsinas_onnx.scoring.executors import ExecutionConfig, Executor, ForwardResult, PlainExecutor, choose_executor
from epsinas_onnx.scoring.feeds import Feeds
from epsinas_onnx.scoring.options import ScoreOptions
from epsinas_onnx.scoring.plan import ModelPlan, plan
from epsinas_onnx.scoring.reruns import Reruns
from epsinas_onnx.scoring.result import Score, Status
from epsinas_onnx.scoring.verdict import Evidence, Verdict, judge
from epsinas_onnx.scoring.warnings import no_weights, sample_norms, warnings_for
from epsinas_onnx.versions import versions


def score_loaded(
    loaded: LoadedModel,
    options: ScoreOptions,
    providers: Sequence[Provider],
    attempt: int,
    load_seconds: float,
    last: bool = False,
) -> Score:
    """Score a model; attempt: which default size to take for dimensions that nobody named.

    last: whether nobody needs `loaded` afterwards; otherwise it is not modified.

    Raises ModelError for whatever keeps the model from being scored.
    """
    started = time.perf_counter()
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
    feeds = Feeds.of(minibatch.feeds(specs, planned.demands), axes, fixed)
    executor, constant_reason = choose_executor(planned, config, len(options.weights), feeds)
    seconds = {"load": load_seconds, "rewrite": time.perf_counter() - started}
    results = [ForwardResult.nothing()] * len(options.weights)
    if executor is not None:
        executor, results = _run(executor, planned, config, options.weights, feeds, batching)
    sizes = {constant: done.output.size for constant, done in zip(options.weights, results, strict=True)}
    check_sizes(planned.model, loaded.name, sizes)
    evidence = _evidence(planned, options.weights, results, constant_reason)
    runner = Reruns(loaded, planned, batching, config, executor, feeds, options.weights, sizes)
    verdict = judge(evidence, runner)
    seconds |= {"session": 0.0, "run": 0.0} if executor is None else executor.seconds
    return _record(loaded, planned, batching, options, minibatch, verdict, executor, config, seconds)


def _run(
    executor: Executor, planned: ModelPlan, config: ExecutionConfig, weights: Sequence[float], feeds: Feeds,
    batching: Batching,
) -> tuple[Executor, list[ForwardResult]]:  # fmt: skip
    """Run all constants; a lumped graph that ONNX Runtime does not take gives way to the plain one."""
    cut_axes = feeds.axes if batching.per_sample else None
    try:
        return executor, executor.run(weights, feeds.arrays, cut_axes)
    except RunError:
        if not executor.lumped:
            raise
    plain = PlainExecutor(planned, config)
    return plain, plain.run(weights, feeds.arrays, cut_axes)


def _evidence(
    planned: ModelPlan, weights: tuple[float, float], results: Sequence[ForwardResult], constant_reason: str | None
) -> Evidence:
    return Evidence(
        weights,
        (results[0].output, results[1].output),
        (results[0].channel_stats, results[1].channel_stats),
        longest_path(planned.model, planned.outputs),
        planned.decisions.longest_sum(),
        sample_norms(planned.model),
        constant_reason,
        None if planned.decisions.with_role(Role.WEIGHT) else no_weights(planned.model),
    )


def _record(
    loaded: LoadedModel, planned: ModelPlan, batching: Batching, options: ScoreOptions, minibatch: Minibatch,
    verdict: Verdict, executor: Executor | None, config: ExecutionConfig, seconds: Mapping[str, float],
) -> Score:  # fmt: skip
    ran = executor is not None
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
        provider=provider_name(config.providers[0]) if ran else None,
        parameters=planned.decisions.parameters(),
        nodes=loaded.nodes,
        seconds={key: round(value, 6) for key, value in seconds.items()},
        output=planned.outputs,
        warnings=(*notes, *([verdict.note] if verdict.note else [])),
        norm_stats=options.norm_stats,
        seed=options.seed,
        versions=versions(),
    )
