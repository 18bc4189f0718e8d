"""`epsinas-onnx explain`: shows where the signal of one model goes, and in which node it ends."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epsinas_onnx._util.text import to_json
from epsinas_onnx.cli.common import (
    EXIT_FAILED,
    ArithmeticName,
    ArithmeticOption,
    DimOption,
    MemoryOption,
    RestoreOption,
    RoleOption,
    ShapeOption,
    TimeoutOption,
    isolated,
    output_console,
    parse_inputs,
    parse_pairs,
    parse_shapes,
    parse_weights,
    prepare_workers,
)
from epsinas_onnx.cli.outputs import check_outputs, given_files
from epsinas_onnx.cli.score import NormStatsName
from epsinas_onnx.output.files import write_output
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT, Limits

if TYPE_CHECKING:
    from epsinas_onnx.explanation.result import Explanation


class ExplainFormat(StrEnum):
    """How an explanation is written."""

    TREE = "tree"
    JSON = "json"


def explain_command(
    path: Annotated[str, typer.Argument(help="An ONNX file.")],
    format: Annotated[
        ExplainFormat, typer.Option("--format", "-f", help="tree for a reader; json has every value.")
    ] = ExplainFormat.TREE,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with graph and curves here too.")
    ] = None,
    annotate: Annotated[
        Path | None,
        typer.Option("--annotate", metavar="FILE", help="Write a copy whose nodes say what was found, for Netron."),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=1, help="Levels of modules that are opened; as many as fit otherwise."),
    ] = None,
    all: Annotated[bool, typer.Option("--all", help="Open all modules, down to single nodes.")] = False,
    weights: Annotated[str, typer.Option(help="The two constants.")] = "1e-7,1",
    input: Annotated[list[str] | None, typer.Option(metavar="KIND|FILE", help="What is fed, as for score.")] = None,
    batch: Annotated[int, typer.Option(metavar="NUMBER", help="Samples in the minibatch.")] = 256,
    shape: ShapeOption = None,
    dim: DimOption = None,
    output_name: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Compare this value, as for score.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Seed of random inputs and embeddings.")] = 0,
    norm_stats: Annotated[
        NormStatsName, typer.Option(help="Statistics of BatchNormalization, as for score.")
    ] = NormStatsName.BATCH,
    role: RoleOption = None,
    arithmetic: ArithmeticOption = ArithmeticName.AUTO,
    restore_batchnorm: RestoreOption = "auto",
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
) -> None:
    """Show where the signal of a model goes: every value for both constants, and the node in which it ends.

    Status, reason and node are those of score with the same options. Modules are what names spell, split at dots and
    slashes.
    """
    prepare_workers()
    from epsinas_onnx.explanation.api import explain
    from epsinas_onnx.report.explanation import print_explanation

    fed = parse_inputs(input or [])
    named = [(option, file) for option, file in (("--html", html), ("--annotate", annotate)) if file is not None]
    if named:
        check_outputs(named, inputs=given_files(fed), models=[path])
    found = isolated(
        explain, path, limits=Limits(timeout, memory), doing="explaining", weights=parse_weights(weights), inputs=fed,
        batch=batch, shapes=parse_shapes(shape or [], dim or []), outputs=tuple(output_name or ()),
        roles=parse_pairs("--role", role or []), norm_stats=norm_stats.value, seed=seed,
        restore_batchnorm=restore_batchnorm, arithmetic=arithmetic.value,
    )  # fmt: skip
    try:
        if format is ExplainFormat.JSON:
            typer.echo(to_json(found.to_dict(), indent=None), nl=False)
        else:
            print_explanation(found, output_console(), _EVERYTHING if all else depth)
    finally:  # whoever reads what is printed may have enough early
        _write(found, path, html, annotate)
    if found.status == "error":
        raise typer.Exit(EXIT_FAILED)


_EVERYTHING = 10**6


def _write(found: Explanation, path: str, html: Path | None, annotated: Path | None) -> None:
    """Write the files that were asked for, after what was found was shown."""
    if html is not None:
        from epsinas_onnx.report.explanation_page import to_html

        write_output(html, to_html(found))
    if annotated is not None:
        from epsinas_onnx.explanation.annotate import annotate

        annotate(path, found, annotated)
