"""An explanation as one self-contained HTML page: what happened in words, curves, shares, and the graph in layers."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib.resources import files
from typing import Any

from epsinas_onnx._util.text import sentence, shown
from epsinas_onnx.explanation.modules import Branch, module_tree, rows
from epsinas_onnx.explanation.result import Explanation, Observed
from epsinas_onnx.report.explanation import power, summary
from epsinas_onnx.report.layers import columns


def to_html(found: Explanation) -> str:
    """Return the page; it loads nothing, and names in it are text alone, for readers and for its script."""
    script, style = _part("explanation.js"), _part("explanation.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Whatever a name might do, the browser runs this script alone and fetches nothing.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    title = _escaped(f"Where the signal goes: {shown(found.model)}")
    ends = any(ending.node for ending in found.endings)
    first, second = (f"{constant:g}" for constant in found.weights)
    jump = '<button id="lost" type="button">Go to where it ends</button>' if ends else ""
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style></head>
<body>
<main>
<h1>{title}</h1>
{_said(found)}
<section aria-labelledby="curves-title">
<h2 id="curves-title">Magnitude through depth</h2>
<p class="legend"><span class="first">weights {first}</span> <span class="second">weights {second}</span>
<span class="solid">largest magnitude</span> <span class="dashed">how far samples differ</span></p>
<div id="curves" class="chart"></div>
<p id="reading" class="note" aria-live="polite">The scale is logarithmic; a grey line is where float32 ends.</p>
</section>
{_shares(found)}
<section aria-labelledby="graph-title">
<h2 id="graph-title">The graph</h2>
<p class="note">A row for each depth. The left half of a box is coloured by the magnitude with weights {first}, the
right half with weights {second}; hatched means that samples do not differ. A dashed box
lies in the body of an If, a Loop or a Scan. Arrow keys go from value to value.</p>
<p class="tools"><label>Find <input id="find" type="search" placeholder="part of a name, then Enter"></label> {jump}</p>
<div class="panes">
<div id="graph" tabindex="0" role="group" aria-label="graph; arrow keys go from value to value"><div id="space"></div>\
<canvas id="canvas" aria-hidden="true"></canvas></div>
<div id="details" aria-live="polite"><p class="note">Nothing is chosen.</p></div>
</div>
</section>
</main>
<noscript><p>Curves and graph need JavaScript, which comes with this page.</p></noscript>
<script type="application/json" id="data">{_data(found)}</script>
<script>{script}</script>
</body></html>
"""


def _part(name: str) -> str:
    return (files("epsinas_onnx.report") / "pages" / name).read_text(encoding="utf-8")


def _said(found: Explanation) -> str:
    lines = [*summary(found), *(f"note: {warning}" for warning in found.warnings)]
    items = "".join(f"<li>{_escaped(sentence(line))}</li>\n" for line in lines)
    return f'<ul class="said">\n{items}</ul>'


def _shares(found: Explanation) -> str:
    root = module_tree(found)
    shown_rows = rows(root)
    if root.share is None or not shown_rows:
        return ""
    widest = max((abs(branch.module.share or 0.0) for branch in shown_rows), default=0.0) or 1.0
    body = "".join(_share(branch, widest) for branch in shown_rows)
    return f"""<section aria-labelledby="shares-title">
<h2 id="shares-title">What each layer contributes to the score</h2>
<p class="note">How much the dispersion between both constants grows or shrinks in a layer, as part of the score; layers
side by side add up to 100%. A negative part brings the two outputs closer again.</p>
<div class="wide"><table><thead><tr><th scope="col">module</th><th scope="col">nodes</th><th scope="col">share</th>
<th scope="col"><span class="hidden">as a bar</span></th></tr></thead><tbody>
{body}</tbody></table></div>
</section>"""


def _share(branch: Branch, widest: float) -> str:
    module = branch.module
    share = module.share or 0.0
    width, kind = 100 * abs(share) / widest, "minus" if share < 0 else "plus"
    lost = " <strong>the signal ends in here</strong>" if module.lost else ""
    lost += " <strong>float32 ends in here</strong>" if module.lost_in_float32 else ""
    return (
        f'<tr><th scope="row" style="padding-left:{1.2 * branch.level + 0.3:.1f}rem">{_escaped(shown(module.name))}'
        f'{lost}</th><td>{module.nodes:,}</td><td>{100 * share:.1f}%</td><td class="bar">'
        f'<div class="{kind}" style="width:{width:.1f}%"></div></td></tr>\n'
    )


def _data(found: Explanation) -> str:
    """Return what the script reads, as JSON that cannot end its element."""
    index = {value.name: number for number, value in enumerate(found.values)}
    at = columns(found.values)
    lost = {
        ending.node: f"{'float32' if ending is found.lost_in_float32 else 'the signal'} ends here: "
        f"{ending.status}, {ending.reason}"
        for ending in reversed(found.endings) if ending.node
    }  # fmt: skip
    values = [
        {
            "name": shown(value.name), "node": shown(value.node), "operator": shown(value.operator),
            "depth": value.depth, "column": column, "shape": value.shape, "classes": value.classes,
            "operands": [index[name] for name in value.operands], "inside": [shown(name) for name in value.inside],
            "seen": [_seen(seen) for seen in value.observed],
            "dispersion": value.dispersion, "share": value.share,
            "lost": sentence(lost[value.node]) if value.node in lost else None,
        }
        for value, column in zip(found.values, at, strict=True)
    ]  # fmt: skip
    text = json.dumps({"weights": [f"{one:g}" for one in found.weights], "values": values}, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _seen(seen: Observed | None) -> dict[str, Any] | None:
    if seen is None:
        return None
    return {
        "low": str(seen.low), "high": str(seen.high), "magnitude": seen.magnitude, "variation": seen.variation,
        "size": power(seen.magnitude), "varies": power(seen.variation), "finite": seen.finite,
    }  # fmt: skip


def _escaped(text: str) -> str:
    return html.escape(text)
