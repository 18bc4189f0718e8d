"""`epsinas-onnx evaluate`: how well scores rank the architectures of a table whose accuracies are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epsinas_onnx._util.text import to_json
from epsinas_onnx.cli.common import (
    EXIT_INTERRUPTED,
    ArithmeticName,
    ArithmeticOption,
    DeviceMemoryOption,
    EngineName,
    EngineOption,
    JobsOption,
    MemoryOption,
    ProxyBatchOption,
    RayAddressOption,
    StoreOption,
    TimeoutOption,
    WithOption,
    find_space,
    opened_store,
    output_console,
    parse_inputs,
    parse_jobs,
    parse_members,
    parse_scores,
    parse_weights,
    prepare_workers,
    say,
)
from epsinas_onnx.cli.outputs import check_outputs, given_files
from epsinas_onnx.cli.progress import with_bar
from epsinas_onnx.cli.score import ProviderName
from epsinas_onnx.errors import ClusterError, OutputError, UsageError
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace
    from epsinas_onnx.evaluation.scoring import Scores
    from epsinas_onnx.evaluation.table import Table
    from epsinas_onnx.graph.load import Buildable


_LOGS = (".json", ".pbz2")
"""How files of benchmarks end that are folders."""


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
    space: Annotated[str, typer.Option(help="The search space; the command spaces lists them.")],
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
    sample: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=3, help="Take this many rows, drawn at random with --seed.")
    ] = None,
    input: Annotated[
        list[str] | None, typer.Option(metavar="KIND|FILE", help="As for score; the space's own input otherwise.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Samples in the minibatch; the space's own otherwise.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="The two constants; the space's own otherwise.")] = None,
    provider: Annotated[ProviderName, typer.Option(help="Where to run.")] = ProviderName.AUTO,
    seed: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, help="Seed of random inputs, of --sample and of the bootstrap.")
    ] = 0,
    jobs: JobsOption = "auto",
    device_memory: DeviceMemoryOption = 0,
    arithmetic: ArithmeticOption = ArithmeticName.AUTO,
    lump: Annotated[bool, typer.Option("--lump/--no-lump", help="Merge identical channels, as for score.")] = True,
    join: Annotated[
        list[Path] | None, typer.Option(metavar="TABLE", help="Another table, whose columns are added by architecture.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="A column with another score to compare with, on the same architectures; globs work."
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, help="Show this many of the best-scored architectures.")
    ] = 0,
    plot: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Draw score against accuracy: a .png, .pdf, .svg or .html file."),
    ] = None,
    format: Annotated[EvaluationFormat, typer.Option("--format", "-f")] = EvaluationFormat.TABLE,
    resamples: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, help="Resamples of the bootstrap; 0 gives no intervals.")
    ] = 1000,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
    store: StoreOption = None,
    engine: EngineOption = EngineName.LOCAL,
    ray_address: RayAddressOption = None,
    with_: WithOption = None,
    proxy_batch: ProxyBatchOption = 32,
    rank: Annotated[
        bool, typer.Option("--rank", help="Rank by several scores together, as the command rank does, see --by.")
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(metavar="SCORES", help="The scores that --rank combines; otherwise those of the command rank."),
    ] = None,
) -> None:
    """Score every architecture of a table and say how well the scores rank them, with coverage and intervals.

    All figures are over the architectures that have a score, and say how many those are. Other scores (--with), and a
    combination of several (--rank), stand beside params and macs on the same architectures.
    """
    members = parse_members("default" if by is None else by) if rank or by is not None else ()
    others = parse_scores(with_)
    if scores is None:
        prepare_workers(engine)
    from epsinas_onnx.evaluation import combined, scoring
    from epsinas_onnx.evaluation.plots import check_ending
    from epsinas_onnx.evaluation.table import join as joined
    from epsinas_onnx.evaluation.table import read_table

    found = find_space(space)
    fed = parse_inputs(input) if input else found.defaults.input
    for target in plot or []:
        check_ending(target)
    earlier = [] if scores is None else [Path(scores)]
    check_outputs(
        [
            *([] if output is None else [("--output", output)]),
            *(("--plot", path) for path in plot or []),
            *([] if store is None else [("--store", store)]),
        ],
        inputs=_read_by([table, *(join or []), *earlier], fed),
    )
    asked = combined.asked(members, others)
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
        "inputs": fed,
        "batch": batch or found.defaults.batch,
        "providers": provider.value,
        "seed": seed,
        "jobs": parse_jobs(jobs),
        "device_memory": device_memory,
        "lump": lump,
        "arithmetic": arithmetic.value,
        "timeout": timeout,
        "memory": memory,
        "isolate": True,
        "engine": engine.value,
        "ray_address": ray_address,
        "scores": asked,
        "proxy_batch": proxy_batch,
    }
    if asked and scores in read.columns:
        raise UsageError("a column holds one score alone; --rank and --with take scores from files of results")
    with opened_store(store) as kept:
        values, records, stopped = _scores(read, networks, found, scores, output, {**options, "store": kept})
        from epsinas_onnx.evaluation.outcome import OURS, evaluate
        from epsinas_onnx.ranking.members import EPSINAS

        beside = combined.ranks(keys, records, asked, read.columns)
        name, agreement, epsinas = OURS, None, values
        if members:
            of = combined.together(keys, records, members, values)
            name, values, agreement = of.name, of.scores, of.agreement
            beside = {label: ranks for label, ranks in beside.items() if label != name}
            if EPSINAS in members and members != (EPSINAS,):
                beside = {EPSINAS: combined.ranks(keys, records, (EPSINAS,))[EPSINAS], **beside}
        alone = beside if not members or EPSINAS in members else {EPSINAS: epsinas.values, **beside}
        outcome = evaluate(
            found.name, column, keys, values, accuracies, {**beside, **proxies}, name=name, others=alone,
            agreement=agreement, lower_is_better=lower_is_better, resamples=resamples, seed=seed,
        )  # fmt: skip
        _show(outcome, top, format)
        for target in plot or []:
            outcome.plot(target)
            say(f"plot in {target}")
        if stopped is not None:
            keeps = f"; {output or store} keeps them, and the same command goes on" if output or store else ""
            say(f"Interrupted: the figures are over what was scored until then{keeps}.")
        if isinstance(stopped, OutputError | ClusterError):
            raise stopped
        if stopped is not None:
            raise typer.Exit(EXIT_INTERRUPTED)


def _read_by(tables: Sequence[Path], fed: Any) -> Iterator[Path]:
    """Yield the files that are read: tables, those in a folder that a benchmark published, and what is fed."""
    for table in tables:
        yield from (path for path in table.rglob("*") if path.suffix in _LOGS) if table.is_dir() else [table]
    yield from given_files(fed)


def _show(outcome: Any, top: int, format: EvaluationFormat) -> None:
    from epsinas_onnx.evaluation import reports

    match format:
        case EvaluationFormat.JSON:
            typer.echo(to_json(reports.to_record(outcome, top)), nl=False)
        case EvaluationFormat.MARKDOWN:
            typer.echo(reports.to_markdown(outcome, top))
        case EvaluationFormat.TABLE:
            reports.print_outcome(outcome, top, output_console())


def _scores(
    table: Table, networks: Sequence[Buildable], space: SearchSpace, given: str | None, output: Path | None,
    options: dict[str, Any],
) -> tuple[Scores, Mapping[str, Mapping[str, Any]], BaseException | None]:  # fmt: skip
    """Return the scores, all results by architecture, and what ended computing them early, such as Ctrl-C."""
    from epsinas_onnx.evaluation import scoring

    keys = [network.name for network in networks]
    if given is not None:
        if given in table.columns:
            return scoring.of_column(table, given), {}, None
        if not Path(given).exists():
            raise UsageError(
                f"--scores {given!r} is neither a file nor a column; the columns are {', '.join(table.columns)}"
            )
        records = {_canonical(space, name): record for name, record in scoring.read_records(Path(given)).items()}
        return scoring.of_records(table, keys, records, f"results in {given}"), records, None
    different = list({network.name: network for network in networks}.values())
    computed: dict[str, Any] = {}
    stopped: BaseException | None = None
    try:
        for record in with_bar(scoring.scored(different, options, output), len(different), name=different[0].name):
            computed[record["model"]] = record
    except (KeyboardInterrupt, OutputError, ClusterError) as error:
        if not computed and not isinstance(error, KeyboardInterrupt):
            raise
        stopped = error
    constants = ",".join(f"{weight:g}" for weight in options["weights"])
    fed = next((record["input"] for record in computed.values()), options["inputs"])
    return scoring.of_records(table, keys, computed, f"constants {constants}, input {fed}"), computed, stopped


def _canonical(space: SearchSpace, name: str) -> str:
    """Return the architecture that a result's model is called after, or the name as it is."""
    try:
        return space.parse(name)
    except ValueError:
        return name
