"""Says on a terminal what is being done, once it takes longer than a reader would wait without a word."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from epsinas_onnx._util.text import shown

T = TypeVar("T")

_PATIENCE = 2.0  # seconds without a word
_LONGEST = 48  # characters of a name, so that the line fits a terminal


def with_bar(results: Iterator[T], total: int, doing: str = "scoring", name: str = "") -> Iterator[T]:
    """Yield the results; where that takes a while, with a bar on standard error, or for one with its name."""
    if total < 2:
        with said(f"{doing} {name}"):
            yield from results
        return
    console = Console(stderr=True)
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True)
    task = progress.add_task(doing, total=total)
    with _later(progress):
        for result in results:
            progress.advance(task)
            yield result


@contextmanager
def counted() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that is told what is being done, how many are done, and of how many; where that takes a while."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task("", total=None)
    with _later(progress):
        yield lambda doing, done, total: progress.update(
            task, description=shown(doing, _LONGEST), completed=done, total=total
        )


@contextmanager
def said(doing: str) -> Iterator[None]:
    """Say on standard error what is being done, and for how long, where it takes a while."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    progress.add_task(shown(doing.strip(), _LONGEST), total=None)
    with _later(progress):
        yield


@contextmanager
def _later(progress: Progress) -> Iterator[None]:
    """Show a progress from when patience ends, on a terminal alone."""
    if not progress.console.is_interactive:
        yield
        return
    timer = threading.Timer(_PATIENCE, progress.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        progress.stop()
