"""What the judge may ask for: the same run with moved inputs, other constants, and the node that loses the signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from epsinas_onnx.errors import RunError
from epsinas_onnx.graph.analysis.dynamic_sizes import check_sizes
from epsinas_onnx.graph.load import LoadedModel
from epsinas_onnx.inputs.generate import perturbed
from epsinas_onnx.inputs.minibatch import few_samples, rolled
from epsinas_onnx.scoring.batching import Batching
from epsinas_onnx.scoring.diagnosis import SignalLoss
from epsinas_onnx.scoring.executors import ExecutionConfig, Executor, TracedExecutor
from epsinas_onnx.scoring.feeds import Feeds, Moved
from epsinas_onnx.scoring.metric import FLOAT32
from epsinas_onnx.scoring.plan import ModelPlan, plan
from epsinas_onnx.scoring.verdict import Runner

Array = npt.NDArray[Any]


class Reruns:
    """Runs again what was run (`verdict.Runner`); outputs and graphs are kept, so that asking twice costs once.

    weights: the constants that were run. sizes: how many entries the output had for each of them; another number is a
    ModelError.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        planned: ModelPlan,
        batching: Batching,
        config: ExecutionConfig,
        executor: Executor | None,
        feeds: Feeds,
        weights: Sequence[float],
        sizes: Mapping[float, int],
    ) -> None:
        self._loaded, self._plan, self._batching, self._config = loaded, planned, batching, config
        self._executor, self._feeds, self._weights, self._sizes = executor, feeds, weights, sizes
        self._seed = planned.options.seed
        self._cut_axes = feeds.axes if batching.per_sample else None
        self._traced: tuple[TracedExecutor, dict[str, Array]] | None = None
        self._perturbed: dict[float | None, dict[float, Array]] = {}
        self._moved = Moved(lambda: feeds.arrays, self._seed)

    def rerun_perturbed(self, constant: float, change: float | None = None) -> Array:
        """Run once more with other last bits, or with everything moved by the share `change`."""
        assert self._executor is not None
        known = self._perturbed.setdefault(change, {})
        if constant not in known:
            wanted = self._weights if self._executor.together else (constant,)
            changed = [nudged(one, change) for one in wanted]
            results = self._executor.run(changed, self._moved.by(change), self._cut_axes)
            for one, moved, done in zip(wanted, changed, results, strict=True):
                self._check({one: self._sizes[one], moved: done.output.size})
                known[one] = done.output
        return known[constant]

    def run_probe_constant(self, constant: float) -> tuple[Array, Array]:
        """Run a few samples with another constant, plain and moved a little."""
        few, feeds = self._trace()
        nudge = nudged(constant, FLOAT32.change)
        plain = few.output(constant, feeds, self._cut_axes)
        moved = few.output(nudge, perturbed(feeds, self._seed, FLOAT32.change), self._cut_axes)
        self._check({constant: plain.size, nudge: moved.size})
        return plain, moved

    def find_loss(self, constant: float) -> SignalLoss | None:
        """Trace a few samples to the node behind which the output no longer depends on them."""
        few, feeds = self._trace()
        cut, axes = self._cut_axes, self._feeds.axes
        moved, changed = nudged(constant), perturbed(feeds, self._seed)
        turned = rolled(feeds, axes)
        largest = {name: float(np.abs(v).max(initial=0)) if v.dtype.kind in "fiu" else 0.0 for name, v in feeds.items()}
        try:
            return few.tracer.lost(
                lambda names: few.values(constant, feeds, names, cut),
                lambda names: few.values(moved, changed, names, cut),
                lambda names: few.values(constant, turned, names, cut),
                largest,
            )
        except RunError:  # the verdict stands without the node
            return None

    def find_explosion(self, constant: float) -> SignalLoss | None:
        """Trace a few samples to the node in which infinities or NaN begin."""
        few, feeds = self._trace()
        try:
            return few.tracer.exploded(lambda names: few.values(constant, feeds, names, self._cut_axes))
        except RunError:
            return None

    def degree(self) -> None:
        """Know none: float32 proves nothing."""

    def _check(self, sizes: Mapping[float, int]) -> None:
        check_sizes(self._plan.model, self._plan.name, sizes)

    def _trace(self) -> tuple[TracedExecutor, dict[str, Array]]:
        """Lower or rewrite the graph anew for a few samples, with every value to look at; return them too."""
        if self._traced is None:
            lumped = self._executor is not None and self._executor.lumped
            self._traced = trace_few(self._loaded, self._plan, self._batching, self._config, self._feeds, lumped)
        return self._traced


def trace_few(
    loaded: LoadedModel, planned: ModelPlan, batching: Batching, config: ExecutionConfig, feeds: Feeds, lumped: bool
) -> tuple[TracedExecutor, dict[str, Array]]:
    """Lower or rewrite a graph anew for a few samples, with every value to look at; return them too."""
    few, arrays = plan_few(loaded, planned, batching, feeds)
    return TracedExecutor(few, config, lumped, feeds), arrays


def plan_few(
    loaded: LoadedModel, planned: ModelPlan, batching: Batching, feeds: Feeds
) -> tuple[ModelPlan, dict[str, Array]]:
    """Plan a graph anew for a few samples; return them too."""
    samples = 1 if batching.per_sample else batching.traced
    # A loosened graph was rewritten for its minibatch.
    few = plan(loaded, samples, batching.options) if batching.options.loosen else planned.with_batch(samples)
    return few, few_samples(feeds.arrays, feeds.axes, batching.traced, few.demands)


class WithoutReasons:
    """The same where only the status is asked for: no node is looked for."""

    def __init__(self, runs: Runner) -> None:
        self._runs = runs

    def rerun_perturbed(self, constant: float, change: float | None = None) -> Array:
        """Run once more with other last bits, or with everything moved by the share `change`."""
        return self._runs.rerun_perturbed(constant, change)

    def run_probe_constant(self, constant: float) -> tuple[Array, Array]:
        """Run a few samples with another constant, plain and moved a little."""
        return self._runs.run_probe_constant(constant)

    def find_loss(self, constant: float) -> None:
        """Name none."""

    def find_explosion(self, constant: float) -> None:
        """Name none."""

    def degree(self) -> None:
        """Know none."""


class StatusOnly(WithoutReasons):
    """The same for an output that is known to vary in exact arithmetic, whatever becomes of it in float32."""

    def run_probe_constant(self, constant: float) -> tuple[Array, Array]:
        """Return an output that varies."""
        return np.array([0.0, 1.0]), np.array([0.0, 1.0])


def nudged(constant: float, change: float | None = None) -> float:
    """Move a constant by a share, or by one unit in the last place."""
    if change is not None:
        return constant * (1 + change)
    return float(np.nextafter(np.float32(constant), np.float32(np.inf)))
