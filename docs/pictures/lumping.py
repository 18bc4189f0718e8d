"""Draws the worked example of docs/lumping.md: `python docs/pictures/lumping.py` writes lumping.svg beside it."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Rectangle

INPUT = ["#c9ced6", "#9aa3b0", "#6b7686"]
FIRST, SECOND, LAST = "#4c78a8", "#e4a13b", "#54a24b"
SIDE, GAP = 0.55, 0.07
PLAIN, LUMPED = 0.0, 6.6
ROWS = {"input": 0.0, "a": -1.75, "b": -3.5, "concat": -5.25, "y": -7.0}


def main() -> None:
    """Draw both columns and write the file."""
    mpl.rcParams.update({"font.size": 10, "font.family": "DejaVu Sans", "svg.hashsalt": "epsinas"})
    figure, axes = plt.subplots(figsize=(10.4, 8.0))
    axes.set_xlim(-1.25, 12.6)
    axes.set_ylim(-8.0, 1.65)
    axes.axis("off")
    for x, title in ((PLAIN, "the plain graph: every channel"), (LUMPED, "the lumped graph: one map a class")):
        axes.text(x, 1.25, title, weight="bold", fontsize=12)

    for name, label in (("input", "x"), ("a", "a"), ("b", "b"), ("concat", "[a, b]"), ("y", "y")):
        axes.text(-1.15, ROWS[name] + SIDE / 2, label, va="center", fontsize=12, style="italic")

    row(axes, PLAIN, "input", INPUT)
    row(axes, LUMPED, "input", INPUT)
    row(axes, PLAIN, "a", [FIRST] * 4)
    row(axes, LUMPED, "a", [FIRST], ["4"])
    row(axes, PLAIN, "b", [SECOND] * 3)
    row(axes, LUMPED, "b", [SECOND], ["3"])
    row(axes, PLAIN, "concat", [FIRST] * 4 + [SECOND] * 3)
    row(axes, LUMPED, "concat", [FIRST, SECOND], ["4", "3"])
    row(axes, PLAIN, "y", [LAST] * 6)
    row(axes, LUMPED, "y", [LAST], ["6"])

    step(axes, PLAIN, "input", "a", "Conv 3 to 4, 3x3, all weights c:\n4 equal sums of 27 products")
    step(axes, LUMPED, "input", "a", "add the 3 channels, one 3x3 box filter,\ntimes c: the same for all 4")
    step(axes, PLAIN, "a", "b", "ReLU, Conv 4 to 3, 3x3: 3 equal sums of 36 products")
    step(axes, LUMPED, "a", "b", "ReLU, one 3x3 box filter of c, times 4")
    step(axes, PLAIN, "b", "concat", "Concat: 7 channels, 2 of them different")
    step(axes, LUMPED, "b", "concat", "Concat: 2 classes, of 4 and of 3 channels")
    step(axes, PLAIN, "concat", "y", "Conv 7 to 6, 1x1: 6 equal sums of 7 products,\n42 multiply-adds a pixel")
    step(axes, LUMPED, "concat", "y", "y = 4 c a + 3 c b,\n2 multiply-adds a pixel")
    figure.tight_layout()
    path = Path(__file__).with_name("lumping.svg")
    figure.savefig(path, metadata={"Date": None})
    # Matplotlib ends some lines with a space.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def row(axes: Axes, x: float, name: str, colours: list[str], counts: list[str] | None = None) -> None:
    """Draw channels as squares; counts: how many indices each class has."""
    for index, colour in enumerate(colours):
        left = x + index * (SIDE + GAP) * (1.6 if counts else 1)
        axes.add_patch(Rectangle((left, ROWS[name]), SIDE, SIDE, facecolor=colour, edgecolor="#333333", linewidth=0.8))
        if counts:
            axes.text(left + SIDE + 0.06, ROWS[name] + SIDE / 2, f"x{counts[index]}", va="center", fontsize=9)


def step(axes: Axes, x: float, start: str, end: str, text: str) -> None:
    """Draw an arrow from one row to the next, with what happens there."""
    top, bottom = ROWS[start] - 0.08, ROWS[end] + SIDE + 0.08
    arrow = FancyArrowPatch(
        (x + SIDE / 2, top), (x + SIDE / 2, bottom), arrowstyle="-|>", mutation_scale=11, color="#333333"
    )
    axes.add_patch(arrow)
    axes.text(x + SIDE / 2 + 0.2, (top + bottom) / 2, text, va="center", fontsize=9.5)


if __name__ == "__main__":
    main()
