"""Works on models in worker processes; a model that kills its process, or breaks a limit, costs its own row alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import onnx
import onnx_ir as ir

from epsinas_onnx._util.logging import quiet_libraries
from epsinas_onnx.errors import OutOfMemory
from epsinas_onnx.graph.load import ModelSource, source_name
from epsinas_onnx.scoring.alike import Alike
from epsinas_onnx.scoring.limits import NO_LIMITS, Limits
from epsinas_onnx.scoring.measured import unmeasured
from epsinas_onnx.scoring.options import ScoreOptions
from epsinas_onnx.scoring.result import Score
from epsinas_onnx.scoring.single import error_score, score_or_error
from epsinas_onnx.scoring.supervisor import Failure, Workers

T = TypeVar("T")

_batch: Alike[Any] = Alike()
"""What this process has scored: a worker process serves one batch."""


def score_in_processes(
    models: Iterable[ModelSource], options: ScoreOptions, limits: Limits = NO_LIMITS
) -> Iterator[tuple[int, Score]]:
    """Yield the position and the Score of each model as they come, computed by `options.jobs` processes.

    Paths are handed to the workers as they are, models in memory as their serialised form. At the end some are scored
    once more: a model that needs more memory than its share is scored alone, with all that there is; and where other
    scores are asked for and the process is lost, by a limit or by a fault, the model is scored without them, since they
    are most often to blame, and cost the model's own nothing.
    """
    sent: dict[int, ModelSource] = {}

    def tasks() -> Iterator[tuple[str, tuple[Any, ...]]]:
        for index, model in enumerate(models):
            sent[index] = model
            yield _task(model, options)

    crowded: dict[int, ModelSource] = {}
    lost: dict[int, tuple[ModelSource, Failure]] = {}
    listed = isinstance(models, Sequence)  # otherwise what comes next may follow from results, as in a search
    for index, found in work_in_processes(_score_named, tasks(), options.jobs, _Lost, limits, ahead=listed):
        model = sent.pop(index)
        if isinstance(found, Score):
            yield index, found
        elif found.failure is None:
            crowded[index] = model
        elif options.proxies:
            lost[index] = model, found.failure
        else:
            yield index, found.score(options)
    whole = dataclasses.replace(options, jobs=1)
    for index, found in _again(crowded, whole, limits):
        yield index, found if isinstance(found, Score) else found.score(options)
    alone = dataclasses.replace(options, proxies=())
    for index, found in _again({index: model for index, (model, _) in lost.items()}, alone, limits):
        failure = lost[index][1]
        if isinstance(found, Score):
            others = unmeasured(options.proxies, f"{found.model}: {failure.cause}", failure.seconds)
            yield index, dataclasses.replace(found, proxies=others, proxy_batch=options.proxy_batch)
        else:
            yield index, found.score(options)


def _again(
    models: Mapping[int, ModelSource], options: ScoreOptions, limits: Limits
) -> Iterator[tuple[int, Score | _Lost]]:
    """Score some of the models once more, by their positions."""
    if not models:
        return
    places = list(models)
    tasks = [_task(model, options) for model in models.values()]
    for number, found in work_in_processes(_score_named, tasks, options.jobs, _Lost, limits):
        yield places[number], found


@dataclass(frozen=True)
class _Lost:
    """A model without a result: how its process was lost, None where it needs more memory than its share."""

    name: str
    failure: Failure | None

    def score(self, options: ScoreOptions) -> Score:
        assert self.failure is not None
        return error_score(self.name, options, f"{self.name}: {self.failure.cause}", self.failure.seconds)


def _task(model: ModelSource, options: ScoreOptions) -> tuple[str, tuple[Any, ...]]:
    return source_name(model), (portable(model), source_name(model), options)


def work_in_processes(
    work: Callable[..., T],
    tasks: Iterable[tuple[str, tuple[Any, ...]]],
    jobs: int,
    failed: Callable[[str, Failure], T],
    limits: Limits = NO_LIMITS,
    *,
    ahead: bool = False,
) -> Iterator[tuple[int, T]]:
    """Yield the position and the result of each task as they come, computed by `jobs` processes.

    tasks: the name of each and the arguments of `work`, which must be picklable. failed: makes the result of a task
    that has none. ahead: see `Workers.results`. What `work` raises passes through.
    """
    names: dict[int, str] = {}

    def arguments() -> Iterator[tuple[Any, ...]]:
        for index, (name, args) in enumerate(tasks):
            names[index] = name
            yield args

    with Workers(jobs, limits) as workers:
        for index, result in workers.results(work, arguments(), ahead=ahead):
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
    try:
        with _batch.scoring():
            found = score_or_error(model, options, raises=OutOfMemory if options.jobs > 1 else ())
    except OutOfMemory:
        return _Lost(name, None)
    return dataclasses.replace(found, model=name)


def portable(model: ModelSource) -> ModelSource:
    """Return a model as what another process can be handed: one in memory in its serialised form."""
    if isinstance(model, ir.Model):
        model = ir.to_proto(model)
    return model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
