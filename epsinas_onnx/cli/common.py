"""Reads what a user typed: paths, constants, shapes, roles; wrong words end in exit code 2."""

from __future__ import annotations

import contextlib
import glob
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer
from rich.console import Console

from epsinas_onnx._util.text import LONGEST_SENTENCE, output_line, shown
from epsinas_onnx.cli.progress import said
from epsinas_onnx.errors import ModelError, OutputError, UsageError
from epsinas_onnx.scoring.limits import Limits
from epsinas_onnx.scoring.process import prepare
from epsinas_onnx.scoring.supervisor import Failure, Workers

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace
    from epsinas_onnx.scoring.jobs import Jobs
    from epsinas_onnx.store.store import Store

T = TypeVar("T")

EXIT_FAILED = 3
"""Some file could not be read or run."""

EXIT_INTERRUPTED = 130
"""The user pressed Ctrl-C."""

RestoreOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--restore-batchnorm",
        help="Undo folded BatchNorm: auto (where there is evidence), none, all, or a glob over node names.",
    ),
]

ShapeOption: TypeAlias = Annotated[
    list[str] | None, typer.Option("--shape", metavar="NAME=SIZES", help="An input's shape, NAME=1,3,224,224.")
]
DimOption: TypeAlias = Annotated[
    list[str] | None, typer.Option("--dim", metavar="NAME=SIZE", help="A free dimension's size, NAME=128.")
]
RoleOption: TypeAlias = Annotated[
    list[str] | None, typer.Option("--role", metavar="PATTERN=ROLE", help="PATTERN=ROLE, as for score.")
]


class ArithmeticName(StrEnum):
    """What the formula is computed in."""

    AUTO = "auto"
    EXACT = "exact"
    FLOAT32 = "float32"


ArithmeticOption: TypeAlias = Annotated[
    ArithmeticName,
    typer.Option(
        "--arithmetic",
        help="float32 is the published procedure, which ends where float32 does; exact has no range; auto is exact "
        "wherever that can be computed.",
    ),
]

DeviceMemoryOption: TypeAlias = Annotated[
    float,
    typer.Option(
        "--device-memory",
        metavar="GB",
        help="What all workers together may take of a GPU's memory; 0 for no limit.",
    ),
]
JobsOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--jobs",
        "-j",
        metavar="NUMBER|auto",
        help="Worker processes, a thread each; auto is one for each core, and one alone for fewer than four models.",
    ),
]
TimeoutOption: TypeAlias = Annotated[
    float,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="Stop a model that takes longer than this; 0 for no limit.",
    ),
]
WithOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--with",
        metavar="SCORES",
        help="Other training-free scores of the same files, such as swap,jacov; or all of them.",
    ),
]
ByOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="SCORES",
        help="The scores that rank together, such as jacov,params or epsinas; or a named combination: default, broad "
        "or counts.",
    ),
]
ProxyBatchOption: TypeAlias = Annotated[
    int, typer.Option("--proxy-batch", metavar="NUMBER", min=2, help="Samples that the other scores see.")
]
StoreOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="FILE",
        help="Keep results in this file, and take from it what it holds: a run that was cut off goes on, and others "
        "may use the file meanwhile. See the command store.",
    ),
]
MemoryOption: TypeAlias = Annotated[
    float,
    typer.Option("--memory", metavar="GB", help="Stop a model whose process holds more than this; 0 for no limit."),
]


class EngineName(StrEnum):
    """Where models are scored."""

    LOCAL = "local"
    RAY = "ray"


EngineOption: TypeAlias = Annotated[
    EngineName,
    typer.Option(
        "--engine",
        help="local: worker processes of this machine. ray: a Ray cluster (needs the extra ray), --jobs models at a "
        "time where that is above 1, otherwise one for each of its cores.",
    ),
]
RayAddressOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="The head of the cluster; otherwise RAY_ADDRESS, the cluster of this machine, or one for this run.",
    ),
]


def prepare_workers(engine: EngineName = EngineName.LOCAL) -> None:
    """Let what worker processes start from load what they need, while the command loads what it needs itself."""
    if engine is EngineName.LOCAL:
        prepare(["epsinas_onnx.scoring.workers", "epsinas_onnx.evaluate_lumped.fused.ready"])


def isolated(
    work: Callable[..., T], *models: str, limits: Limits, doing: str, returns: bool = True, **options: Any
) -> T:
    """Return what `work` makes of models, called in a worker process, which some files end, and others never do.

    doing: what a terminal shows. returns: whether the result is wanted, or what is written alone.

    Raises what `work` raises, and ModelError where the process dies or a limit is broken.
    """
    from epsinas_onnx.scoring.workers import call, call_for_nothing

    named = " and ".join(models)
    try:
        with said(f"{doing} {named}"), Workers(1, limits) as workers:
            result: Any = workers.run(call if returns else call_for_nothing, (work, models, options))
    except KeyboardInterrupt:
        say("Interrupted.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if isinstance(result, Failure):
        raise ModelError(f"{named}: {result.cause}")
    return result  # type: ignore[no-any-return]


@contextlib.contextmanager
def opened_for(path: Path, *, readonly: bool = False, there: bool = False) -> Iterator[Store]:
    """Open a store that is the subject of a command. readonly: for reading alone. there: whether it must be there.

    Raises UsageError where the file is no store, or missing.
    """
    from epsinas_onnx.store.store import Store

    if (readonly or there) and not path.exists():
        raise UsageError(f"{path}: there is no such file")
    with Store(path, readonly=readonly) as store:
        yield store


@contextlib.contextmanager
def opened_store(path: Path | None) -> Iterator[Store | None]:
    """Open the store that `--store` names, and say at the end what came out of it and what went in.

    Raises UsageError where the file is no store, and OutputError at the end where results could not be written.
    """
    if path is None:
        yield None
        return
    from epsinas_onnx.store.store import Store

    store = Store(path)
    try:
        yield store
    except (typer.Exit, KeyboardInterrupt):
        _close(store)
        raise
    except BaseException:  # which is what a reader wants to know
        with contextlib.suppress(OutputError):
            store.close()
        raise
    _close(store)


def _close(store: Store) -> None:
    store.close()
    say(f"{store.path}: {store.found:,} results found, {store.added:,} added")


def output_console() -> Console:
    """Return what prints on standard output: in colours, as wide as the terminal, or plain into a pipe."""
    return Console(force_terminal=None if sys.stdout.isatty() else False)


def as_text(show: Callable[[Console], None]) -> str:
    """Return what is shown on a console as it goes into a pipe or a file."""
    text = io.StringIO()
    show(Console(file=text, color_system=None, force_terminal=False))
    return "".join(line.rstrip() + "\n" for line in text.getvalue().splitlines())


def say(text: str) -> None:
    """Print a line on standard error, harmless whatever it names."""
    typer.echo(output_line(shown(text, LONGEST_SENTENCE)), err=True)


def find_models(paths: Sequence[str]) -> list[str]:
    """Return the ONNX files behind files, folders (searched through), globs and `-` (a list on standard input).

    A file that is named stays in the list even when it does not exist: it becomes a row of its own. Raises UsageError
    when a folder or a glob holds no ONNX file.
    """
    found: list[str] = []
    for path in paths:
        if path == "-":
            lines = (line.strip(" \t\r\n") for line in sys.stdin)  # other white space is part of a name
            found += [line for line in lines if line]
        elif Path(path).is_dir():
            files = sorted(str(file) for file in Path(path).rglob("*.onnx") if file.is_file())
            if not files:
                raise UsageError(f"the folder {path} holds no .onnx file")
            found += files
        elif glob.has_magic(path) and not Path(path).exists():
            files = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 (Path.glob refuses absolute patterns)
            if not files:
                raise UsageError(f"no file matches {path!r}")
            found += find_models(files)
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def parse_weights(text: str) -> tuple[float, float]:
    """Return the two constants of `1e-7,1`."""
    parts = text.split(",")
    try:
        first, second = (float(part) for part in parts)
    except ValueError:
        raise UsageError(f"--weights takes two numbers with a comma between, such as 1e-7,1, not {text!r}") from None
    return first, second


def parse_jobs(text: str) -> Jobs:
    """Return the number in `--jobs 4`, or `auto`."""
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--jobs takes a whole number from 1, or auto, not {text!r}")
    return int(text)


def parse_shapes(shapes: Iterable[str], dims: Iterable[str]) -> dict[str, int | tuple[int, ...]]:
    """Return the sizes in `--shape NAME=1,3,224,224` and `--dim NAME=128`."""
    parsed: dict[str, int | tuple[int, ...]] = {}
    for option, texts in (("--shape", shapes), ("--dim", dims)):
        for text in texts:
            name, _, value = text.rpartition("=")
            try:
                sizes = tuple(int(part) for part in value.split(","))
            except ValueError:
                sizes = ()
            if not name or not sizes or min(sizes) < 1 or (option == "--dim" and len(sizes) != 1):
                form = "NAME=1,3,224,224" if option == "--shape" else "NAME=128"
                raise UsageError(f"{option} takes {form} with whole numbers from 1, not {text!r}")
            parsed[name] = sizes[0] if option == "--dim" else sizes
    return parsed


def parse_pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Return the pairs of a repeated `NAME=VALUE` option."""
    pairs = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        if not name or not value:
            raise UsageError(f"{option} takes NAME=VALUE, not {text!r}")
        pairs[name] = value
    return pairs


def parse_scores(text: str | None) -> tuple[str, ...]:
    """Return the names in `--with swap,jacov`, each once, `all` in full; raises UsageError for an unknown one."""
    from epsinas_onnx.scoring.measured import known_scores

    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise UsageError("--with takes names of scores with commas between, or all")
    return known_scores(names)


def parse_members(text: str) -> tuple[str, ...]:
    """Return the scores in `--by jacov,params`, named combinations in full; raises UsageError for an unknown one."""
    from epsinas_onnx.proxies.registry import proxy_names
    from epsinas_onnx.ranking import members

    return members.parse_members(text, proxy_names())


def parse_inputs(texts: Sequence[str]) -> Any:
    """Return what `--input` names: one kind, file or folder, or a file for each input (`NAME=FILE`)."""
    if not texts:
        return "auto"
    if len(texts) == 1 and ("=" not in texts[0] or Path(texts[0]).exists()):
        return texts[0]
    return parse_pairs("--input", texts)


def find_space(name: str) -> SearchSpace:
    """Return the search space called `name`; raises UsageError with the known names."""
    from epsinas_exporters import spaces

    try:
        return spaces.get(name)
    except LookupError as error:
        raise UsageError(str(error)) from None
