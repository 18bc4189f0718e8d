"""Works on models in worker processes; a worker that dies costs the model it held, and no other."""

from __future__ import annotations

import collections
import dataclasses
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import onnx
import onnx_ir as ir
from pebble import ProcessExpired, ProcessFuture, ProcessPool

from epsinas_onnx._util.logging import quiet_libraries
from epsinas_onnx.graph.load import ModelSource, source_name
from epsinas_onnx.scoring.options import ScoreOptions
from epsinas_onnx.scoring.result import Score
from epsinas_onnx.scoring.single import error_score, score_or_error

T = TypeVar("T")

_TASKS_PER_WORKER = 200  # a worker is replaced after so many models, and gives its memory back
_AHEAD = 4  # models handed out per worker before their results are taken


def score_in_processes(models: Iterable[ModelSource], options: ScoreOptions) -> Iterator[Score]:
    """Yield the Score of each model in order, computed by `options.jobs` spawned processes.

    Paths are handed to the workers as they are, models in memory as their serialised form.
    """

    def died(name: str, cause: str) -> Score:
        return error_score(name, options, f"{name}: {cause}", 0.0)

    tasks = ((source_name(model), (_portable(model), source_name(model), options)) for model in models)
    return work_in_processes(_score_named, tasks, options.jobs, died)


def work_in_processes(
    work: Callable[..., T], tasks: Iterable[tuple[str, tuple[Any, ...]]], jobs: int, died: Callable[[str, str], T]
) -> Iterator[T]:
    """Yield the results of `work`, a function of a module, in order, computed by `jobs` spawned processes.

    tasks: the name of each and the arguments of `work`, which must be picklable. died: makes the result of a task
    whose worker died, from its name and the cause, a sentence without the name. What `work` raises passes through.
    """
    waiting: collections.deque[tuple[str, ProcessFuture[T]]] = collections.deque()
    with Workers(jobs) as workers:
        for name, args in tasks:
            waiting.append((name, workers.start(work, args)))
            if len(waiting) >= _AHEAD * jobs:
                yield _result(*waiting.popleft(), died)
        while waiting:
            yield _result(*waiting.popleft(), died)


class Workers:
    """Spawned processes that are kept between tasks, and replaced when they die; a context manager."""

    def __init__(self, jobs: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPool(max_workers=jobs, max_tasks=_TASKS_PER_WORKER, context=context)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, whatever they do."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def start(self, work: Callable[..., T], args: tuple[Any, ...]) -> ProcessFuture[T]:
        """Hand out a task."""
        return self._pool.schedule(work, args=args)

    def run(self, work: Callable[..., T], args: tuple[Any, ...], died: Callable[[str], T]) -> T:
        """Return the result of one task; `died` makes it from the cause where its worker died."""
        return _result("", self.start(work, args), lambda _, cause: died(cause))


def _result(name: str, future: ProcessFuture[T], died: Callable[[str, str], T]) -> T:
    try:
        return future.result()
    except ProcessExpired as error:
        return died(
            name,
            f"its worker process died ({_cause(error.exitcode)}), most likely for lack of memory or by a fault in ONNX "
            f"Runtime; try a smaller --batch, another --shape or fewer --jobs",
        )


def _cause(code: int) -> str:
    """Return how a process ended, by the signal's name where it was one."""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


def _score_named(model: ModelSource, name: str, options: ScoreOptions) -> Score:
    quiet_libraries()
    return dataclasses.replace(score_or_error(model, options), model=name)


def _portable(model: ModelSource) -> ModelSource:
    if isinstance(model, ir.Model):
        model = ir.to_proto(model)
    return model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
