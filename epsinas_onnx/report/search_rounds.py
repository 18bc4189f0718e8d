"""Searches compared as a table, JSON and CSV: what each has found after how many architectures."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from epsinas_onnx._util import text
from epsinas_onnx.report.columns import Column, Give, Row, print_rows, put, put_sentence

if TYPE_CHECKING:
    from epsinas_onnx.search.rounds import Rounds

_SHOWN = (1, 10, 30, 100, 300, 1000, 3000)


def to_json(found: Rounds) -> str:
    """Return the record."""
    return text.to_json(found.to_dict())


def to_csv(found: Rounds) -> str:
    """Return a CSV with a header, a line for each search and number of architectures."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(["search", "trained", "low", "median", "high", "regret"])
    for curve in found.curves:
        low, middle, high = (curve.quantile(share) for share in (0.25, 0.5, 0.75))
        regret = np.median(found.regret(curve), axis=0)
        for index in range(len(middle)):
            writer.writerow([str(curve.variant), index + 1, low[index], middle[index], high[index], regret[index]])
    return written.getvalue()


def print_rounds(found: Rounds, console: Console) -> None:
    """Print the median of the best so far for a few numbers of architectures, and quartiles and regret at the end."""
    trials = int(found.settings["trials"])
    shown = [count for count in _SHOWN if count < trials] + [trials]
    titles = [*(f"after {count:,}" for count in shown), "quartiles", "regret"]
    columns = [Column("search", Give.MIDDLE), *(Column(title, right=True) for title in titles)]
    rows = []
    for curve in found.curves:
        low, middle, high = (curve.quantile(share) for share in (0.25, 0.5, 0.75))
        regret = float(np.median(found.regret(curve)[:, -1]))
        ends = f"{low[-1]:.2f} to {high[-1]:.2f}"
        cells = [*(f"{middle[count - 1]:.2f}" for count in shown), ends, f"{regret:.2f}"]
        rows.append(Row([str(curve.variant), *cells]))
    put(f"{found.space}: the best {found.column} so far, median of {found.settings['rounds']:,} rounds", console)
    print_rows(columns, rows, console)
    put("", console)
    for said in sentences(found):
        put_sentence(said, console)


def sentences(found: Rounds) -> list[str]:
    """Return what a reader has to know of the comparison."""
    of = found.settings
    said = [
        f"the best of the {of['architectures']:,} architectures of the table has {found.optimum:.2f}; regret is how "
        "far from it the best so far is after the last",
        f"warm-up of {of['warmup']:,}, population {of['population']}, tournament {of['tournament']}, seed {of['seed']}",
    ]
    said += [f"{name} has a number for {count:,} of {of['architectures']:,}" for name, count in found.scored.items()]
    return [*said, *(f"note: {note}" for note in found.notes)]
