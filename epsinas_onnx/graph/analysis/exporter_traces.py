"""Reads what exporters leave behind where they fold a normalisation: records, names, and numbers of modules."""

from __future__ import annotations

import re

import onnx_ir as ir

from epsinas_onnx.graph.analysis.layer_uses import ACTIVATIONS, HEADS
from epsinas_onnx.graph.analysis.layers import (
    CONVOLUTIONS,
    NORMALISES,
    Kind,
    Layer,
    letters,
    names_batch_norm,
    names_of,
)

EPSILON_METADATA = "epsinas.batch_norm.epsilon"
"""What was added to the variance, where it is known."""


def proof(layer: Layer) -> str | None:
    """Return what an exporter left behind when it folded a normalisation into this layer."""
    for node in layer.nodes:
        record = node.metadata_props
        if "FuseBatchNorm" in record.get("pkg.onnxscript.rewriter.rule_name", ""):
            return "the exporter recorded that it folded a BatchNormalization"
        if any("batchnorm" in record.get(key, "").lower() for key in _SCOPES):
            return "the exporter recorded a BatchNorm module in its place"
    if NORMALISES.fullmatch(letters(layer.tail)):
        return "a stored mean, scale and shift are behind it, a normalisation's own form"
    names = [name for node in layer.nodes for name in names_of(node)]
    named = next((name for name in names if names_batch_norm(name)), None)
    if named:
        return f"a BatchNorm gave it the name {named!r}"
    weight, *bias = layer.node.inputs[1:3]
    generated = [value is not None and _GENERATED.match(str(value.name)) for value in (weight, *bias)]
    if layer.node.op_type in CONVOLUTIONS and bias and all(generated):
        return "its weight and bias lost their names, as folding does"
    return None


_SCOPES = ("namespace", "pkg.torch.onnx.class_hierarchy")
_EPSILON = re.compile(r"batch_norm.*, ([0-9.e-]+)\)")  # the last argument of aten's operator
_GENERATED = re.compile(r"onnx::Conv(Transpose)?_\d+")  # torch's older exporter


def gap(layer: Layer) -> tuple[Kind, str] | None:
    """Tell from the numbers of a Sequential whether something stood between a convolution and its activation."""
    ours = _numbered(layer.node)
    if ours is None:
        return None
    for use in layer.end.uses():
        theirs = _numbered(use.node)
        if theirs is None or theirs[0] != ours[0]:
            continue
        if use.node.op_type not in ACTIVATIONS | HEADS:
            continue
        if theirs[1] == ours[1] + 1:
            return Kind.OWN, f"its activation {use.node.name!r} came right behind it in the module"
        if theirs[1] == ours[1] + 2:
            return Kind.FOLDED, f"the module had something between it and its activation {use.node.name!r}"
    return None


def _numbered(node: ir.Node) -> tuple[str, int] | None:
    """Return the path of the Sequential that a node came from and its number there."""
    scopes = re.findall(r"'([^']*)'", node.metadata_props.get("pkg.torch.onnx.name_scopes", ""))
    path = scopes[-2] if len(scopes) > 1 else str(node.name or "").rpartition("/")[0].rpartition("/")[2]
    parent, dot, number = path.rpartition(".")
    return (parent, int(number)) if dot and number.isdecimal() else None


def recorded_epsilon(layer: Layer) -> float | None:
    """Return what an exporter recorded that is added to the variance; None where it left no record."""
    for node in layer.nodes:
        told = node.metadata_props.get(EPSILON_METADATA)
        recorded = _EPSILON.search(node.metadata_props.get("pkg.torch.onnx.fx_node", ""))
        try:
            if told or recorded:
                return float(told or recorded[1])  # type: ignore[index]
        except ValueError:
            continue
    return None
