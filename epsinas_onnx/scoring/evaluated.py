"""Runs a lumped graph in our own evaluator: exactly, or in float32 where a session of ONNX Runtime takes longer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.errors import RunError
from epsinas_onnx.evaluate_lumped.call import Unsupported
from epsinas_onnx.evaluate_lumped.evaluator import (
    Arithmetic,
    Constant,
    Evaluator,
    Started,
    log2_range,
    order,
    variation,
)
from epsinas_onnx.evaluate_lumped.scaled import Scaled
from epsinas_onnx.evaluate_lumped.trace import Seen, Trace, summary
from epsinas_onnx.evaluate_lumped.value import Value
from epsinas_onnx.inputs.generate import unstretched
from epsinas_onnx.inputs.minibatch import each_sample
from epsinas_onnx.lump.lower import LumpedModel
from epsinas_onnx.lump.value import Lumped
from epsinas_onnx.runtime.blas import single_threaded
from epsinas_onnx.scoring.executors import ForwardResult

Array = npt.NDArray[Any]


class PlainEvaluator:
    """A lumped graph in float32, every value as it stands; it runs like an `Engine`."""

    def __init__(self, lowered: LumpedModel, fetched: Mapping[str, Lumped]) -> None:
        started = time.perf_counter()
        self._evaluator = _evaluator(lowered, fetched, "float32")
        self.seconds = {"session": time.perf_counter() - started, "run": 0.0}

    def run(
        self,
        weight: Array,
        feeds: Mapping[str, Array],
        outputs: Sequence[str],
        batch_axes: Mapping[str, int] | None = None,
    ) -> dict[str, Array]:
        """Return `outputs` by name for a weight, float32 `[1]`; batch_axes: where samples are run one by one."""
        started = time.perf_counter()
        constant = float(weight[0])
        with _evaluating():
            if not batch_axes:
                made = self._evaluator.plain(constant, feeds)
            else:
                each = [self._evaluator.plain(constant, sample) for sample in each_sample(feeds, batch_axes)]
                made = {name: np.stack([one[name] for one in each]) for name in outputs}
        self.seconds["run"] += time.perf_counter() - started
        return {name: made[name] for name in outputs}


class ExactExecutor:
    """A lumped graph in exact arithmetic: outputs are float64, less what all samples have in common, up to a factor.

    The metric makes the same of them, and they have no range. axes: along which samples lie in the inputs.
    log2_apart: for each constant that was run the logarithm of how far apart the entries lie.
    """

    together = False
    lumped = True

    def __init__(self, lowered: LumpedModel, outputs: Sequence[str], axes: Mapping[str, int]) -> None:
        started = time.perf_counter()
        self._lowered, self._axes = lowered, axes
        self._fetched = {name: lowered.outputs[name] for name in outputs}
        self._evaluator = _evaluator(lowered, self._fetched, "exact")
        self.seconds = {"session": time.perf_counter() - started, "run": 0.0}
        self.log2_apart: dict[float, float] = {}

    def run(
        self, constants: Sequence[float], feeds: Mapping[str, Array], axes: Mapping[str, int] | None
    ) -> list[ForwardResult]:
        """Return what each constant gives."""
        started = time.perf_counter()
        feeds = self._lowered.fed(feeds)
        with _evaluating():
            begun = self._evaluator.begin(feeds, self._axes) if axes is None else None
            outputs = [self._entries(self._values(Constant(constant), feeds, axes, begun)) for constant in constants]
        self.log2_apart |= {c: log2_range(entries) for c, entries in zip(constants, outputs, strict=True)}
        self.seconds["run"] += time.perf_counter() - started
        return [ForwardResult(_snapped(entries.array)) for entries in outputs]

    def slow_entries(self) -> float:
        """Return how many entries a run computes outside of compiled chains; infinite where there are loops."""
        return self._lowered.entries() - self._evaluator.compiled_entries()

    def peak_bytes(self) -> tuple[int, str]:
        """Return an estimate of what a run holds at its peak, and the name of the largest tensor."""
        return self._evaluator.peak_bytes()

    def entries(self, constant: Constant, feeds: Mapping[str, Array]) -> Scaled:
        """Return what the metric takes of the outputs for a constant of any size (`evaluator.variation`)."""
        with _evaluating():
            return self._entries(self._values(constant, self._lowered.fed(feeds), None))

    def trace(
        self, constant: float, feeds: Mapping[str, Array], axes: Mapping[str, int] | None
    ) -> tuple[Trace, dict[str, Seen]]:
        """Return what became of every value for a constant; axes: as of `run`, of which then two samples are seen."""
        traced = self.tracer()
        *_, values = self.every_value(traced, constant, feeds, axes)
        return traced, {name: summary(value) for name, value in values.items()}

    def tracer(self, named: Callable[[ir.Model], Mapping[ir.Value, str]] | None = None) -> Trace:
        """Return what looks at every value of the user's graph; named: of a model, names of values in its bodies."""
        with _evaluating():
            names = None if named is None else named(self._lowered.model)
            return Trace(self._lowered, list(self._fetched), names)

    def every_value(
        self, traced: Trace, constant: float, feeds: Mapping[str, Array], axes: Mapping[str, int] | None
    ) -> list[dict[str, Value]]:
        """Return every value for a constant: once, or for the first and the last sample where `axes` cuts them apart.

        traced: what `tracer` gives. A deviation is one from the first sample in either case.
        """
        feeds, one = self._lowered.fed(feeds), Constant(constant)
        with _evaluating():
            if axes is None:
                return [traced.values(one, feeds, self._axes)]
            first, *_, last = each_sample(feeds, axes)
            references = {name: first[name] for name in axes}
            return [traced.values(one, sample, axes, references) for sample in (first, last)]

    def entries_of(self, lumped: Lumped, values: Sequence[Value]) -> Array:
        """Return what the metric takes of a value, each class as often as it counts, up to a factor and a sum."""

        def split(_: int, array: Array) -> Array:
            (row,) = self._lowered.split(lumped, array)
            return row.reshape(-1)

        with _evaluating():
            return _snapped(variation(values, split).settled().array)

    def order(self, feeds: Mapping[str, Array], few_only: bool = False) -> float | None:
        """Return d log|v| / d log c towards c = 0, v being how far entries lie apart; None where they do not.

        few_only: whether a few samples are asked and no more.
        """
        started = time.perf_counter()
        with _evaluating():
            found = order(self._evaluator, self._lowered.fed(feeds), self._axes, few_only)
        self.seconds["run"] += time.perf_counter() - started
        return found if np.isfinite(found) else None

    def _entries(self, values: Sequence[Value]) -> Scaled:
        lumped = list(self._fetched.values())

        def split(index: int, array: Array) -> Array:
            (row,) = self._lowered.split(lumped[index % len(lumped)], array)
            return row.reshape(-1)

        return variation(values, split).settled()

    def _values(
        self,
        constant: Constant,
        feeds: Mapping[str, Array],
        axes: Mapping[str, int] | None,
        begun: Started | None = None,
    ) -> list[Value]:
        """Return the outputs; begun: where samples run together, what is the same for other constants."""
        if axes is None:
            return list(self._evaluator.end(constant, begun or self._evaluator.begin(feeds, self._axes)).values())
        first, *rest = each_sample(feeds, axes)
        return [
            value
            for sample in (first, *rest)
            for value in self._evaluator.values(constant, sample, axes, {name: first[name] for name in axes}).values()
        ]


_TIED = 2.0**-44
"""Entries that lie no further above the smallest than this share of the largest are the smallest, but for rounding."""


def _snapped(entries: Array) -> Array:
    """Return entries of which those equal to the smallest are so to the bit, because the metric skips them."""
    if not entries.size or not np.isfinite(entries).all():
        return entries
    low = entries.min()
    return np.where(entries - low <= _TIED * np.abs(entries).max(), low, entries)


def _evaluator(lowered: LumpedModel, fetched: Mapping[str, Lumped], arithmetic: Arithmetic) -> Evaluator:
    with _evaluating():
        return Evaluator(lowered, fetched, arithmetic, spare=True)


@contextmanager
def _evaluating() -> Iterator[None]:
    """Evaluate on one thread; whatever numbers of a stranger's file do not fit is a RunError."""
    try:
        with single_threaded():
            yield
    except (ArithmeticError, AssertionError, LookupError, TypeError, Unsupported, ValueError) as error:
        raise RunError(f"the lumped graph cannot be evaluated: {error}") from error


def widened(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return the inputs with floats in float64, whose last bits are those of exact arithmetic."""
    return {
        name: np.broadcast_to(unstretched(array).astype(np.float64), array.shape) if array.dtype.kind == "f" else array
        for name, array in feeds.items()
    }
