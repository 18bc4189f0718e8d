"""`epsinas-onnx export`: writes the networks of a search space as ONNX files without weights."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epsinas_onnx.cli.common import find_space, parse_pairs
from epsinas_onnx.errors import UsageError

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace

_LISTABLE = 10_000_000


def export_command(
    space: Annotated[
        str, typer.Argument(help="A search space (`epsinas-onnx spaces` lists them), or torch for a PyTorch module.")
    ],
    archs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Architectures, or indices in the benchmark's order; for torch package.module:factory, timm:NAME or "
            "torchvision:NAME."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write into; for torch a file will do.")
    ] = Path(),
    random: Annotated[int, typer.Option("--random", min=0, help="Add this many architectures, drawn at random.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of --random.")] = 0,
    everything: Annotated[bool, typer.Option("--all", help="All architectures of the space.")] = False,
    size: Annotated[
        list[str] | None,
        typer.Option(help="A size of the network, such as channels=8; `epsinas-onnx spaces` lists them."),
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(
            help="torch: an input's shape, batch first, such as 1,3,224,224, tokens=1,128:int64 or 1,16:int64."
        ),
    ] = None,
) -> None:
    """Write networks of a search space or a framework's module, a few KB each, with no weight bytes."""
    import onnx_ir as ir

    if space == "torch":
        _export_torch(archs or [], input or [], output)
        return

    from epsinas_exporters.spaces import NotEnumerable

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
            output.mkdir(parents=True, exist_ok=True)
            ir.save(model, output / found.file_name(arch))
            written += 1
    except (ValueError, NotEnumerable) as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"cannot write into {output}: {error.strerror or error}") from None
    typer.echo(f"{written} file{'' if written == 1 else 's'} in {output}", err=True)


def _export_torch(names: list[str], inputs: list[str], output: Path) -> None:
    if len(names) != 1 or not inputs:
        raise UsageError(
            "export torch takes one module and its inputs: export torch package.module:factory --input 1,3,32,32"
        )
    try:
        from epsinas_exporters.frameworks import pytorch
    except ImportError as error:
        raise UsageError(f"export torch needs PyTorch ({error}): pip install 'epsinas-onnx[torch]'") from None
    import onnx_ir as ir

    given = [_shape(text) for text in inputs]
    stem = names[0].rpartition(":")[2]
    path = output if output.suffix == ".onnx" else output / f"{stem}.onnx"
    sys.path.insert(0, "")  # a module of the user's own lies where they are
    try:
        tensors = [(key, pytorch.example(shape, dtype)) for key, shape, dtype in given]
        by_name = all(key for key, _ in tensors)
        examples = dict(tensors) if by_name else [tensor for _, tensor in tensors]
        model = pytorch.export_module(pytorch.find_factory(names[0]), examples, name=stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        ir.save(model, path)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        sys.path.remove("")
    typer.echo(f"{path}: {path.stat().st_size:,} bytes", err=True)


def _shape(text: str) -> tuple[str, tuple[int, ...], str]:
    """Return name (empty where there is none), sizes and element type of an input's description."""
    name, equals, rest = text.rpartition("=")
    sizes, _, dtype = rest.partition(":")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1 or (equals and not name):
        raise UsageError(f"--input takes NAME=1,3,224,224 or 1,128:int64, not {text!r}")
    return name, shape, dtype or "float32"


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
