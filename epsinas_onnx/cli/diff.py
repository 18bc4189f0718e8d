"""`epsinas-onnx diff`: shows what changed between two models."""

from __future__ import annotations

import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epsinas_onnx._util.text import to_json
from epsinas_onnx.cli.common import (
    DimOption,
    MemoryOption,
    RestoreOption,
    ShapeOption,
    TimeoutOption,
    isolated,
    parse_inputs,
    parse_shapes,
    parse_weights,
    prepare_workers,
)
from epsinas_onnx.cli.outputs import check_outputs, given_files
from epsinas_onnx.output.files import write_output
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT, Limits

if TYPE_CHECKING:
    from epsinas_onnx.compare.diff import Difference

EXIT_DIFFERENT = 1
"""With --exit-code: the graphs or the scores differ."""


class DiffFormat(StrEnum):
    """How a difference is written."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


def diff_command(
    before: Annotated[str, typer.Argument(help="An ONNX file.")],
    after: Annotated[str, typer.Argument(help="Another one.")],
    format: Annotated[
        DiffFormat, typer.Option("--format", "-f", help="markdown is made for pull requests.")
    ] = DiffFormat.TEXT,
    score: Annotated[bool, typer.Option("--score/--no-score", help="Score both, or compare the graphs alone.")] = True,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page beside what is printed: both graphs, what changed in colour."),
    ] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where graphs or scores differ.")] = False,
    weights: Annotated[str, typer.Option(help="The two constants.")] = "1e-7,1",
    input: Annotated[list[str] | None, typer.Option(metavar="KIND|FILE", help="What is fed, as for score.")] = None,
    batch: Annotated[int, typer.Option(metavar="NUMBER", help="Samples in the minibatch.")] = 256,
    shape: ShapeOption = None,
    dim: DimOption = None,
    restore_batchnorm: RestoreOption = "auto",
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
) -> None:
    """Show what changed between two models: graph, roles, parameters, multiply-adds and score.

    Graphs are compared without names, weights and the order of nodes: two exports of one network have the same
    fingerprint. Multiply-adds are those of convolutions, matrix products and recurrences, for one sample. Lines with -
    are nodes that are gone, those with + are new, those with ! changed.
    """
    fed = parse_inputs(input or [])
    if html is not None:
        check_outputs([("--html", html)], inputs=given_files(fed), models=[before, after])
    prepare_workers()
    from epsinas_onnx.compare.diff import diff

    found = isolated(
        diff, before, after, limits=Limits(timeout, memory), doing="comparing", with_score=score,
        weights=parse_weights(weights), inputs=fed, batch=batch,
        shapes=parse_shapes(shape or [], dim or []), restore_batchnorm=restore_batchnorm,
    )  # fmt: skip
    try:
        _show(found, format)
    finally:  # whoever reads what is printed may have enough early
        if html is not None:
            from epsinas_onnx.report.difference_page import to_html

            write_output(html, to_html(found))
    if exit_code and not found.same:
        raise typer.Exit(EXIT_DIFFERENT)


def _show(found: Difference, format: DiffFormat) -> None:
    from epsinas_onnx.report.difference import to_markdown, to_text

    match format:
        case DiffFormat.JSON:
            typer.echo(to_json(found.to_dict()), nl=False)
        case DiffFormat.MARKDOWN:
            typer.echo(to_markdown(found), nl=False)
        case DiffFormat.TEXT:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            typer.echo(to_text(found, width), nl=False)
