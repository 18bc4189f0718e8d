"""Scores models: `score` for one, `score_many` for a batch in which a bad file costs one row."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from epsinas_onnx.attempt import Attempt, versions
from epsinas_onnx.collection import collection_paused
from epsinas_onnx.errors import ModelError, RunError, ShapeError, UsageError
from epsinas_onnx.graph.load import ModelSource, load_model, source_name
from epsinas_onnx.graph.rewrite import NormStats
from epsinas_onnx.graph.shapes import Shapes, attempts, free_dimensions
from epsinas_onnx.inputs.given import read_given
from epsinas_onnx.inputs.minibatch import input_text, is_kind
from epsinas_onnx.limits import NO_LIMITS, Limits
from epsinas_onnx.options import DEFAULT_BATCH, DEFAULT_WEIGHTS, ScoreOptions, score_options
from epsinas_onnx.result import Score, Status
from epsinas_onnx.runtime.providers import choose_providers
from epsinas_onnx.supervisor import in_order


def score(
    model: ModelSource,
    *,
    weights: tuple[float, float] = DEFAULT_WEIGHTS,
    inputs: Any = "auto",
    batch: int = DEFAULT_BATCH,
    shapes: Shapes | None = None,
    outputs: str | Sequence[str] | None = None,
    roles: Mapping[str, str] | None = None,
    norm_stats: NormStats = "batch",
    lump: bool = True,
    providers: str = "auto",
    seed: int = 0,
    dtype: str = "float32",
    threads: int = 0,
    restore_batchnorm: str = "auto",
) -> Score:
    """Score one ONNX model without training it, and without reading its weights.

    model: a path, the file's bytes, an `onnx.ModelProto` or an `onnx_ir.Model`; it is not modified.
    weights: the two constants that all weights are set to, one after the other.
    inputs: `auto` (the grey ramp for images, seeded normal for other floats, seeded tokens for integers), `grey`,
        `normal`, `uniform` or `tokens`; an array `[batch, ...]`; a mapping of input name to array; a .npy or .npz
        path; or a folder of images. Given arrays decide the batch.
    batch: samples in the minibatch, at least 2.
    shapes: sizes of free dimensions by name, and whole shapes by input name; the batch axis always follows `batch`.
    outputs: which values to compare, flattened together; any float value of the main graph. None: the first float
        output.
    roles: glob over `NODE:SLOT`, node or tensor name to `weight`, `bias`, `statistics`, `embedding` or `constant`.
    norm_stats: what BatchNormalization in inference form uses: the minibatch's own statistics (the definition of the
        metric), mean 0 and variance 1 (`reset`), or those in the file (`stored`).
    lump: whether identical channels are computed once (docs/lumping.md), which changes the score by rounding alone;
        False runs the plain graph.
    providers: `cpu`, `cuda`, `tensorrt`, or `auto`. threads: intra-op threads, 0 for one a core.
    dtype: the arithmetic: `float32`, which the metric is defined in, or `model` for the model's own float types.
    seed: of random inputs and of embedding tables.
    restore_batchnorm: behind which layers a BatchNormalization is put back that an exporter folded into them: `auto`
        (where there is evidence), `none`, `all` (every convolution but heads), or a glob over node names.

    Returns a Score whose `status` says whether there is a number. Raises UsageError for wrong arguments, ModelError
    (ShapeError, UnsupportedError, OutOfMemory, RunError) when this model cannot be scored.

    Source: the epsinas paper's metric, as DESIGN section 1 fixes it.
    """
    options = score_options(
        weights=weights, inputs=inputs, batch=batch, shapes=shapes, outputs=outputs, roles=roles, norm_stats=norm_stats,
        lump=lump, providers=providers, seed=seed, dtype=dtype, threads=threads, restore_batchnorm=restore_batchnorm,
    )  # fmt: skip
    return score_with(model, options)


def score_many(
    models: Iterable[ModelSource],
    *,
    jobs: int = 1,
    isolate: bool = False,
    timeout: float = 0.0,
    memory: float = 0.0,
    **options: Any,
) -> Iterator[Score]:
    """Score many models, yielding one Score each, in order; takes the keyword arguments of `score`.

    A model that cannot be scored is one Score with status `error` and the sentence that says why; so is one that
    kills its worker process, or breaks a limit. While it is waited for, the models behind it are scored.

    jobs: worker processes, each with one intra-op thread; 1 scores in this process, unless `isolate` or a limit asks
    for a worker process all the same: some files make ONNX Runtime end the process that runs them.
    timeout: seconds that one model may take. memory: GB that one worker process may hold. 0 for no limit.

    Raises UsageError for wrong arguments, before anything is scored.
    """
    results = score_as_done(models, jobs=jobs, isolate=isolate, timeout=timeout, memory=memory, **options)
    return in_order(results)


def score_as_done(
    models: Iterable[ModelSource],
    *,
    jobs: int = 1,
    isolate: bool = False,
    timeout: float = 0.0,
    memory: float = 0.0,
    **options: Any,
) -> Iterator[tuple[int, Score]]:
    """Yield the position and the Score of each model as they come; see `score_many`."""
    if jobs < 1:
        raise UsageError(f"there must be at least 1 job, not {jobs}")
    limits = Limits(timeout, memory)
    checked = score_options(**options, jobs=jobs)
    choose_providers(checked.providers)
    if not is_kind(checked.inputs):
        read_given(checked.inputs)
    if jobs == 1 and not isolate and limits == NO_LIMITS:
        return ((index, score_or_error(model, checked)) for index, model in enumerate(models))
    from epsinas_onnx.pool import score_in_processes

    return score_in_processes(models, checked, limits)


def score_or_error(model: ModelSource, options: ScoreOptions) -> Score:
    """Score one model; a ModelError becomes a Score with status `error`."""
    started = time.perf_counter()
    try:
        return score_with(model, options)
    except ModelError as error:
        return error_score(source_name(model), options, str(error), time.perf_counter() - started)
    except UsageError:
        raise
    except MemoryError:
        reason = f"{source_name(model)}: needs more memory than there is; try a smaller --batch or --shape"
        return error_score(source_name(model), options, reason, time.perf_counter() - started)
    except Exception as error:  # whatever a foreign file provokes costs one row, never the batch
        text = " ".join(str(error).split()) or type(error).__name__
        reason = f"{source_name(model)}: unexpected {type(error).__name__}: {text}; please report this file"
        return error_score(source_name(model), options, reason, time.perf_counter() - started)


def error_score(model: str, options: ScoreOptions, reason: str, seconds: float) -> Score:
    """Return the Score of a model that could not be scored."""
    return Score(
        model=model, score=None, raw_score=None, status=Status.ERROR, reason=reason, weights=options.weights,
        input=input_text(options.inputs), batch=options.batch, provider=None, parameters=None, nodes=None,
        seconds={"total": seconds}, norm_stats=options.norm_stats, seed=options.seed, versions=versions(),
    )  # fmt: skip


def score_with(source: ModelSource, options: ScoreOptions) -> Score:
    """Score one model with checked options; see `score`."""
    with collection_paused():
        return _scored(source, options)


def _scored(source: ModelSource, options: ScoreOptions) -> Score:
    providers = choose_providers(options.providers)
    started = time.perf_counter()
    loaded = load_model(source, options.fed)
    seconds = {"load": time.perf_counter() - started}
    tries = attempts() if free_dimensions(loaded.model, loaded.name, options.shapes) else 1
    first_error: ModelError | None = None
    for attempt in range(tries):
        try:
            found = Attempt(source, loaded, options, providers, attempt, seconds).result()
        except (ShapeError, RunError) as error:
            first_error = first_error or error
            if attempt + 1 < tries:
                loaded = load_model(source, options.fed)
        else:
            rest = time.perf_counter() - started - sum(found.seconds.values())
            return dataclasses.replace(found, seconds={**found.seconds, "judge": round(max(rest, 0.0), 6)})
    assert first_error is not None
    raise first_error
