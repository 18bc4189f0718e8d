"""`epsinas-onnx score`: scores files, folders, globs and lists, and prints or writes one row each."""

from __future__ import annotations

import io
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO, cast

import typer
from rich.console import Console

from epsinas_onnx.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    MemoryOption,
    RestoreOption,
    TimeoutOption,
    find_models,
    parse_inputs,
    parse_pairs,
    parse_shapes,
    parse_weights,
    prepare_workers,
    say,
)
from epsinas_onnx.cli.progress import with_bar
from epsinas_onnx.errors import UsageError
from epsinas_onnx.report import ENDINGS, coverage
from epsinas_onnx.report.markdown import to_markdown
from epsinas_onnx.report.records import to_csv, to_json, to_json_line
from epsinas_onnx.report.table import print_table
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT
from epsinas_onnx.scoring.result import Score, Status

if TYPE_CHECKING:
    from epsinas_onnx.scoring.options import ElementType


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    MARKDOWN = "markdown"


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
            "--format", "-f", help="table, or what the ending of --output says; jsonl has a line as it comes."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the results here instead of printing them.")
    ] = None,
    weights: Annotated[str, typer.Option(help="The two constants.")] = "1e-7,1",
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
    dim: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SIZE", help="A free dimension's size, NAME=128.")
    ] = None,
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
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", metavar="NUMBER", min=1, help="Worker processes, a thread each.")
    ] = 1,
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
    lump: Annotated[
        bool,
        typer.Option("--lump/--no-lump", help="Merge identical channels (exact, and fast), or run the plain graph."),
    ] = True,
    restore_batchnorm: RestoreOption = "auto",
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
) -> None:
    """Score ONNX models: one row each, ranked, with a status and a reason where there is no score.

    The score compares architectures of one search space; it says nothing across spaces or tasks.
    """
    kind = _format(format, output)
    models = find_models(paths)
    if not models:
        raise UsageError("no files were named")
    prepare_workers()
    from epsinas_onnx.scoring.api import score_as_done

    results = score_as_done(
        models,
        jobs=jobs,
        isolate=True,  # a file that ends its process must not end the run
        weights=parse_weights(weights),
        inputs=parse_inputs(input or []),
        batch=batch,
        lump=lump,
        shapes=parse_shapes(shape or [], dim or []),
        outputs=tuple(output_name or ()),
        roles=parse_pairs("--role", role or []),
        norm_stats=norm_stats.value,
        providers=provider.value,
        seed=seed,
        dtype=cast("ElementType", dtype),
        restore_batchnorm=restore_batchnorm,
        timeout=timeout,
        memory=memory,
    )
    target = _open(output)
    done: dict[int, Score] = {}
    try:
        for index, result in with_bar(results, len(models), name=models[0]):
            done[index] = result
            if kind is Format.JSONL:
                target.write(to_json_line(result))
                target.flush()
    except KeyboardInterrupt:
        scores = list(done.values())
        say(f"Interrupted: {coverage(scores)}; {len(models) - len(scores)} files have no row.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:  # what was computed is never lost
        scores = [done[index] for index in sorted(done)]
        if scores:
            _write(scores, kind, target)
        if output is not None:
            target.close()
    if output is not None:
        say(f"{coverage(scores)}, written to {output}")
    if any(result.status is Status.ERROR for result in scores):
        raise typer.Exit(EXIT_FAILED)


def _format(chosen: Format | None, output: Path | None) -> Format:
    if chosen is not None:
        return chosen
    return Format(ENDINGS.get(output.suffix.lower(), "table")) if output is not None else Format.TABLE


def _open(output: Path | None) -> TextIO:
    if output is None:
        return sys.stdout
    try:
        return output.open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from None


def _write(scores: list[Score], kind: Format, target: TextIO) -> None:
    match kind:
        case Format.TABLE:
            is_terminal = target.isatty()
            text = io.StringIO()
            plain = Console(file=text, color_system=None, force_terminal=False)
            print_table(scores, Console(file=target) if is_terminal else plain)
            target.write("".join(line.rstrip() + "\n" for line in text.getvalue().splitlines()))
        case Format.JSON:
            target.write(to_json(scores))
        case Format.CSV:
            target.write(to_csv(scores))
        case Format.MARKDOWN:
            target.write(to_markdown(scores))
        case Format.JSONL:
            pass
    target.flush()
