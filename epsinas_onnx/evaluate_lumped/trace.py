"""Finds the node of the user's graph in which samples stop differing, or numbers stop being finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from epsinas_onnx.evaluate_lumped.evaluator import Constant, Evaluator
from epsinas_onnx.evaluate_lumped.scaled import Array
from epsinas_onnx.evaluate_lumped.value import Value
from epsinas_onnx.evaluate_lumped.watch import Look, Watch, scopes_of
from epsinas_onnx.graph.passes.constant_weights import REPLACES
from epsinas_onnx.graph.traversal import operands
from epsinas_onnx.lump.lower import LumpedModel
from epsinas_onnx.lump.value import Lumped

Kind: TypeAlias = Literal[
    "rounds", "bounds", "identical", "saturates", "centred", "sums", "zero", "other", "not finite"
]
"""Why nothing is left behind a node; `Loss.why` says it in words."""

_WHY: Mapping[Kind, str] = {
    "rounds": "keeps a sign, a whole number or an order of its operands, which is the same for all samples",
    "bounds": "cuts all samples off at the same bound",
    "identical": "compares values with each other that are identical, which leaves the same for all samples",
    "saturates": "is so close to its limit for all samples that they do not differ in float64",
    "centred": "sums up what a normalisation has brought to a mean of 0, which is 0",
    "sums": "adds up values that have the same sum for all samples",
    "zero": "multiplies what differs between samples by 0",
    "other": "gives the same for all samples",
    "not finite": "gives NaN or infinity although what goes in is finite",
}
_KINDS: Mapping[Kind, frozenset[str]] = {
    "rounds": frozenset((
        "Sign", "Cast", "CastLike", "Floor", "Ceil", "Round", "ArgMax", "ArgMin", "TopK", "Hardmax", "OneHot", "Less",
        "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "Not", "And", "Or", "Xor", "IsNaN", "IsInf", "NonZero",
        "NonMaxSuppression", "QuantizeLinear", "Where", "Mod",
    )),
    "bounds": frozenset((
        "Clip", "Relu", "HardSigmoid", "HardSwish", "ThresholdedRelu", "Shrink", "Min", "Max", "MaxPool",
        "GlobalMaxPool", "ReduceMax", "ReduceMin", "LeakyRelu", "PRelu",
    )),
    "identical": frozenset((
        "BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization",
        "SimplifiedLayerNormalization", "MeanVarianceNormalization", "LpNormalization", "Softmax", "LogSoftmax", "Sub",
        "Div", "SkipLayerNormalization", "LRN",
    )),
    "saturates": frozenset((
        "Sigmoid", "Tanh", "Erf", "Exp", "Elu", "Selu", "Celu", "Softplus", "Softsign", "Gelu", "Swish", "Mish", "Atan",
    )),
    "sums": frozenset((
        "MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "ReduceSum", "ReduceMean", "AveragePool",
        "GlobalAveragePool", "Add", "Sum", "Mean",
    )),
    "zero": frozenset(("Mul",)),
}  # fmt: skip
_MEASURES = frozenset(("Shape", "Size"))
"""What gives the same for all samples because it does not look at them."""


@dataclass(frozen=True)
class Loss:
    """Where a signal ends. node: its name in the user's file. before, behind: log2 of how far samples lie apart in what
    goes in and comes out, -inf where they do not.
    """

    node: str
    op_type: str
    kind: Kind
    before: float
    behind: float

    @property
    def place(self) -> str:
        """Return how a sentence refers to the node."""
        return f"node {self.node!r} ({self.op_type})"

    @property
    def why(self) -> str:
        """Return the end of a sentence that begins with the node."""
        return _WHY[self.kind]


@dataclass(frozen=True)
class Seen:
    """One value of the user's graph. apart: log2 of the largest deviation from the first sample, -inf for none."""

    apart: float
    finite: bool

    @property
    def differs(self) -> bool:
        """Whether samples differ, by however little."""
        return self.apart > -math.inf or not self.finite


class Trace:
    """Every value of the user's graph that depends on an input, for one constant and a few samples.

    lowered: bound, for one constant at a time. outputs: the names that are compared. The values are all held at once,
    so that few samples are enough and better. `lumped` has them as the graph holds them, by name. named: values in
    bodies that are looked at too: `inner` has those that `watch` sees, because a body makes them, and `independent` the
    names of those that follow from no input.
    """

    def __init__(
        self, lowered: LumpedModel, outputs: Sequence[str], named: Mapping[ir.Value, str] | None = None
    ) -> None:
        self._graph = lowered.model.graph
        self._outputs = [value for value in self._graph.outputs if value.name in outputs]
        self._lowered = lowered
        self.lumped = _exposed(lowered)
        outside, self.inner = _inside(lowered, named or {})
        self.independent = [name for value, name in (named or {}).items() if _follows_from_none(lowered, value)]
        for name, lumped in outside.items():
            self.lumped.setdefault(name, lowered.context.settle(lumped))
        self._evaluator = Evaluator(lowered, self.lumped, "exact")
        self._watch: Watch | None = None

    def seen(
        self,
        constant: Constant,
        feeds: Mapping[str, Array],
        axes: Mapping[str, int],
        references: Mapping[str, Array] | None = None,
    ) -> dict[str, Seen]:
        """Return what became of every value, by name; arguments as of `Evaluator.values`."""
        return {name: summary(value) for name, value in self.values(constant, feeds, axes, references).items()}

    def values(
        self,
        constant: Constant,
        feeds: Mapping[str, Array],
        axes: Mapping[str, int],
        references: Mapping[str, Array] | None = None,
    ) -> dict[str, Value]:
        """Return every value by name, as `Evaluator.values` does."""
        return self._evaluator.values(constant, feeds, axes, references)

    def watch(self, look: Look) -> None:
        """Have what is in bodies looked at while values are computed: called for each value in each turn."""
        program = self._evaluator.program
        self._watch = Watch(self._lowered.graph, self.inner, program.tensors(), look)
        program.observer = self._watch

    def idle(self) -> set[tuple[str, str]]:
        """Return the branches that did not run while they were watched: the node's name, and the attribute."""
        return set() if self._watch is None else self._watch.idle()

    def held_bytes(self) -> int:
        """Return an estimate of what all values of one run take together."""
        return self._evaluator.peak_bytes()[0]

    def lost(self, constant: Constant, feeds: Mapping[str, Array], axes: Mapping[str, int]) -> Loss | None:
        """Return the node behind which nothing that reaches the outputs differs; None where an output differs.

        Of several, the first of the graph, those behind a multiplication by 0 last.
        """
        return self.lost_in(self.seen(constant, feeds, axes))

    def exploded(self, constant: Constant, feeds: Mapping[str, Array], axes: Mapping[str, int]) -> Loss | None:
        """Return the first node that gives NaN or infinity for finite operands; None where there is none."""
        return self.exploded_in(self.seen(constant, feeds, axes))

    def lost_in(self, seen: Mapping[str, Seen]) -> Loss | None:
        """Return the same for what was seen."""
        differs = self._differs(seen)
        if any(differs.get(value, False) for value in self._outputs):
            return None
        found = [node for node in self._reached(differs) if any(differs.get(v, False) for v in operands(node))]
        order = {node: index for index, node in enumerate(self._graph)}
        found.sort(key=lambda node: (self._kind(node) == "zero", order.get(node, -1)))
        return _loss(found[0], self._kind(found[0]), seen) if found else None

    def exploded_in(self, seen: Mapping[str, Seen]) -> Loss | None:
        """Return the same for what was seen."""
        for node in self._graph:
            bad = [value for value in node.outputs if value.name in seen and not seen[str(value.name)].finite]
            if bad and all(seen[str(v.name)].finite for v in operands(node) if v.name in seen):
                return _loss(node, "not finite", seen)
        return None

    def _kind(self, node: ir.Node) -> Kind:
        if node.name in self._evaluator.program.centred:
            return "centred"
        name = node.meta.get(REPLACES, node.op_type)
        return next((kind for kind, names in _KINDS.items() if name in names), "other")

    def _differs(self, seen: Mapping[str, Seen]) -> dict[ir.Value, bool]:
        """Return for every value whether it differs; one that was not seen does where what it is made of does."""
        found: dict[ir.Value, bool] = dict.fromkeys(self._graph.inputs, True)
        for node in self._graph:
            before = node.op_type not in _MEASURES and any(found.get(value, False) for value in operands(node))
            for value in node.outputs:
                lumped = self._lowered.values.get(value)
                if value.name in seen:
                    found[value] = seen[str(value.name)].differs
                else:
                    found[value] = before and (lumped is None or lumped.depends)
        return found

    def _reached(self, differs: Mapping[ir.Value, bool]) -> Iterable[ir.Node]:
        """Yield the nodes that the outputs are made by, back to where samples still differ."""
        pending, visited = list(self._outputs), set(self._outputs)
        while pending:
            producer = pending.pop().producer()
            if producer is None or producer.op_type in _MEASURES:
                continue
            yield producer
            for value in operands(producer):
                if value not in visited and not differs.get(value, False):
                    visited.add(value)
                    pending.append(value)


def _exposed(lowered: LumpedModel) -> dict[str, Lumped]:
    """Return every value of the main graph that depends on an input, of any type."""
    found: dict[str, Lumped] = {}
    for value, lumped in list(lowered.values.items()):
        node = value.producer()
        if value.name and lumped.depends and node is not None and node.graph is lowered.model.graph:
            found.setdefault(str(value.name), lowered.context.settle(lumped))
    return found


def _inside(lowered: LumpedModel, named: Mapping[ir.Value, str]) -> tuple[dict[str, Lumped], dict[str, Lumped]]:
    """Return the values in bodies that follow from an input: those that the main graph makes, and the others."""
    scopes = scopes_of(lowered.graph) if named else {}
    outside: dict[str, Lumped] = {}
    inside: dict[str, Lumped] = {}
    for value, lumped in lowered.inner.items():
        if value in named and lumped.depends and lumped.tensor is not None:
            (inside if lumped.tensor in scopes else outside)[named[value]] = lumped
    return outside, inside


def _follows_from_none(lowered: LumpedModel, value: ir.Value) -> bool:
    lumped = lowered.inner.get(value)
    return lumped is not None and not lumped.depends


def summary(value: Value) -> Seen:
    """Return what became of a value."""
    parts = [part for part in (value.base, value.deviation) if part is not None]
    finite = all(bool(np.isfinite(part.array).all()) for part in parts)
    return Seen(-math.inf if value.deviation is None or not finite else value.deviation.log2, finite)


def _loss(node: ir.Node, kind: Kind, seen: Mapping[str, Seen]) -> Loss:
    def largest(values: Iterable[ir.Value]) -> float:
        return max((seen[str(value.name)].apart for value in values if value.name in seen), default=-math.inf)

    name = str(node.meta.get(REPLACES, node.op_type))
    return Loss(str(node.name), name, kind, largest(operands(node)), largest(node.outputs))
