"""Pictures of an evaluation: score against accuracy, static with matplotlib and interactive with plotly."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epsinas_onnx._util.install import pip_install
from epsinas_onnx.errors import UsageError
from epsinas_onnx.evaluation.ranking import FloatArray
from epsinas_onnx.output.files import write_output
from epsinas_onnx.output.pictures import STATIC, write_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = "viridis"
_GREY = "#9a9a9a"
_WIDE = 50.0  # scores that span a larger ratio are drawn on a logarithmic axis
_LONGEST_LABEL = 400
_LABEL_LINE = 100
_BINS = 60


@dataclass(frozen=True)
class PlotData:
    """What a picture shows: one entry an architecture in each array, scores NaN where there is none.

    parameters: NaN where unknown, None where all are. orders: those of `Score`, None where all have the same: scores of
    different order lie on different scales, and are coloured by it rather than by parameters. title, subtitle: above
    the picture.
    """

    scores: FloatArray = field(repr=False)
    accuracies: FloatArray = field(repr=False)
    parameters: FloatArray | None = field(repr=False)
    labels: Sequence[str] = field(repr=False)
    title: str
    subtitle: str
    x_label: str
    y_label: str
    orders: FloatArray | None = field(default=None, repr=False)


def plot(path: Path, data: PlotData) -> None:
    """Draw `data` into `path`: .png, .pdf and .svg with matplotlib, .html with plotly, in one file without a network.

    Architectures without a score are shown as a histogram of their accuracies beside the points.

    Raises UsageError for another ending and where the library is missing, OutputError where the file cannot be written.
    """
    check_ending(path)
    if path.suffix.lower() != ".html":
        write_picture(path, lambda: _static(data))
        return
    try:
        drawn = _interactive(data)
    except ImportError as error:
        raise UsageError(f"plots need {error.name}; run '{pip_install('plots')}'") from None
    write_output(path, drawn)


def check_ending(path: Path) -> None:
    """Raise UsageError for a file whose ending says no format of a picture."""
    if path.suffix.lower() not in (*STATIC, ".html"):
        raise UsageError(f"{path}: a plot is a {', '.join(STATIC)} or .html file")


@dataclass(frozen=True)
class _View:
    """What is drawn where: indices into the data, and the axes that show nearly all of it.

    shown: architectures with a score. unscored: those with an accuracy alone. x: where each shown one lies. limits: of
    the accuracies. notes: what the axes leave out or move.
    """

    shown: Any
    unscored: Any
    x: FloatArray
    is_log: bool
    limits: tuple[float, float]
    notes: str


def _view(data: PlotData) -> _View:
    known = np.isfinite(data.accuracies)
    has = np.isfinite(data.scores)
    shown, unscored = np.flatnonzero(has & known), np.flatnonzero(~has & known)
    x = data.scores[shown]
    notes = []
    is_log = _is_wide(x)
    if is_log and x.min() <= 0:
        smallest = x[x > 0].min()
        notes.append(f"{int((x <= 0).sum()):,} scores of 0 at the left edge")
        x = np.where(x <= 0, smallest / 2, x)
    limits = _limits(data.accuracies[known])
    beyond = int(((data.accuracies[known] < limits[0]) | (data.accuracies[known] > limits[1])).sum())
    if beyond:
        notes.append(f"{beyond:,} beyond the axis")
    return _View(shown, unscored, x, is_log, limits, ", ".join(notes))


def _by_order(data: PlotData, view: _View) -> list[tuple[str, str, Any]]:
    """Return for each order its name, its colour and which of the shown have it; nothing where all have the same."""
    if data.orders is None:
        return []
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    of_shown = data.orders[view.shown]
    found = sorted(set(of_shown[np.isfinite(of_shown)].tolist()))
    colours = mpl.colormaps[_COLOURS](np.linspace(0.1, 0.9, len(found)))
    groups = []
    for order, colour in zip(found, colours, strict=True):
        chosen = np.flatnonzero(of_shown == order)
        groups.append((f"order {order:g} ({len(chosen):,})", to_hex(colour), chosen))
    return groups


def _is_wide(scores: FloatArray) -> bool:
    """Whether the positive scores, their outermost hundredths aside, need a logarithmic axis."""
    positive = scores[scores > 0]
    if len(positive) < max(2, len(scores) / 2):
        return False
    low, high = np.quantile(positive, [0.01, 0.99])
    return bool(high / low > _WIDE)


def _limits(accuracies: FloatArray) -> tuple[float, float]:
    """Return a range with all accuracies but single ones far away, which would squeeze the rest."""
    low, high = float(accuracies.min()), float(accuracies.max())
    inner_low, inner_high = np.quantile(accuracies, [0.005, 0.995])
    span = float(inner_high - inner_low) or high - low or 1.0
    low, high = max(low, float(inner_low) - span / 2), min(high, float(inner_high) + span / 2)
    return low - 0.03 * span, high + 0.03 * span


def _subtitle(data: PlotData, view: _View, separator: str) -> str:
    return data.subtitle + (separator + view.notes if view.notes else "")


def _ticks(counts: FloatArray) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten within the range of parameter counts, the ends where there are none."""
    low, high = float(np.nanmin(counts)), float(np.nanmax(counts))
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 5) if low <= step * 10.0**power <= high]
    return ticks or sorted({low, high})


def _static(data: PlotData) -> Figure:
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    view = _view(data)
    colours = None if data.parameters is None else data.parameters[view.shown]
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    grid = figure.add_gridspec(1, 2, width_ratios=[1, 8])
    axes = figure.add_subplot(grid[1] if len(view.unscored) else grid[:])
    groups = _by_order(data, view)
    look: dict[str, Any] = {"s": _size(len(view.shown)), "alpha": 0.6, "linewidths": 0, "rasterized": True}
    for name, colour, chosen in groups:
        axes.scatter(view.x[chosen], data.accuracies[view.shown][chosen], c=colour, label=name, **look)
    if groups:
        legend = axes.legend(loc="lower right", markerscale=3, frameon=False)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)
    else:
        points = axes.scatter(
            view.x, data.accuracies[view.shown], c=_GREY if colours is None else colours,
            cmap=None if colours is None else _COLOURS, norm=None if colours is None else LogNorm(), **look,
        )  # fmt: skip
    if not groups and colours is not None and len(colours):
        ticks = _ticks(colours)
        bar = figure.colorbar(points, ax=axes, label="parameters", ticks=ticks)
        bar.ax.minorticks_off()
        bar.ax.set_yticklabels([_short(tick) for tick in ticks])
        if bar.solids is not None:
            bar.solids.set_alpha(1)
    if view.is_log:
        axes.set_xscale("log")
    axes.set_ylim(*view.limits)
    axes.set_xlabel(data.x_label)
    left = axes
    if len(view.unscored):
        left = figure.add_subplot(grid[0], sharey=axes)
        edges = np.linspace(*view.limits, _BINS + 1)
        left.hist(data.accuracies[view.unscored], bins=edges.tolist(), orientation="horizontal", color=_GREY)
        left.invert_xaxis()
        left.set_xlabel(f"{len(view.unscored):,}\nunscored")
        left.tick_params(axis="x", labelbottom=False, bottom=False)
        axes.tick_params(axis="y", left=False, labelleft=False)
    left.set_ylabel(data.y_label)
    for one in {axes, left}:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(visible=True, color="#e6e6e6", linewidth=0.6)
    figure.suptitle(data.title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    axes.set_title(_subtitle(data, view, "\n"), fontsize=9, color="#555555", loc="left")
    return figure


def _interactive(data: PlotData) -> str:
    import plotly.graph_objects as go
    from plotly.io import to_html
    from plotly.subplots import make_subplots

    view = _view(data)
    figure = make_subplots(cols=2, shared_yaxes=True, column_widths=[0.1, 0.9], horizontal_spacing=0.01)
    low, high = view.limits
    bins = {"start": low, "end": high, "size": (high - low) / _BINS}
    figure.add_trace(
        go.Histogram(
            y=_rounded(data.accuracies[view.unscored]), marker_color=_GREY, ybins=bins,
            hovertemplate="%{x} unscored<extra></extra>", showlegend=False,
        ),
        row=1, col=1,
    )  # fmt: skip
    marker: dict[str, Any] = {"size": 6, "opacity": 0.7, "color": _GREY}
    counts = np.full(len(view.shown), np.nan) if data.parameters is None else data.parameters[view.shown]
    if np.isfinite(counts).any():
        ticks = _ticks(counts)
        bar = {"title": "parameters", "tickvals": np.log10(ticks).tolist(), "ticktext": [_short(t) for t in ticks]}
        marker |= {"color": np.log10(counts).round(3), "colorscale": "Viridis", "colorbar": bar}
    hover = [
        f"{_label(data.labels[index])}<br>score: {data.scores[index]:.6g}<br>parameters: {_count(count)}"
        for index, count in zip(view.shown, counts, strict=True)
    ]
    groups = _by_order(data, view)
    for name, colour, chosen in groups or [("", "", np.arange(len(view.shown)))]:
        own = {"size": 6, "opacity": 0.7, "color": colour} if groups else marker
        figure.add_trace(
            go.Scattergl(
                x=_rounded(view.x[chosen]), y=_rounded(data.accuracies[view.shown][chosen]), mode="markers", marker=own,
                name=name, text=[hover[index] for index in chosen], showlegend=bool(groups),
                hovertemplate=f"%{{text}}<br>{_escaped(data.y_label)}: %{{y}}<extra></extra>",
            ),
            row=1, col=2,
        )  # fmt: skip
    kind = "log" if view.is_log else "linear"
    ticks_by_ten = {"dtick": 1, "exponentformat": "power"} if view.is_log else {}
    figure.update_xaxes(title_text=_escaped(data.x_label), type=kind, row=1, col=2, **ticks_by_ten)
    left = f"{len(view.unscored):,}<br>unscored"
    figure.update_xaxes(autorange="reversed", showticklabels=False, title_text=left, row=1, col=1)
    figure.update_yaxes(range=[low, high])
    figure.update_yaxes(title_text=_escaped(data.y_label), row=1, col=1)
    title = f"<b>{_escaped(data.title)}</b><br><sup>{_escaped(_subtitle(data, view, '; '))}</sup>"
    figure.update_layout(title=title, template="plotly_white", showlegend=bool(groups), bargap=0)
    # A fixed element name makes equal pictures equal files.
    page: str = to_html(figure, include_plotlyjs=True, full_html=True, div_id="evaluation", post_script=_SCRIPT)
    return page


# Browsers on remote desktops and virtual machines often lack WebGL, and would show an empty plot; the page's own margin
# would make a full-height plot scroll.
_SCRIPT = """
document.body.style.margin = 0;
if (!document.createElement("canvas").getContext("webgl")) {
  const range = document.getElementById("{plot_id}").layout.yaxis.range.slice();
  Plotly.update("{plot_id}", {type: "scatter"}, {"yaxis.range": range}, [1]);
}
"""


def _size(points: int) -> float:
    """Return the area of a marker: thousands of points need small ones."""
    return float(np.clip(30_000 / max(points, 1), 4, 30))


def _rounded(values: FloatArray) -> list[float]:
    """Return six significant digits, which halves the file."""
    return [float(f"{value:.6g}") for value in values]


def _label(text: str) -> str:
    """Return a text for plotly's labels, which know no &quot;, in lines that fit into a window."""
    short = text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 3] + "..."
    lines = (short[start : start + _LABEL_LINE] for start in range(0, len(short), _LABEL_LINE))
    return "<br>".join(_escaped(line) for line in lines)


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def _count(value: float) -> str:
    return f"{int(value):,}" if np.isfinite(value) else "unknown"


def _short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
