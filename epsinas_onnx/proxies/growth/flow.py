"""What the rewrite carries of each value: the value, its derivative by the logarithm of all weights, and a scale."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import onnx_ir as ir

from epsinas_onnx.errors import UnsupportedError
from epsinas_onnx.graph.emitter import Emitter

_FAR = 50.0
"""Logarithm of what values may grow to, or shrink to as far as is known: 1e21, of the 1e38 of float32. Entries may be
e times as small as their bound after each product, and derivatives as many times as large as there are layers."""
_LARGEST = 80.0
"""Logarithm of the largest factor that a scale is written out as: float32 ends at 88.7."""


@dataclass(frozen=True)
class Flow:
    """A value v that depends on the weights, as `value * exp(scale)`.

    tangent: d v / d log c with all weights c times as large, over exp(scale), of the value's shape; None where it is 0.
    scale: a scalar, None for 0. size: logarithm of what no entry of `value` is larger than, None where nothing tells.
    steps: how many products and sums made `value` since it was last divided by its largest magnitude. positive: whether
    no entry of value and tangent is below 0, as in a network of positive weights that is fed with ones.
    """

    value: ir.Value
    tangent: ir.Value | None = None
    scale: ir.Value | None = None
    size: float | None = None
    steps: int = 0
    positive: bool = False


Rule: TypeAlias = "Callable[[Step], Flow | Sequence[Flow]]"
"""Returns the flow of the outputs of a node; one for the first alone."""

R = TypeVar("R", bound=Rule)

RULES: dict[str, Rule] = {}


def rule(*op_types: str) -> Callable[[R], R]:
    """Register a function as the rule of operators."""

    def register(function: R) -> R:
        for op_type in op_types:
            assert op_type not in RULES, f"{op_type} has two rules"
            RULES[op_type] = function
        return function

    return register


class Writer(Emitter):
    """Makes the nodes of the rewrite: an emitter with the arithmetic of scales.

    ones: the inputs of the graph that are fed with ones.
    """

    def __init__(self, opset: int, prefix: str, ones: Collection[ir.Value] = ()) -> None:
        super().__init__(opset, prefix)
        self.ones = frozenset(ones)

    def like(self, node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None]) -> ir.Value:
        """Append a node with the attributes of another."""
        given: dict[str, Any] = dict(node.attributes)
        return self.op(op_type, inputs, **given)

    def number(self, value: float) -> ir.Value:
        """Return a scalar."""
        return self.constant(np.asarray(value, np.float32))

    def add(self, *terms: ir.Value | None) -> ir.Value | None:
        """Return the sum of what is not None, None where all are."""
        known = [term for term in terms if term is not None]
        total = known[0] if known else None
        for term in known[1:]:
            total = self.op("Add", [total, term])
        return total

    def factor(self, scale: ir.Value | None) -> ir.Value | None:
        """Return exp(scale) as far as float32 holds it, None for 1."""
        return None if scale is None else self.op("Exp", [self.op("Min", [scale, self.number(_LARGEST)])])

    def times(self, value: ir.Value | None, factor: ir.Value | None) -> ir.Value | None:
        """Return a product, where None is 0 as the value and 1 as the factor."""
        return value if value is None or factor is None else self.op("Mul", [value, factor])

    def total(self, value: ir.Value) -> ir.Value:
        """Return the sum of all entries, a scalar."""
        return self.op("ReduceSum", [value], keepdims=0)

    def bounded(self, flow: Flow) -> Flow:
        """Return the same flow, normalised where its value may be about to leave float32's range.

        That takes more nodes than everything else that is done for a layer.
        """
        known = flow.size is not None and flow.size < _FAR and flow.size - flow.steps > -_FAR
        return flow if known else self.normalised(flow)

    def factors(self, *flows: Flow) -> list[Flow]:
        """Return flows that may be multiplied by each other, or divided: those that grew are normalised first."""
        return [self.normalised(flow) if flow.steps else flow for flow in flows]

    def normalised(self, flow: Flow) -> Flow:
        """Return the same flow with a value whose largest magnitude is 1, unless it is 0."""
        size = self.op("ReduceMax", [self.op("Abs", [flow.value])], keepdims=0)
        size = self.where(self.op("Greater", [size, self.number(0.0)]), size, self.number(1.0))
        value = self.op("Div", [flow.value, size])
        tangent: ir.Value | None = value
        if flow.tangent is not flow.value:  # they are one behind the first layer
            tangent = None if flow.tangent is None else self.op("Div", [flow.tangent, size])
        return Flow(value, tangent, self.add(flow.scale, self.op("Log", [size])), 0.0, 0, flow.positive)

    def where(self, condition: ir.Value, then: ir.Value, other: ir.Value) -> ir.Value:
        """Return a choice between floats by entry; Where came with operator set 9."""
        if self.opset >= 9:
            return self.op("Where", [condition, then, other])
        yes, no = (
            self.op("Cast", [one], to=int(ir.DataType.FLOAT)) for one in (condition, self.op("Not", [condition]))
        )
        return self.op("Add", [self.op("Mul", [then, yes]), self.op("Mul", [other, no])])

    def aligned(self, flows: Sequence[Flow]) -> tuple[list[Flow], ir.Value | None]:
        """Return the flows in the largest of their scales, which none of them has any more, and that scale."""
        scales = [flow.scale for flow in flows]
        if all(scale is scales[0] for scale in scales):
            return list(flows), scales[0]
        zero = self.number(0.0)
        most = self.op("Max", [zero if scale is None else scale for scale in scales])
        shifted = []
        for flow in flows:
            factor = self.op("Exp", [self.op("Sub", [zero if flow.scale is None else flow.scale, most])])
            value = self.times(flow.value, factor)
            assert value is not None
            shifted.append(
                Flow(value, self.times(flow.tangent, factor), None, flow.size, flow.steps, flow.positive)
            )  # fmt: skip
        return shifted, most


@dataclass(frozen=True)
class Step:
    """One node under a rule.

    flows: of the inputs, None where an input is missing or does not depend on the weights. name: of the model.
    """

    node: ir.Node
    flows: tuple[Flow | None, ...]
    write: Writer
    name: str

    def of(self, slot: int) -> Flow:
        """Return what flows through an input; what does not depend on the weights is a flow that stands still."""
        found = self.flows[slot]
        if found is not None:
            return found
        value = self.static(slot)
        return Flow(value, size=0.0, positive=True) if value in self.write.ones else Flow(value)

    def static(self, slot: int) -> ir.Value:
        """Return the value of an input as the graph has it."""
        value = self.node.inputs[slot]
        assert value is not None
        return value

    def has(self, slot: int) -> bool:
        """Whether there is such an input."""
        return slot < len(self.node.inputs) and self.node.inputs[slot] is not None

    def number(self, slot: int) -> float | None:
        """Return the only entry of a stored input, whatever it is cast to; None for any other."""
        value: ir.Value | None = self.static(slot)
        while value is not None and ir.convenience.get_const_tensor(value) is None:
            node = value.producer()
            value = node.inputs[0] if node is not None and node.op_type in ("Cast", "CastLike", "Identity") else None
        tensor = None if value is None else ir.convenience.get_const_tensor(value)
        return float(np.asarray(tensor.numpy()).reshape(-1)[0]) if tensor is not None and tensor.size == 1 else None

    def again(self, replaced: Mapping[int, ir.Value], drop: Sequence[int] = ()) -> ir.Value:
        """Append the node once more with other inputs, some of them left out, and return its first output."""
        inputs = [None if slot in drop else replaced.get(slot, value) for slot, value in enumerate(self.node.inputs)]
        while inputs and inputs[-1] is None:
            inputs.pop()
        return self.write.like(self.node, self.node.op_type, inputs)

    def only(self, *slots: int) -> None:
        """Raise UnsupportedError where the weights reach an input other than these."""
        for slot, flow in enumerate(self.flows):
            if flow is not None and slot not in slots:
                raise self.refuse(f"the weights decide its input {slot}, for which there is no rule")

    def refuse(self, why: str) -> UnsupportedError:
        """Return the error that says why a node has no rule here."""
        return refused(self.name, self.node, why)


def refused(name: str, node: ir.Node, why: str) -> UnsupportedError:
    """Return the error that names a node of a model."""
    return UnsupportedError(f"{name}: node {node.name!r} ({node.op_type}): {why}")


def standing(write: Writer, flow: Flow) -> ir.Value:
    """Return the derivative of a flow, zeros where it stands still."""
    return write.op("Mul", [flow.value, write.number(0.0)]) if flow.tangent is None else flow.tangent
