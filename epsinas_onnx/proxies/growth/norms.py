"""Finds normalisations, as one operator or as the operators that exporters and the drawn graph write them with."""

from __future__ import annotations

import onnx_ir as ir

from epsinas_onnx.graph.analysis.roles import NORMALISATIONS
from epsinas_onnx.graph.passes.constant_weights import REPLACES

_SUMS = frozenset({"SkipLayerNormalization", "SkipSimplifiedLayerNormalization"})
_REFUSED = frozenset({"EmbedLayerNormalization"})


def normalised_inputs(node: ir.Node) -> tuple[ir.Value, ...] | None:
    """Return what a node normalises, of which it gives the sum; None where it is no normalisation.

    A normalisation that is written out is found at its last operator: the division of x - mean(x) by a square root, or
    what the drawn graph has marked as one.
    """
    if node.op_type in NORMALISATIONS - _REFUSED:
        slots = 2 if node.op_type in _SUMS else 1
        return tuple(value for value in node.inputs[:slots] if value is not None)
    if node.meta.get(REPLACES) in NORMALISATIONS:
        found = _centred(node)
        return None if found is None else (found,)
    if node.op_type != "Div":
        return None
    found = _subtracted(node.inputs[0])
    under = None if node.inputs[1] is None else node.inputs[1].producer()
    return (found,) if found is not None and under is not None and under.op_type == "Sqrt" else None


def _centred(node: ir.Node | None) -> ir.Value | None:
    """Return x of ((x - mean) * scale) + shift, of which the sum and the product may be missing."""
    for _ in range(3):
        if node is None:
            return None
        if node.op_type == "Sub":
            return _subtracted(node.outputs[0])
        first = node.inputs[0] if node.inputs else None
        node = None if first is None else first.producer()
    return None


def _subtracted(value: ir.Value | None) -> ir.Value | None:
    """Return x where a value is x - mean(x)."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Sub" or node.inputs[1] is None:
        return None
    mean = node.inputs[1].producer()
    is_mean = mean is not None and mean.op_type == "ReduceMean" and mean.inputs[0] is node.inputs[0]
    return node.inputs[0] if is_mean else None
