"""Writes what was found into a copy of the model as metadata of its nodes, which viewers such as Netron show."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
from onnx.external_data_helper import uses_external_data

from epsinas_onnx._util.text import shown
from epsinas_onnx.edit.save import write_model
from epsinas_onnx.errors import UsageError
from epsinas_onnx.explanation.result import ExplainedValue, Explanation, Observed
from epsinas_onnx.graph.load import ModelSource, load_proto, source_name

_METADATA_FROM = 10  # the IR version that gave nodes metadata
PREFIX = "epsinas."
_KEYS = ("magnitude", "variation", "range", "classes", "share", "lost")


def annotate(model: ModelSource, found: Explanation, output: str | os.PathLike[str] | None = None) -> onnx.ModelProto:
    """Return a copy of a model whose nodes say what `explain` found; weights and names stay as they are.

    Args:
        model: what was explained.
        found: what `explain` said of it.
        output: where to write the copy; None returns it alone.

    Returns:
        The model. A node has `epsinas.magnitude`, `epsinas.variation` and `epsinas.range`, a number or a pair for each
        constant, `epsinas.classes`, `epsinas.share`, and `epsinas.lost` where the signal ends; so have nodes in
        bodies of If, Loop and Scan. Nodes inside of functions have none.

    Raises:
        UsageError: the weights lie in a file beside the model, and `output` is in another folder.
        OutputError: the file cannot be written.
    """
    name = source_name(model)
    proto = load_proto(model, name)
    if output is not None and isinstance(model, str | os.PathLike):
        stays = Path(output).resolve().parent == Path(model).resolve().parent
        if not stays and any(uses_external_data(tensor) for tensor in proto.graph.initializer):
            raise UsageError(
                f"the weights of {shown(name)} lie in a file beside it, so the copy must lie in that folder too"
            )
    _annotated(proto.graph, (), "", {(value.inside, value.name): value for value in found.values}, found)
    proto.ir_version = max(proto.ir_version, _METADATA_FROM)
    write_model(proto, output)
    return proto


def _annotated(
    graph: onnx.GraphProto,
    inside: tuple[str, ...],
    prefix: str,
    values: Mapping[tuple[tuple[str, ...], str], ExplainedValue],
    found: Explanation,
) -> None:
    """Write what was found into the nodes of a graph and of the bodies in it.

    inside: the nodes that hold the graph, as `found` names them. prefix: what names have there that are not unique.
    """
    for node in graph.node:
        each = [values.get((inside, name)) or values.get((inside, prefix + name)) for name in node.output if name]
        made = [value for value in each if value is not None]
        holder = made[0].node if made else node.name
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _annotated(attribute.g, (*inside, holder), f"{holder}/{attribute.name}/", values, found)
        if not made:
            continue
        kept = [entry for entry in node.metadata_props if entry.key not in {PREFIX + key for key in _KEYS}]
        node.ClearField("metadata_props")
        node.metadata_props.extend(kept)
        for key, text in _findings(made[0], found).items():
            node.metadata_props.add(key=PREFIX + key, value=text)


def _findings(value: ExplainedValue, found: Explanation) -> dict[str, str]:
    said: dict[str, str] = {}
    if any(value.observed):
        said["magnitude"] = _both(value, found, lambda seen: _power(seen.magnitude))
        said["variation"] = _both(value, found, lambda seen: _power(seen.variation))
        said["range"] = _both(value, found, lambda seen: f"{seen.low} to {seen.high}")
    if value.classes is not None and value.shape is not None:
        said["classes"] = f"{list(value.classes)} of {list(value.shape)}"
    if value.share is not None:
        said["share"] = f"{100 * value.share:.2f}%"
    lost = [
        f"{'float32: ' if one.arithmetic != found.arithmetic else ''}{one.status}: {one.reason}"
        for one in found.endings if one.node == value.node
    ]  # fmt: skip
    if lost:
        said["lost"] = "; ".join(lost)
    return said


def _both(value: ExplainedValue, found: Explanation, say: Callable[[Observed], str]) -> str:
    parts = [
        f"{'not computed' if seen is None else say(seen)} (weights {constant:g})"
        for constant, seen in zip(found.weights, value.observed, strict=True)
    ]
    return ", ".join(parts)


def _power(log10: float | None) -> str:
    return "0" if log10 is None else f"1e{log10:+.1f}"
