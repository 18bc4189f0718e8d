"""A bar on standard error while many models are worked on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


def with_bar(results: Iterator[T], total: int, doing: str = "scoring") -> Iterator[T]:
    """Yield the results, with a bar on standard error where that is a terminal and there is something to wait for."""
    console = Console(stderr=True)
    if total < 2 or not console.is_terminal:
        yield from results
        return
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(doing, total=total)
        for result in results:
            progress.advance(task)
            yield result
