"""Scores as a ranked table in columns, each reason below its row."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from epsinas_onnx._util.names import escaped
from epsinas_onnx.report import beyond_float32, coverage, order, other, others, ranked, remarks, scales
from epsinas_onnx.report.columns import Column, Give, Row, print_rows, put, put_sentence
from epsinas_onnx.scoring.result import Score, Status

_COLOURS = {Status.OK: "green", Status.ERROR: "red"}
_COLUMNS = (
    Column("#", right=True), Column("model", Give.MIDDLE), Column("score", right=True), Column("status"),
    Column("order", Give.BELOW, right=True), Column("float32", Give.BELOW), Column("parameters", right=True),
    Column("seconds", right=True),
)  # fmt: skip


def print_table(scores: Sequence[Score], console: Console) -> None:
    """Print the ranked table and a line of coverage."""
    rows, more = [], others(scores)
    for rank, score in enumerate(ranked(scores), start=1):
        cells: tuple[str | Text, ...] = (
            str(rank) if score.score is not None else "",
            escaped(score.model),
            "" if score.score is None else f"{score.score:.6f}",
            Text(str(score.status), style=_COLOURS.get(score.status, "yellow")),
            order(score),
            beyond_float32(score),
            "" if score.parameters is None else f"{score.parameters:,}",
            f"{sum(score.seconds.values()):.2f}",
            *(other(score, name) for name in more),
        )
        rows.append(Row(cells, remarks(score)))
    columns = (*_COLUMNS, *(Column(name, Give.NAMED, right=True) for name in more))
    print_rows(*_without_empty(columns, rows), console)
    put(coverage(scores), console)
    remark = scales(scores)
    if remark is not None:
        put_sentence(remark, console)


def _without_empty(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[list[Column], list[Row]]:
    """Return a table without those of the columns that may be left out and have nothing to say."""
    kept = [i for i, column in enumerate(columns) if not column.leaves or any(row.cells[i] for row in rows)]
    return [columns[i] for i in kept], [Row([row.cells[i] for i in kept], row.below) for row in rows]
