"""`epsinas-onnx store`: what a store of results holds, as a table or a file; stores into one; and cleaning up."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from epsinas_onnx.cli.common import opened_for, output_console, say
from epsinas_onnx.cli.outputs import check_outputs
from epsinas_onnx.errors import UsageError
from epsinas_onnx.output.files import replacing

if TYPE_CHECKING:
    from epsinas_onnx.scoring.result import Score
    from epsinas_onnx.store.store import Store

app = typer.Typer(no_args_is_help=True, help="Read, merge and clean up stores of results (--store).")

StoreArgument: TypeAlias = Annotated[Path, typer.Argument(help="A file that --store wrote.", metavar="STORE")]
StatusOption: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="STATUS", help="Only results with this status; may be repeated.")
]
SpaceOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only architectures of this search space.")
]


class ExportFormat(StrEnum):
    """How a store is exported."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


_ENDINGS = {".csv": ExportFormat.CSV, ".jsonl": ExportFormat.JSONL, ".parquet": ExportFormat.PARQUET}


@app.command("list", short_help="Print what a store holds.")
def list_command(
    store: StoreArgument,
    status: StatusOption = None,
    space: SpaceOption = None,
    counts: Annotated[bool, typer.Option("--counts", help="How many results have which status, and no rows.")] = False,
) -> None:
    """Print what a store holds: a row each, errors too, and how many there are of each status."""
    from epsinas_onnx.report.stored import print_counts, print_stored

    with opened_for(store, readonly=True) as opened:
        if not counts:
            print_stored(opened.scores(status=status or (), space=space), output_console())
        else:
            if status or space:
                raise UsageError("--counts is over all of a store; leave out --status and --space")
            print_counts(opened.counts(), output_console())


@app.command("export", short_help="Write it as CSV, JSON lines or Parquet.")
def export_command(
    store: StoreArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here instead of printing: .csv, .jsonl or .parquet.")
    ] = None,
    format: Annotated[
        ExportFormat | None, typer.Option("--format", "-f", help="What the ending of --output says; otherwise jsonl.")
    ] = None,
    status: StatusOption = None,
    space: SpaceOption = None,
) -> None:
    """Write what a store holds as CSV, JSON lines or Parquet: the rows that score wrote, one for each name."""
    kind = _format(format, output)
    if kind is ExportFormat.PARQUET:
        from epsinas_onnx.report.parquet import check_library

        check_library()
        if output is None:
            raise UsageError("Parquet is not printed; name a file with --output")
    if output is not None:
        check_outputs([("--output", output)], inputs=[store])
    with opened_for(store, readonly=True) as opened:
        found = _Counted(opened.scores(status=status or (), space=space))
        if output is None:
            for text in _texts(opened, found, kind):
                sys.stdout.write(text)
            sys.stdout.flush()
            return
        with replacing(output) as file:
            if kind is ExportFormat.PARQUET:
                from epsinas_onnx.report.parquet import write_parquet

                write_parquet(found, file)
            else:
                for text in _texts(opened, found, kind):
                    file.write(text.encode())
    say(f"{found.count:,} results, written to {output}")


@app.command("merge", short_help="Take in what other stores hold.")
def merge_command(
    store: StoreArgument,
    others: Annotated[list[Path], typer.Argument(metavar="OTHER", help="The stores that are taken in.")],
) -> None:
    """Take into a store what others hold: a result beats an error, and what differs is told and not taken.

    The store is made where nothing is. Exit code 1 where results under one key differ by more than rounding.
    """
    for other in others:
        if not other.exists():
            raise UsageError(f"{other}: there is no such file")
    differing = 0
    with opened_for(store) as opened:
        for other in others:
            merged = opened.merge(other)
            differing += merged.differing
            say(
                f"{other}: {merged.added:,} added, {merged.replaced:,} errors replaced, {merged.same:,} known already, "
                f"{merged.differing:,} differ"
            )
            for one in merged.conflicts:
                say(f"{one.model}: {one.here} stays, {one.there} was not taken")
    if differing:
        raise typer.Exit(1)


@app.command("vacuum", short_help="Check it, and give unused space back.")
def vacuum_command(
    store: StoreArgument,
    other_versions: Annotated[
        bool,
        typer.Option(
            "--other-versions",
            help="Drop what was computed with other versions of this package or its libraries than are installed.",
        ),
    ] = False,
) -> None:
    """Look whether a store is whole, and give unused space back to the disk."""
    with opened_for(store, there=True) as opened:
        done = opened.vacuum(other_versions=other_versions)
    say(f"{store}: whole; {done.dropped:,} results dropped, {done.before:,} bytes before and {done.after:,} now")


class _Counted:
    """Hands results on, and counts them."""

    def __init__(self, scores: Iterable[Score]) -> None:
        self._scores = scores
        self.count = 0

    def __iter__(self) -> Iterator[Score]:
        for score in self._scores:
            self.count += 1
            yield score


def _texts(store: Store, scores: Iterable[Score], kind: ExportFormat) -> Iterator[str]:
    from epsinas_onnx.report.records import csv_lines, to_json_line

    if kind is ExportFormat.CSV:
        return csv_lines(scores, store.other_scores())
    return map(to_json_line, scores)


def _format(chosen: ExportFormat | None, output: Path | None) -> ExportFormat:
    if chosen is not None:
        return chosen
    if output is None or os.fspath(output) == "-":
        return ExportFormat.JSONL
    found = _ENDINGS.get(output.suffix.lower())
    if found is None:
        raise UsageError(f"--output: {output} ends in none of {', '.join(_ENDINGS)}; name the format with --format")
    return found
