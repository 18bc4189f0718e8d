"""What `search` takes to search around a network of a user's own, and to write the best that it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from epsinas_onnx.cli.common import find_space, say
from epsinas_onnx.errors import OutputError, UsageError

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace
    from epsinas_onnx.search import SearchResult

_PANEL = "Around a network of your own"

ARCHITECTURE = "epsinas.architecture"
"""Under which a written network says in its metadata which it is."""

AroundOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--around", metavar="MODEL", help="Search the variants of this ONNX file, which needs no weights.",
        rich_help_panel=_PANEL,
    ),
]  # fmt: skip
ChangeOption: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="KINDS", help="What is changed: some of width, depth, kernel, activation, commas between.",
        rich_help_panel=_PANEL,
    ),
]  # fmt: skip
MinWidthOption: TypeAlias = Annotated[
    float, typer.Option(metavar="SHARE", help="The narrowest layer, as a share of its width.", rich_help_panel=_PANEL)
]
MaxWidthOption: TypeAlias = Annotated[
    float, typer.Option(metavar="SHARE", help="The widest layer, likewise, up to 4.", rich_help_panel=_PANEL)
]
MaxDepthOption: TypeAlias = Annotated[
    float,
    typer.Option(metavar="TIMES", help="Blocks in a row, as a multiple of those there are.", rich_help_panel=_PANEL),
]
WriteOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--write", metavar="FOLDER", help="Write the best as files without weights, which fill makes run."),
]
BestOption: TypeAlias = Annotated[int, typer.Option("--best", metavar="NUMBER", min=1, help="How many --write writes.")]


def chosen_space(
    space: str | None, around: Path | None, change: str, min_width: float, max_width: float, max_depth: float
) -> SearchSpace:
    """Return the search space that is named, or that of a network; raises UsageError for both and for neither."""
    if (space is None) == (around is None):
        raise UsageError("name a search space (the command spaces lists them), or a network with --around, not both")
    if around is None:
        return find_space(str(space))
    from epsinas_onnx.search.around.space import Around

    kinds = [kind.strip() for kind in change.split(",") if kind.strip()]
    found = Around(around, kinds=kinds, narrowest=min_width, widest=max_width, deepest=max_depth)
    found.check("original")
    say(found.summary())
    return found


def say_refused(space: SearchSpace) -> None:
    """Say how many variants were drawn that are no networks, and why."""
    refused = getattr(space, "refused", None)
    if not refused:
        return
    reason, count = refused.most_common(1)[0]
    say(f"{refused.total():,} variants were drawn that are no networks; {count:,} of them because {reason}")


def check_folder(folder: Path | None) -> None:
    """Raise UsageError where the folder for networks is a file."""
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UsageError(f"--write: {folder} is a file, and networks go into a folder")


def write_best(space: SearchSpace, result: SearchResult, folder: Path | None, best: int) -> None:
    """Write the best of a search as files without weights, and say which is which; raises OutputError."""
    if folder is None:
        return
    import onnx_ir as ir

    from epsinas_onnx.edit.save import write_model

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
    for one in result.ranked()[:best]:
        path = folder / space.file_name(one.arch)
        model = space.network(one.arch).build()
        model.metadata_props[ARCHITECTURE] = one.arch  # which may be too long for a line
        write_model(ir.to_proto(model), path)
        say(f"{path}: {one.arch}")
