"""Scores as a ranked table in columns, each reason below its row."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from epsinas_onnx._util.names import escaped
from epsinas_onnx.report import coverage, ranked, remarks
from epsinas_onnx.report.columns import Column, Give, Row, print_rows, put
from epsinas_onnx.scoring.result import Score, Status

_COLOURS = {Status.OK: "green", Status.ERROR: "red"}
_COLUMNS = (
    Column("#", right=True), Column("model", Give.MIDDLE), Column("score", right=True), Column("status"),
    Column("parameters", right=True), Column("seconds", right=True),
)  # fmt: skip


def print_table(scores: Sequence[Score], console: Console) -> None:
    """Print the ranked table and a line of coverage."""
    rows = []
    for rank, score in enumerate(ranked(scores), start=1):
        cells = (
            str(rank) if score.score is not None else "",
            escaped(score.model),
            "" if score.score is None else f"{score.score:.6f}",
            Text(str(score.status), style=_COLOURS.get(score.status, "yellow")),
            "" if score.parameters is None else f"{score.parameters:,}",
            f"{sum(score.seconds.values()):.2f}",
        )
        rows.append(Row(cells, remarks(score)))
    print_rows(_COLUMNS, rows, console)
    put(coverage(scores), console)
