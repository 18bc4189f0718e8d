"""`epsinas-onnx inspect`: shows roles, rules, inputs and warnings of one model."""

from __future__ import annotations

import json
import sys
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from epsinas_onnx.cli.common import (
    PLAIN_WIDTH,
    MemoryOption,
    RestoreOption,
    TimeoutOption,
    isolated,
    parse_pairs,
    parse_shapes,
    prepare_workers,
)
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT, Limits

if TYPE_CHECKING:
    from epsinas_onnx.compare.inspect import Inspection, Lumping


class InspectFormat(StrEnum):
    """How an inspection is written."""

    TABLE = "table"
    JSON = "json"


def inspect_command(
    path: Annotated[str, typer.Argument(help="An ONNX file.")],
    format: Annotated[InspectFormat, typer.Option("--format", "-f")] = InspectFormat.TABLE,
    shape: Annotated[list[str] | None, typer.Option(help="An input's shape, NAME=1,3,224,224.")] = None,
    dim: Annotated[list[str] | None, typer.Option(help="A free dimension's size, NAME=128.")] = None,
    batch: Annotated[int, typer.Option(min=2, help="Samples in the minibatch.")] = 256,
    role: Annotated[list[str] | None, typer.Option(help="PATTERN=ROLE, as for score.")] = None,
    restore_batchnorm: RestoreOption = "auto",
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
) -> None:
    """Show what scoring will do with a model: roles and why, what is fed, what lumping merges, and what is odd.

    The first column is how --role names a use. Nothing is run, and no weight is read.
    """
    prepare_workers()
    from epsinas_onnx.compare.inspect import inspect

    found = isolated(
        inspect, path, limits=Limits(timeout, memory), doing="inspecting",
        shapes=parse_shapes(shape or [], dim or []), roles=parse_pairs("--role", role or []), batch=batch,
        restore_batchnorm=restore_batchnorm,
    )  # fmt: skip
    if format is InspectFormat.JSON:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return
    _print(found, Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH))


def _print(found: Inspection, console: Console) -> None:
    opset = ", ".join(f"{domain} {version}" for domain, version in found.opset.items())
    console.print(f"[bold]{escape(found.model)}[/]: written by {escape(found.producer)}, opset {opset}")
    products = "unknown" if found.multiply_adds is None else f"{found.multiply_adds:,}"
    console.print(
        f"{found.nodes:,} nodes, {found.parameters:,} parameters, {products} multiply-adds for one sample, outputs: "
        f"{escape(', '.join(found.outputs))}"
    )
    console.print()
    _print_inputs(found, console)
    console.print()
    table = _table("use", "operator", "tensor", "shape", "role", "rule")
    for use in found.uses:
        shape = "unknown" if use.shape is None else "x".join(map(str, use.shape)) or "scalar"
        table.add_row(escape(use.place), use.operator, escape(use.tensor), shape, use.role, escape(use.rule))
    console.print(table)
    counts = Counter(use.role for use in found.uses)
    console.print()
    console.print("roles: " + (", ".join(f"{count} {role}" for role, count in counts.items()) or "none"))
    if found.lumping is not None:
        console.print()
        _print_lumping(found.lumping, console)
    for warning in found.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}")


def _print_lumping(lumping: Lumping, console: Console) -> None:
    table = _table("value", "operator", "shape", "classes computed")
    for value in lumping.values:
        cells = (_dims(value.shape), _dims(value.classes))
        table.add_row(escape(value.value), value.operator, *cells)
    console.print(table)
    console.print()
    before, after = lumping.multiply_adds
    saved = f", {before / after:,.0f} times fewer" if after else ""
    console.print(
        f"lumping: {before:,} multiply-adds in convolutions, matrix products and recurrences become {after:,}{saved}"
    )
    if lumping.without_rule:
        names = ", ".join(lumping.without_rule)
        console.print(f"lumping: run as they are, on whole tensors: {escape(names)}")
    if lumping.cut_off is not None:
        console.print(f"lumping: the output cannot depend on the input: {escape(lumping.cut_off)}")


def _print_inputs(found: Inspection, console: Console) -> None:
    from epsinas_onnx.graph.analysis.shapes import dims_text

    table = _table("input", "type", "declared", "will be fed", "batch axis", "values")
    for spec in found.inputs:
        declared = dims_text(spec.declared, ", ")
        values = f"{spec.kind} below {spec.tokens}" if spec.kind == "tokens" and spec.tokens else spec.kind
        axis = "none" if spec.batch_axis is None else str(spec.batch_axis)
        fed = ", ".join(map(str, spec.shape))
        table.add_row(escape(spec.name), spec.dtype, f"\\[{escape(declared)}]", f"\\[{fed}]", axis, values)
    console.print(table)


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _dims(dims: tuple[int, ...] | None) -> str:
    return "unknown" if dims is None else f"\\[{', '.join(map(str, dims))}]"
