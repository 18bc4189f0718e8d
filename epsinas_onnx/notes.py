"""What a careful reader should know about a graph: folded BatchNorm, normalisations, missing weights, odd operators."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from epsinas_onnx.graph.emitter import PREFIX
from epsinas_onnx.graph.roles import NORMALISATIONS, Role, RoleDecisions
from epsinas_onnx.graph.static import all_graphs
from epsinas_onnx.prepare import Decided

FOLDED_FROM = 8
"""Convolutions with a bias from which a graph without normalisation counts as one that lost its BatchNorms."""


def warnings_for(decided: Decided) -> list[str]:
    """Return the warnings that go with a score, a sentence each."""
    decisions = decided.decisions
    notes = []
    if decided.skipped:
        notes.append(
            f"the last softmax ({decided.skipped!r}) was left out: identical classes all get the same probability, so "
            f"its input {decided.outputs[0]!r} was compared"
        )
    if not decisions.with_role(Role.WEIGHT):
        notes.append("no weights were found, so the two constants cannot make a difference")
    folded = folded_batch_norms(decisions)
    if folded:
        notes.append(
            f"no normalisation, and {folded} convolutions with a bias: if BatchNormalization was folded into them, "
            f"this is not the score of the architecture, so export it unfolded"
        )
    for pattern in decisions.unused_patterns:
        notes.append(f"the role pattern {pattern!r} matches nothing in this model")
    return notes


def folded_batch_norms(decisions: RoleDecisions) -> int:
    """Return how many convolutions look as if a BatchNormalization had been folded into them; 0 for a sound graph.

    Folding leaves a deep convolutional graph without normalisation whose convolutions carry biases (DESIGN
    section 3). Networks that never had one (VGG, SqueezeNet) look alike, so this is a warning, not a finding.
    """
    nodes = {use.node: None for use in decisions.uses}
    if any(node.op_type in NORMALISATIONS for node in nodes):
        return 0
    if any(use.role is Role.WEIGHT and use.node.op_type == "Mul" for use in decisions.uses):
        return 0
    biased = {use.node for use in decisions.with_role(Role.BIAS) if use.node.op_type in ("Conv", "FusedConv")}
    return len(biased) if len(biased) >= FOLDED_FROM else 0


def sample_norms(model: ir.Model) -> list[str]:
    """Return the names of the normalisations that subtract a mean taken within a sample.

    Over identical features such a mean leaves rounding alone, and dividing by the deviation makes it as large as any
    signal. Both the operators and their decomposition (x - ReduceMean(x)) count; batch normalisation, which the
    rewriter decomposes under names of its own, does not.
    """
    found = []
    centring = NORMALISATIONS - {"BatchNormalization", "RMSNormalization", "SimplifiedLayerNormalization",
                                 "SkipSimplifiedLayerNormalization"}  # fmt: skip
    for graph in all_graphs(model.graph):
        for node in graph:
            if node.op_type in centring or (node.op_type == "Sub" and _subtracts_mean(node)):
                found.append(str(node.name))
    return found


def _subtracts_mean(node: ir.Node) -> bool:
    if str(node.name).startswith(PREFIX) or len(node.inputs) != 2:
        return False
    value, mean = node.inputs
    producer = None if mean is None else mean.producer()
    return producer is not None and producer.op_type == "ReduceMean" and producer.inputs[0] is value


def custom_operators(model: ir.Model, known: frozenset[str]) -> Mapping[str, int]:
    """Return how often each operator outside the domains `known` occurs, as `domain::type`."""
    counts: dict[str, int] = {}
    for node in model.graph.all_nodes():
        if node.domain not in known:
            key = f"{node.domain}::{node.op_type}"
            counts[key] = counts.get(key, 0) + 1
    return counts
