"""Finds the values whose sign decides: what goes into ReLU and its kin, whichever way an exporter writes them.

A pre-activation x counts as positive where x > 0, for every kind:

- ReLU, LeakyReLU, PReLU, ELU, SELU, CELU, ThresholdedReLU, Softplus, and Clip from 0 on (ReLU6), where x is what the
  operator reads; Max(x, 0), and Where(x > t, x, 0) or a multiple of x in place of 0, too;
- GELU, QuickGELU, SiLU (Swish), Mish and HardSwish, as one operator, or written out as x times a gate made of x alone:
  x * Sigmoid(x), x * (1 + Erf(x / sqrt 2)) / 2 and its form with Tanh, x * Tanh(Softplus(x)), x * HardSigmoid(x), and
  x * Clip(x + 3, 0, 6) / 6.

A Sigmoid, Tanh or hard sigmoid alone, in a gate that multiplies other features (squeeze and excitation, GLU, LSTM) or
in front of an output, is no such kin and does not count; nor does Softmax. What stands in a body (If, Loop, Scan) or
inside one operator (LSTM, Attention, a fused convolution) cannot be looked at and does not count either.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from epsinas_onnx.graph.traversal import StaticValues

ALONE = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Softplus", "HardSwish", "Gelu",
     "FastGelu", "BiasGelu", "QuickGelu", "Swish", "Mish"}
)  # fmt: skip
"""Operators that are kin of ReLU by themselves."""
GATES = frozenset({"Sigmoid", "HardSigmoid", "Erf", "Tanh", "Clip", "Relu"})
"""Operators that may be the bent part of a gate; Relu where a Min behind it makes a Clip of it."""
_POINTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Neg", "Identity", "Cast", "Relu", "Max", "Softplus"})
_DEEPEST = 8
"""How many operators lie between x and the bent part of a gate: seven in the longest form of GELU."""


class Activation(NamedTuple):
    """A place where a sign decides.

    value: the pre-activation x. node: the operator, or what bends the gate. gate: where x times a gate is written out,
    the nodes that make the gate of x, up to `node`; empty where one operator does it all.
    """

    value: ir.Value
    node: ir.Node
    gate: frozenset[ir.Node] = frozenset()


def find_activations(model: ir.Model) -> tuple[Activation, ...]:
    """Return the pre-activations of the main graph in the order of its nodes, one for each time that it is applied.

    Two nodes that read one value are two of them, as two modules of a framework are.
    """
    static = StaticValues.of(model)
    found: list[Activation] = []
    for node in model.graph:
        x = node.inputs[0] if node.inputs else None
        if x is None or x in static:
            continue
        if node.op_type in GATES:
            gated = _gated(node, static)
            if gated is not None:
                found.append(gated)
                continue
            if _is_shifted(x, static):  # a hard sigmoid that gates something else
                continue
        chosen = _chosen(node, static)
        if chosen is not None:
            found.append(Activation(chosen, node))
        bends = node.op_type in ALONE or (node.op_type == "Clip" and _lower(node) == 0) or _is_maximum(node, static)
        if bends and not _belongs_to_gate(node, static):
            found.append(Activation(_signal(node, static) or x, node))
    return tuple(found)


def _chosen(node: ir.Node, static: StaticValues) -> ir.Value | None:
    """Return x where a node is Where(x > t, x, a * x), or the other way round, None where it is something else."""
    compared = node.inputs[0].producer() if node.op_type == "Where" and node.inputs[0] is not None else None
    if compared is None or compared.op_type not in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
        return None
    x, branches = _signal(compared, static), list(node.inputs[1:])
    if x is None or x not in branches:
        return None
    branches.remove(x)
    other = branches[0]
    return x if other is not None and (other in static or x in _factors(other, static)) else None


def _is_maximum(node: ir.Node, static: StaticValues) -> bool:
    """Whether a node is Max(x, 0)."""
    signal = _signal(node, static)
    others = [value for value in node.inputs if value is not None and value is not signal]
    return node.op_type == "Max" and signal is not None and len(others) == 1 and scalar(others[0]) == 0


def _belongs_to_gate(node: ir.Node, static: StaticValues) -> bool:
    """Whether a node is the Softplus inside Mish, which the Tanh behind it stands for."""
    if node.op_type != "Softplus":
        return False
    return any(use.node.op_type == "Tanh" and _gated(use.node, static) is not None for use in node.outputs[0].uses())


def _lower(node: ir.Node) -> float | None:
    """Return the lower bound of a Clip, None where it has none or it is computed."""
    if "min" in node.attributes:
        return node.attributes.get_float("min")
    return scalar(node.inputs[1]) if len(node.inputs) > 1 else None


def _is_shifted(x: ir.Value, static: StaticValues) -> bool:
    """Whether a value is another plus 3, which a hard sigmoid written out begins with."""
    node = x.producer()
    if node is None or node.op_type != "Add" or _signal(node, static) is None:
        return False
    return any(value is not None and value in static and scalar(value) == 3 for value in node.inputs)


def _gated(node: ir.Node, static: StaticValues) -> Activation | None:
    """Return what a node does where it bends the gate of x * gate(x), None where it is something else.

    The gate is followed on through arithmetic with stored numbers to the product, and the other factor of that back
    through stored factors to something that the gate is made of, and of nothing else.
    """
    made_of = set(_origins(node.inputs[0], static))
    pending, seen = list(node.outputs), set(node.outputs)
    while pending:
        for use in pending.pop().uses():
            other = use.node.inputs[1 - use.idx] if use.node.op_type == "Mul" and len(use.node.inputs) == 2 else None
            if other is not None and other not in static:
                x = next((value for value in _factors(other, static) if value in made_of), None)
                gate = None if x is None else _between(x, node, static)
                if x is not None and gate is not None:
                    return Activation(x, node, gate)
            goes_on = use.node.op_type in ("Mul", "Div", "Add", "Sub", "Identity", "Cast", "Clip", "Min")
            if goes_on and _signal(use.node, static) is not None:
                new = [output for output in use.node.outputs if output not in seen]
                seen.update(new)
                pending += new
    return None


def _origins(value: ir.Value | None, static: StaticValues) -> Iterator[ir.Value]:
    """Yield a value and what it is made of by arithmetic of each entry alone, nearest first."""
    level = [] if value is None else [value]
    for _ in range(_DEEPEST):
        yield from level
        producers = [one.producer() for one in level]
        level = [
            operand
            for producer in producers
            if producer is not None and producer.op_type in _POINTWISE
            for operand in producer.inputs
            if operand is not None and operand not in static
        ]


def _between(x: ir.Value, node: ir.Node, static: StaticValues) -> frozenset[ir.Node] | None:
    """Return a node and the nodes from x to it, None where it is not made of each entry of x alone."""
    pending, seen = [node], {node}
    while pending:
        for value in pending.pop().inputs:
            if value is None or value in static or value is x:
                continue
            made = value.producer()
            if made is None or made.op_type not in _POINTWISE:
                return None
            if made not in seen:
                seen.add(made)
                pending.append(made)
    return frozenset(seen)


def _factors(value: ir.Value, static: StaticValues) -> Iterator[ir.Value]:
    """Yield a value, what it is a stored multiple of, what that is, and so on."""
    current: ir.Value | None = value
    while current is not None:
        yield current
        node = current.producer()
        if node is None or node.op_type not in ("Mul", "Div", "Identity", "Cast"):
            return
        stored = [operand for operand in node.inputs if operand is not None and operand in static]
        current = _signal(node, static) if all(scalar(operand) is not None for operand in stored) else None


def _signal(node: ir.Node, static: StaticValues) -> ir.Value | None:
    """Return the only operand of a node that is not stored, None where there are several."""
    signal = [value for value in node.inputs if value is not None and value not in static]
    return signal[0] if len(signal) == 1 else None


def scalar(value: ir.Value | None) -> float | None:
    """Return the only entry of a stored tensor of numbers, None for any other."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size != 1 or tensor.dtype == ir.DataType.STRING:
        return None
    return float(np.asarray(tensor.numpy()).reshape(-1)[0])
