"""`epsinas-onnx search --rounds`: compares searches for a table's accuracy with and without training-free scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from epsinas_onnx.cli.common import EXIT_INTERRUPTED, output_console, say
from epsinas_onnx.cli.progress import counted
from epsinas_onnx.errors import OutputError, UsageError
from epsinas_onnx.output.files import write_output

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace
    from epsinas_onnx.search import Strategy
    from epsinas_onnx.search.rounds import Rounds

Record = Mapping[str, Any]
T = TypeVar("T")


def compare_searches(
    space: SearchSpace, accuracies: Mapping[str, float], strategy: Strategy, guides: Sequence[str], trials: int,
    rounds: int, known: Mapping[str, Record], arithmetic: str, options: Mapping[str, Any], *, column: str,
    lower_is_better: bool, output: Path | None, html: Path | None, plots: Sequence[Path],
) -> None:  # fmt: skip
    """Run the searches, print what they found after how many architectures, and write what was asked for.

    known: results of scoring by architecture; where there are none, the whole table is scored.
    """
    from epsinas_onnx.search.guides import guide_scores, score_table
    from epsinas_onnx.search.rounds import compare_rounds

    if not strategy.warmup:
        raise UsageError("--rounds compares searches with and without a warm-up; say of how many with --warmup")
    strategy = dataclasses.replace(strategy, guide=None)
    try:
        if not known:
            with counted() as show:
                records = dict[str, Record]()
                for done in score_table(space, list(accuracies), guides, options, arithmetic, records):
                    show("scoring the table", done, len(accuracies))
                known = records
        scores = {name: guide_scores(name, space, list(accuracies), known, arithmetic, strategy) for name in guides}
        result: Rounds | None = None
        with counted() as show:
            for done, total, result in compare_rounds(  # noqa: B007 (the last one brings the result)
                space, accuracies, scores, strategy, trials, rounds, column=column, lower_is_better=lower_is_better,
                move=strategy.move if strategy.move != "none" else "parent",
            ):  # fmt: skip
                show("searching", done, total)
    except KeyboardInterrupt:
        say("Interrupted: nothing can be said of fewer rounds; give less of --rounds.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    assert result is not None
    from epsinas_onnx.report import search_rounds
    from epsinas_onnx.report.search_page import rounds_to_html
    from epsinas_onnx.search.plots import plot_rounds

    search_rounds.print_rounds(result, output_console())
    write_each(
        output, html, plots, search_rounds.to_json, search_rounds.to_csv, rounds_to_html, plot_rounds, result
    )  # fmt: skip


def write_each(
    output: Path | None, html: Path | None, plots: Sequence[Path], to_json: Callable[[T], str],
    to_csv: Callable[[T], str], to_html: Callable[[T], str], draw: Callable[[Path, T], None], found: T,
) -> None:  # fmt: skip
    """Write what was found into every file that was asked for; what cannot be written costs no other file.

    Raises OutputError for the first that failed.
    """
    failed: OutputError | None = None
    for path in (output, html, *plots):
        if path is None:
            continue
        try:
            if path in plots:
                draw(path, found)
            else:
                text = to_html if path == html else to_csv if path.suffix.lower() == ".csv" else to_json
                write_output(path, text(found))
            say(f"written to {path}")
        except OutputError as error:
            failed = failed or error
    if failed is not None:
        raise failed
