"""The `epsinas-onnx` program: its commands, its version, and how an error leaves it."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from epsinas_onnx._util.logging import quiet_libraries
from epsinas_onnx.cli import (
    ablate,
    baseline,
    check,
    diff,
    doctor,
    evaluate,
    explain,
    export,
    find_weights,
    inspect,
    rank,
    report,
    rewrite,
    score,
    search,
    spaces,
    store,
    weights,
)
from epsinas_onnx.cli.common import say
from epsinas_onnx.errors import EpsinasError
from epsinas_onnx.output.files import standard_output

app = typer.Typer(
    name="epsinas-onnx",
    no_args_is_help=True,
    rich_markup_mode=None,  # its tables break words at 80 columns
    pretty_exceptions_enable=False,
    help=(
        "Scores neural networks without training them: every weight becomes one constant, then another, and the "
        "score is how far the two outputs are apart. Works on any ONNX file; no labels, no gradients, no weights.\n\n"
        "Exit codes: 0 every file was scored or is validly unscored; 1 a check failed; 2 the command was wrong; 3 some "
        "file could not be read or run; 4 a result could not be written; 130 Ctrl-C.\n\n"
        "A first try: epsinas-onnx score models/\n\nWhy a number looks odd: epsinas-onnx inspect FILE"
    ),
)
app.command("score", short_help="Score models: one row each, ranked.")(score.score_command)
app.command("rank", short_help="Rank a set by several scores together.")(rank.rank_command)
app.command("inspect", short_help="Show what scoring will do with a model, and why.")(inspect.inspect_command)
app.command("explain", short_help="Show where a signal goes, and in which node it ends.")(explain.explain_command)
app.command("check", short_help="Check exported models by rules.")(check.check_command)
app.add_typer(baseline.app, name="baseline")
app.command("diff", short_help="Show what changed between two models.")(diff.diff_command)
app.command("report", short_help="Make one page of results.")(report.report_command)
app.command("rewrite", short_help="Write a model with all weights at one constant.")(rewrite.rewrite_command)
app.command("strip", short_help="Write a model without its weights.")(weights.strip_command)
app.command("fill", short_help="Write a model with new weights, drawn by role.")(weights.fill_command)
app.command("export", short_help="Write networks of a search space or a framework.")(export.export_command)
app.command("spaces", short_help="List the search spaces.")(spaces.spaces_command)
app.command("find-weights", short_help="Find the two constants for a space or a set of files.")(
    find_weights.find_weights_command
)
app.command("evaluate", short_help="Say how well scores rank a table of accuracies.")(evaluate.evaluate_command)
app.command("ablate", short_help="Repeat the paper's ablations on a table of accuracies.")(ablate.ablate_command)
app.command("search", short_help="Search a space by training-free scores and latency.")(search.search_command)

app.add_typer(store.app, name="store")
app.command("doctor", short_help="Examine the installation: what runs, and what is slow.")(doctor.doctor_command)


def _version(wanted: bool) -> None:
    if wanted:
        from epsinas_onnx.versions import versions

        for package, version in versions().items():
            typer.echo(f"{package} {version}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print versions and leave.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the program; an error of this package is one line on standard error and its exit code."""
    quiet_libraries()
    try:
        with standard_output():
            app()
    except EpsinasError as error:
        say(f"Error: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of a pipe left early
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if os.environ.get("EPSINAS_TRACEBACK"):
            raise
        text = " ".join(str(error).split()) or "no message"
        say(f"Error: unexpected {type(error).__name__}: {text}; please report it, with what EPSINAS_TRACEBACK=1 shows")
        sys.exit(EpsinasError.exit_code)
