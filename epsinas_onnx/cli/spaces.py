"""`epsinas-onnx spaces`: lists the search spaces that are installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from epsinas_onnx._util.text import to_json
from epsinas_onnx.cli.common import output_console, say
from epsinas_onnx.report.columns import Column, Give, Row, print_rows

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace

_COLUMNS = (
    Column("space", Give.MIDDLE), Column("architectures", right=True), Column("constants"), Column("input"),
    Column("batch", right=True), Column("sizes", Give.BELOW), Column("source", Give.BELOW),
    Column("an architecture", Give.WHOLE),
)  # fmt: skip


def spaces_command(
    as_json: Annotated[bool, typer.Option("--json", help="Every field, for programs.")] = False,
) -> None:
    """List the search spaces: name, size, what scores are computed with, and how an architecture is written.

    A package adds a space of its own through the entry point group `epsinas_exporters.spaces`.
    """
    from epsinas_exporters import spaces

    loaded, broken = [], []
    for name in spaces.names():
        try:
            loaded.append(spaces.get(name))
        except LookupError as error:
            broken.append(str(error))
    if as_json:
        typer.echo(to_json([_record(space) for space in loaded]), nl=False)
    else:
        print_rows(_COLUMNS, [_row(space) for space in loaded], output_console())
    for reason in broken:
        say(f"warning: {reason}")


def _row(space: SearchSpace) -> Row:
    size = "no list" if space.size is None else f"{space.size:,}" if space.size < 1e9 else f"{space.size:.1e}"
    defaults = space.defaults
    constants = ",".join(f"{weight:g}" for weight in defaults.weights)
    sizes = " ".join(f"{name}={value}" for name, value in space.sizes.items())
    return Row((space.name, size, constants, defaults.input, str(defaults.batch), sizes, space.title, space.form))


def _record(space: SearchSpace) -> dict[str, object]:
    defaults = space.defaults
    return {
        "name": space.name, "title": space.title, "size": space.size, "form": space.form,
        "weights": list(defaults.weights), "input": defaults.input, "batch": defaults.batch,
        "sizes": dict(space.sizes),
    }  # fmt: skip
