"""Measures how a score's CPU time grows with a network and its minibatch: `python benchmarks/growth.py`.

One size varies at a time, from a quarter to four times or more of what is usual. CPU time of one thread, from the
network in memory to its score with both constants, the median of `--repeats` after one that warms up. A straight line
(what every score costs, what each unit adds) and the slope of the logarithms are fitted by least squares. `--output`
keeps it all for docs/pictures/performance.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from scipy.stats import linregress

from epsinas_exporters import classics
from epsinas_exporters.spaces import nasbench201
from epsinas_onnx import score

OPERATIONS = ("nor_conv_3x3", "nor_conv_3x3", "nor_conv_1x1", "skip_connect", "nor_conv_3x3", "avg_pool_3x3")


class Series(NamedTuple):
    """Networks that differ in one size. unit: what the size counts. fed: kind of input and samples for a size."""

    title: str
    unit: str
    sizes: Sequence[int]
    build: Callable[[int], ir.Model]
    fed: Callable[[int], tuple[str, int]]


def cell(**sizes: int) -> ir.Model:
    """Return a network of NAS-Bench-201 whose edges but one compute something."""
    return nasbench201.build(str(nasbench201.Cell(OPERATIONS)), **sizes)


SERIES = {
    "batch": Series("samples, grey ramp", "sample", (64, 128, 256, 512, 1024), lambda _: cell(), lambda n: ("grey", n)),
    "noise": Series(
        "samples of noise", "sample", (16, 32, 64, 128, 256), lambda _: cell(), lambda n: ("normal", n)
    ),
    "width": Series(
        "channels of the stem", "channel", (8, 16, 32, 64, 128), lambda n: cell(channels=n), lambda _: ("grey", 256)
    ),
    "depth": Series(
        "cells a stage", "cell", (2, 4, 8, 16, 32), lambda n: cell(cells=n), lambda _: ("grey", 256)
    ),
    "resolution": Series(
        "pixels a side: ResNet-50, grey", "pixel", (112, 224, 448, 896), lambda n: classics.resnet50(size=n),
        lambda _: ("grey", 256),
    ),
    "photographs": Series(
        "pixels a side: ResNet-50, noise", "pixel", (64, 96, 128, 192, 256),
        lambda n: classics.resnet50(size=n), lambda _: ("normal", 16),
    ),
}  # fmt: skip


def milliseconds(model: ir.Model, kind: str, batch: int, repeats: int) -> float:
    """Return the CPU time of a score."""
    found = []
    for _ in range(repeats + 1):
        started = time.process_time()
        score(model, inputs=kind, batch=batch, threads=1, providers="cpu")
        found.append(1e3 * (time.process_time() - started))
    return statistics.median(found[1:])


def measured(series: Series, repeats: int) -> dict[str, Any]:
    """Return the times of a series, and what is fitted to them."""
    times = [milliseconds(series.build(size), *series.fed(size), repeats) for size in series.sizes]
    line, power = linregress(series.sizes, times), linregress(np.log(series.sizes), np.log(times))
    return {
        "title": series.title, "unit": series.unit, "sizes": list(series.sizes),
        "milliseconds": [round(one, 1) for one in times], "fixed": round(line.intercept, 1),
        "each": round(line.slope, 4), "exponent": round(power.slope, 2),
    }  # fmt: skip


def main() -> None:
    """Print a row a series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(SERIES), default=list(SERIES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON for docs/pictures/performance.py")
    options = parser.parse_args()
    kept: dict[str, Any] = {}
    print(f"CPU time of a score in ms, medians of {options.repeats}")
    for name in options.only:
        row = kept[name] = measured(SERIES[name], options.repeats)
        times = ", ".join(f"{a}: {b:.0f}" for a, b in zip(row["sizes"], row["milliseconds"], strict=True))
        print(
            f"{name:12} exponent {row['exponent']:5.2f}; {row['fixed']:7.1f} and {row['each']:8.4f} a {row['unit']:8} "
            f"{times}   ({row['title']})", flush=True,
        )  # fmt: skip
    if options.output is not None:
        before = json.loads(options.output.read_text()) if options.output.exists() else {}
        before["growth"] = before.get("growth", {}) | kept
        options.output.write_text(json.dumps(before, indent=1) + "\n")


if __name__ == "__main__":
    main()
