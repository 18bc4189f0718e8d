"""Draws where float32 ends, for docs/numerics.md: `python docs/pictures/numerics.py` writes numerics.svg beside it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from traced import Array, Traced, log10, traced, write

from epsinas_onnx.evaluate_lumped.evaluator import log2_range
from epsinas_onnx.evaluate_lumped.scaled import Scaled

SMALL, MIDDLE = 1e-7, 0.1
"""What the weights are in either half."""
NETWORKS = {
    "nb201-c3-c3-c3-s-c3-c3": "#54a24b",
    "nb201-c3-n-n-c1-c3-n": "#e4a13b",
    "nb201-c1-n-c1-n-n-c3": "#c44e52",
}
BASE, DEVIATION, FLOOR, DARK = "#6b7686", "#4c78a8", "#d9dde3", "#333333"
NORMAL, SMALLEST = (math.log10(float(x)) for x in (np.finfo(np.float32).tiny, np.finfo(np.float32).smallest_subnormal))
LAST_BIT, LAST_OF_DOUBLE = (math.log10(float(np.finfo(kind).epsneg)) for kind in (np.float32, np.float64))
CELL = re.compile(r"stage\d\.cell\d\.node3\.\w+")


class Course(NamedTuple):
    """Logarithms of magnitudes, one a cell or a step; NaN where there is nothing.

    base: of what samples have in common. deviation: of how far apart the deviations lie. plain: of how far apart
    the values lie in float32.
    """

    base: Array
    deviation: Array
    plain: Array


def through_cells(model: Traced, constant: float) -> Course:
    """Follow the outputs of the cells of a network of NAS-Bench-201."""
    exact, plain = model.values(constant)
    last = {name.rpartition(".node3")[0]: name for name in exact if CELL.fullmatch(name)}
    return course([exact[name].base for name in last.values()], [exact[name].deviation for name in last.values()],
                  [plain[name] for name in last.values()])  # fmt: skip


def through_steps(model: Traced, constant: float, name: str) -> Course:
    """Follow a layer of a recurrent network, whose first axis is time, from step to step."""
    exact, plain = model.values(constant)
    value, steps = exact[name], plain[name].shape[0]
    return course(rows(value.base, steps), rows(value.deviation, steps), list(plain[name]))


def rows(part: Scaled | None, steps: int) -> list[Scaled | None]:
    """Return a part of a value, cut apart along its first axis."""
    if part is None:
        return [None] * steps
    return [part.become(row, 0) for row in np.broadcast_to(part.array, (steps, *part.array.shape[1:]))]


def course(bases: Sequence[Scaled | None], deviations: Sequence[Scaled | None], plain: Sequence[Array]) -> Course:
    """Return the magnitudes of parts and of plain values, one after the other."""
    base = [math.nan if part is None else part.log2 * math.log10(2) for part in bases]
    deviation = [math.nan if part is None else log2_range(part) * math.log10(2) for part in deviations]
    return Course(np.array(base), np.array(deviation), log10(np.array([np.ptp(values) for values in plain])))


def main() -> None:
    """Draw both halves and write the file."""
    mpl.rcParams.update({"font.size": 10, "font.family": "DejaVu Sans", "svg.hashsalt": "epsinas"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 5.2))
    draw_range(left)
    draw_resolution(right)
    figure.tight_layout(w_pad=2.5)
    write(figure, __file__)
    plt.close(figure)


def draw_range(axes: Axes) -> None:
    """Draw networks whose deviation leaves the range of float32."""
    axes.axhspan(SMALLEST, NORMAL, color=FLOOR)
    for name, colour in NETWORKS.items():
        model = traced(name, 256)
        label = f"{name.removeprefix('nb201-')}\norder {model.order():g}"
        draw_cells(axes, label, through_cells(model, SMALL), colour)
    axes.text(7.9, SMALLEST - 8, "float32: fewer bits from 1e-38 on,\n0 below 1e-45", va="top", fontsize=9)
    frame(axes, "A deviation leaves the range", f"cell of a NAS-Bench-201 network, weights {SMALL:g}")
    axes.set_ylabel("how far apart samples lie")
    axes.set_xlim(0.3, 20.6)
    axes.set_xticks([1, 5, 10, 15])


def draw_resolution(axes: Axes) -> None:
    """Draw a layer whose deviation falls below the last bit of its base."""
    found = through_steps(traced("lstm", 256), MIDDLE, "lstm1")
    steps = np.arange(1, found.base.size + 1)
    axes.fill_between(steps, found.base + LAST_BIT, -100.0, color=FLOOR, linewidth=0)
    axes.plot(steps, found.base + LAST_OF_DOUBLE, "--", color=BASE, linewidth=1)
    axes.plot(steps, found.base, color=BASE, linewidth=1.8)
    axes.plot(steps, found.deviation, color=DEVIATION, linewidth=1.8)
    axes.plot(steps, found.plain, "o", color=DARK, markersize=4)
    for height, text, colour in (
        (found.base[-1] - 0.8, "base", BASE),
        (found.base[-1] + LAST_BIT - 0.8, "float32: below the last bit of the base", DARK),
        (found.base[-1] + LAST_OF_DOUBLE + 0.35, "last bit of float64", DARK),
        (found.deviation[-1] - 0.9, "deviation", DEVIATION),
    ):
        axes.text(steps[-1], height, text, ha="right", fontsize=9, color=colour)
    frame(axes, "A deviation drowns in its base", f"step of models/lstm.onnx, second layer, weights {MIDDLE:g}")
    axes.set_ylim(np.nanmin(found.deviation) - 1.6, 1.2)
    axes.set_xticks([1, 8, 16, 24, 32])
    axes.set_yticks(range(-16, 1, 4))


def draw_cells(axes: Axes, label: str, found: Course, colour: str) -> None:
    """Draw one network: a line for exact arithmetic, dots for float32."""
    cells = np.arange(1, found.deviation.size + 1)
    axes.plot(cells, found.deviation, color=colour, linewidth=1.8)
    axes.plot(cells, found.plain, "o", color=DARK, markersize=4)
    axes.text(cells[-1] + 0.3, found.deviation[-1], label, va="center", fontsize=9, color=colour)


def frame(axes: Axes, title: str, across: str) -> None:
    """Label one half."""
    axes.set_title(title, weight="bold", fontsize=12, loc="left")
    axes.set_xlabel(across)
    axes.yaxis.set_major_formatter(lambda value, _: f"1e{value:.0f}" if value else "1")
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
