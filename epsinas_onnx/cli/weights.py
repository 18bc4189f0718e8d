"""`epsinas-onnx strip` and `epsinas-onnx fill`: take the weights out of a model, and put new ones in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from epsinas_onnx.cli.common import MemoryOption, TimeoutOption, isolated, parse_pairs, prepare_workers
from epsinas_onnx.cli.outputs import check_outputs, say_sizes
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT, Limits


def strip_command(
    path: Annotated[str, typer.Argument(help="An ONNX file; its external data is not read.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.")],
    anonymise: Annotated[
        bool, typer.Option("--anonymise", help="Rename everything, and drop producer, descriptions and metadata.")
    ] = False,
    role: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN=ROLE", help="PATTERN=ROLE, as for score; written into the model."),
    ] = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
) -> None:
    """Write a model without its weights: the same graph, names, shapes and roles, and the same score, bit for bit.

    Gigabytes become kilobytes, so that an architecture can be shared, kept in git or attached to an issue. Tensors at
    operators that nobody judged are refused until a role says whether they go (weight) or stay (constant).
    """
    prepare_workers()
    from epsinas_onnx.edit.strip import strip

    check_outputs([("--output", output)], models=[path])
    isolated(
        strip, path, limits=Limits(timeout, memory), doing="stripping", returns=False, output=output,
        anonymise=anonymise, roles=parse_pairs("--role", role or []),
    )  # fmt: skip
    say_sizes(path, output)


def fill_command(
    path: Annotated[str, typer.Argument(help="An ONNX file, weightless or not.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.")],
    init: Annotated[str, typer.Option(help="kaiming, xavier, normal or constant.")] = "kaiming",
    value: Annotated[float, typer.Option(help="What constant sets every weight to.")] = 0.01,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Seed of what is drawn.")] = 0,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
) -> None:
    """Write a model with new weights, drawn by role: it runs, and is as good as untrained.

    Biases become 0, scales of normalisations 1, running statistics 0 and 1.
    """
    prepare_workers()
    from epsinas_onnx.edit.fill import fill
    from epsinas_onnx.edit.save import data_path

    check_outputs([("--output", output), ("the data file of --output", data_path(output))], models=[path])
    isolated(
        fill, path, limits=Limits(timeout, memory), doing="filling", returns=False, init=init, value=value, seed=seed,
        output=output,
    )  # fmt: skip
    say_sizes(path, output)
