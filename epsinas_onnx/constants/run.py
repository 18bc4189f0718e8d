"""Runs each constant once on every network, and gives the score of every pair of them, as they come."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from epsinas_onnx._util.gc import collection_paused
from epsinas_onnx._util.logging import quiet_libraries
from epsinas_onnx.graph.load import LoadedModel, ModelSource, load_model, source_name
from epsinas_onnx.inputs.minibatch import input_text
from epsinas_onnx.runtime.providers import Provider
from epsinas_onnx.scoring.limits import NO_LIMITS, Limits
from epsinas_onnx.scoring.options import ScoreOptions
from epsinas_onnx.scoring.pairs import Pair, PairScore, judge_pairs
from epsinas_onnx.scoring.pipeline import make_task
from epsinas_onnx.scoring.single import attempted, or_error
from epsinas_onnx.scoring.supervisor import Failure


@dataclass(frozen=True)
class PairScores:
    """What every pair of constants gives for one network.

    Attributes:
        model: where it came from, as of `Score`.
        pairs: by the two constants, the smaller one first; empty where the network could not be run.
        input: what was fed, in words.
        batch: how many samples.
        seconds: wall clock of everything.
        reason: one sentence that says why the network could not be run, None where it could.
    """

    model: str
    pairs: Mapping[Pair, PairScore] = field(repr=False)
    input: str
    batch: int
    seconds: float
    reason: str | None = None


def run_constants(
    models: Sequence[ModelSource],
    constants: tuple[float, ...],
    options: ScoreOptions,
    *,
    isolate: bool = False,
    limits: Limits = NO_LIMITS,
) -> Iterator[tuple[int, PairScores]]:
    """Yield the position and the scores of each network as they come, computed by `options.jobs` processes.

    constants: the smallest first. Networks that say to be of one family (`SearchSpace.family`) compute the same while
    all weights are one constant, so one of them is run. A network that cannot be run, that kills its process or breaks
    a limit, has a reason and no pairs.
    """
    families: dict[Any, list[int]] = {}
    for index, model in enumerate(models):
        families.setdefault(_family(model, index), []).append(index)
    members = list(families.values())
    run = [models[first] for first, *_ in members]
    for number, found in _run(run, constants, options, isolate, limits):
        first, *others = members[number]
        yield first, found
        for index in others:
            yield index, dataclasses.replace(found, model=source_name(models[index]), seconds=0.0)


def _run(
    models: Sequence[ModelSource], constants: tuple[float, ...], options: ScoreOptions, isolate: bool, limits: Limits
) -> Iterator[tuple[int, PairScores]]:
    if options.jobs == 1 and not isolate and limits == NO_LIMITS:
        for index, model in enumerate(models):
            yield index, _scores(model, source_name(model), constants, options)
        return
    from epsinas_onnx.scoring.workers import portable, work_in_processes

    def tasks() -> Iterable[tuple[str, tuple[Any, ...]]]:
        for model in models:
            yield source_name(model), (portable(model), source_name(model), constants, options)

    def failed(name: str, failure: Failure) -> PairScores:
        return _failed(name, options)(f"{name}: {failure.cause}", failure.seconds)

    yield from work_in_processes(_scores, tasks(), options.jobs, failed, limits)


def _scores(model: ModelSource, name: str, constants: tuple[float, ...], options: ScoreOptions) -> PairScores:
    """Run one network; whatever keeps it from running is a reason."""
    quiet_libraries()

    def of(
        loaded: LoadedModel, providers: Sequence[Provider], attempt: int, load_seconds: float, last: bool
    ) -> PairScores:  # fmt: skip
        started = time.perf_counter()
        task, minibatch = make_task(loaded, options, providers, attempt, constants, last)
        found = judge_pairs(task)
        fed = minibatch.text(task.planned.specs, task.planned.demands)
        return PairScores(name, found, fed, task.batching.samples, load_seconds + time.perf_counter() - started)

    def work() -> PairScores:
        with collection_paused():
            return attempted(lambda: load_model(model, options.named_inputs), options, False, of)

    return or_error(name, work, _failed(name, options))


def _failed(name: str, options: ScoreOptions) -> Callable[[str, float], PairScores]:
    return lambda reason, seconds: PairScores(name, {}, input_text(options.inputs), options.batch, seconds, reason)


def _family(model: ModelSource, index: int) -> Any:
    """Return what networks that compute the same have in common; one without, or a bad one, is a family alone."""
    try:
        family = getattr(model, "family", None)
    except ValueError:
        family = None
    space = getattr(model, "space", "")
    return (type(model), str(space), family) if isinstance(family, str) else index
