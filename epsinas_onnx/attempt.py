"""One attempt at one model: its rewritten graph, its minibatch, and the reruns that the judge may ask for."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from epsinas_onnx.errors import ModelError, RunError, ShapeError
from epsinas_onnx.graph.load import LoadedModel, ModelSource, load_model
from epsinas_onnx.graph.rebatch import fixed_batch
from epsinas_onnx.graph.shapes import InputSpec, input_specs
from epsinas_onnx.inputs.generate import perturb
from epsinas_onnx.inputs.minibatch import Minibatch, few_samples
from epsinas_onnx.judge import CHANGE, Evidence, judge
from epsinas_onnx.metric import varies
from epsinas_onnx.notes import sample_norms, warnings_for
from epsinas_onnx.options import ScoreOptions
from epsinas_onnx.prepare import GraphOptions, Prepared, prepare
from epsinas_onnx.result import Score, Status
from epsinas_onnx.runtime.memory import refuse_if_too_large
from epsinas_onnx.runtime.providers import Provider
from epsinas_onnx.runtime.session import Engine
from epsinas_onnx.trace import Loss, Tracer, expose, longest_path, unreachable

Array = npt.NDArray[Any]

TRACED_SAMPLES = 4
_CHECKED_SAMPLES = 2
_CHECK_CONSTANTS = (0.05, 0.3, 1.0)  # the first keeps most networks without normalisation in range


class Attempt:
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
        self.minibatch = Minibatch(options.inputs, options.seed, self.name)
        first = input_specs(loaded.model, self.name, 1, options.shapes, attempt)
        if not first:
            raise ModelError(f"{self.name}: the model has no input, so its output cannot depend on one")
        self.graph_options = GraphOptions(
            {**options.shapes, **self.minibatch.shapes(first)}, options.outputs, options.roles, options.norm_stats,
            options.seed, attempt, native_types=options.dtype == "model",
        )  # fmt: skip
        self.batch = self.minibatch.size(first, options.batch)
        self.each = fixed_batch(first)
        self.notes: list[str] = []
        self.prepared = self._prepare(loaded, first)
        self.seconds["rewrite"] = time.perf_counter() - started
        refuse_if_too_large(self.prepared.model, self.name, options.jobs)
        specs = [spec.with_batch(self.batch) for spec in self.prepared.specs]
        self.axes = {spec.name: spec.batch_axis for spec in specs if spec.batch_axis is not None}
        self.feeds = self.minibatch.feeds(specs, self.prepared.bounds)
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
            longest_path(prepared.model, prepared.outputs), prepared.decisions.longest_sum(),
            sample_norms(prepared.model), cut_off,
        )  # fmt: skip
        verdict = judge(evidence, self)
        ran = cut_off is None
        seconds = {**self.seconds, **self.engine.seconds}
        return Score(
            model=self.name,
            score=verdict.raw_score if verdict.status is Status.OK else None,
            raw_score=verdict.raw_score if ran else None,
            status=verdict.status,
            reason=verdict.reason,
            weights=options.weights,
            input=self.minibatch.text(prepared.specs),
            batch=self.batch,
            provider=self.engine.provider if ran else None,
            parameters=prepared.decisions.parameters(),
            nodes=self.nodes,
            seconds={key: round(value, 6) for key, value in seconds.items()},
            output=prepared.outputs,
            warnings=(*self.notes, *warnings_for(prepared)),
            norm_stats=options.norm_stats,
            seed=options.seed,
            versions=versions(),
        )

    # What the judge may ask for (judge.Runner).

    def again(self, constant: float, change: float | None = None) -> Array:
        """Run once more with other last bits, or with everything moved by the share `change`."""
        nudged, feeds = self._nudge(constant, self.feeds, change)
        return self._flat(self._run(self.engine, nudged, feeds, self.prepared.outputs))

    def probe(self, constant: float) -> tuple[Array, Array]:
        """Run a few samples with another constant, plain and moved by the share `CHANGE`."""
        engine, _ = self._traced()
        feeds, outputs = self._few_feeds(), self.prepared.outputs
        plain = self._flat(self._run(engine, constant, feeds, outputs))
        nudged, changed = self._nudge(constant, feeds, CHANGE)
        return plain, self._flat(self._run(engine, nudged, changed, outputs))

    def find_loss(self, constant: float) -> Loss | None:
        """Trace a few samples to the node behind which the output no longer depends on them."""
        engine, tracer = self._traced()
        feeds = self._few_feeds()
        nudged, changed = self._nudge(constant, feeds)
        axes = self.axes
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

    def _nudge(
        self, constant: float, feeds: Mapping[str, Array], change: float | None = None
    ) -> tuple[float, dict[str, Array]]:
        """Move the float inputs and the constant by a share, or by one unit in the last place."""
        changed = {name: perturb(array, self.options.seed, change) for name, array in feeds.items()}
        if change is not None:
            return constant * (1 + change), changed
        return float(np.nextafter(np.float32(constant), np.float32(np.inf))), changed

    def advice(self, loss: Loss) -> str:
        """Name the value in front of a softmax or another head that is the same for identical classes."""
        if (
            loss.node.op_type in ("Softmax", "LogSoftmax", "Hardmax", "ArgMax", "TopK")
            and loss.node.inputs[0] is not None
        ):
            before = loss.node.inputs[0].name
            return f"; identical classes do that, so score what comes before with --output-name {before!r}"
        return ""

    # How the graph and its minibatch come to be.

    def _prepare(self, loaded: LoadedModel, specs: Sequence[InputSpec]) -> Prepared:
        if not self.each:
            if all(spec.batch_axis is None for spec in specs):
                raise ShapeError(
                    f"{self.name}: no input has a batch axis of its own (axis 0 free, or 1), so samples cannot be told "
                    f"apart; export the model with a dynamic batch"
                )
            return prepare(loaded, self.batch, self.graph_options)
        loosened = dataclasses.replace(self.graph_options, loosen=True)
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
        try:
            both = prepare(load_model(self.source), _CHECKED_SAMPLES, dataclasses.replace(loosened, norm_stats="reset"))
            alone = prepare(load_model(self.source), 1, dataclasses.replace(self.graph_options, norm_stats="reset"))
            refuse_if_too_large(both.model, self.name, self.options.jobs)
            feeds = self.minibatch.made(both.specs, both.bounds)
            # Away from 0, so that the first sample of the grey ramp is no all-zero one that hides a mistake.
            feeds = {k: v + np.float32(0.25) if v.dtype == np.float32 else v for k, v in feeds.items()}
            axes = {spec.name: spec.batch_axis for spec in both.specs if spec.batch_axis is not None}
            together = Engine(both.model, self.name, self.providers, self._threads)
            single = Engine(alone.model, self.name, self.providers, self._threads)
            for constant in _CHECK_CONSTANTS:
                ours = together.run(constant, feeds, both.outputs)
                theirs = single.run(constant, feeds, alone.outputs, axes)
                if not all(_same_entries(ours[key], theirs[key]) for key in both.outputs):
                    return False
                if all(np.isfinite(array).all() and varies(array) for array in theirs.values()):
                    break  # an output that says nothing is no evidence, so another constant is tried
        except (RunError, ShapeError):
            return False
        return True

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
        return few_samples(self.feeds, self.axes, self.batch, TRACED_SAMPLES)

    def _run(
        self, engine: Engine, constant: float, feeds: Mapping[str, Array], outputs: Sequence[str]
    ) -> dict[str, Array]:
        return engine.run(constant, feeds, outputs, self.axes if self.each else None)

    def _flat(self, outputs: Mapping[str, Array]) -> Array:
        return np.concatenate([outputs[name].reshape(-1) for name in self.prepared.outputs])


def _same_entries(together: Array, single: Array) -> bool:
    """Whether two outputs hold the same entries up to rounding; the samples may lie along any axis of the first."""
    if together.size != single.size:
        return False
    scale = float(np.abs(single[np.isfinite(single)]).max(initial=0))
    ours, theirs = np.sort(together, axis=None), np.sort(single, axis=None)
    return bool(np.allclose(ours, theirs, rtol=1e-3, atol=1e-5 * scale, equal_nan=True))


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
