"""Works on models in worker processes; a model that kills its process, or breaks a limit, costs its own row alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import onnx
import onnx_ir as ir

from epsinas_onnx._util.logging import quiet_libraries
from epsinas_onnx.graph.load import ModelSource, source_name
from epsinas_onnx.scoring.limits import NO_LIMITS, Limits
from epsinas_onnx.scoring.measured import unmeasured
from epsinas_onnx.scoring.options import ScoreOptions
from epsinas_onnx.scoring.result import Score
from epsinas_onnx.scoring.single import error_score, score_or_error
from epsinas_onnx.scoring.supervisor import Failure, Workers

T = TypeVar("T")


def score_in_processes(
    models: Iterable[ModelSource], options: ScoreOptions, limits: Limits = NO_LIMITS
) -> Iterator[tuple[int, Score]]:
    """Yield the position and the Score of each model as they come, computed by `options.jobs` processes.

    Paths are handed to the workers as they are, models in memory as their serialised form. Where other scores are asked
    for and the process is lost, by a limit or by a fault, the model is scored once more without them at the end: the
    other scores are most often to blame, and cost the model's own nothing.
    """
    sent: dict[int, ModelSource] = {}

    def tasks() -> Iterator[tuple[str, tuple[Any, ...]]]:
        for index, model in enumerate(models):
            if options.proxies:
                sent[index] = model
            yield _task(model, options)

    lost: dict[int, tuple[ModelSource, Failure]] = {}
    for index, found in work_in_processes(_score_named, tasks(), options.jobs, _Lost, limits):
        model = sent.pop(index, None)
        if isinstance(found, Score):
            yield index, found
        elif model is None:
            yield index, found.score(options)
        else:
            lost[index] = model, found.failure
    alone = dataclasses.replace(options, proxies=())
    again = (_task(model, alone) for model, _ in lost.values())
    for number, found in work_in_processes(_score_named, again, options.jobs, _Lost, limits) if lost else ():
        index = list(lost)[number]
        if isinstance(found, Score):
            failure = lost[index][1]
            others = unmeasured(options.proxies, f"{found.model}: {failure.cause}", failure.seconds)
            yield index, dataclasses.replace(found, proxies=others, proxy_batch=options.proxy_batch)
        else:
            yield index, found.score(options)


@dataclass(frozen=True)
class _Lost:
    """A model whose process was lost."""

    name: str
    failure: Failure

    def score(self, options: ScoreOptions) -> Score:
        return error_score(self.name, options, f"{self.name}: {self.failure.cause}", self.failure.seconds)


def _task(model: ModelSource, options: ScoreOptions) -> tuple[str, tuple[Any, ...]]:
    return source_name(model), (portable(model), source_name(model), options)


def work_in_processes(
    work: Callable[..., T],
    tasks: Iterable[tuple[str, tuple[Any, ...]]],
    jobs: int,
    failed: Callable[[str, Failure], T],
    limits: Limits = NO_LIMITS,
) -> Iterator[tuple[int, T]]:
    """Yield the position and the result of each task as they come, computed by `jobs` processes.

    tasks: the name of each and the arguments of `work`, which must be picklable. failed: makes the result of a task
    that has none. What `work` raises passes through.
    """
    names: dict[int, str] = {}

    def arguments() -> Iterator[tuple[Any, ...]]:
        for index, (name, args) in enumerate(tasks):
            names[index] = name
            yield args

    with Workers(jobs, limits) as workers:
        for index, result in workers.results(work, arguments()):
            name = names.pop(index)
            yield index, failed(name, result) if isinstance(result, Failure) else result


def call(work: Callable[..., T], args: tuple[Any, ...], options: Mapping[str, Any]) -> T:
    """Call a function in a worker process."""
    quiet_libraries()
    return work(*args, **options)


def call_for_nothing(work: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Call a function in a worker process for what it writes: its result may be gigabytes."""
    call(work, args, options)


def _score_named(model: ModelSource, name: str, options: ScoreOptions) -> Score | _Lost:
    quiet_libraries()
    return dataclasses.replace(score_or_error(model, options), model=name)


def portable(model: ModelSource) -> ModelSource:
    """Return a model as what another process can be handed: one in memory in its serialised form."""
    if isinstance(model, ir.Model):
        model = ir.to_proto(model)
    return model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
