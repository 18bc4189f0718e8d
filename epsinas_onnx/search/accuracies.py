"""Accuracies out of a table, by architecture, which a search may look for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from epsinas_onnx.errors import UsageError
from epsinas_onnx.evaluation.table import read_table

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace


def read_accuracies(path: Path, column: str | None, space: SearchSpace) -> dict[str, float]:
    """Return the number in a column for each architecture of a table; of one that is there twice, the mean.

    Raises UsageError where the table cannot be read, or no row has an architecture of the space and a number.
    """
    table = read_table(path)
    if column is None:
        raise UsageError(f"name the column of accuracies with --column; the columns are {', '.join(table.columns)}")
    found: dict[str, list[float]] = {}
    reason = "no row has a number"
    for row, value in zip(table.rows, table.numbers(column), strict=True):
        if not np.isfinite(value):
            continue
        try:
            found.setdefault(space.from_row(row), []).append(float(value))
        except ValueError as error:
            reason = str(error)
    if not found:
        raise UsageError(f"{path}: no row has an architecture of {space.name} and a number in {column}: {reason}")
    return {arch: float(np.mean(values)) for arch, values in found.items()}
