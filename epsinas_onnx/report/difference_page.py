"""What changed between two models as one self-contained page: both graphs side by side, what changed in colour."""

from __future__ import annotations

from typing import Any

from epsinas_onnx._util.text import LONGEST_SENTENCE, shown
from epsinas_onnx.compare.align import NodeText
from epsinas_onnx.compare.diff import Difference
from epsinas_onnx.compare.rows import AlignedNode, Fate
from epsinas_onnx.report.difference import facts_of, heading, remarks_of
from epsinas_onnx.report.page import escaped, page

_SCRIPTS = ("dom.js", "difference.js")
_SIGNS = {Fate.REMOVED: "−", Fate.ADDED: "+", Fate.CHANGED: "!", Fate.ROLES: "R", Fate.MOVED: "~", Fate.SAME: "="}
_MEANINGS = {
    Fate.REMOVED: "removed", Fate.ADDED: "added", Fate.CHANGED: "changed", Fate.ROLES: "another role",
    Fate.MOVED: "moved", Fate.SAME: "the same",
}  # fmt: skip


def to_html(found: Difference) -> str:
    """Return the page, which loads nothing, and in which names are text alone."""
    one, two = shown(found.before.model), shown(found.after.model)
    head = "<td></td>" + "".join(f'<th scope="col">{name}</th>' for name in ("before", "after", "change"))
    rows = "".join(
        f'<tr><th scope="row" class="text">{escaped(fact.title)}</th>'
        + "".join(f'<td class="fact">{escaped(shown(text))}</td>' for text in (fact.before, fact.after, fact.change))
        + "</tr>\n"
        for fact in facts_of(found)
    )
    lines = [*(f"{side}: {text}" for side, text in remarks_of(found)), *found.inputs, *found.alignment.outputs]
    said = "".join(f"<li>{escaped(shown(line, LONGEST_SENTENCE))}</li>\n" for line in lines)
    operators = ", ".join(f"{count:+,} {shown(name)}" for name, count in found.counts().items())
    body = (
        f"<h1>{escaped(one)} → {escaped(two)}</h1>\n<p>{escaped(heading(found))}</p>\n"
        f'<div class="wide" tabindex="0" role="group" aria-label="What can be counted, which scrolls"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table>"
        f"</div>\n{f'<ul>{said}</ul>' if said else ''}\n"
        f"{f'<p>Operators: {escaped(operators)}</p>' if operators else ''}\n"
        f"{_GRAPHS}"
    )
    data = {
        "fates": [{"key": fate, "sign": _SIGNS[fate], "means": _MEANINGS[fate]} for fate in _SIGNS],
        "models": [one, two],
        "rows": [_row(node) for node in found.nodes],
    }
    return page(f"{one} → {two}", body, data=data, scripts=_SCRIPTS)


def _row(node: AlignedNode) -> dict[str, Any]:
    """Return a row without what is empty: most nodes of most pairs are the same."""
    row: dict[str, Any] = {"fate": node.fate, "reads": [list(side) for side in node.reads]}
    if node.before is not None:
        row["before"] = _text(node.before)
    if node.after is not None and node.after != node.before:
        row["after"] = _text(node.after)
    elif node.after is not None:
        row["both"] = True
    if node.changes:
        row["changes"] = [shown(change, LONGEST_SENTENCE) for change in node.changes]
    if node.partner is not None:
        row["partner"] = node.partner
    return row


def _text(node: NodeText) -> list[str]:
    return [shown(node.operator), shown(node.name), shown(node.text, LONGEST_SENTENCE)]


_GRAPHS = """<section aria-labelledby="graphs-title">
<h2 id="graphs-title">The two graphs side by side</h2>
<div class="controls" role="group" aria-label="What the colours mean; a button goes to the next such node" id="legend">
</div>
<div class="controls">
<button type="button" id="previous">Previous change</button>
<button type="button" id="next">Next change</button>
<button type="button" id="all" aria-pressed="false">Show equal nodes</button>
<span id="where" role="status"></span>
</div>
<div id="graphs"><div class="sides" aria-hidden="true"><span id="one"></span><span id="two"></span></div>
<div class="drawn"><ol id="nodes"></ol></div></div>
<div id="about" role="region" aria-label="The chosen node" aria-live="polite"></div>
</section>
"""
