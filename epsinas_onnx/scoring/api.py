"""Scores models: `score` for one, `score_many` for a batch in which a bad file costs one row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, Unpack, get_args

from epsinas_onnx.errors import UsageError
from epsinas_onnx.graph.analysis.shapes import Shapes
from epsinas_onnx.graph.load import ModelSource
from epsinas_onnx.graph.passes.constant_weights import NormStats
from epsinas_onnx.inputs.given import read_given
from epsinas_onnx.inputs.minibatch import is_kind
from epsinas_onnx.runtime.providers import choose_providers
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

Engine: TypeAlias = Literal["local", "ray"]
"""Where models are scored: by processes of this machine, or by a Ray cluster."""


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
    providers: ProviderName = "auto",
    seed: int = 0,
    dtype: ElementType = "float32",
    threads: int = 0,
    restore_batchnorm: str = "auto",
    arithmetic: Arithmetic = "auto",
    scores: str | Sequence[str] = (),
    proxy_batch: int = DEFAULT_PROXY_BATCH,
) -> Score:
    """Score one ONNX model without training it, and without reading its weights.

    Args:
        model: a path, the file's bytes, an `onnx.ModelProto` or an `onnx_ir.Model`; it is not modified.
        weights: the two constants that all weights are set to, one after the other, 1e-7 and 1 unless given; finite in
            float32, and different.
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
    options = score_options(
        weights=weights, inputs=inputs, batch=batch, shapes=shapes, outputs=outputs, roles=roles, norm_stats=norm_stats,
        lump=lump, providers=providers, seed=seed, dtype=dtype, threads=threads, restore_batchnorm=restore_batchnorm,
        arithmetic=arithmetic, scores=scores, proxy_batch=proxy_batch,
    )  # fmt: skip
    return score_with(model, _known(options))


def score_many(
    models: Iterable[ModelSource],
    *,
    jobs: int = 1,
    isolate: bool = False,
    timeout: float = 0.0,
    memory: float = 0.0,
    engine: Engine = "local",
    ray_address: str | None = None,
    **options: Unpack[ScoreKeywords],
) -> Iterator[Score]:
    """Score many models, yielding one Score each, in order.

    A model that cannot be scored is one Score with status `error` and the sentence that says why; so is one that
    kills its worker process, or breaks a limit. While it is waited for, the models behind it are scored.

    Args:
        models: what `score` takes, any number of them; read as they are needed.
        jobs: worker processes, each with one intra-op thread; 1 scores in this process.
        isolate: whether one job scores in a worker process all the same: some files make ONNX Runtime end the process
            that runs them. A limit does so too.
        timeout: seconds that one model may take, 0 for no limit.
        memory: GB that one worker process may hold, 0 for no limit.
        engine: `local`, or `ray` for a Ray cluster (docs/cluster.md), on which `jobs` above 1 is how many models are
            scored at a time, and 1 as many as the cluster has cores. Needs the extra `ray`.
        ray_address: `HOST:PORT` of a Ray cluster; None for what RAY_ADDRESS names, the cluster of this machine, or one
            that is started for the call.
        **options: how each is scored: `weights`, `inputs`, `batch`, `shapes`, `outputs`, `roles`, `norm_stats`, `lump`,
            `providers`, `seed`, `dtype`, `threads`, `restore_batchnorm`, `arithmetic`, `scores` and `proxy_batch`, each
            the keyword argument that `score` has.

    Returns:
        An iterator over as many Scores as there are models.

    Raises:
        UsageError: an argument is wrong; said before anything is scored.
        ClusterError: the cluster was lost; what was scored until then was yielded.

    Examples:
        >>> for result in score_many(["models/mlp.onnx", "models/missing.onnx"], batch=16):
        ...     print(result.model, result.status)
        models/mlp.onnx ok
        models/missing.onnx error
    """
    found = score_as_done(
        models, jobs=jobs, isolate=isolate, timeout=timeout, memory=memory, engine=engine, ray_address=ray_address,
        **options,
    )  # fmt: skip
    return in_order(found)


def score_as_done(
    models: Iterable[ModelSource],
    *,
    jobs: int = 1,
    isolate: bool = False,
    timeout: float = 0.0,
    memory: float = 0.0,
    engine: Engine = "local",
    ray_address: str | None = None,
    **options: Unpack[ScoreKeywords],
) -> Iterator[tuple[int, Score]]:
    """Yield the position and the Score of each model as they come; see `score_many`."""
    if jobs < 1:
        raise UsageError(f"there must be at least 1 job, not {jobs}")
    limits = Limits(timeout, memory)
    checked = _known(score_options(**options, jobs=jobs))
    if engine not in get_args(Engine):
        raise UsageError(f"the engine is one of {', '.join(get_args(Engine))}, not {engine!r}")
    if ray_address is not None and engine != "ray":
        raise UsageError("an address of a Ray cluster goes with the engine ray; add --engine ray")
    if engine == "local":
        choose_providers(checked.providers)
    if not is_kind(checked.inputs):
        read_given(checked.inputs)
    if engine == "ray":
        from epsinas_onnx.scoring.cluster.engine import cluster_address, score_on_cluster

        address = cluster_address(ray_address)
        return score_on_cluster(models, checked, limits, address, jobs if jobs > 1 else None)
    if jobs == 1 and not isolate and limits == NO_LIMITS:
        return ((index, score_or_error(model, checked)) for index, model in enumerate(models))
    from epsinas_onnx.scoring.workers import score_in_processes

    return score_in_processes(models, checked, limits)


def _known(options: ScoreOptions) -> ScoreOptions:
    """Return the options with the names of other scores in full; raises UsageError for one that does not exist."""
    return dataclasses.replace(options, proxies=known_scores(options.proxies)) if options.proxies else options
