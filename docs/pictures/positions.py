"""Draws the classes of positions of docs/lumping.md: `python docs/pictures/positions.py` writes positions.svg."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from traced import Array, traced, write

from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.windows import Window, seen

MODEL = "nb201-c3-c3-p-s-c3-s"
VALUES = {
    "input": "grey image",
    "stem.conv": "behind a 3x3\nconvolution",
    "stage0.cell0.edge0-1.conv": "behind the\nsecond one",
    "stage0.cell4.node3.add2": "at the end of\nthe first stage",
    "reduce1.down.pool": "2x2 pool,\nstride 2",
    "reduce1.a.conv": "3x3 convolution,\nstride 2",
}
BORDER, ROW, COLUMN, INSIDE = (np.array(to_rgb(name)) for name in ("#e4a13b", "#c9ced6", "#9fc59a", "#4c78a8"))
LINE = "#333333"
LONGEST = 32
BOX = Window(length=3, stride=1, dilation=1, front=1, count=LONGEST)


def partitions() -> dict[str, tuple[Partition, Partition]]:
    """Return the classes of rows and of columns of the model's values that are drawn."""
    lowered = traced(MODEL, 256).lowered
    found = {str(value.name): lumped.parts for value, lumped in lowered.values.items()}
    return {name: (parts[2], parts[3]) for name in VALUES if (parts := found[name]) is not None}


def main() -> None:
    """Draw what positions there are, what is computed, and how, and write the file."""
    mpl.rcParams.update({"font.size": 10, "font.family": "DejaVu Sans", "svg.hashsalt": "epsinas"})
    figure = plt.figure(figsize=(10.4, 6.0))
    grid = figure.add_gridspec(3, len(VALUES), height_ratios=(1.0, 0.55, 0.95))
    found = partitions()
    for column, (name, (rows, columns)) in enumerate(found.items()):
        colours = classes(rows.count, columns.count)
        whole = figure.add_subplot(grid[0, column])
        whole.set_title(VALUES[name], fontsize=9.5)
        place(whole, colours[rows.labels][:, columns.labels], LONGEST)
        whole.set_xlabel(f"{rows.size} x {columns.size}", fontsize=9)
        computed = figure.add_subplot(grid[1, column])
        place(computed, colours, 17)
        computed.set_xlabel(f"{rows.count} x {columns.count}", fontsize=9)
        if column == 0:
            whole.set_ylabel("positions of\none channel")
            computed.set_ylabel("what is\ncomputed")
    before, after = found["stem.conv"][0], found["stage0.cell0.edge0-1.conv"][0]
    axes = figure.add_subplot(grid[2, :])
    draw_product(axes, seen(before, BOX).matrix, classes(before.count, before.count), classes(after.count, after.count))
    figure.tight_layout(h_pad=1.2)
    write(figure, __file__)
    plt.close(figure)


def classes(rows: int, columns: int) -> Array:
    """Return a colour for each combination of classes, from the border, which comes first, to the inside."""
    down, across = (np.linspace(0 if n > 1 else 1, 1, n) for n in (rows, columns))
    down, across = down[:, None, None], across[None, :, None]
    mixed: Array = (1 - down) * ((1 - across) * BORDER + across * ROW) + down * (
        (1 - across) * COLUMN + across * INSIDE
    )
    return mixed


def place(axes: Axes, colours: Array, height: int) -> None:
    """Draw squares, each as large as in all other drawings, within so many of them from top to bottom."""
    rows, columns = colours.shape[:2]
    axes.imshow(colours, interpolation="nearest")
    left, top = (LONGEST - columns) / 2, (height - rows) / 2
    axes.set_xlim(-0.5 - left, columns - 0.5 + left)
    axes.set_ylim(rows - 0.5 + top, -0.5 - top)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def draw_product(axes: Axes, matrix: Array, before: Array, after: Array) -> None:
    """Draw a box filter over classes: the matrix, the classes in front, its transpose, and the classes behind."""
    axes.set_xlim(0, 26)
    axes.set_ylim(3.3, -1.3)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.text(0, -0.7, "the second convolution, over classes instead of positions", weight="bold", fontsize=11)
    left = 2.0
    for symbol, numbers, colours in (
        ("", matrix, None), ("x", None, before), ("x", matrix.T, None), ("=", None, after)
    ):  # fmt: skip
        axes.text(left - 0.75, 1.5, symbol, ha="center", va="center", fontsize=13)
        count = (matrix.shape if numbers is None else numbers.shape) if colours is None else colours.shape
        top = (matrix.shape[0] - count[0]) / 2
        for row in range(count[0]):
            for column in range(count[1]):
                square = (left + column, top + row)
                face = "white" if colours is None else tuple(colours[row, column])
                axes.add_patch(Rectangle(square, 1, 1, facecolor=face, edgecolor=LINE, linewidth=0.8))
                if numbers is not None:
                    axes.text(square[0] + 0.5, square[1] + 0.5, f"{numbers[row, column]}", ha="center", va="center")
        left += count[1] + 1.5
    axes.text(
        left - 0.4, 1.5,
        "how often a window of 3 at the border,\nnext to it, and inside holds each class\n"
        "of the rows; the same for columns",
        va="center", fontsize=9.5,
    )  # fmt: skip


if __name__ == "__main__":
    main()
