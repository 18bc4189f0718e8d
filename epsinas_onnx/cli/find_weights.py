"""`epsinas-onnx find-weights`: which two constants suit a search space, or a set of files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from epsinas_onnx.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ArithmeticName,
    ArithmeticOption,
    DimOption,
    JobsOption,
    MemoryOption,
    RestoreOption,
    RoleOption,
    ShapeOption,
    TimeoutOption,
    as_text,
    find_models,
    find_space,
    output_console,
    parse_inputs,
    parse_jobs,
    parse_pairs,
    parse_shapes,
    prepare_workers,
    say,
)
from epsinas_onnx.cli.finding import run_with_bar
from epsinas_onnx.cli.outputs import check_outputs, given_files
from epsinas_onnx.cli.score import ProviderName
from epsinas_onnx.errors import OutputError, UsageError
from epsinas_onnx.output.files import write_output
from epsinas_onnx.output.pictures import check_picture
from epsinas_onnx.report import ENDINGS
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT, Limits

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace
    from epsinas_onnx.constants.result import FoundWeights
    from epsinas_onnx.graph.load import Buildable


class WeightsFormat(StrEnum):
    """How the pairs are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"


@dataclass(frozen=True)
class _Networks:
    """What is run. title: what pictures call it. accuracies: None where none were given."""

    title: str
    models: Sequence[str | Buildable]
    space: SearchSpace | None
    accuracies: Sequence[float] | None = None


def find_weights_command(
    of: Annotated[
        list[str],
        typer.Argument(
            metavar="SPACE|PATHS",
            help="A search space (the command spaces lists them), or ONNX files, folders (searched through), globs, or "
            "- for a list on standard input.",
        ),
    ],
    constants: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS", help="The constants whose pairs are judged; 1e-7 to 1 in powers of ten otherwise."
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER", min=1, help="Run so many networks, drawn with --seed; 100 of a space otherwise."
        ),
    ] = None,
    accuracies: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE",
            help="Choose by correlation: a table as evaluate takes it, whose networks are run; for files one with a "
            "column model that names them.",
        ),
    ] = None,
    column: Annotated[str | None, typer.Option(help="The column of accuracies, or of losses.")] = None,
    lower_is_better: Annotated[bool, typer.Option("--lower-is-better", help="The column holds losses.")] = False,
    format: Annotated[
        WeightsFormat | None, typer.Option("--format", "-f", help="table, or what the ending of --output says.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the pairs here instead of printing them.")
    ] = None,
    plot: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Draw heat maps: a .png, .pdf or .svg file.")
    ] = None,
    input: Annotated[
        list[str] | None, typer.Option(metavar="KIND|FILE", help="As for score; a space has its own.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Samples in the minibatch; 256, or the space's own.")
    ] = None,
    shape: ShapeOption = None,
    dim: DimOption = None,
    role: RoleOption = None,
    provider: Annotated[ProviderName, typer.Option(help="Where to run.")] = ProviderName.AUTO,
    seed: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, help="Seed of random inputs and embeddings, and of --sample.")
    ] = 0,
    jobs: JobsOption = "auto",
    arithmetic: ArithmeticOption = ArithmeticName.AUTO,
    restore_batchnorm: RestoreOption = "auto",
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
) -> None:
    """Find the two constants for a space or a set of files: each constant is run once, and every pair is judged.

    The paper's rule takes the widest pair with which fewer than 10 % of the networks have no score; with --accuracies
    it is the pair whose scores rank them best.
    """
    kind = _format(format, output)
    prepare_workers()
    from epsinas_onnx.constants.find import check_options

    for target in plot or []:
        check_picture(target)
    chosen = parse_constants(constants)
    if accuracies is None and (column is not None or lower_is_better):
        raise UsageError("--column and --lower-is-better are of a table of accuracies; name it with --accuracies")
    networks = _networks(of, sample, seed, accuracies, column)
    defaults = None if networks.space is None else networks.space.defaults
    fed = parse_inputs(input) if input else (defaults.input if defaults else "auto")
    check_outputs(
        [*([] if output is None else [("--output", output)]), *(("--plot", path) for path in plot or [])],
        inputs=[*([] if accuracies is None else [accuracies]), *given_files(fed)],
        models=[model for model in networks.models if isinstance(model, str)],
    )
    ordered, options = check_options(
        chosen, networks.models, jobs=parse_jobs(jobs), inputs=fed,
        batch=batch or (defaults.batch if defaults else 256),
        shapes=parse_shapes(shape or [], dim or []), roles=parse_pairs("--role", role or []),
        providers=provider.value, seed=seed, arithmetic=arithmetic.value, restore_batchnorm=restore_batchnorm,
    )  # fmt: skip
    ran, stopped = run_with_bar(networks.models, ordered, options, Limits(timeout, memory))
    if not ran:
        say("Interrupted: no network was run.")
        raise typer.Exit(EXIT_INTERRUPTED)
    from epsinas_onnx.constants.result import found_weights

    known = None if networks.accuracies is None else [networks.accuracies[index] for index in ran]
    found = found_weights(list(ran.values()), ordered, arithmetic.value, known, lower_is_better=lower_is_better)
    _write(found, kind, output)
    for target in plot or []:
        from epsinas_onnx.constants.picture import draw

        draw(target, found, networks.title)
        say(f"plot in {target}")
    if stopped:
        missing = len(networks.models) - len(ran)
        say(f"Interrupted: the figures are over the {len(ran)} networks that were run until then; {missing} were not.")
        raise typer.Exit(EXIT_INTERRUPTED)
    if found.failed:
        raise typer.Exit(EXIT_FAILED)


def parse_constants(text: str | None) -> tuple[float, ...]:
    """Return the numbers of `1e-7,1e-3,1`; the paper's eight for None."""
    from epsinas_onnx.constants.find import CONSTANTS, check_constants

    if text is None:
        return CONSTANTS
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--constants takes numbers with commas between, such as 1e-7,1e-3,1, not {text!r}") from None
    return check_constants(numbers)


def _networks(
    of: Sequence[str], sample: int | None, seed: int, accuracies: Path | None, column: str | None
) -> _Networks:
    from epsinas_exporters import spaces
    from epsinas_onnx.constants.find import SAMPLE, drawn

    if len(of) == 1 and of[0] in spaces.names() and not Path(of[0]).exists():
        space = find_space(of[0])
        if accuracies is not None:
            return _of_table(space, accuracies, column, sample, seed)
        count = sample or SAMPLE
        archs = space.sample(count if space.size is None else min(count, space.size), seed)
        return _Networks(space.name, [space.network(arch) for arch in archs], space)
    models = find_models(of)
    if not models:
        raise UsageError("no files were named")
    if len(of) == 1 and models == list(of) and not Path(of[0]).exists() and not of[0].endswith(".onnx"):
        raise UsageError(f"{of[0]!r} is neither a file nor a search space; the spaces are {', '.join(spaces.names())}")
    title = of[0] if len(of) == 1 else f"{len(models)} files"
    if accuracies is None:
        return _Networks(title, drawn(models, sample or len(models), seed), None)
    values = _of_files(models, accuracies, column)
    models = drawn(list(values), sample or len(values), seed)
    return _Networks(title, models, None, [values[model] for model in models])


def _of_table(space: SearchSpace, path: Path, column: str | None, sample: int | None, seed: int) -> _Networks:
    """Return the networks of a table's rows, and their accuracies."""
    from epsinas_onnx.constants.find import SAMPLE
    from epsinas_onnx.evaluation.scoring import networks
    from epsinas_onnx.evaluation.table import read_table

    table = read_table(path)
    named = _column(column, table.columns)
    table = table.having(named).sampled(sample or SAMPLE, seed)
    return _Networks(f"{space.name}, {named}", networks(table, space), space, table.numbers(named).tolist())


def _of_files(models: Sequence[str], path: Path, column: str | None) -> dict[str, float]:
    """Return the accuracy of each file that the table's column `model` names, by its path or by its name alone."""
    from epsinas_onnx.evaluation.table import read_table

    table = read_table(path)
    named = _column(column, table.columns)
    table.require("model")
    numbers = table.numbers(named).tolist()
    known = dict(zip((row["model"] for row in table.rows), numbers, strict=True))
    by_name = {PurePath(model).name: number for model, number in known.items()}
    values = {model: known.get(model, by_name.get(PurePath(model).name, float("nan"))) for model in models}
    found = {model: value for model, value in values.items() if value == value}
    if not found:
        raise UsageError(f"{path}: the column 'model' names none of the files that have a number in {named!r}")
    if len(found) < len(models):
        missing = len(models) - len(found)
        say(f"{missing} {'file is' if missing == 1 else 'files are'} not in {path}, and left out.")
    return found


def _column(column: str | None, columns: Sequence[str]) -> str:
    if column is None:
        raise UsageError(f"name the column of accuracies with --column; the columns are {', '.join(columns)}")
    return column


def _format(chosen: WeightsFormat | None, output: Path | None) -> WeightsFormat:
    if chosen is not None:
        return chosen
    ending = "" if output is None else output.suffix.lower()
    known = ENDINGS.get(ending, "table")
    return WeightsFormat(known) if known in set(WeightsFormat) else WeightsFormat.TABLE


def _write(found: FoundWeights, kind: WeightsFormat, output: Path | None) -> None:
    from epsinas_onnx.report.constants import chosen

    if output is None:
        _show(found, kind)
        return
    try:
        write_output(output, _text(found, kind))
    except OutputError:
        _show(found, kind)  # what was computed is not to be lost
        raise
    say(f"{chosen(found)}; the pairs are in {output}")


def _show(found: FoundWeights, kind: WeightsFormat) -> None:
    if kind is WeightsFormat.TABLE:
        from epsinas_onnx.report.constants import print_found

        print_found(found, output_console())
    else:
        sys.stdout.write(_text(found, kind))
    sys.stdout.flush()


def _text(found: FoundWeights, kind: WeightsFormat) -> str:
    from epsinas_onnx.report import constants

    match kind:
        case WeightsFormat.TABLE:
            return as_text(lambda console: constants.print_found(found, console))
        case WeightsFormat.JSON:
            return constants.to_json(found)
        case WeightsFormat.CSV:
            return constants.to_csv(found)
        case WeightsFormat.MARKDOWN:
            return constants.to_markdown(found)
