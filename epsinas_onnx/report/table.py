"""Scores as a ranked rich table for a terminal, or plain text elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from epsinas_onnx._util.names import escaped
from epsinas_onnx.report import coverage, explanation, ranked
from epsinas_onnx.scoring.result import Score, Status

_COLOURS = {Status.OK: "green", Status.ERROR: "red"}


def print_table(scores: Sequence[Score], console: Console) -> None:
    """Print the ranked table and a line of coverage."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in (("#", "right"), ("model", "left"), ("score", "right"), ("status", "left"),
                           ("parameters", "right"), ("seconds", "right")):  # fmt: skip
        table.add_column(title, justify=justify, no_wrap=title != "model", overflow="fold")  # type: ignore[arg-type]
    table.add_column("why", overflow="fold", ratio=1)
    for rank, score in enumerate(ranked(scores), start=1):
        colour = _COLOURS.get(score.status, "yellow")
        table.add_row(
            str(rank) if score.score is not None else "",
            Text(escaped(score.model)),
            "" if score.score is None else f"{score.score:.6f}",
            f"[{colour}]{score.status}[/]",
            "" if score.parameters is None else f"{score.parameters:,}",
            f"{sum(score.seconds.values()):.2f}",
            Text(escaped(explanation(score))),
        )
    console.print(table)
    console.print(coverage(scores))
