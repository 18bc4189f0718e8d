"""How the ranking changes with one thing that scores are computed with: what is fed, samples, or how weights start."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from epsinas_onnx._util.text import to_json as json_text
from epsinas_onnx.evaluation.ranking import Estimate, Ranking
from epsinas_onnx.output.pictures import write_picture
from epsinas_onnx.report.columns import Column, Give, Row, print_rows, put, put_sentence
from epsinas_onnx.report.markup import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOUR = "#4c78a8"


@dataclass(frozen=True)
class Setting:
    """How the scores of one setting rank the networks of a table."""

    name: str
    ranking: Ranking


@dataclass(frozen=True)
class Ablation:
    """Several settings on the same networks.

    what: which thing differs. fixed: what is the same for all, in words. notes: what a reader should know.
    """

    space: str
    column: str
    lower_is_better: bool
    what: str
    fixed: str
    settings: tuple[Setting, ...]
    notes: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """Return what was compared on what, as a sentence."""
        kind = "lower is better" if self.lower_is_better else "higher is better"
        total = max((setting.ranking.total for setting in self.settings), default=0)
        return f"{self.space}, {self.column} ({kind}), {total:,} networks, by {self.what}; {self.fixed}"


def to_json(ablation: Ablation) -> str:
    """Return one record."""
    return json_text(dataclasses.asdict(ablation))


def to_markdown(ablation: Ablation) -> str:
    """Return a table with its headline and notes."""
    titles, rows = _table(ablation)
    lines = [titles, [":-", *("-:" for _ in titles[1:])], *rows]
    table = "\n".join("| " + " | ".join(map(plain, line)) + " |" for line in lines)
    return "\n\n".join([plain(ablation.headline), table, *map(plain, ablation.notes)]) + "\n"


def print_ablation(ablation: Ablation, console: Console) -> None:
    """Print a table with its headline and notes."""
    titles, rows = _table(ablation)
    put_sentence(ablation.headline, console)
    put("", console)
    columns = [
        Column(title, Give.MIDDLE if not index else Give.NOTHING, right=index > 0) for index, title in enumerate(titles)
    ]
    print_rows(columns, [Row(row) for row in rows], console)
    for note in ablation.notes:
        put_sentence(note, console)


def _table(ablation: Ablation) -> tuple[list[str], list[list[str]]]:
    titles = [ablation.what, "scored", "Spearman", "95 % interval", "Kendall", "top tenth"]
    rows = []
    for setting in ablation.settings:
        one = setting.ranking
        rows.append(
            [
                setting.name, f"{one.scored:,} ({one.scored / max(one.total, 1):.1%})", _number(one.spearman.value),
                _interval(one.spearman), _number(one.kendall.value), _number(one.top_share.value, "{:.0%}"),
            ]
        )  # fmt: skip
    return titles, rows


def _number(value: float | None, form: str = "{:.3f}") -> str:
    return "" if value is None else form.format(value)


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:.3f} to {estimate.high:.3f}"


def draw(path: Path, ablation: Ablation) -> None:
    """Draw Spearman's correlation of every setting, with its interval and its coverage.

    Raises what `write_picture` does.
    """
    write_picture(path, lambda: _figure(ablation))


def _figure(ablation: Ablation) -> Figure:
    from matplotlib.figure import Figure

    settings = ablation.settings
    figure = Figure(figsize=(max(4.8, 1.0 + 0.85 * len(settings)), 3.6), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(settings))
    values = np.array([_or_nan(setting.ranking.spearman.value) for setting in settings])
    low = np.array([_or_nan(setting.ranking.spearman.low) for setting in settings])
    high = np.array([_or_nan(setting.ranking.spearman.high) for setting in settings])
    has = np.isfinite(values)
    spread = np.nan_to_num(np.maximum(0.0, np.array([values - low, high - values])))
    axes.errorbar(places[has], values[has], spread[:, has], fmt="o", color=_COLOUR, capsize=3)
    for place, value in zip(places[has], values[has], strict=True):
        axes.annotate(f"{value:.2f}", (place, value), (7, 0), textcoords="offset points", va="center")
    axes.axhline(0.0, color="#9a9a9a", linewidth=0.8)
    axes.set_xticks(places, [f"{_short(s.name)}\n{_share(s.ranking)}" for s in settings])
    axes.set_xlim(-0.5, len(settings) - 0.3)
    axes.set_ylim(min(0.0, float(np.nanmin(low, initial=0.0))) - 0.05, 1.05)
    if ablation.lower_is_better:
        axes.set_ylim(-1.05, max(0.0, float(np.nanmax(high, initial=0.0))) + 0.05)
    axes.grid(axis="y", color="#e0e0e0")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(f"{ablation.what}, and networks scored")
    axes.set_ylabel("Spearman over those")
    axes.set_title(f"{ablation.space}, {ablation.column}", fontsize=9)
    return figure


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _share(ranking: Ranking) -> str:
    return f"{ranking.scored / max(ranking.total, 1):.0%}"


def _short(name: str) -> str:
    return name if len(name) <= 12 else f"{name[:11]}…"
