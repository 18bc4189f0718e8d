"""Finds the two constants for a set of networks: `find_weights`."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, Unpack

import numpy as np

from epsinas_onnx.constants.result import FoundWeights, found_weights
from epsinas_onnx.constants.run import PairScores, run_constants
from epsinas_onnx.errors import UsageError
from epsinas_onnx.graph.load import ModelSource
from epsinas_onnx.inputs.given import read_given
from epsinas_onnx.inputs.minibatch import is_kind
from epsinas_onnx.runtime.providers import choose_providers
from epsinas_onnx.scoring.jobs import Jobs, choose_jobs
from epsinas_onnx.scoring.limits import Limits
from epsinas_onnx.scoring.options import ScoreKeywords, ScoreOptions, check_constant, score_options

T = TypeVar("T")

CONSTANTS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""The paper's eight constants, which are 28 pairs."""

SAMPLE = 100
"""Networks that the paper's published code looks at."""


def find_weights(
    models: Iterable[ModelSource],
    *,
    constants: Sequence[float] = CONSTANTS,
    accuracies: Sequence[float | None] | None = None,
    lower_is_better: bool = False,
    jobs: Jobs = 1,
    isolate: bool = False,
    timeout: float = 0.0,
    memory: float = 0.0,
    **options: Unpack[ScoreKeywords],
) -> FoundWeights:
    """Find the two constants for a set of networks: each constant is run once, and every pair is judged.

    Without accuracies the paper's rule chooses: the widest pair with which fewer than 10 % of the networks have no
    score. With them the pair is taken whose scores rank the networks best, and of pairs within 0.005 of it the widest.

    Args:
        models: what `score` takes, any number of them; networks of one family of a search space are run once.
        constants: at least two different numbers above 0, the paper's eight powers of ten from 1e-7 to 1 unless given.
        accuracies: one number for each model, None or NaN where it is unknown.
        lower_is_better: whether they are losses.
        jobs: worker processes, as for `score_many`; 1 runs in this process.
        isolate: whether one job runs in a worker process all the same; see `score_many`.
        timeout: seconds that one model may take with all constants, 0 for no limit.
        memory: GB that one worker process may hold, 0 for no limit.
        **options: how each is scored: `inputs`, `batch`, `shapes`, `outputs`, `roles`, `norm_stats`, `lump`,
            `providers`, `seed`, `dtype`, `threads`, `restore_batchnorm`, `arithmetic` and `device_memory`, each the
            keyword argument that `score` has; `weights`, `scores` and `proxy_batch` mean nothing here.

    Returns:
        The pair, and for every other one how many networks it scores (docs/weights.md). In exact arithmetic the score
        of a network and a pair is the one that `score` gives with those weights, to the bit; in float32 it is the same
        within rounding.

    Raises:
        UsageError: an argument is wrong; said before anything is run.

    Source:
        The epsinas paper (Gracheva 2025, arXiv 2302.04406), and `search_weights` of its published code.

    Examples:
        >>> found = find_weights(["models/nb201-p-c1-s-c1-s-s.onnx", "models/mobilenet_v2.onnx"], batch=16)
        >>> print(found.weights, found.of((1e-7, 1.0)).scored, found.of((1e-7, 1.0)).total)
        (1e-07, 1.0) 2 2
    """
    listed = list(models)
    if accuracies is not None and len(accuracies) != len(listed):
        raise UsageError(f"there are {len(listed)} models and {len(accuracies)} accuracies; give one for each")
    ordered, checked = check_options(constants, listed, jobs=jobs, **options)
    limits = Limits(timeout, memory)
    found: dict[int, PairScores] = dict(run_constants(listed, ordered, checked, isolate=isolate, limits=limits))
    networks = [found[index] for index in range(len(listed))]
    return found_weights(networks, ordered, checked.arithmetic, accuracies, lower_is_better=lower_is_better)


def check_options(
    constants: Sequence[float], models: Sequence[object], *, jobs: Jobs = 1, **options: Unpack[ScoreKeywords]
) -> tuple[tuple[float, ...], ScoreOptions]:
    """Return the constants in order, and the options of every pair; raises UsageError for wrong ones."""
    count = choose_jobs(jobs, models, options.get("providers", "auto"))
    ordered = check_constants(constants)
    given: Any = {key: value for key, value in options.items() if key not in ("weights", "scores", "proxy_batch")}
    checked = score_options(**given, weights=(ordered[0], ordered[-1]), jobs=count)
    choose_providers(checked.providers)
    if not is_kind(checked.inputs):
        read_given(checked.inputs)
    return ordered, checked


def check_constants(constants: Sequence[float]) -> tuple[float, ...]:
    """Return different constants, the smallest first; raises UsageError where they are no pair of numbers above 0."""
    try:
        numbers = sorted({float(constant) for constant in constants})
    except (TypeError, ValueError):
        raise UsageError(f"constants are numbers, such as 1e-7, 1e-3 and 1, not {constants!r}") from None
    for constant in numbers:
        check_constant(constant)
        if not constant > 0:
            raise UsageError(
                f"the constant {constant:g} is not above 0; pairs are compared by the ratio of their constants"
            )
    if len({float(np.float32(number)) for number in numbers}) < len(numbers):
        raise UsageError("two of the constants are equal in float32, so they cannot differ; give different ones")
    if len(numbers) < 2:
        raise UsageError("one constant makes no pair; give at least two different ones")
    return tuple(numbers)


def drawn(models: Sequence[T], count: int, seed: int) -> list[T]:
    """Return `count` models drawn at random without repetition, in their order; all where there are no more."""
    if count >= len(models):
        return list(models)
    chosen = sorted(random.Random(seed).sample(range(len(models)), count))
    return [models[index] for index in chosen]
