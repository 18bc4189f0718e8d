"""`epsinas-onnx report`: makes one page of results that lie in files or in a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from epsinas_onnx._util.text import shown
from epsinas_onnx.cli.common import find_space, parse_members, say
from epsinas_onnx.cli.outputs import check_outputs
from epsinas_onnx.errors import UsageError
from epsinas_onnx.output.files import write_output

_KEYS = ("model", "arch", "architecture", "network", "name", "file", "path")
"""How the column of a table that names models is called, the first of these that is there."""


def report_command(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="What score or evaluate wrote (.jsonl, .json, .csv), or a store; of a model that is in several, the "
            "last counts."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")],
    title: Annotated[str, typer.Option(metavar="TEXT", help="What the page is called.")] = "",
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCORES",
            help="Scores that rank together, as for rank; give it several times to see combinations side by side.",
        ),
    ] = None,
    accuracies: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="A table of accuracies, of the kinds that evaluate reads.")
    ] = None,
    column: Annotated[str | None, typer.Option(metavar="COLUMN", help="Its column of accuracies.")] = None,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="SPACE", help="The search space of its rows; otherwise a column of it names models, such as model."
        ),
    ] = None,
) -> None:
    """Make one page of results: a table that sorts and filters, scores against sizes and accuracies, ranks and reasons.

    The page is a single file that loads nothing, so that it can be sent and kept.
    """
    combinations = [parse_members(one) for one in by or []]
    if (accuracies is None) != (column is None):
        raise UsageError("--accuracies and --column go together: a table, and its column of accuracies")
    check_outputs([("--output", output)], inputs=[*results, *([] if accuracies is None else [accuracies])])
    records, given = _read(results)
    if not records:
        raise UsageError(f"{results[0]}: holds no results")
    notes = []
    if given > len(records):
        notes.append(f"{given - len(records):,} results gave way to later ones of the same model")
    joined: dict[str, float] = {}
    if accuracies is not None and column is not None:
        joined = _joined(accuracies, column, list(records), space)
        notes.append(f"{column} of {len(joined):,} of {len(records):,} models, from {accuracies.name}")
    from epsinas_onnx.report.results_page import to_html

    text = to_html(
        list(records.values()), title=title, by=combinations, accuracies=joined, accuracy=column or "", notes=notes
    )
    write_output(output, text)
    say(f"{len(records):,} models, written to {output}")


def _read(results: Sequence[Path]) -> tuple[dict[str, Mapping[str, Any]], int]:
    """Return the records by model, and how many results there were; those of a later file take the place of earlier."""
    found: dict[str, Mapping[str, Any]] = {}
    count = 0
    for path in results:
        for record in _of_file(path):
            count += 1
            found[str(record["model"])] = record
    return found, count


def _of_file(path: Path) -> Iterable[Mapping[str, Any]]:
    """Return the records of a file of results, or of a store, each with its model as `model`."""
    from epsinas_onnx.store.file import is_database

    if is_database(path):
        from epsinas_onnx.store.store import Store

        with Store(path, readonly=True) as store:
            return [score.to_dict() for score in store.scores()]
    from epsinas_onnx.evaluation.scoring import read_records

    return [{**record, "model": model} for model, record in read_records(path).items()]


def _joined(table: Path, column: str, models: Sequence[str], space: str | None) -> dict[str, float]:
    """Return the accuracies of models: by the architecture of each row, or by a column that names models.

    Raises UsageError where the table has no such column, or is about none of the models.
    """
    from epsinas_onnx.evaluation.scoring import Unreadable, networks
    from epsinas_onnx.evaluation.table import read_table

    read = read_table(table).having(column)
    values = [float(value) for value in read.numbers(column)]
    rows: dict[str, float] = {}
    if space is None:
        key = next((name for name in _KEYS if name in read.columns), read.columns[0])
        rows = dict(zip((row[key] for row in read.rows), values, strict=True))
        rows |= {Path(name).stem: value for name, value in rows.items()}
        what = f"its column {shown(key)} names"
    else:
        known = find_space(space)
        for network, value in zip(networks(read, known), values, strict=True):
            if not isinstance(network, Unreadable):
                rows[network.name] = rows[known.file_name(network.name)] = value
        what = f"it has the architectures of {space}, and"
    found = {}
    for model in models:
        named = next((rows[name] for name in (model, Path(model).name, Path(model).stem) if name in rows), None)
        if named is not None:
            found[model] = named
    if not found:
        raise UsageError(
            f"{table}: {what} none of the {len(models):,} models, such as {shown(models[0])}; name the search space "
            f"with --space, or give the table a column model"
        )
    return found
