"""Scores one model with checked options: load, the sizes to try for free dimensions, and the row of one that fails."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from epsinas_onnx._util.gc import collection_paused
from epsinas_onnx._util.text import unexpected
from epsinas_onnx.errors import ModelError, OutOfMemory, RunError, ShapeError, UsageError
from epsinas_onnx.graph.analysis.shapes import attempts, free_dimensions
from epsinas_onnx.graph.load import LoadedModel, ModelSource, load_model, source_name
from epsinas_onnx.inputs.minibatch import input_text
from epsinas_onnx.runtime.providers import Provider, choose_providers
from epsinas_onnx.scoring.measured import measurements, unmeasured
from epsinas_onnx.scoring.options import ScoreOptions
from epsinas_onnx.scoring.pipeline import score_loaded
from epsinas_onnx.scoring.result import Score, Status
from epsinas_onnx.versions import versions

T = TypeVar("T")


def score_or_error(
    model: ModelSource,
    options: ScoreOptions,
    load: Callable[[], LoadedModel] | None = None,
    raises: type[ModelError] | tuple[()] = (),
) -> Score:
    """Score one model; a ModelError becomes a Score with status `error`.

    load: gives the model where it was read. raises: a kind of error that is raised all the same.
    """
    if not options.proxies:
        return _score_or_error(model, options, load, raises)
    load = _once(model, options, load)
    return _with_others(_score_or_error(model, options, load, raises), load, options)


def _score_or_error(
    model: ModelSource,
    options: ScoreOptions,
    load: Callable[[], LoadedModel] | None,
    raises: type[ModelError] | tuple[()],
) -> Score:
    name = source_name(model)
    return or_error(
        name, lambda: _alone(model, options, load), lambda reason, seconds: error_score(name, options, reason, seconds),
        raises,
    )  # fmt: skip


def or_error(
    name: str, work: Callable[[], T], failed: Callable[[str, float], T], raises: type[ModelError] | tuple[()] = ()
) -> T:
    """Return what `work` makes of a model, or `failed` of the reason why it could not, and of the seconds it took."""
    started = time.perf_counter()
    try:
        return work()
    except raises:
        raise
    except ModelError as error:
        reason = str(error)
    except UsageError:
        raise
    except MemoryError:
        reason = f"{name}: needs more memory than there is; try a smaller --batch or --shape"
    except Exception as error:  # whatever a foreign file provokes costs one row, never the batch
        reason = unexpected(name, error)
    return failed(reason, time.perf_counter() - started)


def error_score(model: str, options: ScoreOptions, reason: str, seconds: float) -> Score:
    """Return the Score of a model that could not be scored."""
    return Score(
        model=model, score=None, raw_score=None, status=Status.ERROR, reason=reason, weights=options.weights,
        input=input_text(options.inputs), batch=options.batch, provider=None, parameters=None, nodes=None,
        seconds={"total": seconds}, norm_stats=options.norm_stats, seed=options.seed,
        proxies=unmeasured(options.proxies, reason), proxy_batch=options.proxy_batch if options.proxies else None,
        versions=versions(),
    )  # fmt: skip


def score_with(source: ModelSource, options: ScoreOptions, load: Callable[[], LoadedModel] | None = None) -> Score:
    """Score one model with checked options; see `score` and `score_or_error`."""
    if not options.proxies:
        return _alone(source, options, load)
    load = _once(source, options, load)
    return _with_others(_alone(source, options, load), load, options)


def _once(
    source: ModelSource, options: ScoreOptions, load: Callable[[], LoadedModel] | None
) -> Callable[[], LoadedModel]:
    """Return what gives a model that several scores read, and reads it, or builds it, once."""
    return functools.cache(load or (lambda: load_model(source, options.named_inputs)))


def _with_others(found: Score, load: Callable[[], LoadedModel], options: ScoreOptions) -> Score:
    """Return a Score with the other scores that are asked for, which it neither costs anything nor depends on."""
    started = time.perf_counter()
    measured = measurements(load, found.model, options)
    seconds = {**found.seconds, "proxies": round(time.perf_counter() - started, 6)}
    return dataclasses.replace(found, proxies=measured, proxy_batch=options.proxy_batch, seconds=seconds)


def _alone(source: ModelSource, options: ScoreOptions, load: Callable[[], LoadedModel] | None) -> Score:
    with collection_paused():
        return _scored(load or (lambda: load_model(source, options.named_inputs)), options, shared=load is not None)


def _scored(load: Callable[[], LoadedModel], options: ScoreOptions, shared: bool) -> Score:
    started = time.perf_counter()

    def score(
        loaded: LoadedModel, providers: Sequence[Provider], attempt: int, load_seconds: float, last: bool
    ) -> Score:  # fmt: skip
        return score_loaded(loaded, options, providers, attempt, load_seconds, last)

    found = attempted(load, options, shared, score)
    rest = time.perf_counter() - started - sum(found.seconds.values())
    return dataclasses.replace(found, seconds={**found.seconds, "judge": round(max(rest, 0.0), 6)})


def attempted(
    load: Callable[[], LoadedModel], options: ScoreOptions, shared: bool,
    work: Callable[[LoadedModel, Sequence[Provider], int, float, bool], T],
) -> T:  # fmt: skip
    """Return what `work` makes of a model with the first default sizes for free dimensions that run.

    shared: whether others need what `load` gives. work: takes the loaded model, the providers, which of the default
    sizes to take, the seconds that loading took, and whether nobody needs the model afterwards.

    Raises what `work` raised for the first of the sizes.
    """
    providers = choose_providers(options.providers, options.device_share)
    started = time.perf_counter()
    loaded = load()
    seconds = time.perf_counter() - started
    tries = attempts(loaded.model) if free_dimensions(loaded.model, loaded.name, options.shapes) else 1
    first_error: ModelError | None = None
    for attempt in range(tries):
        try:
            return work(loaded, providers, attempt, seconds, not shared and attempt + 1 == tries)
        except (ShapeError, RunError) as error:
            first_error = first_error or error
        except OutOfMemory:
            if first_error is None:
                raise
    assert first_error is not None
    raise first_error
