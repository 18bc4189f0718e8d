"""`epsinas-onnx rank`: orders a set of networks by several training-free scores, and says how far they agree."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epsinas_onnx.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ArithmeticName,
    ArithmeticOption,
    ByOption,
    DeviceMemoryOption,
    DimOption,
    EngineName,
    EngineOption,
    JobsOption,
    MemoryOption,
    ProxyBatchOption,
    RayAddressOption,
    RestoreOption,
    StoreOption,
    TimeoutOption,
    as_text,
    find_models,
    opened_store,
    output_console,
    parse_inputs,
    parse_jobs,
    parse_members,
    parse_pairs,
    parse_shapes,
    parse_weights,
    prepare_workers,
    say,
)
from epsinas_onnx.cli.outputs import check_outputs, given_files
from epsinas_onnx.cli.progress import with_bar
from epsinas_onnx.cli.score import ProviderName
from epsinas_onnx.errors import ClusterError, OutputError, UsageError
from epsinas_onnx.output.files import write_output
from epsinas_onnx.report import ENDINGS
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from epsinas_onnx.ranking.result import RankedSet

Record = Mapping[str, Any]


class RankFormat(StrEnum):
    """How a ranked set is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    HTML = "html"


_ENDINGS = {ending: kind for ending, kind in ENDINGS.items() if kind != "jsonl"}


def rank_command(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="ONNX files, folders (searched through), globs, or - for a list on standard input."),
    ] = None,
    by: ByOption = "default",
    format: Annotated[
        RankFormat | None,
        typer.Option("--format", "-f", help="table, or what the ending of --output says; html draws the ranks."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the ranking here instead of printing it.")
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Rank what an earlier score --with wrote (.jsonl, .json or .csv), beside any files."
        ),
    ] = None,
    input: Annotated[list[str] | None, typer.Option(metavar="KIND|FILE", help="What is fed, as for score.")] = None,
    batch: Annotated[int, typer.Option(metavar="NUMBER", help="Samples in the minibatch of epsinas.")] = 256,
    proxy_batch: ProxyBatchOption = 32,
    weights: Annotated[str, typer.Option(help="The two constants of epsinas.")] = "1e-7,1",
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SIZES", help="An input's shape, NAME=1,3,224,224; the batch axis follows --batch."),
    ] = None,
    dim: DimOption = None,
    provider: Annotated[ProviderName, typer.Option(help="Where to run.")] = ProviderName.AUTO,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Seed of drawn weights and random inputs.")] = 0,
    jobs: JobsOption = "auto",
    device_memory: DeviceMemoryOption = 0,
    role: Annotated[list[str] | None, typer.Option(metavar="PATTERN=ROLE", help="PATTERN=ROLE, as for score.")] = None,
    arithmetic: ArithmeticOption = ArithmeticName.AUTO,
    restore_batchnorm: RestoreOption = "auto",
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
    store: StoreOption = None,
    engine: EngineOption = EngineName.LOCAL,
    ray_address: RayAddressOption = None,
) -> None:
    """Rank a set of networks by training-free scores together: the best first, by the sum of log(rank / n).

    Says how far the scores agree, about which networks they don't, and what has no place and why. The networks are to
    be of one task: what is ranked are architectures, and no weights are read.
    """
    kind = _format(format, output)
    members = parse_members(by)
    models = find_models(paths or [])
    if not models and not results:
        raise UsageError("no files were named; name models, or earlier results with --results")
    fed = parse_inputs(input or [])
    if output is not None:
        named = [("--output", output), *([] if store is None else [("--store", store)])]
        check_outputs(named, inputs=[*(results or []), *given_files(fed)], models=models)
    records = _read(results or [])
    if results and not records and not models:
        raise UsageError(f"{results[0]}: holds no network")
    if len({*records, *models}) < 2:
        raise UsageError(
            "one network alone has no rank, which says how it stands among others; name at least two, or see score"
        )
    options = {
        "weights": parse_weights(weights), "inputs": fed, "batch": batch, "proxy_batch": proxy_batch,
        "shapes": parse_shapes(shape or [], dim or []), "providers": provider.value, "seed": seed,
        "jobs": parse_jobs(jobs), "device_memory": device_memory,
        "roles": parse_pairs("--role", role or []), "arithmetic": arithmetic.value, "timeout": timeout,
        "restore_batchnorm": restore_batchnorm, "memory": memory, "isolate": True,
        "engine": engine.value, "ray_address": ray_address,
    }  # fmt: skip
    with opened_store(store) as kept:
        stopped = _score(models, members, {**options, "store": kept}, records)
        from epsinas_onnx.ranking.result import rank_records

        if isinstance(stopped, ClusterError) and len(records) < 2:
            raise stopped
        if stopped and len(records) < 2:
            say("Interrupted: fewer than two networks were scored, so there is nothing to rank.")
            raise typer.Exit(EXIT_INTERRUPTED)
        given = [{**record, "model": model} for model, record in records.items()]
        ranked = rank_records(given, members)
        _write(ranked, given, kind, output)
        if stopped:
            missing = len({*models} - records.keys())
            say(f"Interrupted: the ranking is over what was scored until then; {missing} files are not in it.")
            if isinstance(stopped, ClusterError):
                raise stopped
            raise typer.Exit(EXIT_INTERRUPTED)
        if not ranked.placed or any(one.failed for one in ranked.unplaced):
            raise typer.Exit(EXIT_FAILED)


def _read(results: Sequence[Path]) -> dict[str, Record]:
    """Return the records of earlier results by model; those of a later file take the place of earlier ones."""
    from epsinas_onnx.evaluation.scoring import read_records

    found: dict[str, Record] = {}
    for path in results:
        found.update(read_records(path))
    return found


def _score(
    models: Sequence[str], members: Sequence[str], options: dict[str, Any], records: dict[str, Record]
) -> KeyboardInterrupt | ClusterError | None:  # fmt: skip
    """Add the record of each model to `records`, in the order of the files; return what ended it early."""
    if not models:
        return None
    prepare_workers(EngineName(options["engine"]))
    from epsinas_onnx.ranking.members import measured
    from epsinas_onnx.scoring.api import score_as_done

    done: dict[int, Record] = {}
    scored = score_as_done(models, scores=measured(members), **options)
    try:
        for index, found in with_bar(scored, len(models), name=models[0]):
            done[index] = found.to_dict()
    except (KeyboardInterrupt, ClusterError) as error:
        return error
    finally:
        records.update((str(done[index]["model"]), done[index]) for index in sorted(done))
    return None


def _format(chosen: RankFormat | None, output: Path | None) -> RankFormat:
    if chosen is not None:
        return chosen
    return RankFormat(_ENDINGS.get(output.suffix.lower(), "table")) if output is not None else RankFormat.TABLE


def _write(ranked: RankedSet, records: Sequence[Record], kind: RankFormat, output: Path | None) -> None:
    if output is None:
        _show(ranked, records, kind)
        return
    try:
        write_output(output, _text(ranked, records, kind))
    except OutputError:  # hours of scoring are not to be lost
        _show(ranked, records, RankFormat.TABLE if kind is RankFormat.HTML else kind)
        raise
    say(f"{len(ranked.placed)} of {ranked.size} networks ranked, written to {output}")


def _show(ranked: RankedSet, records: Sequence[Record], kind: RankFormat) -> None:
    if kind is RankFormat.TABLE:
        from epsinas_onnx.report.rankings import print_ranked

        print_ranked(ranked, output_console())
    else:
        sys.stdout.write(_text(ranked, records, kind))
    sys.stdout.flush()


def _text(ranked: RankedSet, records: Sequence[Record], kind: RankFormat) -> str:
    from epsinas_onnx.report import rankings

    match kind:
        case RankFormat.TABLE:
            return as_text(lambda console: rankings.print_ranked(ranked, console))
        case RankFormat.JSON:
            return rankings.to_json(ranked)
        case RankFormat.CSV:
            return rankings.to_csv(ranked)
        case RankFormat.MARKDOWN:
            return rankings.to_markdown(ranked)
        case RankFormat.HTML:
            from epsinas_onnx.report.results_page import ranking_to_html

            return ranking_to_html(ranked, records)
