"""`epsinas-onnx search`: looks for the best architectures of a space by training-free scores, size and latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epsinas_onnx.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ArithmeticName,
    DimOption,
    MemoryOption,
    ProxyBatchOption,
    ShapeOption,
    TimeoutOption,
    output_console,
    parse_inputs,
    parse_jobs,
    parse_shapes,
    parse_weights,
    prepare_workers,
    say,
)
from epsinas_onnx.cli.outputs import check_outputs
from epsinas_onnx.cli.progress import counted
from epsinas_onnx.cli.score import ProviderName
from epsinas_onnx.cli.search_around import (
    AroundOption,
    BestOption,
    ChangeOption,
    MaxDepthOption,
    MaxWidthOption,
    MinWidthOption,
    WriteOption,
    check_folder,
    chosen_space,
    say_refused,
    write_best,
)
from epsinas_onnx.cli.search_rounds import compare_searches, write_each
from epsinas_onnx.errors import OutputError, UsageError
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace
    from epsinas_onnx.search import Search, SearchResult

_ENDINGS = {".json": "json", ".csv": "csv"}


def search_command(
    space: Annotated[
        str | None, typer.Argument(help="The search space; the command spaces lists them. None with --around.")
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:min|max]",
            help="What to look for, once for each: epsinas, a score or a combination that rank knows (swap, default, "
            "rank:swap,meco), params, macs, latency, size, or accuracy out of a table.",
        ),
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(metavar="BOUND", help="A bound, such as 'params<=1e6', 'latency<=5ms' or 'size<=4MB'."),
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(help="evolution (ageing), random, or Optuna's: tpe, nsga2, nsga3, gp, cmaes, qmc, bruteforce."),
    ] = "evolution",
    trials: Annotated[
        int,
        typer.Option("--trials", "-n", metavar="NUMBER", min=1, help="Architectures to try, earlier ones included."),
    ] = 100,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL|FILE",
            help="An Optuna storage that keeps the search, which then goes on, and which others may share: a SQLite "
            "file, journal:FILE, or a URL.",
        ),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="What the search is called there; otherwise like the space.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="NUMBER", min=0, help="Seed of everything that is drawn.")] = 0,
    population: Annotated[int, typer.Option(metavar="NUMBER", help="Evolution: how many of the youngest live.")] = 64,
    tournament: Annotated[int, typer.Option(metavar="NUMBER", help="Evolution: how many of them compete.")] = 10,
    warmup: Annotated[
        int,
        typer.Option(
            metavar="NUMBER", min=0, help="Order this many by the guide before, and try the best of them first."
        ),
    ] = 0,
    guide: Annotated[
        list[str] | None,
        typer.Option(metavar="SCORE", help="What warm-up and move go by: a training-free score or a combination."),
    ] = None,
    move: Annotated[
        str,
        typer.Option(
            help="Evolution: where the guide decides: none, parent (of the tournament), child (of mutations)."
        ),
    ] = "none",
    proposals: Annotated[int, typer.Option(metavar="NUMBER", help="Mutations that the move child chooses from.")] = 10,
    reference: Annotated[
        int, typer.Option(metavar="NUMBER", min=2, help="Networks of the sample that combinations rank among.")
    ] = 200,
    scores: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Results of score or evaluate that need not be computed.")
    ] = None,
    accuracies: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="A table as for evaluate, whose column accuracy stands for.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="The column of accuracies, or of losses.")] = None,
    lower_is_better: Annotated[bool, typer.Option("--lower-is-better", help="The column holds losses.")] = False,
    rounds: Annotated[
        int,
        typer.Option(
            metavar="NUMBER",
            min=0,
            help="Compare searches for accuracy with and without warm-up and move instead, each repeated so often.",
        ),
    ] = 0,
    input: Annotated[
        list[str] | None, typer.Option(metavar="KIND|FILE", help="As for score; the space's own input otherwise.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Samples in the minibatch; the space's own otherwise.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="The two constants; the space's own otherwise.")] = None,
    proxy_batch: ProxyBatchOption = 32,
    arithmetic: Annotated[
        ArithmeticName,
        typer.Option(help="float32 takes what the published procedure scores alone, which lies on one scale."),
    ] = ArithmeticName.FLOAT32,
    provider: Annotated[ProviderName, typer.Option(help="Where to run, for latencies too.")] = ProviderName.AUTO,
    latency_batch: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Samples of a timed run.")] = 1,
    latency_threads: Annotated[int, typer.Option(metavar="NUMBER", min=0, help="Its threads, 0 for all.")] = 1,
    latency_runs: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Timed runs, of which the median.")] = 50,
    shape: ShapeOption = None,
    dim: DimOption = None,
    jobs: Annotated[
        str,
        typer.Option(
            "--jobs",
            "-j",
            metavar="NUMBER|auto",
            help="Worker processes, a thread each, or auto; other numbers find others with the same seed.",
        ),
    ] = "1",
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
    around: AroundOption = None,
    change: ChangeOption = "width,depth,kernel,activation",
    min_width: MinWidthOption = 0.25,
    max_width: MaxWidthOption = 2.0,
    max_depth: MaxDepthOption = 2.0,
    top: Annotated[int, typer.Option(metavar="NUMBER", min=0, help="Show this many of the best.")] = 10,
    write: WriteOption = None,
    best: BestOption = 5,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write everything that was tried here: .json or .csv.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with pictures and tables.")] = None,
    plot: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Draw the search: a .png, .pdf or .svg file.")
    ] = None,
) -> None:
    """Look for the best architectures of a search space, or around a network of your own, without training any.

    The search is an Optuna study. With --storage it is kept, the same command goes on with it, and several processes
    may search together. At the end: a ranked list, and with several objectives the Pareto front.
    """
    _check(output, html, plot or [])
    check_folder(write)
    prepare_workers()
    found = chosen_space(space, around, change, min_width, max_width, max_depth)
    if around is not None and study is None:
        study = f"around {around.stem}"
    from epsinas_onnx.search import LatencySettings, Strategy

    strategy = Strategy(
        sampler, seed, warmup, guide[0] if guide and len(guide) == 1 else None, _move(move), proposals, population,
        tournament, reference,
    )  # fmt: skip
    if guide and len(guide) > 1 and not rounds:
        raise UsageError("one --guide leads a search; several are compared with --rounds")
    table = _accuracies(accuracies, column, found)
    options: dict[str, Any] = {
        "inputs": parse_inputs(input) if input else found.defaults.input,
        "batch": batch or found.defaults.batch,
        "weights": parse_weights(weights) if weights else found.defaults.weights,
        "proxy_batch": proxy_batch, "providers": provider.value, "shapes": parse_shapes(shape or [], dim or []),
        "jobs": parse_jobs(jobs), "timeout": timeout, "memory": memory, "isolate": True, "seed": seed,
    }  # fmt: skip
    known = _records(scores or [], found, options)
    if rounds:
        if not table:
            raise UsageError("--rounds compares searches for accuracy, so it needs a table, --accuracies")
        compare_searches(
            found, table, strategy, guide or ["epsinas"], trials, rounds, known, arithmetic.value, options,
            column=str(column), lower_is_better=lower_is_better, output=output, html=html, plots=plot or [],
        )  # fmt: skip
        return
    from epsinas_onnx.search import Search

    with Search(
        found, objective or "epsinas", strategy=strategy, constraints=constraint or [],
        own={"accuracy": table.get} if table else {}, minimised=["accuracy"] if lower_is_better else [],
        storage=storage, study=study, scores=known, arithmetic=arithmetic.value,
        latency=LatencySettings(
            latency_batch, latency_threads, provider.value, runs=latency_runs, shapes=options["shapes"]
        ),
        **options,
    ) as search:  # fmt: skip
        result, interrupted = _run(search, trials)
    if interrupted:
        kept = f"; {storage} keeps them, and the same command goes on" if storage else ""
        say(f"Interrupted after {len(result.tried)} of {trials} trials{kept}.")
    say_refused(found)
    _write(result, top, output, html, plot or [], lambda: write_best(found, result, write, best))
    if interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if result.tried and all(one.status != "ok" for one in result.tried):
        raise typer.Exit(EXIT_FAILED)


def _check(output: Path | None, html: Path | None, plots: Sequence[Path]) -> None:
    """Raise UsageError for outputs that could not be written at the end."""
    from epsinas_onnx.search.storage import optuna_module

    optuna = optuna_module()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    named = [("--output", output), ("--html", html), *(("--plot", path) for path in plots)]
    check_outputs([(option, path) for option, path in named if path is not None])
    if output is not None and output.suffix.lower() not in _ENDINGS:
        raise UsageError(f"--output: {output} is neither a .json nor a .csv file")
    if html is not None:
        from epsinas_onnx.report.search_page import check_library

        check_library()
    if plots:
        from epsinas_onnx.search.plots import check_plot

        for path in plots:
            check_plot(path)


def _move(text: str) -> Any:
    """Return a move as it is; `AgeingEvolution` says which there are."""
    if text not in ("none", "parent", "child"):
        raise UsageError(f"there is no move {text!r}; choose one of none, parent, child")
    return text


def _accuracies(path: Path | None, column: str | None, space: SearchSpace) -> dict[str, float]:
    if path is None:
        return {}
    from epsinas_onnx.search.accuracies import read_accuracies

    return read_accuracies(path, column, space)


def _records(paths: Sequence[Path], space: SearchSpace, options: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return earlier results by architecture; what is none of the space is left out.

    Raises UsageError for results of other settings.
    """
    from epsinas_onnx.evaluation.scoring import read_records

    wanted = {"weights": list(options["weights"]), "input": options["inputs"], "batch": options["batch"]}

    found: dict[str, Mapping[str, Any]] = {}
    for path in paths:
        for name, record in read_records(path).items():
            for key, value in wanted.items():
                had = record.get(key, value)
                if type(had) is type(value) and had != value:
                    raise UsageError(
                        f"{path}: holds results of other settings ({key} {had}, not {value}); name another file, or "
                        "search with those"
                    )
            try:
                found[space.parse(name)] = record
            except ValueError:
                continue
        if not found:
            raise UsageError(f"{path}: holds no result of an architecture of {space.name}")
    return found


def _run(search: Search, trials: int) -> tuple[SearchResult, bool]:
    """Search with a bar; return what was found, and whether Ctrl-C ended it early."""
    try:
        with counted() as show:
            for what, done, total in search.prepare():
                show(f"scoring {what}", done, total)
        with counted() as show:
            search.run(trials, lambda _: show("searching", search.count(), trials))
    except KeyboardInterrupt:
        return search.result(), True
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("sqlalchemy", "optuna"):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OutputError(f"the storage cannot be written: {first}; what was finished before is in it") from None
    return search.result(), False


def _write(
    result: SearchResult, top: int, output: Path | None, html: Path | None, plots: Sequence[Path],
    networks: Callable[[], None],
) -> None:  # fmt: skip
    from epsinas_onnx.report import searches
    from epsinas_onnx.report.search_page import to_html
    from epsinas_onnx.search.plots import plot_search

    searches.print_search(result, top, output_console())
    try:
        write_each(output, html, plots, searches.to_json, searches.to_csv, to_html, plot_search, result)
    finally:
        networks()
