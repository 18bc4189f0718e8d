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

from epsinas_onnx.cli.common import parse_pairs, parse_shapes

if TYPE_CHECKING:
    from epsinas_onnx.inspection import Inspection

_PLAIN_WIDTH = 160


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
) -> None:
    """Show what scoring will do with a model: every weight's role and why, what is fed, and what is odd.

    The first column is how --role names a use. Nothing is run, and no weight is read.
    """
    from epsinas_onnx.inspection import inspect

    found = inspect(
        path, shapes=parse_shapes(shape or [], dim or []), roles=parse_pairs("--role", role or []), batch=batch
    )
    if format is InspectFormat.JSON:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return
    _print(found, Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH))


def _print(found: Inspection, console: Console) -> None:
    opset = ", ".join(f"{domain} {version}" for domain, version in found.opset.items())
    console.print(f"[bold]{escape(found.model)}[/]: written by {escape(found.producer)}, opset {opset}")
    console.print(
        f"{found.nodes:,} nodes, {found.parameters:,} parameters, outputs: {escape(', '.join(found.outputs))}"
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
    for warning in found.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}")


def _print_inputs(found: Inspection, console: Console) -> None:
    from epsinas_onnx.graph.shapes import dims_text

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
