"""What a careful reader should know about a graph: restored BatchNorm, normalisations, missing weights, operators."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from epsinas_onnx.graph.analysis.roles import NORMALISATIONS, RoleDecisions
from epsinas_onnx.graph.analysis.unjudged import unjudged_text
from epsinas_onnx.graph.emitter import PREFIX
from epsinas_onnx.graph.traversal import all_graphs
from epsinas_onnx.scoring.plan import ModelPlan


def warnings_for(decided: ModelPlan) -> list[str]:
    """Return the warnings that go with a score, a sentence each."""
    decisions = decided.decisions
    notes = decided.restored.notes()
    if decided.skipped:
        notes.append(
            f"the last softmax ({decided.skipped!r}) was left out: identical classes all get the same probability, so "
            f"its input {decided.outputs[0]!r} was compared"
        )
    for pattern in decisions.unused_patterns:
        notes.append(f"the role pattern {pattern!r} matches nothing in this model")
    return [*notes, *unjudged_notes(decisions)]


def unjudged_notes(decisions: RoleDecisions) -> list[str]:
    """Return what is said about stored tensors at operators that nobody judged."""
    if not decisions.unjudged:
        return []
    return [
        f"nobody has judged whether {unjudged_text(decisions.unjudged)} is a weight, so it keeps its values; say what "
        f"it is with --role '{decisions.unjudged[0].place}=ROLE'"
    ]


_CLASSICAL = ("TreeEnsemble", "SVM", "Linear", "Scaler")


def no_weights(model: ir.Model) -> str:
    """Return why a model without weights has no score, and what takes their place in one of classical learning."""
    nodes = (node for graph in all_graphs(model.graph) for node in graph if node.domain == "ai.onnx.ml")
    kinds = sorted({node.op_type for node in nodes if node.op_type.startswith(_CLASSICAL)})
    kept = f": what {', '.join(kinds)} learned are thresholds and coefficients in its attributes" if kinds else ""
    return f"the model has no weights, so the two constants cannot make a difference{kept}"


def sample_norms(model: ir.Model) -> list[str]:
    """Return the names of the normalisations that subtract a mean taken within a sample.

    Over identical features such a mean leaves rounding alone, and dividing by the deviation makes it as large as any
    signal. Both the operators and their decomposition (x minus an average of x, however that is taken) count; batch
    normalisation, which the rewriter decomposes under names of its own, does not.
    """
    found = []
    centring = NORMALISATIONS - {"BatchNormalization", "RMSNormalization", "SimplifiedLayerNormalization",
                                 "SkipSimplifiedLayerNormalization"}  # fmt: skip
    for graph in all_graphs(model.graph):
        for node in graph:
            if node.op_type in centring or (node.op_type == "Sub" and _subtracts_mean(node)):
                found.append(str(node.name))
    return found


_AVERAGES = frozenset({"ReduceMean", "ReduceSum", "GlobalAveragePool", "AveragePool"})
_SCALED = frozenset({"Div", "Mul", "Reshape", "Squeeze", "Unsqueeze", "Expand", "Identity", "Cast"})
"""What may stand between a sum and its use as a mean; their first input is the sum."""


def _subtracts_mean(node: ir.Node) -> bool:
    if str(node.name).startswith(PREFIX) or len(node.inputs) != 2:
        return False
    value, mean = node.inputs
    producer = None if mean is None else mean.producer()
    while producer is not None and producer.op_type in _SCALED:
        producer = None if producer.inputs[0] is None else producer.inputs[0].producer()
    return producer is not None and producer.op_type in _AVERAGES and producer.inputs[0] is value


def custom_operators(model: ir.Model, known: frozenset[str]) -> Mapping[str, int]:
    """Return how often each operator outside the domains `known` occurs, as `domain::type`."""
    counts: dict[str, int] = {}
    for node in model.graph.all_nodes():
        if node.domain not in known:
            key = f"{node.domain}::{node.op_type}"
            counts[key] = counts.get(key, 0) + 1
    return counts
