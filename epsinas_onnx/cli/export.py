"""`epsinas-onnx export`: writes the networks of a benchmark as ONNX files without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from epsinas_onnx.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Write networks of a benchmark as ONNX files without weight bytes.")


@app.callback()
def _group() -> None:
    pass


@app.command("nasbench201")
def nasbench201_command(
    archs: Annotated[
        list[str] | None, typer.Argument(help="Architecture strings, or indices in the benchmark.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write into.")] = Path(),
    random: Annotated[int, typer.Option("--random", min=0, help="Add this many architectures, drawn at random.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of --random.")] = 0,
    everything: Annotated[bool, typer.Option("--all", help="All 15,625 architectures.")] = False,
    channels: Annotated[int, typer.Option(min=1, help="Width of the first stage.")] = 16,
    cells: Annotated[int, typer.Option(min=1, help="Cells a stage.")] = 5,
    classes: Annotated[int, typer.Option(min=1, help="Outputs of the classifier; the metric takes 1.")] = 1,
) -> None:
    """Write NAS-Bench-201 networks, one file an architecture, named after its operations."""
    import onnx_ir as ir

    from epsinas_exporters.spaces import nasbench201

    try:
        wanted = [_architecture(arch) for arch in archs or []]
        wanted += nasbench201.sample(random, seed) if random else []
        wanted = nasbench201.architectures() if everything else wanted
        if not wanted:
            raise UsageError("name architectures, or give --random N or --all")
        names = {nasbench201.file_name(arch): arch for arch in wanted}
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, arch in names.items():
            ir.save(nasbench201.build(arch, channels=channels, cells=cells, classes=classes), output / name)
    except OSError as error:
        raise UsageError(f"cannot write into {output}: {error.strerror or error}") from None
    typer.echo(f"{len(names)} file{'' if len(names) == 1 else 's'} in {output}", err=True)


def _architecture(text: str) -> str:
    """Return the architecture string for a string or an index of the benchmark."""
    from epsinas_exporters.spaces import nasbench201

    if not text.isdecimal():
        return str(nasbench201.parse(text))
    everything = nasbench201.architectures()
    if int(text) >= len(everything):
        raise UsageError(f"index {text} is beyond the benchmark's last, {len(everything) - 1}")
    return everything[int(text)]
