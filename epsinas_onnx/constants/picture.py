"""Draws how many networks each pair of constants scores, and how well it ranks them, as heat maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from epsinas_onnx.constants.result import FoundWeights
from epsinas_onnx.output.pictures import write_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CHOSEN = "#d1495b"


def draw(path: Path, found: FoundWeights, title: str) -> None:
    """Draw the coverage of every pair into `path`, and beside it the correlation where accuracies were given.

    Raises what `write_picture` does.
    """
    write_picture(path, lambda: _figure(found, title))


def _figure(found: FoundWeights, title: str) -> Figure:
    from matplotlib.figure import Figure

    ranked = found.by == "correlation"
    figure = Figure(figsize=(9.6 if ranked else 5.4, 4.6), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, 2 if ranked else 1, squeeze=False)[0]
    _panel(
        panels[0], found, {pair.weights: pair.coverage for pair in found.pairs}, "networks scored", "{:.0%}", "Blues"
    )
    if ranked:
        known = {pair.weights: pair.spearman for pair in found.pairs if pair.spearman is not None}
        _panel(panels[1], found, known, "Spearman with accuracy, over those", "{:.2f}", "RdBu")
    return figure


def _panel(
    axes: Axes, found: FoundWeights, values: dict[tuple[float, float], float], title: str, form: str, colours: str
) -> None:
    lower, upper = found.constants[:-1], found.constants[1:]
    grid = np.full((len(lower), len(upper)), np.nan)
    for (low, high), value in values.items():
        grid[lower.index(low), upper.index(high)] = value
    axes.imshow(grid, cmap=colours, aspect="equal", vmin=0.0 if colours == "Blues" else -1.0, vmax=1.0)
    size = 8.0 if len(upper) <= 8 else max(4.0, 64.0 / len(upper))
    for (row, column), value in np.ndenumerate(grid):
        if np.isfinite(value):
            dark = abs(value) > 0.6
            chosen = found.weights == (lower[row], upper[column])
            weight = "bold" if chosen else "normal"
            shown = form.format(value)
            axes.text(
                column, row, shown, ha="center", va="center", color="white" if dark else "black", fontsize=size,
                fontweight=weight,
            )  # fmt: skip
            if chosen:
                _frame(axes, row, column)
    axes.set_xticks(range(len(upper)), [f"{constant:g}" for constant in upper])
    axes.set_yticks(range(len(lower)), [f"{constant:g}" for constant in lower])
    axes.set_xlabel("larger constant")
    axes.set_ylabel("smaller constant")
    axes.set_title(title, fontsize=9)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _frame(axes: Axes, row: int, column: int) -> None:
    """Mark the pair that was chosen."""
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=_CHOSEN, linewidth=2, clip_on=False, zorder=3)
    )
