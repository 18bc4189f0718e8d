"""`epsinas-onnx evaluate`: how well scores rank the architectures of a table whose accuracies are known."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from epsinas_onnx.cli.common import (
    EXIT_INTERRUPTED,
    PLAIN_WIDTH,
    MemoryOption,
    TimeoutOption,
    find_space,
    parse_inputs,
    parse_weights,
    prepare_workers,
)
from epsinas_onnx.cli.progress import with_bar
from epsinas_onnx.cli.score import ProviderName
from epsinas_onnx.errors import UsageError
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace
    from epsinas_onnx.evaluation.scoring import Scores
    from epsinas_onnx.evaluation.table import Table
    from epsinas_onnx.graph.load import Buildable


class EvaluationFormat(StrEnum):
    """How an evaluation is written."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"


def evaluate_command(
    table: Annotated[
        Path,
        typer.Argument(
            help="A CSV with a header and a row for each architecture (gzipped too), or a benchmark's own file: "
            "NATS-Bench and NAS-Bench-201 (.pickle.pbz2, .pth, a folder), NAS-Bench-101 (.tfrecord), NAS-Bench-NLP "
            "logs."
        ),
    ],
    space: Annotated[str, typer.Option(help="The search space; `epsinas-onnx spaces` lists them.")],
    column: Annotated[str | None, typer.Option(help="The column of accuracies, or of losses.")] = None,
    lower_is_better: Annotated[bool, typer.Option("--lower-is-better", help="The column holds losses.")] = False,
    scores: Annotated[
        str | None,
        typer.Option(help="Take scores from a column, or from a file of earlier results, instead of scoring."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Append each result here as JSON lines; a run that was cut off goes on."),
    ] = None,
    sample: Annotated[int | None, typer.Option(min=3, help="Take this many rows, drawn at random with --seed.")] = None,
    input: Annotated[list[str] | None, typer.Option(help="As for score; the space's own input otherwise.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples in the minibatch; the space's own otherwise.")] = None,
    weights: Annotated[str | None, typer.Option(help="The two constants; the space's own otherwise.")] = None,
    provider: Annotated[ProviderName, typer.Option(help="Where to run.")] = ProviderName.AUTO,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random inputs, of --sample and of the bootstrap.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Worker processes, a thread each.")] = 1,
    lump: Annotated[bool, typer.Option("--lump/--no-lump", help="Merge identical channels, as for score.")] = True,
    join: Annotated[
        list[Path] | None, typer.Option(help="Another table, whose columns are added by architecture.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(help="A column with another score to compare with, on the same architectures; globs work."),
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="Show this many of the best-scored architectures.")] = 0,
    plot: Annotated[
        list[Path] | None, typer.Option(help="Draw score against accuracy: a .png, .pdf, .svg or .html file.")
    ] = None,
    format: Annotated[EvaluationFormat, typer.Option("--format", "-f")] = EvaluationFormat.TABLE,
    resamples: Annotated[int, typer.Option(min=0, help="Resamples of the bootstrap; 0 gives no intervals.")] = 1000,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
) -> None:
    """Score every architecture of a table and say how well the scores rank them, with coverage and intervals.

    All figures are over the architectures that have a score, and say how many those are.
    """
    if scores is None:
        prepare_workers()
    from epsinas_onnx.evaluation import scoring
    from epsinas_onnx.evaluation.table import join as joined
    from epsinas_onnx.evaluation.table import read_table

    found = find_space(space)
    read = read_table(table)
    if column is None:
        raise UsageError(f"name the column of accuracies with --column; the columns are {', '.join(read.columns)}")
    read = read.having(column)
    if sample is not None:
        read = read.sampled(sample, seed)
    networks = scoring.networks(read, found)
    keys = [network.name for network in networks]
    for path in join or []:
        other = read_table(path)
        read = joined(read, keys, other, [network.name for network in scoring.networks(other, found)])
    accuracies = read.numbers(column)
    proxies = {name: read.numbers(name) for name in read.matching(compare or [])}
    options = {
        "weights": parse_weights(weights) if weights else found.defaults.weights,
        "inputs": parse_inputs(input) if input else found.defaults.input,
        "batch": batch or found.defaults.batch,
        "providers": provider.value,
        "seed": seed,
        "jobs": jobs,
        "lump": lump,
        "timeout": timeout,
        "memory": memory,
        "isolate": True,
    }
    values, interrupted = _scores(read, networks, found, scores, output, options)
    from epsinas_onnx.evaluation.outcome import evaluate

    outcome = evaluate(
        found.name, column, keys, values, accuracies, proxies, lower_is_better=lower_is_better, resamples=resamples,
        seed=seed,
    )  # fmt: skip
    _show(outcome, top, format)
    for target in plot or []:
        outcome.plot(target)
        typer.echo(f"plot in {target}", err=True)
    if interrupted:
        kept = f"; {output} keeps them, and the same command goes on" if output else ""
        typer.echo(f"Interrupted: the figures are over what was scored until then{kept}.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)


def _show(outcome: Any, top: int, format: EvaluationFormat) -> None:
    from epsinas_onnx.evaluation import reports

    match format:
        case EvaluationFormat.JSON:
            typer.echo(json.dumps(reports.to_record(outcome, top), indent=2, allow_nan=False))
        case EvaluationFormat.MARKDOWN:
            typer.echo(reports.to_markdown(outcome, top))
        case EvaluationFormat.TABLE:
            reports.print_outcome(outcome, top, Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH))


def _scores(
    table: Table, networks: Sequence[Buildable], space: SearchSpace, given: str | None, output: Path | None,
    options: dict[str, Any],
) -> tuple[Scores, bool]:  # fmt: skip
    """Return the scores, and whether computing them was interrupted."""
    from epsinas_onnx.evaluation import scoring

    keys = [network.name for network in networks]
    if given is not None:
        if given in table.columns:
            return scoring.of_column(table, given), False
        if not Path(given).exists():
            raise UsageError(
                f"--scores {given!r} is neither a file nor a column; the columns are {', '.join(table.columns)}"
            )
        records = {_canonical(space, name): record for name, record in scoring.read_records(Path(given)).items()}
        return scoring.of_records(table, keys, records, f"results in {given}"), False
    different = list({network.name: network for network in networks}.values())
    computed: dict[str, Any] = {}
    interrupted = False
    try:
        for record in with_bar(scoring.scored(different, options, output), len(different), name=different[0].name):
            computed[record["model"]] = record
    except KeyboardInterrupt:
        interrupted = True
    constants = ",".join(f"{weight:g}" for weight in options["weights"])
    fed = next((record["input"] for record in computed.values()), options["inputs"])
    return scoring.of_records(table, keys, computed, f"constants {constants}, input {fed}"), interrupted


def _canonical(space: SearchSpace, name: str) -> str:
    """Return the architecture that a result's model is called after, or the name as it is."""
    try:
        return space.parse(name)
    except ValueError:
        return name
