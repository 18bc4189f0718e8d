"""Draws where time goes and how it grows, for docs/performance.md: `python docs/pictures/performance.py`.

It reads performance.json beside it, which benchmarks/space.py and benchmarks/growth.py write with `--output`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

HERE = Path(__file__).parent
STAGES = {
    "load": ("build or read", "#9ecae9"),
    "rewrite": ("roles and plan", "#4c78a8"),
    "session": ("compile", "#f2cf5b"),
    "run": ("exact arithmetic", "#54a24b"),
    "judge": ("lowering, float32's status, verdict", "#e45756"),
    "the rest": ("start, hand-over, waiting", "#d0d4da"),
}
"""What the stages are called, by their keys in `Score.seconds`."""
DARK = "#333333"


def shares(axes: Axes, spaces: dict[str, Any]) -> None:
    """Draw a bar a run: milliseconds of worker time for each network that was run."""
    names = list(spaces)
    left = np.zeros(len(names))
    for key, (label, colour) in STAGES.items():
        part = np.array([1e3 * one["stages"].get(key, 0.0) / one["run"] for one in spaces.values()])
        axes.barh(names, part, left=left, color=colour, label=label, height=0.6)
        left += part
    for place, (name, total) in enumerate(zip(names, left, strict=True)):
        count = spaces[name]["architectures"]
        axes.text(total, place, f" {count:,} in {spaces[name]['wall']:,.0f} s", va="center", fontsize=8, color=DARK)
    axes.invert_yaxis()
    axes.set_xlim(0, left.max() * 1.3)
    axes.set_xlabel("worker time, ms for each network that is run")
    axes.legend(fontsize=7, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def growth(axes: Axes, row: dict[str, Any]) -> None:
    """Draw the times of a series, the fitted line, and by which power they grow."""
    sizes, times = np.array(row["sizes"]), np.array(row["milliseconds"])
    along = np.geomspace(sizes[0], sizes[-1], 100)
    line = row["fixed"] + row["each"] * along
    axes.plot(along[line > 0], line[line > 0], color="#4c78a8", lw=1)
    axes.plot(sizes, times, "o", color=DARK, ms=4)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(times.min() / 3, times.max() * 3)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_title(row["title"], fontsize=9)
    said = f"{row['fixed']:.0f} ms + {row['each']:.3g} ms a {row['unit']}\nexponent {row['exponent']:.2f}"
    axes.text(0.04, 0.95, said, transform=axes.transAxes, va="top", fontsize=8, color=DARK)


def main() -> None:
    """Write performance.svg."""
    found = json.loads((HERE / "performance.json").read_text())
    mpl.rcParams |= {"svg.hashsalt": "epsinas", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    figure = plt.figure(figsize=(9, 8.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.6))
    shares(upper.subplots(), found["spaces"])
    grid = lower.subplots(2, 3).flat
    for axes, row in zip(grid, found["growth"].values(), strict=True):
        growth(axes, row)
    lower.supylabel("CPU time of a score, ms", fontsize=9)
    figure.savefig(HERE / "performance.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
