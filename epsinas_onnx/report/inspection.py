"""An inspection in columns: inputs, the uses of stored tensors with their roles, and what lumping merges."""

from __future__ import annotations

from collections import Counter

from rich.console import Console

from epsinas_onnx._util.text import shown
from epsinas_onnx.compare.inspect import Inspection, Lumping
from epsinas_onnx.graph.analysis.shapes import dims_text
from epsinas_onnx.report.columns import Column, Give, Row, print_rows, put, put_sentence

_INPUTS = (
    Column("input", Give.MIDDLE), Column("type"), Column("declared", Give.MIDDLE), Column("will be fed"),
    Column("batch axis"), Column("values"),
)  # fmt: skip
_USES = (
    Column("use", Give.MIDDLE), Column("operator", Give.MIDDLE), Column("tensor", Give.BELOW), Column("shape"),
    Column("role"), Column("rule", Give.BELOW),
)  # fmt: skip
_VALUES = (
    Column("value", Give.MIDDLE), Column("operator", Give.MIDDLE), Column("shape"), Column("classes computed"),
)  # fmt: skip


def print_inspection(found: Inspection, console: Console) -> None:
    """Print what scoring will do with a model."""
    opset = ", ".join(f"{shown(domain)} {version}" for domain, version in found.opset.items())
    put_sentence(f"{shown(found.model)}: written by {shown(found.producer)}, opset {opset}", console)
    products = "unknown" if found.multiply_adds is None else f"{found.multiply_adds:,}"
    put_sentence(
        f"{found.nodes:,} nodes, {found.parameters:,} parameters, {products} multiply-adds for one sample, outputs: "
        f"{', '.join(map(shown, found.outputs))}",
        console,
    )
    put("", console)
    _print_inputs(found, console)
    put("", console)
    rows = []
    for use in found.uses:
        shape = "unknown" if use.shape is None else "x".join(map(str, use.shape)) or "scalar"
        rows.append(Row((use.place, use.operator, use.tensor, shape, use.role, use.rule)))
    print_rows(_USES, rows, console)
    counts = Counter(use.role for use in found.uses)
    put("", console)
    put_sentence("roles: " + (", ".join(f"{count} {role}" for role, count in counts.items()) or "none"), console)
    if found.lumping is not None:
        put("", console)
        _print_lumping(found.lumping, console)
    for warning in found.warnings:
        put_sentence(f"warning: {warning}", console)


def _print_inputs(found: Inspection, console: Console) -> None:
    rows = []
    for spec in found.inputs:
        values = f"{spec.kind} below {spec.tokens}" if spec.kind == "tokens" and spec.tokens else spec.kind
        axis = "none" if spec.batch_axis is None else str(spec.batch_axis)
        rows.append(
            Row((spec.name, spec.dtype, f"[{dims_text(spec.declared, ', ')}]", _dims(spec.shape), axis, values))
        )
    print_rows(_INPUTS, rows, console)


def _print_lumping(lumping: Lumping, console: Console) -> None:
    rows = [Row((value.value, value.operator, _dims(value.shape), _dims(value.classes))) for value in lumping.values]
    print_rows(_VALUES, rows, console)
    put("", console)
    before, after = lumping.multiply_adds
    saved = f", {before / after:,.0f} times fewer" if after else ""
    put_sentence(
        f"lumping: {before:,} multiply-adds in convolutions, matrix products and recurrences become {after:,}{saved}",
        console,
    )
    if lumping.without_rule:
        put_sentence(f"lumping: run as they are, on whole tensors: {', '.join(lumping.without_rule)}", console)
    if lumping.formed:
        put_sentence(f"exact arithmetic: left to ONNX Runtime, in limited range: {', '.join(lumping.formed)}", console)
    if lumping.cut_off is not None:
        put_sentence(f"lumping: the output cannot depend on the input: {lumping.cut_off}", console)


def _dims(dims: tuple[int, ...] | None) -> str:
    return "unknown" if dims is None else f"[{', '.join(map(str, dims))}]"
