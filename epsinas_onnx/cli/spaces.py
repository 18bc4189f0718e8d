"""`epsinas-onnx spaces`: lists the search spaces that are installed."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from epsinas_onnx.cli.common import PLAIN_WIDTH


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
        typer.echo(json.dumps([_record(space) for space in loaded], indent=2))
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("space", "architectures", "constants", "input", "batch", "sizes", "source", "an architecture"):
            table.add_column(title, justify="right" if title in ("architectures", "batch") else "left", overflow="fold")
        for space in loaded:
            size = "no list" if space.size is None else f"{space.size:,}" if space.size < 1e9 else f"{space.size:.1e}"
            defaults = space.defaults
            constants = ",".join(f"{weight:g}" for weight in defaults.weights)
            sizes = " ".join(f"{name}={value}" for name, value in space.sizes.items())
            batch = str(defaults.batch)
            cells = (space.name, size, constants, defaults.input, batch, sizes, space.title, space.form)
            table.add_row(*map(Text, cells))
        Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table)
    for reason in broken:
        typer.echo(f"warning: {reason}", err=True)


def _record(space: object) -> dict[str, object]:
    from epsinas_exporters.spaces import SearchSpace

    assert isinstance(space, SearchSpace)
    defaults = space.defaults
    return {
        "name": space.name, "title": space.title, "size": space.size, "form": space.form,
        "weights": list(defaults.weights), "input": defaults.input, "batch": defaults.batch,
        "sizes": dict(space.sizes),
    }  # fmt: skip
