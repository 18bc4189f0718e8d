"""`epsinas-onnx ablate`: how well scores rank a table where one thing that they are computed with differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epsinas_onnx.cli.common import (
    EXIT_INTERRUPTED,
    ArithmeticName,
    ArithmeticOption,
    JobsOption,
    MemoryOption,
    TimeoutOption,
    find_space,
    output_console,
    parse_inputs,
    parse_jobs,
    parse_weights,
    prepare_workers,
    say,
)
from epsinas_onnx.cli.evaluate import EvaluationFormat
from epsinas_onnx.cli.outputs import check_outputs, given_files
from epsinas_onnx.cli.progress import with_bar
from epsinas_onnx.errors import UsageError
from epsinas_onnx.output.pictures import check_picture
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT, Limits

if TYPE_CHECKING:
    from epsinas_onnx.evaluation.ablation import Ablation
    from epsinas_onnx.evaluation.table import FloatArray, Table
    from epsinas_onnx.graph.load import Buildable

_INPUTS = "grey,normal,uniform"
_BATCHES = "8,16,32,64,128,256,512,1024"
_CONSTANTS = "constants"
"""The scheme that is epsinas itself, beside those that draw weights."""


class What(StrEnum):
    """What differs."""

    INPUT = "input"
    BATCH = "batch"
    INITIALISATION = "initialisation"


@dataclass
class _Run:
    """What was computed so far. names: of the settings; scores: float64 `[rows]` of each, NaN where there is none."""

    names: Sequence[str]
    rows: int
    scores: dict[str, FloatArray] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def put(self, name: str, row: int, score: float | None) -> None:
        import numpy as np

        array = self.scores.setdefault(name, np.full(self.rows, np.nan))
        array[row] = np.nan if score is None else score


def ablate_command(
    what: Annotated[
        What,
        typer.Argument(
            help="input: what is fed. batch: samples in the minibatch. initialisation: two constants against two draws "
            "of random weights."
        ),
    ],
    table: Annotated[Path, typer.Argument(help="A table of architectures and accuracies, as evaluate takes it.")],
    space: Annotated[str, typer.Option(help="The search space; the command spaces lists them.")],
    column: Annotated[str, typer.Option(help="The column of accuracies, or of losses.")],
    values: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help=f"What to compare, with commas between: kinds of input and files ({_INPUTS} otherwise), sizes "
            f"({_BATCHES}), or constants, normal, uniform, kaiming, xavier and orthogonal (all of them).",
        ),
    ] = None,
    lower_is_better: Annotated[bool, typer.Option("--lower-is-better", help="The column holds losses.")] = False,
    sample: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=3, help="Take this many rows, drawn at random with --seed.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="The two constants; the space's own otherwise.")] = None,
    input: Annotated[
        list[str] | None, typer.Option(metavar="KIND|FILE", help="As for score; the space's own input otherwise.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Samples in the minibatch; the space's own otherwise.")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            metavar="NUMBER", min=0, help="Seed of drawn weights and inputs, of --sample and of the bootstrap."
        ),
    ] = 0,
    jobs: JobsOption = "auto",
    arithmetic: ArithmeticOption = ArithmeticName.AUTO,
    plot: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Draw the correlations: a .png, .pdf or .svg file.")
    ] = None,
    format: Annotated[EvaluationFormat, typer.Option("--format", "-f")] = EvaluationFormat.TABLE,
    resamples: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, help="Resamples of the bootstrap; 0 gives no intervals.")
    ] = 1000,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
) -> None:
    """Repeat the paper's ablations: score a table's networks several times, and compare how well each time ranks them.

    The ablation of constants is find-weights --accuracies, which runs each constant once for all of its pairs.
    """
    prepare_workers()
    from epsinas_onnx.evaluation import ablation
    from epsinas_onnx.evaluation.ranking import evaluate_ranking
    from epsinas_onnx.evaluation.scoring import networks
    from epsinas_onnx.evaluation.table import read_table

    found = find_space(space)
    names = _names(what, values)
    fed = parse_inputs(input) if input else found.defaults.input
    for target in plot or []:
        check_picture(target)
    files = [path for name in names for path in given_files(name)] if what is What.INPUT else []
    check_outputs([("--plot", path) for path in plot or []], inputs=[table, *given_files(fed), *files])
    read = read_table(table).having(column)
    read = read if sample is None else read.sampled(sample, seed)
    options: dict[str, Any] = {
        "weights": parse_weights(weights) if weights else found.defaults.weights, "inputs": fed,
        "batch": batch or found.defaults.batch, "seed": seed, "jobs": parse_jobs(jobs), "arithmetic": arithmetic.value,
        "timeout": timeout, "memory": memory, "isolate": True,
    }  # fmt: skip
    run = _Run(names, len(read.rows))
    stopped = False
    try:
        for name, row, score in _scored(what, names, read, networks(read, found), options, run.failed):
            run.put(name, row, score)
    except KeyboardInterrupt:
        stopped = True
    accuracies = read.numbers(column)
    settings = tuple(
        ablation.Setting(
            name,
            evaluate_ranking(
                run.scores[name], accuracies, lower_is_better=lower_is_better, resamples=resamples, seed=seed
            ),
        )
        for name in names
        if name in run.scores
    )
    made = ablation.Ablation(
        found.name, column, lower_is_better, what.value, _fixed(what, options), settings, tuple(run.failed)
    )  # fmt: skip
    _show(made, format)
    for target in plot or []:
        ablation.draw(target, made)
        say(f"plot in {target}")
    if stopped:
        say("Interrupted: the last of the figures is over what was scored until then, and counts the rest as unscored.")
        raise typer.Exit(EXIT_INTERRUPTED)


def _names(what: What, values: str | None) -> list[str]:
    from epsinas_onnx.evaluation.initialisations import NAMES
    from epsinas_onnx.inputs.minibatch import is_kind

    schemes = (_CONSTANTS, *NAMES)
    default = {What.INPUT: _INPUTS, What.BATCH: _BATCHES, What.INITIALISATION: ",".join(schemes)}[what]
    names = list(dict.fromkeys(name.strip() for name in (values or default).split(",") if name.strip()))
    if not names:
        raise UsageError("--values takes names with commas between")
    for name in names:
        if what is What.BATCH and not (name.isdecimal() and int(name) >= 2):
            raise UsageError(f"--values: a minibatch has a whole number of samples from 2 on, not {name!r}")
        if what is What.INITIALISATION and name not in schemes:
            raise UsageError(f"--values: there is no initialisation {name!r}; there are {', '.join(schemes)}")
        if what is What.INPUT and not is_kind(name) and not Path(name).exists():
            raise UsageError(f"--values: {name!r} is neither a kind of input nor a file")
    return names


def _scored(
    what: What, names: Sequence[str], table: Table, networks: Sequence[Buildable], options: Mapping[str, Any],
    failed: list[str],
) -> Iterator[tuple[str, int, float | None]]:  # fmt: skip
    """Yield the setting, the row and the score as they come."""
    rows: dict[str, list[int]] = {}
    for row, network in enumerate(networks):
        rows.setdefault(network.name, []).append(row)
    different = list({network.name: network for network in networks}.values())
    drawn = [name for name in names if what is What.INITIALISATION and name != _CONSTANTS]
    for name in names:
        if name not in drawn:
            changed = {} if what is What.INITIALISATION else {_KEYS[what]: int(name) if what is What.BATCH else name}
            for model, score in _with_options(different, {**options, **changed}, name, failed):
                yield from ((name, row, score) for row in rows[model])
    if drawn:
        for model, scores in _with_draws(different, drawn, options, failed):
            yield from ((name, row, scores.get(name)) for name in drawn for row in rows[model])


_KEYS = {What.INPUT: "inputs", What.BATCH: "batch"}


def _with_options(
    networks: Sequence[Buildable], options: Mapping[str, Any], name: str, failed: list[str]
) -> Iterator[tuple[str, float | None]]:
    from epsinas_onnx.evaluation.scoring import scored
    from epsinas_onnx.scoring.result import Status

    errors = 0
    for record in with_bar(scored(networks, options, None), len(networks), name, networks[0].name):
        errors += record["status"] == Status.ERROR
        yield record["model"], record["score"]
    if errors:
        failed.append(f"{name}: {errors} networks could not be run and count as unscored")


def _with_draws(
    networks: Sequence[Buildable], schemes: Sequence[str], options: Mapping[str, Any], failed: list[str]
) -> Iterator[tuple[str, Mapping[str, float | None]]]:
    from epsinas_onnx.evaluation.initialisations import drawn_scores
    from epsinas_onnx.scoring.jobs import choose_jobs

    results = drawn_scores(
        networks, schemes, batch=options["batch"], inputs=options["inputs"], seed=options["seed"],
        jobs=choose_jobs(options["jobs"], networks),
        limits=Limits(options["timeout"], options["memory"]),
    )  # fmt: skip
    errors = []
    for _, one in with_bar(results, len(networks), "drawing weights", networks[0].name):
        if one.reason is not None:
            errors.append(one.reason)
        yield one.model, one.scores
    if errors:
        failed.append(f"{len(errors)} networks could not be run with drawn weights, the first of them: {errors[0]}")


def _fixed(what: What, options: Mapping[str, Any]) -> str:
    constants = ",".join(f"{weight:g}" for weight in options["weights"])
    parts = {What.INPUT: f"input {options['inputs']}", What.BATCH: f"batch {options['batch']}"}
    kept = [text for one, text in parts.items() if one is not what]
    return ", ".join([f"constants {constants}", *kept, f"arithmetic {options['arithmetic']}"])


def _show(made: Ablation, format: EvaluationFormat) -> None:
    from epsinas_onnx.evaluation import ablation

    match format:
        case EvaluationFormat.JSON:
            typer.echo(ablation.to_json(made), nl=False)
        case EvaluationFormat.MARKDOWN:
            typer.echo(ablation.to_markdown(made), nl=False)
        case EvaluationFormat.TABLE:
            ablation.print_ablation(made, output_console())
