"""A ranked set as one self-contained HTML page: a picture of the ranks side by side, a table, and sentences."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from epsinas_onnx._util.install import pip_install
from epsinas_onnx._util.text import sentence, shown
from epsinas_onnx.errors import UsageError
from epsinas_onnx.ranking.result import Placed, RankedSet
from epsinas_onnx.report.rankings import listed, sentences, standing

if TYPE_CHECKING:
    import plotly.graph_objects as go

_NAMED = 40  # with more networks, single names don't fit beside a picture
_FIRST = 10  # of those that are more, so many of the best are drawn in colour
_ROWS = 5000  # of the table
_LONGEST = 60  # characters of a name in the picture
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #eee; font-variant-numeric: tabular-nums; }
th:nth-child(2), td:nth-child(2), .why td, .why th { text-align: left; }
td { white-space: nowrap; }
td:nth-child(2) { overflow-wrap: anywhere; white-space: normal; min-width: 9rem; }
li { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.wide > div { min-width: 40rem; }
"""


def check_library() -> None:
    """Raise UsageError where the library that draws the picture is not installed."""
    try:
        import plotly  # noqa: F401
    except ImportError:
        raise UsageError(f"an HTML page needs plotly; run '{pip_install('plots')}'") from None


def to_html(ranked: RankedSet) -> str:
    """Return the page, which loads nothing, and in which names are text alone. Raises UsageError without plotly."""
    check_library()
    title = _escaped(f"{len(ranked.placed):,} networks ranked by {listed(ranked.members) or 'nothing'}")
    said = "".join(f"<li>{_escaped(one[:1].upper() + one[1:])}.</li>\n" for one in sentences(ranked))
    picture = _picture(ranked) if len(ranked.placed) > 1 else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n<ul>\n{said}</ul>\n{picture}\n{_table(ranked)}"
        f"{_without_place(ranked)}</body></html>\n"
    )


def _table(ranked: RankedSet) -> str:
    head = "".join(f"<th>{_escaped(name)}</th>" for name in ["place", "network", *ranked.members])
    rows = []
    for one in ranked.placed[:_ROWS]:
        cells = [f"{one.place:,}", shown(one.model), *(standing(one.members[name]) for name in ranked.members)]
        rows.append("<tr>" + "".join(f"<td>{_escaped(cell)}</td>" for cell in cells) + "</tr>\n")
    more = len(ranked.placed) - _ROWS
    rest = f"<p>{more:,} more are left out here; write CSV or JSON for all of them.</p>\n" if more > 0 else ""
    body = "".join(rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n{rest}'


def _without_place(ranked: RankedSet) -> str:
    if not ranked.unplaced:
        return ""
    rows = "".join(
        f"<tr><td>{_escaped(shown(one.model))}</td><td>{_escaped(sentence(one.reason))}</td></tr>\n"
        for one in ranked.unplaced[:_ROWS]
    )
    return f'<h2>Without a place</h2>\n<table class="why"><tbody>\n{rows}</tbody></table>\n'


def _picture(ranked: RankedSet) -> str:
    """Return lines from each network's place to those of the single scores, the best on top."""
    import plotly.graph_objects as go
    from plotly.io import to_html as to_page

    count = len(ranked.placed)
    columns = ["together", *ranked.members] if len(ranked.members) > 1 else list(ranked.members)
    disputed = {one.model for one in ranked.disputed()}
    figure = go.Figure()
    if count <= _NAMED:
        shown_ones = list(enumerate(ranked.placed))
    else:
        chosen = [i for i, one in enumerate(ranked.placed) if i < _FIRST or one.model in disputed]
        _draw_rest(figure, ranked, columns)
        shown_ones = [(i, ranked.placed[i]) for i in chosen]
    for number, (index, one) in enumerate(shown_ones):
        hue = 360 * number / max(len(shown_ones), 1)
        figure.add_trace(
            go.Scatter(
                x=columns, y=_heights(one, index, count, columns), mode="lines+markers", name=_name(one),
                line={"color": f"hsl({hue:.0f},60%,42%)", "width": 3.5 if one.model in disputed else 1.8},
                text=[_hover(one, column) for column in columns], hovertemplate="%{text}<extra></extra>",
                showlegend=count > _NAMED,
            )
        )  # fmt: skip
    named = count <= _NAMED
    figure.update_yaxes(
        range=[count + 0.5, 0.5], zeroline=False, gridcolor="#eeeeee", automargin=True,
        tickvals=list(range(1, count + 1)) if named else None,
        ticktext=[f"{_name(one)}  {one.place}" for one in ranked.placed] if named else None,
        title_text=None if named else "place",
    )  # fmt: skip
    figure.update_xaxes(side="top", type="category", gridcolor="#cccccc")
    figure.update_layout(
        template="plotly_white", height=max(360, 26 * count if named else 700), margin={"t": 40, "b": 20, "r": 20}
    )
    # A fixed element name makes equal pages equal files.
    # Buttons that offer to send the data to a web site, called differently by version, have no place here.
    sending = ["sendDataToCloud", "sendChartToCloud"]
    kept = {"displaylogo": False, "modeBarButtonsToRemove": [*sending, "lasso2d", "select2d"]}
    page: str = to_page(figure, include_plotlyjs=True, full_html=False, div_id="ranks", config=kept)
    return f'<div class="wide">{page}</div>'


def _draw_rest(figure: go.Figure, ranked: RankedSet, columns: Sequence[str]) -> None:
    """Draw all networks as one thin grey trace, in which gaps part the lines."""
    import plotly.graph_objects as go

    x: list[str | None] = []
    y: list[float | None] = []
    for index, one in enumerate(ranked.placed):
        x += [*columns, None]
        y += [*_heights(one, index, len(ranked.placed), columns), None]
    look: dict[str, Any] = {"color": "rgba(120,120,120,0.15)", "width": 0.7}
    figure.add_trace(go.Scatter(x=x, y=y, mode="lines", line=look, hoverinfo="skip", name="the others"))


def _heights(one: Placed, index: int, count: int, columns: Sequence[str]) -> list[float]:
    """Return where a network stands in each column, 1 on top; equal ones share the middle of their places."""
    return [float(index + 1) if name not in one.members else count + 1 - one.members[name].rank for name in columns]


def _hover(one: Placed, column: str) -> str:
    found = one.members.get(column)
    text = f"place {one.place:,}" if found is None else f"{column}: {standing(found)}"
    return f"{_name(one)}<br>{_escaped(text)}"


def _name(one: Placed) -> str:
    return html.escape(shown(one.model, _LONGEST), quote=False)  # plotly's labels know no &quot;


def _escaped(text: str) -> str:
    return html.escape(text)
