"""Scores a model: loads it, rewrites it, runs it with both constants, and judges the two outputs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epsinas_onnx.errors import EpsinasError, ModelError, RunError, ShapeError, UsageError
from epsinas_onnx.graph.load import LoadedModel, ModelSource, load_model, source_name
from epsinas_onnx.graph.rebatch import fixed_batch
from epsinas_onnx.graph.rewrite import NORM_STATS, NormStats
from epsinas_onnx.graph.roles import Role
from epsinas_onnx.graph.shapes import InputSpec, Shapes, attempts, free_dimensions, input_specs
from epsinas_onnx.inputs.generate import KINDS, kind_for, make_input, perturb
from epsinas_onnx.inputs.given import fit, read_given, read_images
from epsinas_onnx.judge import Evidence, judge
from epsinas_onnx.notes import sample_norms, warnings_for
from epsinas_onnx.prepare import GraphOptions, Prepared, prepare
from epsinas_onnx.result import Score, Status
from epsinas_onnx.runtime.memory import refuse_if_too_large
from epsinas_onnx.runtime.providers import Provider, choose_providers
from epsinas_onnx.runtime.session import Engine
from epsinas_onnx.trace import Loss, Tracer, expose, longest_path, unreachable

Array = npt.NDArray[Any]

DEFAULT_WEIGHTS = (1e-7, 1.0)
DEFAULT_BATCH = 256
TRACED_SAMPLES = 4
_CHECKED_SAMPLES = 2
_CHECK_CONSTANT = 0.05  # neither 0 nor so large that a deep network without normalisation overflows


@dataclass(frozen=True)
class ScoreOptions:
    """Everything that `score` takes beside the model, checked; picklable, so that a worker process can take it."""

    weights: tuple[float, float] = DEFAULT_WEIGHTS
    inputs: Any = "auto"
    batch: int = DEFAULT_BATCH
    shapes: Shapes = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    norm_stats: NormStats = "batch"
    lump: bool = True
    providers: str = "auto"
    seed: int = 0
    dtype: str = "float32"
    threads: int = 0
    jobs: int = 1

    def __post_init__(self) -> None:
        try:
            first, second = (float(weight) for weight in self.weights)
        except (TypeError, ValueError):
            raise UsageError(f"weights are two numbers, such as 1e-7,1, not {self.weights!r}") from None
        if not np.isfinite([first, second]).all():
            raise UsageError(f"the constants {first:g} and {second:g} must be finite")
        if np.float32(first) == np.float32(second):
            raise UsageError(
                f"the constants {first:g} and {second:g} are equal in float32, so the two outputs cannot differ; give two"
            )
        if self.batch < 2:
            raise UsageError(f"a minibatch of {self.batch} has nothing to compare; give at least 2 samples")
        if self.norm_stats not in NORM_STATS:
            raise UsageError(f"there are no {self.norm_stats!r} statistics; choose one of {', '.join(NORM_STATS)}")
        if self.dtype not in ("float32", "model"):
            raise UsageError(f"the element type is float32 or model (the model's own), not {self.dtype!r}")
        for role in self.roles.values():
            if role not in set(Role):
                raise UsageError(f"there is no role {role!r}; the roles are {', '.join(Role)}")
        object.__setattr__(self, "weights", (first, second))


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
    lump: reserved for the merging of identical channels, which is not there yet: both values run the plain graph.
    providers: `cpu`, `cuda`, `tensorrt`, or `auto`. threads: intra-op threads, 0 for one a core.
    dtype: the arithmetic: `float32`, which the metric is defined in, or `model` for the model's own float types.
    seed: of random inputs and of embedding tables.

    Returns a Score whose `status` says whether there is a number. Raises UsageError for wrong arguments, ModelError
    (ShapeError, UnsupportedError, OutOfMemory, RunError) when this model cannot be scored.

    Source: the epsinas paper's metric, as DESIGN section 1 fixes it.
    """
    options = ScoreOptions(
        weights, inputs, batch, dict(shapes or {}), _names(outputs), dict(roles or {}), norm_stats, lump, providers,
        seed, dtype, threads,
    )  # fmt: skip
    return score_with(model, options)


def score_many(
    models: Iterable[ModelSource], *, jobs: int = 1, **options: Any
) -> Iterator[Score]:
    """Score many models, yielding one Score each, in order; takes the keyword arguments of `score`.

    A model that cannot be scored is one Score with status `error` and the sentence that says why; so is one that
    kills its worker process. jobs: worker processes, each with one intra-op thread; 1 scores in this process.
    Raises UsageError for wrong arguments, before anything is scored.
    """
    if jobs < 1:
        raise UsageError(f"there must be at least 1 job, not {jobs}")
    if "outputs" in options:
        options["outputs"] = _names(options["outputs"])
    for key in ("shapes", "roles"):
        options[key] = dict(options.get(key) or {})
    checked = ScoreOptions(**options, jobs=jobs)
    choose_providers(checked.providers)
    if not isinstance(checked.inputs, str) or checked.inputs not in KINDS:
        read_given(checked.inputs)
    if jobs == 1:
        return (score_or_error(model, checked) for model in models)
    from epsinas_onnx.pool import score_in_processes

    return score_in_processes(models, checked)


def score_or_error(model: ModelSource, options: ScoreOptions) -> Score:
    """Score one model; a ModelError becomes a Score with status `error`."""
    started = time.perf_counter()
    try:
        return score_with(model, options)
    except ModelError as error:
        return error_score(source_name(model), options, str(error), time.perf_counter() - started)
    except UsageError:
        raise
    except (EpsinasError, Exception) as error:  # whatever a foreign file provokes costs one row, never the batch
        text = " ".join(str(error).split()) or type(error).__name__
        reason = f"{source_name(model)}: unexpected {type(error).__name__}: {text}; please report this file"
        return error_score(source_name(model), options, reason, time.perf_counter() - started)


def error_score(model: str, options: ScoreOptions, reason: str, seconds: float) -> Score:
    """Return the Score of a model that could not be scored."""
    return Score(
        model=model, score=None, raw_score=None, status=Status.ERROR, reason=reason, weights=options.weights,
        input=_input_text(options.inputs), batch=options.batch, provider=None, parameters=None, nodes=None,
        seconds={"total": seconds}, norm_stats=options.norm_stats, seed=options.seed, versions=versions(),
    )  # fmt: skip


def score_with(source: ModelSource, options: ScoreOptions) -> Score:
    """Score one model with checked options; see `score`."""
    providers = choose_providers(options.providers)
    started = time.perf_counter()
    loaded = load_model(source)
    seconds = {"load": time.perf_counter() - started}
    open_sizes = free_dimensions(loaded.model, loaded.name) if loaded.model.graph.inputs else False
    tries = attempts() if open_sizes else 1
    first_error: ModelError | None = None
    for attempt in range(tries):
        try:
            return _Scoring(source, loaded, options, providers, attempt, seconds).result()
        except (ShapeError, RunError) as error:
            first_error = first_error or error
            if attempt + 1 < tries:
                loaded = load_model(source)
    assert first_error is not None
    raise first_error


class _Scoring:
    """One attempt at one model: the graph, its minibatch, and the reruns that the judge may ask for."""

    def __init__(
        self,
        source: ModelSource,
        loaded: LoadedModel,
        options: ScoreOptions,
        providers: Sequence[Provider],
        attempt: int,
        seconds: Mapping[str, float],
    ) -> None:
        self.source, self.options, self.providers = source, options, providers
        self.name, self.nodes = loaded.name, loaded.nodes
        self.seconds = dict(seconds)
        started = time.perf_counter()
        self.given = None if _is_kind(options.inputs) else read_given(options.inputs)
        self.graph_options = GraphOptions(
            self._shapes(loaded), options.outputs, options.roles, options.norm_stats, options.seed, attempt,
            native_types=options.dtype == "model",
        )  # fmt: skip
        specs = input_specs(loaded.model, self.name, 1, self.graph_options.shapes, attempt)
        if not specs:
            raise ModelError(f"{self.name}: the model has no input, so its output cannot depend on one")
        self.batch = self._batch(specs)
        self.each = fixed_batch(specs)
        self.notes: list[str] = []
        self.prepared = self._prepare(loaded, specs)
        self.seconds["rewrite"] = time.perf_counter() - started
        refuse_if_too_large(self.prepared.model, self.name, options.jobs)
        self.feeds = self._feeds(self.prepared)
        self.engine = Engine(self.prepared.model, self.name, providers, self._threads)
        self._few: tuple[Engine, Tracer] | None = None

    @property
    def _threads(self) -> int:
        return 1 if self.options.jobs > 1 else self.options.threads

    def result(self) -> Score:
        """Run both constants and judge them."""
        options, prepared = self.options, self.prepared
        statistics = [name for pair in prepared.statistics for name in pair]
        outputs, deviations = [], []
        cut_off = unreachable(prepared.model, prepared.outputs)
        if cut_off is None:
            for constant in options.weights:
                got = self._run(self.engine, constant, self.feeds, [*prepared.outputs, *statistics])
                outputs.append(self._flat(got))
                deviations += [(got[mean], got[variance]) for mean, variance in prepared.statistics]
        else:
            outputs = [np.zeros(1, np.float32)] * 2
        evidence = Evidence(
            options.weights, (outputs[0], outputs[1]), deviations,
            longest_path(prepared.model, prepared.outputs), prepared.decisions.longest_sum(), sample_norms(prepared.model), cut_off,
        )  # fmt: skip
        verdict = judge(evidence, self)
        ran = cut_off is None
        seconds = {**self.seconds, **{key: round(value, 6) for key, value in self.engine.seconds.items()}}
        return Score(
            model=self.name,
            score=verdict.raw_score if verdict.status is Status.OK else None,
            raw_score=verdict.raw_score if ran else None,
            status=verdict.status,
            reason=verdict.reason,
            weights=options.weights,
            input=self._fed(),
            batch=self.batch,
            provider=self.engine.provider if ran else None,
            parameters=self.prepared.decisions.parameters(),
            nodes=self.nodes,
            seconds={key: round(value, 6) for key, value in seconds.items()},
            output=self.prepared.outputs,
            warnings=(*self.notes, *warnings_for(self.prepared)),
            norm_stats=options.norm_stats,
            seed=options.seed,
            versions=versions(),
        )

    # What the judge may ask for (judge.Runner).

    def again(self, constant: float) -> Array:
        """Run once more with other last bits."""
        nudged, feeds = self._nudge(constant, self.feeds)
        return self._flat(self._run(self.engine, nudged, feeds, self.prepared.outputs))

    def probe(self, constant: float) -> tuple[Array, Array]:
        """Run a few samples with another constant, plain and with other last bits."""
        engine, _ = self._traced()
        feeds, outputs = self._few_feeds(), self.prepared.outputs
        plain = self._flat(self._run(engine, constant, feeds, outputs))
        nudged, changed = self._nudge(constant, feeds)
        return plain, self._flat(self._run(engine, nudged, changed, outputs))

    def find_loss(self, constant: float) -> Loss | None:
        """Trace a few samples to the node behind which the output no longer depends on them."""
        engine, tracer = self._traced()
        feeds = self._few_feeds()
        nudged, changed = self._nudge(constant, feeds)
        axes = self._batch_axes()
        rolled = {name: np.roll(array, 1, axes[name]) if name in axes else array for name, array in feeds.items()}
        largest = {name: float(np.abs(v).max(initial=0)) if v.dtype.kind in "fiu" else 0.0 for name, v in feeds.items()}
        try:
            return tracer.lost(
                lambda names: self._run(engine, constant, feeds, names),
                lambda names: self._run(engine, nudged, changed, names),
                lambda names: self._run(engine, constant, rolled, names),
                largest,
            )
        except RunError:  # the verdict stands without the node
            return None

    def find_explosion(self, constant: float) -> Loss | None:
        """Trace a few samples to the node in which infinities or NaN begin."""
        engine, tracer = self._traced()
        feeds = self._few_feeds()
        try:
            return tracer.exploded(lambda names: self._run(engine, constant, feeds, names))
        except RunError:
            return None

    def _nudge(self, constant: float, feeds: Mapping[str, Array]) -> tuple[float, dict[str, Array]]:
        """Change the last bits of the float inputs and of the constant: all that follows is rounded anew."""
        changed = {name: perturb(array, self.options.seed) for name, array in feeds.items()}
        return float(np.nextafter(np.float32(constant), np.float32(np.inf))), changed

    def advice(self, loss: Loss) -> str:
        """Name the value in front of a softmax or another head that is the same for identical classes."""
        if loss.node.op_type in ("Softmax", "LogSoftmax", "Hardmax", "ArgMax", "TopK") and loss.node.inputs[0] is not None:
            return f"; identical classes do that, so score what comes before with --output-name {loss.node.inputs[0].name!r}"
        return ""

    # How the graph and its minibatch come to be.

    def _shapes(self, loaded: LoadedModel) -> Shapes:
        """Return the user's shapes, completed by those of given arrays."""
        shapes = dict(self.options.shapes)
        if isinstance(self.given, dict):
            specs = input_specs(loaded.model, self.name, 1, shapes)
            for key, array in fit(self.given, specs, self.name).items():
                shapes[key] = array.shape
        return shapes

    def _batch(self, specs: Sequence[InputSpec]) -> int:
        if isinstance(self.given, Path):
            spec = next((spec for spec in specs if spec.layout), specs[0])
            return len(read_images(self.given, spec.with_batch(1), self.options.batch, self.name))
        if isinstance(self.given, dict):
            arrays = fit(self.given, specs, self.name)
            sizes = {
                arrays[spec.name].shape[spec.batch_axis]
                for spec in specs
                if spec.name in arrays and spec.batch_axis is not None
            }
            if len(sizes) > 1:
                raise ShapeError(f"{self.name}: the given arrays hold {sorted(sizes)} samples; give equally many")
            if sizes:
                batch = sizes.pop()
                if batch < 2:
                    raise UsageError("the given input holds a single sample; give at least 2")
                return batch
        return self.options.batch

    def _prepare(self, loaded: LoadedModel, specs: Sequence[InputSpec]) -> Prepared:
        if not self.each:
            if all(spec.batch_axis is None for spec in specs):
                raise ShapeError(
                    f"{self.name}: no input has a batch axis of its own (axis 0 free, or 1), so samples cannot be told "
                    f"apart; export the model with a dynamic batch"
                )
            return prepare(loaded, self.batch, self.graph_options)
        loosened = GraphOptions(**{**vars(self.graph_options), "loosen": True})
        if self._loosening_holds(loosened):
            self.each = False
            self.graph_options = loosened
            self.notes.append(f"the file fixes the batch to 1; it was re-batched to {self.batch}")
            return prepare(loaded, self.batch, loosened)
        self.notes.append(
            "the file fixes the batch to 1 and cannot be re-batched, so it was run sample by sample: batch "
            "statistics are those of single samples"
        )
        return prepare(loaded, 1, self.graph_options)

    def _loosening_holds(self, loosened: GraphOptions) -> bool:
        """Whether the re-batched graph gives two samples at a time what the original gives each of them.

        Batch statistics would couple the samples, so both are compared with mean 0 and variance 1.
        """
        reset = {"norm_stats": "reset"}
        try:
            both = prepare(load_model(self.source), _CHECKED_SAMPLES, GraphOptions(**{**vars(loosened), **reset}))
            alone = prepare(load_model(self.source), 1, GraphOptions(**{**vars(self.graph_options), **reset}))
            refuse_if_too_large(both.model, self.name, self.options.jobs)
            feeds = {
                spec.name: make_input(spec, _plain_kind(self.options.inputs), self.options.seed, both.bounds[spec.name], i)
                for i, spec in enumerate(both.specs)
            }
            feeds = {k: v + np.float32(0.25) if v.dtype == np.float32 else v for k, v in feeds.items()}
            axes = {spec.name: spec.batch_axis for spec in both.specs if spec.batch_axis is not None}
            together = Engine(both.model, self.name, self.providers, self._threads)
            single = Engine(alone.model, self.name, self.providers, self._threads)
            ours = together.run(_CHECK_CONSTANT, feeds, both.outputs)
            theirs = single.run(_CHECK_CONSTANT, feeds, alone.outputs, axes)
        except (RunError, ShapeError):
            return False
        return all(
            ours[key].size == theirs[key].size
            and np.allclose(_by_sample(ours[key]), _by_sample(theirs[key]), rtol=1e-3, atol=1e-6, equal_nan=True)
            for key in both.outputs
        )

    def _feeds(self, prepared: Prepared) -> dict[str, Array]:
        specs = [spec.with_batch(self.batch) for spec in prepared.specs]
        feeds: dict[str, Array] = {}
        if isinstance(self.given, dict):
            feeds = fit(self.given, specs, self.name)
        elif isinstance(self.given, Path):
            spec = next((spec for spec in specs if spec.layout), specs[0])
            feeds = {spec.name: read_images(self.given, spec, self.batch, self.name)}
        kind = _plain_kind(self.options.inputs)
        for index, spec in enumerate(specs):
            if spec.name not in feeds:
                feeds[spec.name] = make_input(spec, kind, self.options.seed, prepared.bounds[spec.name], index)
        return feeds

    def _traced(self) -> tuple[Engine, Tracer]:
        """Prepare the graph anew for a few samples, with every value as an output."""
        if self._few is None:
            batch = 1 if self.each else min(self.batch, TRACED_SAMPLES)
            few = prepare(load_model(self.source), batch, self.graph_options)
            exposed = expose(few.model, few.outputs)
            engine = Engine(few.model, self.name, self.providers, self._threads)
            self._few = engine, Tracer(few.model, few.outputs, exposed)
        return self._few

    def _few_feeds(self) -> dict[str, Array]:
        chosen = np.linspace(0, self.batch - 1, min(self.batch, TRACED_SAMPLES)).round().astype(int)
        axes = {spec.name: spec.batch_axis for spec in self.prepared.specs}
        return {k: v if (axis := axes[k]) is None else np.take(v, chosen, axis=axis) for k, v in self.feeds.items()}

    def _run(
        self, engine: Engine, constant: float, feeds: Mapping[str, Array], outputs: Sequence[str]
    ) -> dict[str, Array]:
        return engine.run(constant, feeds, outputs, self._batch_axes() if self.each else None)

    def _batch_axes(self) -> dict[str, int]:
        return {spec.name: spec.batch_axis for spec in self.prepared.specs if spec.batch_axis is not None}

    def _flat(self, outputs: Mapping[str, Array]) -> Array:
        return np.concatenate([outputs[name].reshape(-1) for name in self.prepared.outputs])

    def _fed(self) -> str:
        if self.given is not None:
            return _input_text(self.options.inputs)
        kinds = [kind_for(spec, _plain_kind(self.options.inputs)) for spec in self.prepared.specs]
        if len(kinds) == 1:
            return kinds[0]
        return ", ".join(f"{spec.name}={kind}" for spec, kind in zip(self.prepared.specs, kinds, strict=True))


def _by_sample(array: Array) -> Array:
    """Flatten an output to one row a sample, whichever of its first axes the samples lie on."""
    flat = array.reshape(-1)
    return np.sort(flat)


def _is_kind(inputs: Any) -> bool:
    return isinstance(inputs, str) and inputs in KINDS


def _plain_kind(inputs: Any) -> str:
    return inputs if _is_kind(inputs) else "auto"


def _input_text(inputs: Any) -> str:
    if isinstance(inputs, (str, os.PathLike)):
        return os.fspath(inputs)
    return "given arrays"


def _names(outputs: str | Sequence[str] | None) -> tuple[str, ...]:
    if outputs is None:
        return ()
    return (outputs,) if isinstance(outputs, str) else tuple(outputs)


@cache
def versions() -> Mapping[str, str]:
    """Return the versions of this package and of the libraries that decide a score."""
    found = {}
    for package in ("epsinas-onnx", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
