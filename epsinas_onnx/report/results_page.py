"""Results as one page, a ranked set of them too: places side by side, sizes, and a table that sorts and filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from epsinas_onnx._util import names
from epsinas_onnx._util.text import sentence, shown
from epsinas_onnx.ranking.members import COMBINATIONS, EPSINAS
from epsinas_onnx.ranking.result import RankedSet
from epsinas_onnx.report import different_orders
from epsinas_onnx.report.page import escaped, listed, page
from epsinas_onnx.report.rankings import sentences
from epsinas_onnx.report.results_data import Record, columns_of, other_scores, ranked_sets, statuses, to_data
from epsinas_onnx.scoring.result import Status

_SCRIPTS = ("dom.js", "charts.js", "results.js")
_UNPLACED = 50
"""Networks without a place that are listed with the reason; the table has it for all."""


def to_html(
    records: Sequence[Record], *, title: str = "", by: Sequence[Sequence[str]] = (),
    accuracies: Mapping[str, float] | None = None, accuracy: str = "accuracy", notes: Sequence[str] = (),
) -> str:  # fmt: skip
    """Return the page of a set of results.

    records: those of `Score.to_dict()`, or rows of its CSV, each model once. title: of the page. by: scores that rank
    together, several combinations; without any, the named ones whose scores the results hold. accuracies: by model,
    called `accuracy`. notes: what a reader should know, a sentence each.
    """
    sets = ranked_sets(records, by or _known_combinations(records))
    columns = columns_of(records, accuracies or {}, accuracy)
    heading = shown(title) or f"{len(records):,} results"
    said = [*_overview(records), *notes]
    orders = different_orders(value for column in columns if column.key == "order" for value in column.values)
    body = (
        f"<h1>{escaped(heading)}</h1>\n{listed([*said, *([] if orders is None else [orders])])}"
        f"{_CHARTS if len(columns) > 1 else ''}{_ranks(sets)}{_TABLE}"
    )
    return page(heading, body, data=to_data(records, columns, sets), scripts=_SCRIPTS)


def ranking_to_html(ranked: RankedSet, records: Sequence[Record]) -> str:
    """Return the page of a ranked set: its sentences on top, and what has no place and why.

    records: of the set's models, those of `Score.to_dict()` or rows of its CSV, each model once.
    """
    columns = columns_of(records, {}, "")
    heading, *said = sentences(ranked, "the places by one score alone are in the picture")
    body = (
        f"<h1>{escaped(heading)}</h1>\n{listed(said)}{_RANKS}{_without_place(ranked)}{_TABLE}"
        f"{_CHARTS if len(columns) > 1 else ''}"
    )
    return page(heading, body, data=to_data(records, columns, [ranked], members=True), scripts=_SCRIPTS)


def _without_place(ranked: RankedSet) -> str:
    rows = "".join(
        f'<tr><th scope="row" class="name">{escaped(shown(names.escaped(one.model)))}</th>'
        f'<td class="why">{escaped(sentence(one.reason))}</td></tr>\n'
        for one in ranked.unplaced[:_UNPLACED]
    )
    if not rows:
        return ""
    more = len(ranked.unplaced) - _UNPLACED
    rest = f'<p class="note">{more:,} more are in the table below.</p>\n' if more > 0 else ""
    return (
        f'<section aria-labelledby="unplaced-title">\n<h2 id="unplaced-title">Without a place</h2>\n'
        f'<div class="wide"><table><tbody>\n{rows}</tbody></table></div>\n{rest}</section>\n'
    )


def _known_combinations(records: Sequence[Record]) -> list[tuple[str, ...]]:
    known = {EPSINAS, *other_scores(records)}
    return [members for members in COMBINATIONS.values() if known.issuperset(members)]


def _overview(records: Sequence[Record]) -> list[str]:
    counts = statuses(records)
    rest = ", ".join(f"{count:,} {status}" for status, count in counts.items() if status != Status.OK)
    return [f"{counts.get(Status.OK, 0):,} of {len(records):,} scored" + (f" ({rest})" if rest else "")]


def _ranks(sets: Sequence[RankedSet]) -> str:
    said = [text for ranked in sets for text in sentences(ranked)]
    agreement = listed(list(dict.fromkeys(said)))
    return _RANKS + (f"<details><summary>How far the scores agree</summary>{agreement}</details>\n" if said else "")


_CHARTS = """<section id="charts" aria-labelledby="charts-title" hidden>
<h2 id="charts-title">Score against size and accuracy</h2>
<div class="controls"><label>Score <select id="up"></select></label></div>
<div class="charts" id="panels"></div>
<p class="note onscreen">A click on a point shows the model in the table.</p>
</section>
"""
_RANKS = """<section id="ranks" aria-labelledby="ranks-title" hidden>
<h2 id="ranks-title">Places side by side</h2>
<figure>
<div class="wide" id="ranks-wide" tabindex="0" role="group" aria-label="Picture of the places, which scrolls"></div>
<figcaption id="ranks-said"></figcaption></figure>
</section>
"""
_TABLE = """<section aria-labelledby="table-title">
<h2 id="table-title">Models</h2>
<div class="controls" role="group" aria-label="Filter by status" id="statuses"></div>
<div class="controls">
<label>Find <input id="find" type="search" placeholder="in names and reasons" autocomplete="off"></label>
<label id="orders" hidden>Order <select id="order"></select></label>
<label>Rows <select id="rows"><option>25</option><option selected>100</option><option>500</option></select></label>
<button type="button" id="previous">Previous</button>
<span id="where" role="status"></span>
<button type="button" id="next">Next</button>
</div>
<div class="wide" tabindex="0" role="group" aria-label="Table of models, which scrolls">
<table><thead><tr id="head"></tr></thead><tbody id="body"></tbody></table></div>
<p class="note" id="left-out"></p>
</section>
"""
