"""`epsinas-onnx score`: scores files, folders, globs and lists, and prints or writes one row each."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self, cast

import typer
from rich.console import Console

from epsinas_onnx.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ArithmeticName,
    ArithmeticOption,
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
    WithOption,
    as_text,
    find_models,
    opened_store,
    parse_inputs,
    parse_jobs,
    parse_pairs,
    parse_scores,
    parse_shapes,
    parse_weights,
    prepare_workers,
    say,
)
from epsinas_onnx.cli.finding import weights_for
from epsinas_onnx.cli.outputs import check_outputs, given_files
from epsinas_onnx.cli.progress import with_bar
from epsinas_onnx.errors import OutputError, UsageError
from epsinas_onnx.output.files import write_output
from epsinas_onnx.output.lines import LineFile
from epsinas_onnx.report import ENDINGS, coverage
from epsinas_onnx.report.markdown import to_markdown
from epsinas_onnx.report.records import to_csv, to_json, to_json_line
from epsinas_onnx.report.table import print_table
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT, Limits
from epsinas_onnx.scoring.result import Score, Status

if TYPE_CHECKING:
    from epsinas_onnx.scoring.options import ElementType, ScoreKeywords


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    MARKDOWN = "markdown"
    HTML = "html"


class ProviderName(StrEnum):
    """Where the graph runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


class NormStatsName(StrEnum):
    """What BatchNormalization uses."""

    BATCH = "batch"
    RESET = "reset"
    STORED = "stored"


def score_command(
    paths: Annotated[
        list[str],
        typer.Argument(help="ONNX files, folders (searched through), globs, or - for a list on standard input."),
    ],
    format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            "-f",
            help="table, or what the ending of --output says; jsonl has a line as it comes, html is a page.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the results here instead of printing them.")
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="The two constants; auto takes the pair that find-weights finds for these files, one for all."
        ),
    ] = "1e-7,1",
    input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND|FILE",
            help="auto, grey, normal, uniform or tokens; a .npy or .npz file; a folder of images; or NAME=FILE for "
            "each input. auto: a ramp of grey images for image models, seeded normal for other floats, seeded tokens "
            "for integers.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(metavar="NUMBER", help="Samples in the minibatch.")] = 256,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SIZES", help="An input's shape, NAME=1,3,224,224; the batch axis follows --batch."),
    ] = None,
    dim: DimOption = None,
    output_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Compare this value, any float value of the main graph; the first float output otherwise.",
        ),
    ] = None,
    provider: Annotated[
        ProviderName, typer.Option(help="Where to run; auto is CUDA if it is there.")
    ] = ProviderName.AUTO,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Seed of random inputs and embeddings.")] = 0,
    jobs: JobsOption = "auto",
    device_memory: DeviceMemoryOption = 0,
    norm_stats: Annotated[
        NormStatsName,
        typer.Option(help="Statistics of BatchNormalization: the minibatch's (the metric's), 0 and 1, or the file's."),
    ] = NormStatsName.BATCH,
    role: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=ROLE",
            help="PATTERN=ROLE, a glob over NODE:SLOT, node or tensor name to weight, bias, statistics, embedding or "
            "constant; see inspect.",
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="float32 (the metric's), or model for the model's own float types.")
    ] = "float32",
    arithmetic: ArithmeticOption = ArithmeticName.AUTO,
    lump: Annotated[
        bool,
        typer.Option("--lump/--no-lump", help="Merge identical channels (exact, and fast), or run the plain graph."),
    ] = True,
    restore_batchnorm: RestoreOption = "auto",
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
    store: StoreOption = None,
    engine: EngineOption = EngineName.LOCAL,
    ray_address: RayAddressOption = None,
    with_: WithOption = None,
    proxy_batch: ProxyBatchOption = 32,
) -> None:
    """Score ONNX models: one row each, ranked, with a status and a reason where there is no score.

    The score compares architectures of one search space; it says nothing across spaces or tasks.
    """
    kind = _format(format, output)
    models = find_models(paths)
    if not models:
        raise UsageError("no files were named")
    prepare_workers(engine)
    from epsinas_onnx.scoring.api import score_as_done

    fed = parse_inputs(input or [])
    if output is not None:
        check_outputs(
            [("--output", output), *([] if store is None else [("--store", store)])],
            inputs=given_files(fed),
            models=models,
        )
    options: ScoreKeywords = {
        "inputs": fed,
        "batch": batch,
        "arithmetic": arithmetic.value,
        "lump": lump,
        "shapes": parse_shapes(shape or [], dim or []),
        "outputs": tuple(output_name or ()),
        "roles": parse_pairs("--role", role or []),
        "norm_stats": norm_stats.value,
        "providers": provider.value,
        "seed": seed,
        "dtype": cast("ElementType", dtype),
        "restore_batchnorm": restore_batchnorm,
        "scores": parse_scores(with_),
        "proxy_batch": proxy_batch,
        "device_memory": device_memory,
    }
    count = parse_jobs(jobs)
    if weights == "auto":
        options["weights"] = weights_for(models, count, Limits(timeout, memory), **options)
    else:
        options["weights"] = parse_weights(weights)
    with opened_store(store) as kept:
        # Isolated, since a file that ends its process must not end the run.
        results = score_as_done(
            models,
            jobs=count,
            isolate=True,
            timeout=timeout,
            memory=memory,
            store=kept,
            engine=engine.value,
            ray_address=ray_address,
            **options,
        )
        with _Results(kind, output) as written:
            try:
                for index, result in with_bar(results, len(models), name=models[0]):
                    written.add(index, result)
            except KeyboardInterrupt:
                missing = len(models) - len(written.scores)
                say(f"Interrupted: {coverage(written.scores)}; {missing} files have no row.")
                raise typer.Exit(EXIT_INTERRUPTED) from None
        if output is not None:
            say(f"{coverage(written.scores)}, written to {output}")
    if any(result.status is Status.ERROR for result in written.scores):
        raise typer.Exit(EXIT_FAILED)


class _Results:
    """Takes results as they come, and writes what there is at its end, whatever ended it; a context manager.

    What the file does not take goes to standard output, and OutputError is raised at the end.
    """

    def __init__(self, kind: Format, output: Path | None) -> None:
        self._kind, self._output = kind, output
        self._done: dict[int, Score] = {}
        self._lines: LineFile | None = None
        self._failed: OutputError | None = None
        if kind is Format.JSONL and output is not None:
            self._lines = LineFile(output, goes_on=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lines is not None:
            self._lines.close()
        if self.scores and self._output is not None and self._kind is not Format.JSONL:
            with self._kept():
                write_output(self._output, _text(self.scores, self._kind))
        if self._failed is not None:
            _show(self.scores, Format.TABLE if self._kind is Format.HTML else self._kind)
            raise self._failed
        if self.scores and self._output is None and self._kind is not Format.JSONL:
            _show(self.scores, self._kind)

    @property
    def scores(self) -> list[Score]:
        """What came, in the order of the files."""
        return [self._done[index] for index in sorted(self._done)]

    def add(self, index: int, result: Score) -> None:
        """Take a result; a line is written at once."""
        self._done[index] = result
        if self._kind is Format.JSONL and self._failed is None:
            if self._lines is None:
                _show([result], self._kind)
            else:
                with self._kept():
                    self._lines.append(to_json_line(result))

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OutputError as error:
            self._failed = error


def _format(chosen: Format | None, output: Path | None) -> Format:
    if chosen is not None:
        return chosen
    return Format(ENDINGS.get(output.suffix.lower(), "table")) if output is not None else Format.TABLE


def _show(scores: Sequence[Score], kind: Format) -> None:
    """Print results, in colours where a person reads them."""
    if kind is Format.TABLE and sys.stdout.isatty():
        print_table(scores, Console())
    else:
        sys.stdout.write(_text(scores, kind))
    sys.stdout.flush()


def _text(scores: Sequence[Score], kind: Format) -> str:
    match kind:
        case Format.TABLE:
            return as_text(lambda console: print_table(scores, console))
        case Format.JSON:
            return to_json(scores)
        case Format.JSONL:
            return "".join(map(to_json_line, scores))
        case Format.CSV:
            return to_csv(scores)
        case Format.MARKDOWN:
            return to_markdown(scores)
        case Format.HTML:
            from epsinas_onnx.report.results_page import to_html

            return to_html(list({score.model: score.to_dict() for score in scores}.values()))
