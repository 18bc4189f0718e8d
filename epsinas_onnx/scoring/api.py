"""Scores models: `score` for one, `score_many` for a batch in which a bad file costs one row."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, Unpack, get_args

from epsinas_onnx.errors import UsageError
from epsinas_onnx.graph.analysis.shapes import Shapes
from epsinas_onnx.graph.load import ModelSource
from epsinas_onnx.graph.passes.constant_weights import NormStats
from epsinas_onnx.inputs.given import read_given
from epsinas_onnx.inputs.minibatch import is_kind
from epsinas_onnx.runtime.providers import choose_providers
from epsinas_onnx.scoring.alike import Alike
from epsinas_onnx.scoring.jobs import Jobs, choose_jobs
from epsinas_onnx.scoring.limits import NO_LIMITS, Limits
from epsinas_onnx.scoring.measured import known_scores
from epsinas_onnx.scoring.options import (
    DEFAULT_BATCH,
    DEFAULT_PROXY_BATCH,
    DEFAULT_WEIGHTS,
    Arithmetic,
    ElementType,
    ProviderName,
    ScoreKeywords,
    ScoreOptions,
    score_options,
)
from epsinas_onnx.scoring.result import Score
from epsinas_onnx.scoring.single import score_or_error, score_with
from epsinas_onnx.scoring.supervisor import in_order
from epsinas_onnx.store.store import Store

Engine: TypeAlias = Literal["local", "ray"]
"""Where models are scored: by processes of this machine, or by a Ray cluster."""


def score(
    model: ModelSource,
    *,
    weights: tuple[float, float] | Literal["auto"] = DEFAULT_WEIGHTS,
    inputs: Any = "auto",
    batch: int = DEFAULT_BATCH,
    shapes: Shapes | None = None,
    outputs: str | Sequence[str] | None = None,
    roles: Mapping[str, str] | None = None,
    norm_stats: NormStats = "batch",
    lump: bool = True,
    providers: ProviderName = "auto",
    seed: int = 0,
    dtype: ElementType = "float32",
    threads: int = 0,
    restore_batchnorm: str = "auto",
    arithmetic: Arithmetic = "auto",
    scores: str | Sequence[str] = (),
    proxy_batch: int = DEFAULT_PROXY_BATCH,
    device_memory: float = 0.0,
) -> Score:
    """Score one ONNX model without training it, and without reading its weights.

    Args:
        model: a path, the file's bytes, an `onnx.ModelProto` or an `onnx_ir.Model`; it is not modified.
        weights: the two constants that all weights are set to, one after the other, 1e-7 and 1 unless given; finite in
            float32, and different. `auto` takes the pair that `find_weights` finds: for this model alone, where
            `score_many` finds one for all of its models.
        inputs: `auto` (the grey ramp for images, seeded normal for other floats, seeded tokens for integers), `grey`,
            `normal`, `uniform` or `tokens`; an array `[batch, ...]`; a mapping of input name to array; a .npy or .npz
            path; or a folder of images. Given arrays decide the batch.
        batch: samples in the minibatch, at least 2; 256 unless given.
        shapes: sizes of free dimensions by name, and whole shapes by input name; the batch axis always follows `batch`.
        outputs: which values to compare, flattened together; any float value of the main graph. None: the first float
            output.
        roles: glob over `NODE:SLOT`, node or tensor name to `weight`, `bias`, `statistics`, `embedding` or `constant`.
        norm_stats: what BatchNormalization in inference form uses: the minibatch's own statistics (`batch`, the
            definition of the metric), mean 0 and variance 1 (`reset`), or those in the file (`stored`).
        lump: whether identical channels are computed once (docs/lumping.md), which changes the score by rounding alone;
            False runs the plain graph.
        providers: `cpu`, `cuda`, `tensorrt`, or `auto`.
        seed: of random inputs and of embedding tables.
        dtype: the element type: `float32`, which the metric is defined in, or `model` for the model's own float types.
        threads: intra-op threads, 0 for one a core.
        restore_batchnorm: behind which layers a BatchNormalization is put back that an exporter folded into them:
            `auto` (where there is evidence), `none`, `all` (every convolution but heads), or a glob over node names.
        arithmetic: `float32` is the published procedure, which ends where float32 does; `exact` is its formula without
            a range, on the CPU; `auto` is exact where that can be computed, and gives the number of `float32`, within
            rounding, where that has one (docs/numerics.md).
        scores: names of other training-free scores, such as `swap` and `jacov`, or `all`, that are computed from the
            same file and are in `Score.proxies`; none costs this one (docs/ranking.md).
        proxy_batch: samples that the other scores see, at least 2; 32 unless given.
        device_memory: GB that graphs may take of a GPU's memory, 0 for no limit.

    Returns:
        A Score whose `status` says whether there is a number; each of its `proxies` has a status of its own.

    Raises:
        UsageError: an argument is wrong, whatever the model; MissingRuntime where no ONNX Runtime is installed.
        ModelError: this model cannot be scored: ShapeError, UnsupportedError, OutOfMemory or RunError where one of them
            says it better.

    Source:
        The epsinas paper's metric, as docs/metric.md fixes it.

    Examples:
        >>> result = score("models/nb201-p-c1-s-c1-s-s.onnx", batch=16)
        >>> print(result.status, result.batch, result.input, f"{result.parameters:,}")
        ok 16 grey 128,721
    """
    options: ScoreKeywords = {
        "weights": weights, "inputs": inputs, "batch": batch, "shapes": shapes, "outputs": outputs, "roles": roles,
        "norm_stats": norm_stats, "lump": lump, "providers": providers, "seed": seed, "dtype": dtype,
        "threads": threads, "restore_batchnorm": restore_batchnorm, "arithmetic": arithmetic, "scores": scores,
        "proxy_batch": proxy_batch, "device_memory": device_memory,
    }  # fmt: skip
    if isinstance(weights, str):
        options["weights"] = _found(weights, [model], options)
    return score_with(model, _known(score_options(**options)))


def score_many(
    models: Iterable[ModelSource],
    *,
    jobs: Jobs = 1,
    isolate: bool = False,
    timeout: float = 0.0,
    memory: float = 0.0,
    store: Store | str | os.PathLike[str] | None = None,
    engine: Engine = "local",
    ray_address: str | None = None,
    **options: Unpack[ScoreKeywords],
) -> Iterator[Score]:
    """Score many models, yielding one Score each, in order.

    A model that cannot be scored is one Score with status `error` and the sentence that says why; so is one that
    kills its worker process, or breaks a limit. While it is waited for, the models behind it are scored. Of models that
    compute the same, to the bit, one is run in each worker process, and the others took no time to run.

    Args:
        models: what `score` takes, any number of them; read as they are needed, and all at once for weights `auto`.
        jobs: worker processes, each with one intra-op thread; 1 scores in this process. `auto` is one for each core
            that this process may use, and 1 for fewer than four models, or where `providers` names a GPU.
        isolate: whether one job scores in a worker process all the same: some files make ONNX Runtime end the process
            that runs them. A limit does so too.
        timeout: seconds that one model may take, 0 for no limit.
        memory: GB that one worker process may hold, 0 for no limit.
        store: a `Store`, or the file of one: what it holds is not scored again, and each result is written into it as
            it comes (docs/store.md).
        engine: `local`, or `ray` for a Ray cluster (docs/cluster.md), on which `jobs` above 1 is how many models are
            scored at a time, and 1 or `auto` as many as the cluster has cores. Needs the extra `ray`.
        ray_address: `HOST:PORT` of a Ray cluster; None for what RAY_ADDRESS names, the cluster of this machine, or one
            that is started for the call.
        **options: how each is scored: `weights`, `inputs`, `batch`, `shapes`, `outputs`, `roles`, `norm_stats`, `lump`,
            `providers`, `seed`, `dtype`, `threads`, `restore_batchnorm`, `arithmetic`, `scores`, `proxy_batch` and
            `device_memory`, which all workers share, each the keyword argument that `score` has.

    Returns:
        An iterator over as many Scores as there are models.

    Raises:
        UsageError: an argument is wrong, or the file is no store; said before anything is scored.
        OutputError: at the end, where `store` names a file and a result could not be written into it.
        ClusterError: the cluster was lost; what was scored until then was yielded.

    Examples:
        >>> for result in score_many(["models/mlp.onnx", "models/missing.onnx"], batch=16):
        ...     print(result.model, result.status)
        models/mlp.onnx ok
        models/missing.onnx error
    """
    found = score_as_done(
        models, jobs=jobs, isolate=isolate, timeout=timeout, memory=memory, store=store, engine=engine,
        ray_address=ray_address, **options,
    )  # fmt: skip
    return in_order(found)


def score_as_done(
    models: Iterable[ModelSource],
    *,
    jobs: Jobs = 1,
    isolate: bool = False,
    timeout: float = 0.0,
    memory: float = 0.0,
    store: Store | str | os.PathLike[str] | None = None,
    engine: Engine = "local",
    ray_address: str | None = None,
    alike: bool = True,
    **options: Unpack[ScoreKeywords],
) -> Iterator[tuple[int, Score]]:
    """Yield the position and the Score of each model as they come; see `score_many`.

    alike: whether models that compute the same are looked for, and run once.
    """
    count = choose_jobs(jobs, models, options.get("providers", "auto"))
    limits = Limits(timeout, memory)
    if engine not in get_args(Engine):
        raise UsageError(f"the engine is one of {', '.join(get_args(Engine))}, not {engine!r}")
    if ray_address is not None and engine != "ray":
        raise UsageError("an address of a Ray cluster goes with the engine ray; add --engine ray")
    weights = options.get("weights")
    if isinstance(weights, str):
        models = list(models)
        options["weights"] = _found(weights, models, options, count, isolate, limits)
    checked = dataclasses.replace(_known(score_options(**options, jobs=count)), alike=alike)
    if engine == "local":
        choose_providers(checked.providers)
    if not is_kind(checked.inputs):
        read_given(checked.inputs)
    isolated = count > 1 or isolate or limits != NO_LIMITS or engine == "ray"
    score_all = _engine(engine, ray_address, jobs, isolated, limits)

    def run(models: Iterable[ModelSource], names: Sequence[str]) -> Iterator[tuple[int, Score]]:
        return score_all(models, dataclasses.replace(checked, proxies=tuple(names)))

    if store is None:
        return run(models, checked.proxies)
    from epsinas_onnx.store.going_on import going_on

    return going_on(models, checked, store, run, isolated=isolated, limits=limits)


def _engine(
    engine: Engine, ray_address: str | None, jobs: Jobs, isolated: bool, limits: Limits
) -> Callable[[Iterable[ModelSource], ScoreOptions], Iterator[tuple[int, Score]]]:
    """Return what scores models: a cluster, worker processes, or this process."""
    if engine == "ray":
        from epsinas_onnx.scoring.cluster.engine import cluster_address, score_on_cluster

        address, seats = cluster_address(ray_address), jobs if jobs != "auto" and jobs > 1 else None
        return lambda models, options: score_on_cluster(models, options, limits, address, seats)
    if isolated:
        from epsinas_onnx.scoring.workers import score_in_processes

        return lambda models, options: score_in_processes(models, options, limits)
    return _here


def _here(models: Iterable[ModelSource], options: ScoreOptions) -> Iterator[tuple[int, Score]]:
    """Score models in this process, one after the other."""
    batch: Alike[Any] = Alike()
    for index, model in enumerate(models):
        with batch.scoring():
            found = score_or_error(model, options)
        yield index, found


def _known(options: ScoreOptions) -> ScoreOptions:
    """Return the options with the names of other scores in full; raises UsageError for one that does not exist."""
    return dataclasses.replace(options, proxies=known_scores(options.proxies)) if options.proxies else options


def _found(
    weights: str, models: Sequence[ModelSource], options: ScoreKeywords, jobs: int = 1, isolate: bool = False,
    limits: Limits = NO_LIMITS,
) -> tuple[float, float]:  # fmt: skip
    """Return the pair for these models; the default one where no pair scores any of them, or there are none."""
    if weights != "auto":
        raise UsageError(f"weights are two numbers, such as (1e-7, 1), or 'auto', not {weights!r}")
    if not models:
        return DEFAULT_WEIGHTS
    from epsinas_onnx.constants.find import SAMPLE, drawn, find_weights

    chosen = drawn(models, SAMPLE, options.get("seed", 0))
    found = find_weights(
        chosen, jobs=jobs, isolate=isolate, timeout=limits.timeout, memory=limits.memory, **options
    )  # fmt: skip
    return found.weights or DEFAULT_WEIGHTS
