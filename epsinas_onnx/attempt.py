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
import onnx_ir as ir

from epsinas_onnx.errors import ModelError, RunError, ShapeError
from epsinas_onnx.execution import (
    Execution,
    LumpedExecution,
    Pass,
    PlainExecution,
    Setting,
    TracedExecution,
    prove,
)
from epsinas_onnx.graph.load import LoadedModel, ModelSource, load_model
from epsinas_onnx.graph.rebatch import fixed_batch
from epsinas_onnx.graph.roles import Role
from epsinas_onnx.graph.shapes import InputSpec, held_batch, input_specs
from epsinas_onnx.inputs.generate import perturb
from epsinas_onnx.inputs.minibatch import Minibatch, few_samples
from epsinas_onnx.judge import CHANGE, Evidence, Verdict, judge
from epsinas_onnx.metric import varies
from epsinas_onnx.notes import no_weights, sample_norms, warnings_for
from epsinas_onnx.options import ScoreOptions
from epsinas_onnx.prepare import Decided, GraphOptions, decide_all
from epsinas_onnx.result import Score, Status
from epsinas_onnx.runtime.providers import Provider, provider_name
from epsinas_onnx.selection import selecting
from epsinas_onnx.trace import Loss, longest_path

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
            options.seed, attempt, native_types=options.dtype == "model", restore=options.restore_batchnorm,
        )  # fmt: skip
        self.held = held_batch(first)
        self.batch = self.held or self.minibatch.size(first, options.batch)
        self.each = fixed_batch(first)
        self.notes = loaded.notes()
        if self.held:
            self.notes.append(f"the file fixes the batch to {self.held}, so that is how many samples were run")
        self.setting = Setting(providers, 1 if options.jobs > 1 else options.threads, options.jobs, options.lump)
        self.decided = self._decide(loaded, first)
        self.sample_norms = sample_norms(self.decided.model)
        self.depth = longest_path(self.decided.model, self.decided.outputs)
        self.fixed = self.minibatch.fixed(self.decided.specs, self.decided.demands)
        self.cut_off, self.execution = self._executed()
        self.seconds["rewrite"] = time.perf_counter() - started
        specs = [spec.with_batch(self.batch) for spec in self.decided.specs]
        self.axes = {spec.name: spec.batch_axis for spec in specs if spec.batch_axis is not None}
        self.feeds = {} if self.cut_off else self.minibatch.feeds(specs, self.decided.demands)
        self._traced: tuple[TracedExecution, dict[str, Array]] | None = None
        self._again: dict[float | None, dict[float, Array]] = {}

    def _executed(self) -> tuple[str | None, Execution | None]:
        """Return why nothing need be run, or what runs.

        What the partitions prove holds for the plain graph too, so they are asked even where it is the one to run.
        """
        lowered = prove(self.decided, self.setting, len(self.options.weights), self.fixed)
        if lowered is not None and lowered.cut_off is not None:
            return f"{lowered.cut_off.why}{advice(lowered.cut_off.node)}", None
        if lowered is not None and self.options.lump:
            return None, LumpedExecution(lowered, self.decided, self.setting)
        plain = PlainExecution(self.decided, self.setting)
        return plain.cut_off, plain

    def result(self) -> Score:
        """Run both constants and judge them."""
        options, decided = self.options, self.decided
        if self.cut_off is None and self.execution is not None:
            passes = self._passes()
        else:
            passes = [Pass(np.zeros(1, np.float32))] * 2
        self.sizes = {c: done.output.size for c, done in zip(options.weights, passes, strict=True)}
        self._check_sizes(self.sizes)
        evidence = Evidence(
            options.weights, (passes[0].output, passes[1].output), (passes[0].deviations, passes[1].deviations),
            self.depth, decided.decisions.longest_sum(), self.sample_norms, self.cut_off,
        )  # fmt: skip
        verdict = judge(evidence, self)
        if verdict.status in (Status.OK, Status.NOISE) and not decided.decisions.with_role(Role.WEIGHT):
            verdict = Verdict(Status.NOISE, no_weights(decided.model), verdict.raw_score)
        ran = self.cut_off is None and self.execution is not None
        spent = {"session": 0.0, "run": 0.0} if self.execution is None else self.execution.seconds
        seconds = {**self.seconds, **spent}
        return Score(
            model=self.name,
            score=verdict.raw_score if verdict.status is Status.OK else None,
            raw_score=verdict.raw_score if ran else None,
            status=verdict.status,
            reason=verdict.reason,
            weights=options.weights,
            input=self.minibatch.text(decided.specs, decided.demands),
            batch=self.batch,
            provider=provider_name(self.setting.providers[0]) if ran else None,
            parameters=decided.decisions.parameters(),
            nodes=self.nodes,
            seconds={key: round(value, 6) for key, value in seconds.items()},
            output=decided.outputs,
            warnings=(*self.notes, *warnings_for(decided), *([verdict.note] if verdict.note else [])),
            norm_stats=options.norm_stats,
            seed=options.seed,
            versions=versions(),
        )

    def _check_sizes(self, sizes: Mapping[float, int]) -> None:
        """Raise ModelError where the size of the output depends on the values: there is nothing to compare then."""
        if not any(sizes.values()):
            raise ModelError(f"{self.name}: the output has no entries; compare another value with --output-name")
        if len(set(sizes.values())) == 1:
            return
        selects = selecting(self.decided.model)
        by = "" if selects is None else f", which node {selects.node.name!r} ({selects.node.op_type}) decides"
        found = " and ".join(f"{size:,} with weights {constant:g}" for constant, size in sizes.items())
        before = None if selects is None else selects.before
        advice = "" if before is None else f", such as {before.name!r}"
        raise ModelError(
            f"{self.name}: how many entries the output has depends on the values in the graph ({found}){by}; compare a "
            f"float value in front of it with --output-name{advice}"
        )

    def _passes(self) -> list[Pass]:
        """Run all constants; a lumped graph that ONNX Runtime does not take gives way to the plain one."""
        assert self.execution is not None
        try:
            return self.execution.run(self.options.weights, self.feeds, self._cut_axes)
        except RunError:
            if not self.execution.lumped:
                raise
        self.execution = PlainExecution(self.decided, self.setting)
        return self.execution.run(self.options.weights, self.feeds, self._cut_axes)

    @property
    def _cut_axes(self) -> Mapping[str, int] | None:
        return self.axes if self.each else None

    # What the judge may ask for (judge.Runner).

    def again(self, constant: float, change: float | None = None) -> Array:
        """Run once more with other last bits, or with everything moved by the share `change`."""
        assert self.execution is not None
        known = self._again.setdefault(change, {})
        if constant not in known:
            wanted = self.options.weights if self.execution.together else (constant,)
            nudged = [self._nudge(one, change) for one in wanted]
            passes = self.execution.run(nudged, self._moved(self.feeds, change), self._cut_axes)
            for one, moved, done in zip(wanted, nudged, passes, strict=True):
                self._check_sizes({one: self.sizes[one], moved: done.output.size})
                known[one] = done.output
        return known[constant]

    def probe(self, constant: float) -> tuple[Array, Array]:
        """Run a few samples with another constant, plain and moved by the share `CHANGE`."""
        few, feeds = self._trace()
        nudge = self._nudge(constant, CHANGE)
        plain = few.output(constant, feeds, self._cut_axes)
        moved = few.output(nudge, self._moved(feeds, CHANGE), self._cut_axes)
        self._check_sizes({constant: plain.size, nudge: moved.size})
        return plain, moved

    def find_loss(self, constant: float) -> Loss | None:
        """Trace a few samples to the node behind which the output no longer depends on them."""
        few, feeds = self._trace()
        cut = self._cut_axes
        nudged, changed = self._nudge(constant), self._moved(feeds)
        axes = self.axes
        rolled = {name: np.roll(array, 1, axes[name]) if name in axes else array for name, array in feeds.items()}
        largest = {name: float(np.abs(v).max(initial=0)) if v.dtype.kind in "fiu" else 0.0 for name, v in feeds.items()}
        try:
            return few.tracer.lost(
                lambda names: few.values(constant, feeds, names, cut),
                lambda names: few.values(nudged, changed, names, cut),
                lambda names: few.values(constant, rolled, names, cut),
                largest,
            )
        except RunError:  # the verdict stands without the node
            return None

    def find_explosion(self, constant: float) -> Loss | None:
        """Trace a few samples to the node in which infinities or NaN begin."""
        few, feeds = self._trace()
        try:
            return few.tracer.exploded(lambda names: few.values(constant, feeds, names, self._cut_axes))
        except RunError:
            return None

    def _nudge(self, constant: float, change: float | None = None) -> float:
        """Move a constant by a share, or by one unit in the last place."""
        if change is not None:
            return constant * (1 + change)
        return float(np.nextafter(np.float32(constant), np.float32(np.inf)))

    def _moved(self, feeds: Mapping[str, Array], change: float | None = None) -> dict[str, Array]:
        """Move the float inputs by a share, or by one unit in the last place."""
        return {name: perturb(array, self.options.seed, change) for name, array in feeds.items()}

    def advice(self, loss: Loss) -> str:
        """Return what a user could do about a loss, as the end of a sentence, or nothing."""
        return advice(loss.node)

    # How the graph and its minibatch come to be.

    def _decide(self, loaded: LoadedModel, specs: Sequence[InputSpec]) -> Decided:
        if not self.each:
            if all(spec.batch_axis is None for spec in specs):
                raise ShapeError(
                    f"{self.name}: no input has a batch axis of its own (axis 0 of two axes or more), so samples "
                    f"cannot be told apart; export the model with a dynamic batch"
                )
            return decide_all(loaded, self.batch, self.graph_options)
        loosened = dataclasses.replace(self.graph_options, loosen=True)
        if self._loosening_holds(loosened):
            self.each = False
            self.graph_options = loosened
            self.notes.append(f"the file fixes the batch to 1; it was re-batched to {self.batch}")
            return decide_all(loaded, self.batch, loosened)
        self.notes.append(
            "the file fixes the batch to 1 and cannot be re-batched, so it was run sample by sample: batch "
            "statistics are those of single samples"
        )
        return decide_all(loaded, 1, self.graph_options)

    def _loosening_holds(self, loosened: GraphOptions) -> bool:
        """Whether the re-batched graph gives two samples at a time what the original gives each of them.

        Batch statistics would couple the samples, so both are compared with mean 0 and variance 1.
        """
        try:
            both = decide_all(
                load_model(self.source, self.options.fed),
                _CHECKED_SAMPLES,
                dataclasses.replace(loosened, norm_stats="reset"),
            )
            alone = decide_all(
                load_model(self.source, self.options.fed),
                1,
                dataclasses.replace(self.graph_options, norm_stats="reset"),
            )
            feeds = self.minibatch.made(both.specs, both.demands)
            # Away from 0, so that the first sample of the grey ramp is no all-zero one that hides a mistake.
            feeds = {k: v + np.float32(0.25) if v.dtype == np.float32 else v for k, v in feeds.items()}
            axes = {spec.name: spec.batch_axis for spec in both.specs if spec.batch_axis is not None}
            together, single = (self._single(decided) for decided in (both, alone))
            for constant in _CHECK_CONSTANTS:
                ours = together.run([constant], feeds, None)[0].output
                theirs = single.run([constant], feeds, axes)[0].output
                if not _same_entries(ours, theirs):
                    return False
                if np.isfinite(theirs).all() and varies(theirs):
                    break  # an output that says nothing is no evidence, so another constant is tried
        except (RunError, ShapeError):
            return False
        return True

    def _single(self, decided: Decided) -> Execution:
        """Return what runs a decided model for one constant at a time."""
        lowered = prove(decided, self.setting, 1) if self.options.lump else None
        if lowered is None:
            return PlainExecution(decided, self.setting)
        return LumpedExecution(lowered, decided, self.setting)

    def _trace(self) -> tuple[TracedExecution, dict[str, Array]]:
        """Lower or rewrite the graph anew for a few samples, with every value to look at; return them too."""
        if self._traced is None:
            batch = 1 if self.each else self._few
            lumped = self.execution is not None and self.execution.lumped
            if lumped and not self.graph_options.loosen:
                decided = self.decided.with_batch(batch)
            else:  # the graph was rewritten for its minibatch
                decided = decide_all(load_model(self.source, self.options.fed), batch, self.graph_options)
            execution = TracedExecution(decided, self.setting, lumped, self.fixed)
            self._traced = execution, few_samples(self.feeds, self.axes, self.batch, self._few, decided.demands)
        return self._traced

    @property
    def _few(self) -> int:
        """How many samples are traced."""
        return self.held or min(self.batch, TRACED_SAMPLES)


def advice(node: ir.Node | None) -> str:
    """Name the value in front of a softmax or another head that is the same for identical classes."""
    heads = ("Softmax", "LogSoftmax", "Hardmax", "ArgMax", "TopK")
    if node is None or node.op_type not in heads or node.inputs[0] is None:
        return ""
    before = node.inputs[0].name
    return f"; identical classes do that, so score what comes before with --output-name {before!r}"


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
