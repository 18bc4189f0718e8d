"""Judges every pair of several constants, each of which is run once however many pairs it is in."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from epsinas_onnx.errors import ModelError
from epsinas_onnx.scoring.evaluated import ExactExecutor
from epsinas_onnx.scoring.judged import (
    Array,
    Ran,
    Task,
    cut_off,
    exact_executor,
    exact_or_large,
    judge_pair,
    lowered_or_reason,
    ran_exactly,
    ran_in_float32,
)
from epsinas_onnx.scoring.options import Arithmetic
from epsinas_onnx.scoring.reruns import WithoutReasons
from epsinas_onnx.scoring.result import Status

Pair: TypeAlias = tuple[float, float]
"""Two constants, the smaller one first."""


class PairScore(NamedTuple):
    """What `score` gives with one pair of constants: `score` is None unless `status` is `ok`."""

    score: float | None
    status: Status
    arithmetic: Arithmetic


def pairs_of(constants: tuple[float, ...]) -> list[Pair]:
    """Return every pair of constants, in their order."""
    return list(itertools.combinations(constants, 2))


def judge_pairs(task: Task) -> dict[Pair, PairScore]:
    """Run each constant of a task once, and judge every pair of them in the arithmetic that `judge_model` takes.

    In exact arithmetic constants are run one by one, so that a pair is to the bit what it is alone. In float32 two are
    run at a time, as for a score, but not the two of every pair. Where the judge doubts an output, what he has run
    again is kept for the other pairs of the constant.

    Raises what running the model does, where it runs in no arithmetic.
    """
    wanted = task.options.arithmetic
    if wanted == "float32":
        return _judged(task, ran_in_float32(task))
    lowered = lowered_or_reason(task)
    if isinstance(lowered, str):
        return _judged(task, ran_in_float32(task))
    if lowered.cut_off is not None:
        return _exact(_judged(task, cut_off(task, lowered)))
    if wanted == "exact":
        return _exactly(task, exact_executor(task, lowered))
    executor, large = exact_or_large(task, lowered)
    if not large and executor is not None:
        with contextlib.suppress(ModelError):
            return _exactly(task, executor)
    found = _judged(task, ran_in_float32(task))
    if executor is None or not large or all(one.status is Status.OK for one in found.values()):
        return found
    return _completed(task, executor, found)


def _completed(task: Task, executor: ExactExecutor, found: dict[Pair, PairScore]) -> dict[Pair, PairScore]:
    """Judge exactly what has no score in float32."""
    try:
        exact = _exactly(task, executor)
    except ModelError:
        return found
    return {pair: one if one.status is Status.OK else exact[pair] for pair, one in found.items()}


def _exactly(task: Task, executor: ExactExecutor) -> dict[Pair, PairScore]:
    return _exact(_judged(task, ran_exactly(task, executor)))


def _exact(found: Mapping[Pair, PairScore]) -> dict[Pair, PairScore]:
    return {pair: one._replace(arithmetic="exact") for pair, one in found.items()}


def _judged(task: Task, ran: Ran) -> dict[Pair, PairScore]:
    runner = _Remembering(ran)
    found = {}
    for pair in pairs_of(task.constants):
        verdict = judge_pair(task, ran, pair, runner)
        score = verdict.raw_score if verdict.status is Status.OK else None
        found[pair] = PairScore(score, verdict.status, "float32")
    return found


class _Remembering(WithoutReasons):
    """What the judge may ask for, with no node named, and no other constant tried twice."""

    def __init__(self, ran: Ran) -> None:
        super().__init__(ran.reruns)
        self._probed: dict[float, tuple[Array, Array]] = {}

    def run_probe_constant(self, constant: float) -> tuple[Array, Array]:
        """Run a few samples with another constant, plain and moved a little."""
        if constant not in self._probed:
            self._probed[constant] = super().run_probe_constant(constant)
        return self._probed[constant]
