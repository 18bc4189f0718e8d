"""Runs a planned model in the arithmetic that was asked for, or that suits it, and has the outputs judged."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy.typing as npt

from epsinas_onnx.errors import ModelError, OutOfMemory, RunError
from epsinas_onnx.graph.analysis.dynamic_sizes import check_sizes
from epsinas_onnx.graph.analysis.roles import Role
from epsinas_onnx.graph.load import LoadedModel
from epsinas_onnx.inputs.minibatch import few_samples
from epsinas_onnx.lump.canonical import digest_of
from epsinas_onnx.lump.lower import CutOff, LumpedModel
from epsinas_onnx.lump.unlumpable import Unlumpable
from epsinas_onnx.runtime.memory import refuse_if_too_large
from epsinas_onnx.scoring.alike import Alike, of_batch
from epsinas_onnx.scoring.batching import Batching
from epsinas_onnx.scoring.diagnosis import advice, longest_path
from epsinas_onnx.scoring.evaluated import ExactExecutor, PlainEvaluator
from epsinas_onnx.scoring.exact_reruns import ExactReruns
from epsinas_onnx.scoring.executors import (
    ExecutionConfig,
    Executor,
    ForwardResult,
    LumpedExecutor,
    NotRun,
    PlainExecutor,
    choose_executor,
    lower,
)
from epsinas_onnx.scoring.feeds import Feeds
from epsinas_onnx.scoring.metric import EXACT, FLOAT32, Precision
from epsinas_onnx.scoring.options import Arithmetic, ScoreOptions
from epsinas_onnx.scoring.plan import ModelPlan, plan
from epsinas_onnx.scoring.reruns import Reruns, StatusOnly, WithoutReasons
from epsinas_onnx.scoring.result import Status
from epsinas_onnx.scoring.verdict import Evidence, Runner, Verdict, judge
from epsinas_onnx.scoring.warnings import no_weights, sample_norms

Array = npt.NDArray[Any]

LARGE = 3 * 2**22
"""From so many entries on that a run computes outside of compiled chains, ONNX Runtime is done with a lumped graph
before our evaluator is.
"""

FEW = 16
"""Samples that tell whether float32 gives a score."""

_LOST = -160.0
"""Outputs whose entries lie no more than two to this power apart are equal in float32, which ends at -149."""


class Facts(NamedTuple):
    """What the judge must know of a graph, as in `Evidence`."""

    depth: int
    longest_sum: int
    sample_norms: Sequence[str]
    without_weights: str | None

    @classmethod
    def of(cls, planned: ModelPlan) -> Facts:
        """Look through a planned graph."""
        model, decisions = planned.model, planned.decisions
        without_weights = None if decisions.with_role(Role.WEIGHT) else no_weights(model)
        depth = longest_path(model, planned.outputs)
        return cls(depth, decisions.longest_sum(), sample_norms(model), without_weights)


@dataclass(frozen=True)
class Task:
    """A planned model, its minibatch, and how it is to be scored. constants: each of them is run."""

    loaded: LoadedModel
    planned: ModelPlan
    batching: Batching
    config: ExecutionConfig
    feeds: Feeds
    options: ScoreOptions
    facts: Facts
    constants: tuple[float, ...]

    @property
    def cut_axes(self) -> Mapping[str, int] | None:
        """Return along which axes samples are run one by one, None where they go through together."""
        return self.feeds.axes if self.batching.per_sample else None

    def of_few(self) -> Task:
        """Return the same for a few of the samples, at equal distances."""
        few = few_samples(self.feeds.arrays, self.feeds.axes, FEW, self.planned.demands)
        feeds = Feeds(lambda: few, self.feeds.axes, self.feeds.fixed)
        batching = dataclasses.replace(self.batching, samples=min(self.batching.samples, FEW))
        return dataclasses.replace(self, feeds=feeds, batching=batching)

    def check_sizes(self, sizes: Mapping[float, int]) -> None:
        """Raise ModelError where the output has another number of entries for another constant."""
        check_sizes(self.planned.model, self.planned.name, sizes)


@dataclass(frozen=True)
class Judged:
    """A verdict, and how it came about.

    arithmetic: in which the outputs were computed. executor: what ran them, None where nothing had to run. order: see
    `Score`. float32: the status that float32 gives, None where nobody asked.
    """

    verdict: Verdict
    arithmetic: Arithmetic
    executor: Executor | None
    order: float | None = None
    float32: Status | None = None


def judge_model(task: Task) -> Judged:
    """Run and judge a model; raises what running it does, where it runs in no arithmetic."""
    wanted = task.options.arithmetic
    if wanted == "float32":
        return in_float32(task)
    lowered = lowered_or_reason(task)
    if isinstance(lowered, str):
        return in_float32(task)
    if lowered.cut_off is not None:
        return dataclasses.replace(_judged(task, cut_off(task, lowered)), arithmetic="exact")
    batch = of_batch() if task.options.alike else None
    return _evaluated(task, lowered) if batch is None else _evaluated_once(task, lowered, batch)


def _evaluated(task: Task, lowered: LumpedModel) -> Judged:
    if task.options.arithmetic == "exact":
        return _exactly(task, exact_executor(task, lowered))
    executor, large = exact_or_large(task, lowered)
    if large:
        return _large(task, executor)
    return in_float32(task) if executor is None else _small(task, lowered, executor)


def exact_executor(task: Task, lowered: LumpedModel) -> ExactExecutor:
    """Return what runs a lowered graph exactly; raises RunError where nothing does."""
    return ExactExecutor(lowered, task.planned.outputs, task.feeds.axes)


def exact_or_large(task: Task, lowered: LumpedModel) -> tuple[ExactExecutor | None, bool]:
    """Return what runs a graph exactly, if anything does, and whether ONNX Runtime takes less for float32."""
    large = lowered.entries() > LARGE
    try:
        executor = exact_executor(task, lowered)
    except RunError:
        return None, large
    return executor, large and executor.slow_entries() > LARGE


def _evaluated_once(task: Task, lowered: LumpedModel, batch: Alike[Judged]) -> Judged:
    """Take what a model of the batch gave that computes the same; only a score, since a reason names nodes."""
    options, facts = task.options, task.facts
    settings = (
        options.arithmetic, options.norm_stats, options.seed, task.cut_axes is None, facts.depth, facts.longest_sum,
        bool(facts.sample_norms), facts.without_weights is None,
    )  # fmt: skip
    digest = digest_of(
        lowered, task.planned.outputs, task.feeds.arrays, task.feeds.axes, options.weights, settings
    )  # fmt: skip
    if digest is None:
        return _evaluated(task, lowered)
    known = batch.find(digest)
    if known is not None:
        return known
    judged = _evaluated(task, lowered)
    if judged.verdict.status is Status.OK and judged.executor is not None:
        batch.keep(digest, dataclasses.replace(judged, executor=NotRun(judged.executor.lumped)))
    return judged


def _small(task: Task, lowered: LumpedModel, executor: ExactExecutor) -> Judged:
    """Judge a model whose arithmetic costs less than a session: exactly, and in float32 for its status alone."""
    try:
        found = _exactly(task, executor)
    except ModelError:
        return in_float32(task)
    return dataclasses.replace(found, float32=_status_in_float32(task, lowered, found))


def _large(task: Task, executor: ExactExecutor | None) -> Judged:
    """Judge a model in float32, which takes less, and exactly where that gives no score."""
    ran = ran_in_float32(task)
    published = _judged(task, ran, WithoutReasons)
    if published.verdict.status is Status.OK:
        return dataclasses.replace(published, order=_order_of_few(task, executor))
    if executor is not None:
        with contextlib.suppress(ModelError):
            return dataclasses.replace(_exactly(task, executor), float32=published.verdict.status)
    return _judged(task, ran)


def lowered_or_reason(task: Task) -> LumpedModel | str:
    """Return the graph that our evaluator runs, or why there is none; raises RunError where it must be that."""
    options = task.options
    if options.providers not in ("auto", "cpu") or not options.lump or options.dtype != "float32":
        reason = "not with these options"
    else:
        try:
            return lower(task.planned, task.config, 1, feeds=task.feeds, evaluated=True)
        except Unlumpable as error:
            reason = str(error) or "the graph cannot be lumped"
    if options.arithmetic == "exact":
        name = task.loaded.name
        raise RunError(f"{name}: cannot be evaluated exactly: {reason}; --arithmetic auto takes what can be run")
    return reason


class Ran(NamedTuple):
    """What each constant gave in one arithmetic.

    executor: what ran them, None where nothing had to run; cut_off: why. reruns: what the judge may ask for.
    """

    executor: Executor | None
    results: Mapping[float, ForwardResult]
    cut_off: CutOff | None
    reruns: Reruns | ExactReruns
    precision: Precision


def judge_pair(task: Task, ran: Ran, pair: tuple[float, float], runner: Runner) -> Verdict:
    """Return the verdict on two of the constants that were run. runner: what the judge asks."""
    facts = task.facts
    first, second = (ran.results[constant] for constant in pair)
    node = None if ran.cut_off is None else ran.cut_off.node
    constant_reason = None if ran.cut_off is None else f"{ran.cut_off.why}{advice(node)}"
    evidence = Evidence(
        pair, (first.output, second.output), (first.channel_stats, second.channel_stats), facts.depth,
        facts.longest_sum, facts.sample_norms, constant_reason, facts.without_weights, ran.precision,
        None if node is None else str(node.name), isinstance(runner, WithoutReasons),
    )  # fmt: skip
    return judge(evidence, runner)


def _exactly(task: Task, executor: ExactExecutor) -> Judged:
    ran = ran_exactly(task, executor)
    assert isinstance(ran.executor, ExactExecutor)
    verdict = judge_pair(task, ran, task.options.weights, ran.reruns)
    ordered = verdict.status is Status.OK and task.cut_axes is None
    order = ran.executor.order(task.feeds.arrays) if ordered else None
    return Judged(verdict, "exact", ran.executor, order)


def ran_exactly(task: Task, executor: ExactExecutor) -> Ran:
    """Run each constant in exact arithmetic."""
    refuse_if_too_large(executor.peak_bytes(), task.loaded.name, task.config.jobs)
    results = _checked(task, executor.run(task.constants, task.feeds.arrays, task.cut_axes))
    reruns = ExactReruns(
        executor, task.feeds, lambda: task.of_few().feeds.arrays, task.options.seed, task.cut_axes, task.check_sizes,
        task.options.weights, task.planned.model.graph,
    )  # fmt: skip
    return Ran(executor, results, None, reruns, EXACT)


def cut_off(task: Task, lowered: LumpedModel) -> Ran:
    """Return what stands for the outputs of a graph of which the partitions prove that no path leads through it."""
    assert lowered.cut_off is not None
    return _ran(task, None, lowered.cut_off)


def in_float32(task: Task) -> Judged:
    """Follow the published procedure."""
    return _judged(task, ran_in_float32(task))


def _status_in_float32(task: Task, lowered: LumpedModel, exact: Judged) -> Status:
    """Return the status that float32 gives, as our own evaluator has it where it runs the graph.

    A few of the samples tell that there is a score, or that there can be none because the output, which is known to
    vary, does so by less than float32's smallest number. Otherwise all are asked.
    """
    asked = StatusOnly if exact.verdict.status is Status.OK else WithoutReasons
    apart = exact.executor.log2_apart if isinstance(exact.executor, ExactExecutor) else {}
    lost = any(apart.get(constant, 0.0) < _LOST for constant in task.options.weights)
    certain = (Status.OK, Status.UNDERFLOW) if lost else (Status.OK,)
    try:
        executor = LumpedExecutor(lowered, task.planned, task.config, PlainEvaluator)
        with contextlib.suppress(RunError):  # the graph is made for the whole minibatch
            few = task.of_few()
            status = _judged(few, _ran(few, executor), asked).verdict.status
            if status in certain:
                return status
        return _judged(task, _ran(task, executor), asked).verdict.status
    except RunError:
        return _judged(task, ran_in_float32(task), WithoutReasons).verdict.status


def ran_in_float32(task: Task) -> Ran:
    """Run each constant as the published procedure does."""
    together = 2  # as many as `score` runs, so that a pair of many constants is what it is alone
    return _ran(task, *choose_executor(task.planned, task.config, together, task.feeds))


def _ran(task: Task, executor: Executor | None, cut: CutOff | None = None) -> Ran:
    results = [ForwardResult.nothing()] * len(task.constants)
    if executor is not None:
        executor, results = _run(task, executor)
    by_constant = _checked(task, results)
    sizes = {constant: done.output.size for constant, done in by_constant.items()}
    reruns = Reruns(
        task.loaded, task.planned, task.batching, task.config, executor, task.feeds, task.constants, sizes
    )  # fmt: skip
    return Ran(executor, by_constant, cut, reruns, FLOAT32)


def _judged(task: Task, ran: Ran, asked: Callable[[Runner], Runner] | None = None) -> Judged:
    """Judge what float32 gave. asked: makes what the judge may ask for out of all that there is.

    Looking for the node that a reason names takes as long as the rest.
    """
    verdict = judge_pair(task, ran, task.options.weights, ran.reruns if asked is None else asked(ran.reruns))
    return Judged(verdict, "float32", ran.executor, float32=verdict.status)


def _run(task: Task, executor: Executor) -> tuple[Executor, list[ForwardResult]]:
    """Run all constants; a lumped graph that cannot be run gives way to the plain one."""
    constants, arrays = task.constants, task.feeds.arrays
    try:
        return executor, executor.run(constants, arrays, task.cut_axes)
    except RunError:
        if not executor.lumped:
            raise
    plain = PlainExecutor(task.planned, task.config)
    return plain, plain.run(constants, arrays, task.cut_axes)


def _checked(task: Task, results: Sequence[ForwardResult]) -> dict[float, ForwardResult]:
    """Return results by constant; raises ModelError where outputs have different numbers of entries."""
    found = dict(zip(task.constants, results, strict=True))
    task.check_sizes({constant: done.output.size for constant, done in found.items()})
    return found


def _order_of_few(task: Task, executor: ExactExecutor | None) -> float | None:
    """Return the order as a few samples give it, which is that of all; where these are equal, as all give it."""
    arrays = task.feeds.arrays
    if task.batching.per_sample:
        return None
    if executor is None:
        return _order_lowered_anew(task)
    with contextlib.suppress(RunError):  # the graph is made for the whole minibatch
        found = executor.order(arrays, few_only=True)
        if found is not None:
            return found
    found = _order_lowered_anew(task)
    if found is None:
        with contextlib.suppress(OutOfMemory, RunError):
            refuse_if_too_large(executor.peak_bytes(), task.loaded.name, task.config.jobs)
            found = executor.order(arrays)
    return found


def _order_lowered_anew(task: Task) -> float | None:
    """Return the same by a graph that is made for so few samples."""
    batching = task.batching
    if batching.options.loosen:  # the graph was rewritten for its minibatch
        few = plan(task.loaded, batching.traced, batching.options)
    else:
        few = task.planned.with_batch(batching.traced)
    arrays = few_samples(task.feeds.arrays, task.feeds.axes, batching.traced, few.demands)
    try:
        lowered = lower(few, task.config, 1, feeds=task.feeds, evaluated=True)
        executor = ExactExecutor(lowered, few.outputs, task.feeds.axes)
        refuse_if_too_large(executor.peak_bytes(), task.loaded.name, task.config.jobs)
        return executor.order(arrays)
    except (Unlumpable, OutOfMemory, RunError):
        return None
