"""Pictures of a search with matplotlib: objectives against each other, the best so far, and searches compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epsinas_onnx._util.install import pip_install
from epsinas_onnx.errors import UsageError
from epsinas_onnx.output.pictures import STATIC, write_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from epsinas_onnx.search.results import SearchResult
    from epsinas_onnx.search.rounds import Rounds

COLOURS = (
    "#777777",
    "#222222",
    "#1f77b4",
    "#d62728",
    "#2ca02c",
    "#9467bd",
    "#17becf",
    "#ff7f0e",
    "#8c564b",
    "#e377c2",
)


def check_plot(path: Path) -> None:
    """Raise UsageError for an ending that is no picture, and where matplotlib is missing."""
    if path.suffix.lower() not in STATIC:
        raise UsageError(f"{path}: a plot is a {', '.join(STATIC[:-1])} or {STATIC[-1]} file; --html writes a page")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError(f"plots need matplotlib; run '{pip_install('plots')}'") from None


def plot_search(path: Path, result: SearchResult) -> None:
    """Draw a search: the best so far with one objective, otherwise the first two against each other with the front.

    Raises UsageError for another ending or without matplotlib, OutputError where the file cannot be written.
    """
    check_plot(path)
    figure = _trace(result) if len(result.objectives) == 1 else _against(result)
    write_picture(path, lambda: figure)


def plot_rounds(path: Path, found: Rounds) -> None:
    """Draw the median of each search over the architectures trained, with its quartiles; raises as `plot_search`."""
    check_plot(path)
    figure, axes = _figure()
    for index, curve in enumerate(found.curves):
        low, middle, high = (curve.quantile(share) for share in (0.25, 0.5, 0.75))
        steps = np.arange(1, len(middle) + 1)
        colour = COLOURS[index % len(COLOURS)]
        dashes = "--" if curve.variant.sampler == "random" else "-"
        axes.plot(steps, middle, color=colour, linestyle=dashes, linewidth=1.4, label=str(curve.variant))
        axes.fill_between(steps, low, high, color=colour, alpha=0.08, linewidth=0)
    axes.axhline(found.optimum, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set_ylim(*sorted(found.limits()))
    axes.set_xlim(1, found.settings["trials"])
    axes.set_xlabel("architectures trained")
    axes.set_ylabel(f"best {found.column} so far")
    axes.set_title(f"{found.space}: median and quartiles of {found.settings['rounds']} rounds")
    axes.legend(fontsize=7, loc="upper right" if found.lower_is_better else "lower right")
    write_picture(path, lambda: figure)


def _trace(result: SearchResult) -> Figure:
    figure, axes = _figure()
    [objective] = result.objectives
    name = objective.quantity.name
    done = [(place, one) for place, one in enumerate(result.tried, start=1) if name in one.values]
    for fits, colour, label in ((True, "#1f77b4", "tried"), (False, "#bbbbbb", "outside a constraint")):
        x = [place for place, one in done if one.fits is fits]
        if x:
            y = [one.values[name] for _, one in done if one.fits is fits]
            axes.scatter(x, y, s=9, color=colour, alpha=0.6, linewidth=0, label=label)
    best = [(place, one.values[name]) for place, one in done if one.fits]
    if best:
        running = (np.minimum if objective.minimised else np.maximum).accumulate([value for _, value in best])
        axes.step(
            [place for place, _ in best], running, where="post", color="#d62728", linewidth=1.4, label="best so far"
        )
        axes.legend(fontsize=7)
    axes.set_xlabel("trial")
    axes.set_ylabel(name)
    axes.set_title(result.space)
    return figure


def _against(result: SearchResult) -> Figure:
    figure, axes = _figure()
    first, second = (one.quantity.name for one in result.objectives[:2])
    ranked = result.ranked()
    line = sorted(result.front(), key=lambda one: one.values[second])
    x, y = ([one.values[name] for one in ranked] for name in (second, first))
    axes.scatter(x, y, s=9, color="#9a9a9a", alpha=0.6, linewidth=0, label="tried")
    x, y = ([one.values[name] for one in line] for name in (second, first))
    style = "-" if len(result.objectives) == 2 else ""
    axes.plot(x, y, style, marker="o", markersize=4, color="#d62728", linewidth=1.2, label="Pareto front")
    axes.set_xlabel(second)
    axes.set_ylabel(first)
    axes.set_title(result.space)
    axes.legend(fontsize=7)
    return figure


def _figure() -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(color="#eeeeee", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
