"""A search as a table, JSON and CSV: the best first, and what a stranger has to know to read it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.console import Console

from epsinas_onnx._util import text
from epsinas_onnx._util.names import escaped
from epsinas_onnx.report import number
from epsinas_onnx.report.columns import Column, Give, Row, print_rows, put, put_sentence
from epsinas_onnx.search.results import SearchResult, Tried, plain

MOST_OF_FRONT = 50
"""Networks of a Pareto front that are listed."""


def to_json(result: SearchResult) -> str:
    """Return the record."""
    return text.to_json(result.to_dict())


def to_csv(result: SearchResult) -> str:
    """Return a CSV with a header, a line a trial: what fits first, the best on top."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(["place", "trial", "arch", *result.names, "front", "status", "violation", "reason"])
    ranked, front = result.ranked(), {one.number for one in result.front()}
    places: dict[int, int] = {one.number: place for place, one in enumerate(ranked, start=1)}
    for one in [*ranked, *(one for one in result.tried if one.number not in places)]:
        values = [plain(one.values[name]) if name in one.values else "" for name in result.names]
        at_front = int(one.number in front)
        writer.writerow(
            [
                places.get(one.number, ""),
                one.number,
                escaped(one.arch),
                *values,
                at_front,
                one.status,
                one.violation,
                escaped(one.reason or ""),
            ]
        )
    return written.getvalue()


def print_search(result: SearchResult, top: int, console: Console) -> None:
    """Print the best, with several objectives the Pareto front too, and the sentences that belong to it."""
    ranked = result.ranked()
    if len(result.objectives) > 1:
        front = result.front()
        put(f"the Pareto front, by {result.objectives[0].quantity.name}: {len(front):,} of {len(ranked):,}", console)
        _print(front[:MOST_OF_FRONT], result.names, console)
        if len(front) > MOST_OF_FRONT:
            put(f"{len(front) - MOST_OF_FRONT:,} more are in --output", console)
    else:
        _print(ranked[:top], result.names, console)
    put("", console)
    for said in result.sentences():
        put_sentence(said, console)


def _print(rows: Sequence[Tried], names: Sequence[str], console: Console) -> None:
    columns = [
        Column("#", right=True),
        Column("architecture", Give.MIDDLE),
        *(Column(name, right=True) for name in names),
        Column("trial", right=True),
    ]
    print_rows(
        columns,
        [
            Row([str(place), escaped(one.arch), *(number(one.values[name]) for name in names), str(one.number)])
            for place, one in enumerate(rows, start=1)
        ],
        console,
    )
