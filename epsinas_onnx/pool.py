"""Scores models in worker processes; a worker that dies costs the model it held, and no other."""

from __future__ import annotations

import collections
import dataclasses
import multiprocessing
import signal
from collections.abc import Iterable, Iterator

import onnx
import onnx_ir as ir
from pebble import ProcessExpired, ProcessFuture, ProcessPool

from epsinas_onnx.graph.load import ModelSource, source_name
from epsinas_onnx.options import ScoreOptions
from epsinas_onnx.quiet import quiet_libraries
from epsinas_onnx.result import Score
from epsinas_onnx.scorer import error_score, score_or_error

_TASKS_PER_WORKER = 200  # a worker is replaced after so many models, and gives its memory back
_AHEAD = 4  # models handed out per worker before their results are taken


def score_in_processes(models: Iterable[ModelSource], options: ScoreOptions) -> Iterator[Score]:
    """Yield the Score of each model in order, computed by `options.jobs` spawned processes.

    Paths are handed to the workers as they are, models in memory as their serialised form.
    """
    context = multiprocessing.get_context("spawn")
    waiting: collections.deque[tuple[str, ProcessFuture[Score]]] = collections.deque()
    with ProcessPool(max_workers=options.jobs, max_tasks=_TASKS_PER_WORKER, context=context) as pool:
        try:
            for model in models:
                future = pool.schedule(_score_named, args=(_portable(model), source_name(model), options))
                waiting.append((source_name(model), future))
                if len(waiting) >= _AHEAD * options.jobs:
                    yield _result(*waiting.popleft(), options)
            while waiting:
                yield _result(*waiting.popleft(), options)
        finally:
            pool.stop()  # type: ignore[no-untyped-call]


def _result(name: str, future: ProcessFuture[Score], options: ScoreOptions) -> Score:
    try:
        return future.result()
    except ProcessExpired as error:
        reason = (
            f"{name}: its worker process died ({_cause(error.exitcode)}), most likely for lack of memory or by a fault "
            f"in ONNX Runtime; try a smaller --batch, another --shape or fewer --jobs"
        )
        return error_score(name, options, reason, 0.0)


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
