"""Runs a lumped model for one constant after the other: in float32 as it stands, or exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from epsinas_onnx.errors import RunError
from epsinas_onnx.evaluate_lumped.call import Unsupported
from epsinas_onnx.evaluate_lumped.program import Begun, Program
from epsinas_onnx.evaluate_lumped.scaled import Array, Scaled, add
from epsinas_onnx.evaluate_lumped.value import Pair, Value, fixed, given
from epsinas_onnx.inputs.minibatch import evenly
from epsinas_onnx.lump.graph import Node
from epsinas_onnx.lump.lower import LumpedModel
from epsinas_onnx.lump.value import Lumped

Arithmetic: TypeAlias = Literal["exact", "float32"]


@dataclass(frozen=True)
class Constant:
    """A constant without a range: mantissa * 2**exponent."""

    mantissa: float
    exponent: int = 0


class Started(NamedTuple):
    """A run that began, and what runs it."""

    program: Program
    begun: Begun


class Evaluator:
    """A lumped model that is ready to run. fetched: the values that are wanted, by name.

    spare: whether nodes are left out on which nothing depends but what is 0 by proof.

    Raises Unsupported for a graph that cannot be run here.
    """

    def __init__(
        self,
        lowered: LumpedModel,
        fetched: Mapping[str, Lumped],
        arithmetic: Arithmetic,
        keep: bool = False,
        spare: bool = False,
    ) -> None:
        assert lowered.constants == 1
        assert lowered.bound
        _keep_memory()
        self.exact = exact = arithmetic == "exact"
        self.names = list(fetched)
        tensors = [lowered.context.canonical(value) for value in fetched.values()]
        self.program = Program(lowered.graph, tensors, exact, keep, spare)
        self._with_all = cache(lambda: Program(lowered.graph, tensors, exact, keep))
        norms = any(node.op_type == "BatchNormalization" for node in self.program.nodes)
        if norms and lowered.context.target.norm_stats == "reset":  # the node itself does not say so
            raise Unsupported("a BatchNormalization of unknown shape with statistics of 0 and 1")

    @property
    def without_rule(self) -> Sequence[Node]:
        """Return the nodes that ONNX Runtime runs on formed values."""
        return self.program.without_rule

    def peak_bytes(self) -> tuple[int, str]:
        """Return an estimate of what one run takes, and the name of the largest tensor: for `refuse_if_too_large`."""
        return self.program.peak_bytes()

    def compiled_entries(self) -> int:
        """Return how many of the entries that a run computes compiled chains do."""
        return self.program.compiled_entries()

    def plain(self, constant: float, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the values in float32, as every operator gives them."""
        weight = np.asarray([constant], np.float32)
        made = self.program.run(lambda make: make(weight), self.program.begin(feeds))
        return dict(zip(self.names, map(np.asarray, made), strict=True))

    def values(
        self,
        constant: Constant,
        feeds: Mapping[str, Array],
        axes: Mapping[str, int],
        references: Mapping[str, Array] | None = None,
    ) -> dict[str, Value]:
        """Return the values exactly, as `begin` and `end` do."""
        return self.end(constant, self.begin(feeds, axes, references))

    def begin(
        self, feeds: Mapping[str, Array], axes: Mapping[str, int], references: Mapping[str, Array] | None = None
    ) -> Started:
        """Return what of a run no constant changes. axes: where samples lie in an input; the first is the reference.

        references: the reference by input name, where it is not in `feeds`.
        """
        inputs: dict[str, Any] = {}
        for name, array in feeds.items():
            if references is not None and name in references:
                inputs[name] = given(references[name], array)
            elif name in axes:
                inputs[name] = given(np.take(array, [0], axes[name]), array)
            else:
                inputs[name] = fixed(array)
        program = self._program_for(feeds)
        return Started(program, program.begin(inputs))

    def end(self, constant: Constant, started: Started) -> dict[str, Value]:
        """Return the values exactly, for a run that began."""
        mantissa, exponent = math.frexp(constant.mantissa)
        one = np.ones(1)

        def derived(make: Any) -> Value:
            array = np.asarray(make(one), np.float64) * math.copysign(1.0, mantissa)
            part = Scaled(array, abs(mantissa), exponent + constant.exponent) if mantissa else None
            return Value(array.shape, part, None)

        made = started.program.run(derived, started.begun)
        return dict(zip(self.names, map(as_value, made), strict=True))

    def _program_for(self, feeds: Mapping[str, Array]) -> Program:
        """Return what runs so many samples: fewer than the graph is made for take the nodes that were left out."""
        spared = self.program.spared and any(
            tensor.name in feeds and feeds[tensor.name].shape != tensor.shape for tensor, _ in self.program.inputs
        )
        return self._with_all() if spared else self.program


@cache
def _keep_memory() -> None:
    """Have the C library keep what arrays give back: it keeps blocks up to the largest that it gave back so far.

    Else it asks the system for the same memory again and again, whose first touch costs a third of a small network.
    """
    np.empty(31 * 2**17)


def as_value(value: Value | Pair) -> Value:
    """Return what has a base and a deviation, of numbers of any kind."""
    if isinstance(value, Value):
        return value
    made = given(np.asarray(value.reference, np.float64), np.asarray(value.actual, np.float64))
    assert isinstance(made, Value)
    return made


def variation(values: Sequence[Value], split: Callable[[int, Array], Array] | None = None) -> Scaled:
    """Return how far all entries of some outputs, flattened together, are from the first entry of the first base.

    The metric, which takes the smallest entry away and divides by the range, gives the same for these as for the
    outputs, whatever their scale; what entries have in common is left out, so that it costs no digits.
    split: called with an index and an array, returns the entries as often as they count.
    """
    bases, deviations = [], []
    for index, value in enumerate(values):
        flat = []
        for part in (value.base, value.deviation):
            array = np.zeros(value.shape) if part is None else np.broadcast_to(part.array, value.shape)
            array = array if split is None else split(index, array)
            flat.append(Scaled(np.zeros(array.size)) if part is None else part.become(array.reshape(-1)))
        bases.append(flat[0])
        deviations.append(flat[1])
    base, deviation = _in_a_row(bases), _in_a_row(deviations)
    apart = base.array - base.array[:1]
    return deviation if not apart.any() else add(base.become(apart), deviation)


def _in_a_row(parts: Sequence[Scaled]) -> Scaled:
    if len(parts) == 1:
        return parts[0]
    parts = [part.settled() for part in parts]
    largest = max(parts, key=lambda part: part.log2)
    return largest.become(np.concatenate([part.in_units_of(largest) for part in parts]))


def log2_range(entries: Scaled) -> float:
    """Return the logarithm of how far apart the smallest and the largest entry lie, -inf where all are equal."""
    if not entries.array.size:
        return -math.inf
    entries = entries.settled()
    apart = float(entries.array.max() - entries.array.min())
    if not apart > 0 or entries.mantissa == 0:  # a quotient by infinity has a scale of 0
        return -math.inf
    return math.log2(apart) + math.log2(entries.mantissa) + entries.exponent


FAR = Constant(1.0, -(2**44))
"""A constant so near 0 that the logarithm of what a network makes of it is the order, up to the tenth digit."""
FEW = 4
"""Samples that tell the order as well as all do."""


def order(evaluator: Evaluator, feeds: Mapping[str, Array], axes: Mapping[str, int], few_only: bool = False) -> float:
    """Return d log|v| / d log c of how far apart the outputs' entries lie, towards c = 0; NaN where they are equal.

    A few of the samples are asked; all of them where the graph is made for their number, or where these are equal.
    few_only: whether that, which may be a large run, is left out.
    """
    few = {name: evenly(array, axes[name], FEW) if name in axes else array for name, array in feeds.items()}
    if all(few[name].shape == array.shape for name, array in feeds.items()):
        return _order(evaluator, feeds, axes)
    try:
        found = _order(evaluator, few, axes)
    except RunError:
        found = math.nan
    return _order(evaluator, feeds, axes) if math.isnan(found) and not few_only else found


def _order(evaluator: Evaluator, feeds: Mapping[str, Array], axes: Mapping[str, int]) -> float:
    reached = log2_range(variation(list(evaluator.values(FAR, feeds, axes).values())))
    return round(reached / FAR.exponent, 6) + 0.0 if math.isfinite(reached) else math.nan  # no -0
