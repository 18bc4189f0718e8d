"""`epsinas-onnx rewrite`: writes a model with all weights at one constant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from epsinas_onnx.cli.common import (
    DimOption,
    MemoryOption,
    RestoreOption,
    RoleOption,
    ShapeOption,
    TimeoutOption,
    isolated,
    parse_pairs,
    parse_shapes,
    prepare_workers,
)
from epsinas_onnx.cli.outputs import check_outputs, say_sizes
from epsinas_onnx.cli.score import NormStatsName
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT, Limits

if TYPE_CHECKING:
    from epsinas_onnx.scoring.options import ElementType


def rewrite_command(
    path: Annotated[str, typer.Argument(help="An ONNX file.")],
    weight: Annotated[float, typer.Option("--weight", "-w", help="What every weight becomes.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.")],
    norm_stats: Annotated[NormStatsName, typer.Option(help="Statistics of BatchNormalization.")] = NormStatsName.BATCH,
    shape: ShapeOption = None,
    dim: DimOption = None,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Seed of embedding tables.")] = 0,
    role: RoleOption = None,
    dtype: Annotated[str, typer.Option(help="float32, or model for the model's own float types.")] = "float32",
    lump: Annotated[bool, typer.Option("--lump", help="Merge identical channels, for one minibatch size.")] = False,
    batch: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Samples in the minibatch, with --lump.")] = 256,
    restore_batchnorm: RestoreOption = "auto",
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
) -> None:
    """Write a standard ONNX file with every weight at one constant and every bias 0; it holds no weight bytes.

    This is the graph that score runs, with --lump the merged one, so that it can be looked at, or run by any other
    runtime. A merged graph gives one representative of each class of equal entries.
    """
    prepare_workers()
    from epsinas_onnx.edit.rewrite import rewrite

    check_outputs([("--output", output)], models=[path])
    isolated(
        rewrite,
        path,
        limits=Limits(timeout, memory),
        doing="rewriting",
        returns=False,
        weight=weight,
        output=output,
        shapes=parse_shapes(shape or [], dim or []),
        roles=parse_pairs("--role", role or []),
        norm_stats=norm_stats.value,
        seed=seed,
        dtype=cast("ElementType", dtype),
        lump=lump,
        batch=batch,
        restore_batchnorm=restore_batchnorm,
    )
    say_sizes(path, output)
