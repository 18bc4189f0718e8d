"""`epsinas-onnx export`: writes networks of a search space, or of a framework, as ONNX files without weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epsinas_onnx.cli.common import find_space, parse_pairs, say
from epsinas_onnx.cli.frameworks import export_network
from epsinas_onnx.cli.outputs import check_outputs
from epsinas_onnx.errors import UsageError

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace

_LISTABLE = 10_000_000


def export_command(
    space: Annotated[
        str,
        typer.Argument(
            help="A search space (listed by the command spaces), or a framework: torch, torchscript, transformers, "
            "keras, tensorflow, jax, sklearn, paddle."
        ),
    ],
    archs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Architectures, or indices in the benchmark's order; for a framework one network: "
            "package.module:factory, or a file (.pt, .keras, .h5, .joblib, a SavedModel), timm:NAME, torchvision:NAME, "
            "or for transformers a model type or a config.json."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write into; for a framework a file will do.")
    ] = Path(),
    random: Annotated[
        int, typer.Option("--random", metavar="NUMBER", min=0, help="Add this many architectures, drawn at random.")
    ] = 0,
    seed: Annotated[int, typer.Option(metavar="NUMBER", min=0, help="Seed of --random.")] = 0,
    everything: Annotated[bool, typer.Option("--all", help="All architectures of the space.")] = False,
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="A size of the network, such as channels=8 (listed by the command spaces), or of a transformers "
            "configuration, such as num_hidden_layers=2.",
        ),
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SHAPE",
            help="A framework's network: an input's shape, batch first, such as 1,3,224,224, 1,16:int64 or "
            "tokens=1,128:int64.",
        ),
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="paddle: the interpreter of the environment that has paddle2onnx.")
    ] = None,
) -> None:
    """Write networks of a search space, or a framework's network, a few KB each, with no weight bytes."""
    from epsinas_exporters.frameworks import KINDS

    if space in KINDS:
        if random or everything:
            raise UsageError(f"--random and --all are for search spaces; export {space} writes one network")
        export_network(space, archs or [], output, inputs=input or [], sizes=size or [], python=python)
        return

    import onnx_ir as ir

    from epsinas_exporters.spaces import NotEnumerable
    from epsinas_onnx.edit.save import write_model

    found = find_space(space)
    sizes = _sizes(found, size or [])
    try:
        wanted = [_architecture(found, arch) for arch in archs or []]
        wanted += found.sample(random, seed) if random else []
        if not wanted and not everything:
            raise UsageError("name architectures, or give --random N or --all")
        written = 0
        for arch in _listed(found) if everything else dict.fromkeys(wanted):
            model = found.build(arch, **sizes)
            path = output / found.file_name(arch)
            check_outputs([("--output", path)])
            write_model(ir.to_proto(model), path)
            written += 1
    except (ValueError, NotEnumerable) as error:
        raise UsageError(str(error)) from None
    say(f"{written} file{'' if written == 1 else 's'} in {output}")


def _listed(space: SearchSpace) -> Iterator[str]:
    """Return all architectures of the space, in its order."""
    if space.size is not None and space.size > _LISTABLE:
        raise UsageError(f"{space.name} holds {space.size:.1e} architectures, too many to list; give --random N")
    return space.enumerate()


def _sizes(space: SearchSpace, texts: list[str]) -> dict[str, int]:
    try:
        sizes = {name: int(value) for name, value in parse_pairs("--size", texts).items()}
    except ValueError:
        raise UsageError(f"--size takes NAME=NUMBER, not {' '.join(texts)!r}") from None
    if unknown := sizes.keys() - space.sizes.keys():
        raise UsageError(f"{space.name} has no size {min(unknown)!r}; it has {', '.join(space.sizes) or 'none'}")
    return sizes


def _architecture(space: SearchSpace, text: str) -> str:
    """Return the architecture for a text, or for an index where the space's texts are no numbers."""
    if not text.isdecimal() or space.form.isdecimal():
        return space.parse(text)
    arch = next(itertools.islice(_listed(space), int(text), None), None)
    if arch is None:
        last = "" if space.size is None else f", {space.size - 1}"
        raise UsageError(f"index {text} is beyond the last of {space.name}{last}")
    return arch
