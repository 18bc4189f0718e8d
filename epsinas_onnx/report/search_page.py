"""A search, or searches compared, as one self-contained HTML page: a picture, a table, and sentences."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from epsinas_onnx._util.install import pip_install
from epsinas_onnx._util.text import shown
from epsinas_onnx.errors import UsageError
from epsinas_onnx.report import number
from epsinas_onnx.report import search_rounds as rounds_text
from epsinas_onnx.report.page import escaped, framed, listed
from epsinas_onnx.search.plots import COLOURS

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from epsinas_onnx.search.results import SearchResult, Tried
    from epsinas_onnx.search.rounds import Rounds

_ROWS = 2000  # of the table
_LONGEST = 100  # characters of a name in the picture
_STYLE = """
.js-plotly-plot text { fill: var(--ink) !important; }
.js-plotly-plot .gridlayer path, .js-plotly-plot .zerolinelayer path { stroke: var(--rule) !important; }
.js-plotly-plot .bg { fill-opacity: 0 !important; }
.js-plotly-plot .hoverlayer text { fill: #ffffff !important; }
.drawn-wide { min-width: 40rem; }
"""
"""Plotly writes its colours into the picture, which is to be as dark or light as the page."""


def check_library() -> None:
    """Raise UsageError where the library that draws the picture is not installed."""
    try:
        import plotly  # noqa: F401
    except ImportError:
        raise UsageError(f"an HTML page needs plotly; run '{pip_install('plots')}'") from None


def to_html(result: SearchResult) -> str:
    """Return the page of a search, which loads nothing; raises UsageError without plotly."""
    check_library()
    title = f"Search of {result.space} for {', '.join(map(str, result.objectives))}"
    ranked = result.ranked()
    front = {one.number for one in result.front()} if len(result.objectives) > 1 else set()
    head = ["#", "architecture", *result.names, "trial", *(["front"] if front else [])]
    rows = [
        [str(place), shown(one.arch, 400), *(number(one.values[name]) for name in result.names), str(one.number)]
        + ([("yes" if one.number in front else "")] if front else [])
        for place, one in enumerate(ranked[:_ROWS], start=1)
    ]
    picture = _draw(_figure(result, ranked, front)) if ranked else ""
    return _page(title, result.sentences(), picture, _table(head, rows, len(ranked) - _ROWS))


def rounds_to_html(found: Rounds) -> str:
    """Return the page of searches compared, which loads nothing; raises UsageError without plotly."""
    check_library()
    import plotly.graph_objects as go

    figure = go.Figure()
    for index, curve in enumerate(found.curves):
        low, middle, high = (curve.quantile(share) for share in (0.25, 0.5, 0.75))
        steps = np.arange(1, len(middle) + 1)
        colour, group = COLOURS[index % len(COLOURS)], str(index)
        band: dict[str, Any] = {"legendgroup": group, "showlegend": False, "hoverinfo": "skip", "mode": "lines"}
        figure.add_scatter(x=steps, y=high, line={"width": 0}, **band)
        figure.add_scatter(x=steps, y=low, line={"width": 0}, fill="tonexty", fillcolor=_faint(colour), **band)
        dash = "dash" if curve.variant.sampler == "random" else "solid"
        figure.add_scatter(
            x=steps, y=middle, mode="lines", name=html.escape(str(curve.variant)), legendgroup=group,
            line={"color": colour, "width": 2, "dash": dash},
        )  # fmt: skip
    figure.update_xaxes(title_text="architectures trained")
    figure.update_yaxes(title_text=html.escape(f"best {found.column} so far"), range=sorted(found.limits()))
    figure.update_layout(legend={"orientation": "h", "y": -0.25})
    title = f"Searches of {found.space} for {found.column}"
    rows = [
        [
            str(place),
            str(one.variant),
            f"{one.quantile(0.5)[-1]:.3f}",
            f"{float(np.median(found.regret(one)[:, -1])):.3f}",
        ]
        for place, one in enumerate(found.curves, start=1)
    ]
    head = ["#", "search", f"median after {found.settings['trials']:,}", "regret"]
    return _page(title, rounds_text.sentences(found), _draw(figure), _table(head, rows, 0))


def _figure(result: SearchResult, ranked: Sequence[Tried], front: set[int]) -> go.Figure:
    import plotly.graph_objects as go

    names = [one.quantity.name for one in result.objectives]
    figure = go.Figure()
    groups = [("tried", "#9a9a9a", [one for one in ranked if one.number not in front])]
    if front:
        groups.append(("Pareto front", "#d62728", [one for one in ranked if one.number in front]))
    for label, colour, ones in groups:
        x = [one.values[names[1]] if len(names) > 1 else one.number for one in ones]
        text = [
            html.escape(shown(one.arch, _LONGEST), quote=False)
            + "".join(f"<br>{name}: {number(one.values[name])}" for name in result.names)
            for one in ones
        ]
        figure.add_scatter(
            x=x, y=[one.values[names[0]] for one in ones], mode="markers", name=label, text=text,
            marker={"color": colour, "size": 7}, hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    if len(names) == 1:
        done = sorted(ranked, key=lambda one: one.number)
        running = (np.minimum if result.objectives[0].minimised else np.maximum).accumulate(
            [o.values[names[0]] for o in done]
        )
        figure.add_scatter(
            x=[one.number for one in done], y=running, mode="lines", name="best so far",
            line={"color": "#d62728", "width": 2, "shape": "hv"},
        )  # fmt: skip
    figure.update_xaxes(title_text=html.escape(names[1] if len(names) > 1 else "trial"))
    figure.update_yaxes(title_text=html.escape(names[0]))
    return figure


def _draw(figure: go.Figure) -> str:
    from plotly.io import to_html as to_page

    clear = "rgba(0,0,0,0)"
    figure.update_layout(
        template="plotly_white",
        height=560,
        margin={"t": 30, "b": 20, "r": 20},
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        modebar={"bgcolor": clear, "color": "#808890", "activecolor": "#808890"},
    )
    # Buttons that offer to send the data to a web site have no place here; a fixed name makes equal pages equal files.
    sending = ["sendDataToCloud", "sendChartToCloud"]
    kept = {"displaylogo": False, "modeBarButtonsToRemove": [*sending, "lasso2d", "select2d"], "responsive": True}
    page: str = to_page(figure, include_plotlyjs=True, full_html=False, div_id="search", config=kept)
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="Picture"><div class="drawn-wide">{page}</div></div>'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left_out: int) -> str:
    looks = ["name" if title in ("architecture", "search") else "" for title in head]
    titles = "".join(
        f'<th scope="col" class="{look}">{escaped(name)}</th>' for name, look in zip(head, looks, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{look}">{escaped(cell)}</td>' for cell, look in zip(row, looks, strict=True))
        + "</tr>\n"
        for row in rows
    )
    more = f"{left_out:,} more are left out here; write CSV or JSON for all of them."
    rest = f'<p class="note">{more}</p>\n' if left_out > 0 else ""
    return (
        '<div class="wide" tabindex="0" role="group" aria-label="Table"><table>'
        f"<thead><tr>{titles}</tr></thead><tbody>\n{body}</tbody></table></div>\n{rest}"
    )


def _page(title: str, sentences: Sequence[str], picture: str, table: str) -> str:
    return framed(title, f"<h1>{escaped(title)}</h1>\n{listed(sentences)}{picture}\n{table}", style=_STYLE)


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.10)"
