"""Draws the way of one file of docs/architecture.md: `python docs/pictures/architecture.py` writes architecture.svg."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

CODE, DATA, SIDE = "#dce6f2", "#f6ecd6", "#e4efdf"
LINE = "#333333"
WIDTH, HEIGHT = 3.3, 0.78


class Stage(NamedTuple):
    """One step: its folder, what it does, and the type that comes out."""

    folder: str
    does: str
    gives: str


STAGES = (
    Stage("graph/load", "reads without weight bytes, checks, inlines", "LoadedModel"),
    Stage("scoring/batching", "free, fixed, re-batched, or sample by sample", "Batching"),
    Stage("scoring/plan", "shapes, folded BatchNorm, roles, outputs", "ModelPlan"),
    Stage("scoring/feeds", "the minibatch, and its equal positions", "Feeds"),
    Stage("lump", "equal indices become one, or a proof", "LumpedModel"),
    Stage("scoring/executors, runtime", "both constants, on ONNX Runtime", "ForwardResult"),
    Stage("scoring/verdict", "status, reason, number", "Verdict"),
)


def main() -> None:
    """Draw the stages from top to bottom and write the file."""
    mpl.rcParams.update({"font.size": 10, "font.family": "DejaVu Sans", "svg.hashsalt": "epsinas"})
    figure, axes = plt.subplots(figsize=(8.6, 11.6))
    axes.set_xlim(-0.3, 8.9)
    axes.set_ylim(-16.3, 1.0)
    axes.axis("off")
    box(axes, 0.0, 0.0, DATA, "a path, bytes, a ModelProto, ...", "ModelSource")
    for index, stage in enumerate(STAGES):
        top = -2.05 * index - 0.1
        box(axes, 0.0, top - 1.45, CODE, stage.folder, stage.does)
        begins = top + 0.52 if index else top
        arrow(axes, (WIDTH / 2, begins), (WIDTH / 2, top - 0.62))
        if index:
            axes.text(WIDTH / 2 + 0.15, top - 0.05, STAGES[index - 1].gives, va="center", style="italic")
    last = -2.05 * len(STAGES) - 0.1
    arrow(axes, (WIDTH / 2, last + 0.52), (WIDTH / 2, last - 0.62))
    axes.text(WIDTH / 2 + 0.15, last - 0.05, STAGES[-1].gives, va="center", style="italic")
    box(axes, 0.0, last - 1.45, DATA, "Score", "report/ writes it; cli/ shows it")

    planned, lumped, run, judged = (-2.05 * row for row in (2, 4, 5, 6))
    box(axes, 5.2, lumped - 1.55, SIDE, "scoring/executors", "PlainGraph: nothing merged")
    arrow(axes, (WIDTH, planned - 1.15), (5.2, lumped - 0.9), "--no-lump, or\nlumping cannot", 0.9)
    arrow(axes, (5.2, lumped - 1.35), (WIDTH, run - 0.85))
    box(axes, 5.2, run - 1.75, SIDE, "evaluate_lumped", "NumPy: exact, or in float32")
    arrow(axes, (WIDTH, run - 1.15), (5.2, run - 1.15), "small graphs")
    arrow(axes, (5.2, run - 1.5), (WIDTH, run - 1.5))
    box(axes, 5.2, judged - 1.55, SIDE, "scoring/reruns, diagnosis", "moved inputs, probes, lost signal")
    arrow(axes, (WIDTH, judged - 1.0), (5.2, judged - 1.0), "only where\nin doubt")
    arrow(axes, (5.2, judged - 1.35), (WIDTH, judged - 1.35))
    figure.tight_layout()
    path = Path(__file__).with_name("architecture.svg")
    figure.savefig(path, metadata={"Date": None})
    # Matplotlib ends some lines with a space.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    plt.close(figure)


def box(axes: Axes, left: float, bottom: float, colour: str, title: str, text: str) -> None:
    """Draw a box with its title in bold and a line below it."""
    shape = FancyBboxPatch(
        (left, bottom), WIDTH, HEIGHT, boxstyle="round,pad=0.05", facecolor=colour, edgecolor=LINE, linewidth=0.8
    )
    axes.add_patch(shape)
    axes.text(left + WIDTH / 2, bottom + 0.55, title, ha="center", va="center", weight="bold")
    axes.text(left + WIDTH / 2, bottom + 0.2, text, ha="center", va="center", fontsize=8.5)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", right: float = 0.0) -> None:
    """Draw an arrow, with a word above its middle, or to the right of it."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=LINE, linewidth=0.9))
    if text:
        middle = ((start[0] + end[0]) / 2 + right, (start[1] + end[1]) / 2 + 0.38)
        axes.text(*middle, text, ha="center", fontsize=8.5)


if __name__ == "__main__":
    main()
