"""`epsinas-onnx inspect`: shows roles, rules, inputs and warnings of one model."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from epsinas_onnx._util.text import to_json
from epsinas_onnx.cli.common import (
    DimOption,
    MemoryOption,
    RestoreOption,
    RoleOption,
    ShapeOption,
    TimeoutOption,
    isolated,
    output_console,
    parse_pairs,
    parse_shapes,
    prepare_workers,
)
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT, Limits


class InspectFormat(StrEnum):
    """How an inspection is written."""

    TABLE = "table"
    JSON = "json"


def inspect_command(
    path: Annotated[str, typer.Argument(help="An ONNX file.")],
    format: Annotated[InspectFormat, typer.Option("--format", "-f")] = InspectFormat.TABLE,
    shape: ShapeOption = None,
    dim: DimOption = None,
    batch: Annotated[int, typer.Option(metavar="NUMBER", min=2, help="Samples in the minibatch.")] = 256,
    role: RoleOption = None,
    restore_batchnorm: RestoreOption = "auto",
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
) -> None:
    """Show what scoring will do with a model: roles and why, what is fed, what lumping merges, and what is odd.

    The first column is how --role names a use. Nothing is run, and no weight is read.
    """
    prepare_workers()
    from epsinas_onnx.compare.inspect import inspect
    from epsinas_onnx.report.inspection import print_inspection

    found = isolated(
        inspect, path, limits=Limits(timeout, memory), doing="inspecting",
        shapes=parse_shapes(shape or [], dim or []), roles=parse_pairs("--role", role or []), batch=batch,
        restore_batchnorm=restore_batchnorm,
    )  # fmt: skip
    if format is InspectFormat.JSON:
        typer.echo(to_json(found.to_dict()), nl=False)
    else:
        print_inspection(found, output_console())
