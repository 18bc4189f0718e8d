"""Results as HTML in a cell of a notebook: short tables that follow its light or dark theme; names are text alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import singledispatch

from epsinas_onnx._util.names import escaped as printable_name
from epsinas_onnx._util.text import sentence, shown
from epsinas_onnx.compare.diff import Difference
from epsinas_onnx.compare.inspect import Inspection
from epsinas_onnx.ranking.result import RankedSet
from epsinas_onnx.report import beyond_float32, order, other, remarks
from epsinas_onnx.report.difference import facts_of, heading, remarks_of, sections_of
from epsinas_onnx.report.page import escaped
from epsinas_onnx.report.rankings import sentences, standing
from epsinas_onnx.scoring.result import Score

_MOST = 20  # rows of a table, since a cell is for a look; to_dataframe has all
_RULE = "border-bottom:1px solid rgba(128,128,128,.35);"
_CELL = f"padding:.15em .8em .15em 0;vertical-align:top;overflow-wrap:anywhere;{_RULE}"
"""Colours are those of the notebook: nothing is said of ink or paper, and rules are see-through grey."""


@singledispatch
def to_html(result: object) -> str:
    """Return a result as HTML that a notebook shows; raises TypeError for what is none."""
    raise TypeError(f"a {type(result).__name__} is no result that a notebook shows")


@to_html.register
def _(result: Score) -> str:
    rows = [
        ("score", "none" if result.score is None else f"{result.score:.6f}"),
        ("status", str(result.status)),
        ("order", order(result)),
        ("in float32", beyond_float32(result)),
        ("parameters", "" if result.parameters is None else f"{result.parameters:,}"),
        ("input", f"{result.batch} samples, {result.input}"),
        ("constants", ", ".join(f"{weight:g}" for weight in result.weights)),
        *((name, other(result, name)) for name in result.proxies),
    ]
    return _framed(result.model, _table((), [(title, text) for title, text in rows if text]) + _listed(remarks(result)))


@to_html.register
def _(result: Inspection) -> str:
    products = "unknown" if result.multiply_adds is None else f"{result.multiply_adds:,}"
    roles = Counter(use.role for use in result.uses)
    rows = [
        ("written by", result.producer),
        ("opset", ", ".join(f"{domain} {version}" for domain, version in result.opset.items())),
        ("nodes", f"{result.nodes:,}"),
        ("parameters", f"{result.parameters:,}"),
        ("multiply-adds of a sample", products),
        ("roles", ", ".join(f"{count:,} {role}" for role, count in roles.items())),
    ]
    fed = [(one.name, one.dtype, "x".join(map(str, one.shape)), one.kind) for one in result.inputs]
    uses = [
        (use.place, use.operator, "unknown" if use.shape is None else "x".join(map(str, use.shape)), use.role, use.rule)
        for use in result.uses
    ]
    return _framed(
        result.model,
        _table((), rows)
        + _table(("input", "type", "will be fed", "values"), fed)
        + _table(("use", "operator", "shape", "role", "rule"), uses)
        + _listed(result.warnings),
    )


@to_html.register
def _(result: Difference) -> str:
    rows = [(fact.title, fact.before, fact.after, fact.change) for fact in facts_of(result)]
    said = [f"{side}: {text}" for side, text in remarks_of(result)]
    lists = "".join(f"<p>{escaped(title)}</p>{_listed(entries)}" for title, entries in sections_of(result))
    title = f"{shown(result.before.model)} → {shown(result.after.model)}"
    return _framed(
        title, _listed([heading(result)]) + _table(("", "before", "after", "change"), rows) + _listed(said) + lists
    )


@to_html.register
def _(result: RankedSet) -> str:
    rows = [
        (f"{one.place:,}", printable_name(one.model), *(standing(one.members[name]) for name in result.members))
        for one in result.placed
    ]
    lacking = [f"not ranked, {printable_name(one.model)}: {one.reason}" for one in result.unplaced]
    return _framed("", _table(("place", "model", *result.members), rows) + _listed([*sentences(result), *lacking]))


def _framed(title: str, inside: str) -> str:
    bold = f"<p><strong>{escaped(shown(title))}</strong></p>" if title else ""
    return f'<div style="max-width:70em;overflow-x:auto;font-variant-numeric:tabular-nums">{bold}{inside}</div>'


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, its first rows; the first cell of a row heads it where the table has no titles."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col" style="text-align:left;{_CELL}">{escaped(shown(title))}</th>' for title in titles)
    body = "".join(f"<tr>{''.join(_cells(row, is_headed=not titles))}</tr>" for row in rows[:_MOST])
    rest = f"<p>and {len(rows) - _MOST:,} more</p>" if len(rows) > _MOST else ""
    look = 'style="border-collapse:collapse;margin:.3em 0"'
    return f"<table {look}>{f'<thead><tr>{head}</tr></thead>' if titles else ''}<tbody>{body}</tbody></table>{rest}"


def _cells(row: Sequence[str], *, is_headed: bool) -> Iterable[str]:
    for index, text in enumerate(row):
        kind = 'th scope="row"' if is_headed and index == 0 else "td"
        yield f'<{kind} style="text-align:left;{_CELL}">{escaped(shown(text))}</{kind.split()[0]}>'


def _listed(texts: Sequence[str]) -> str:
    items = [f"<li>{escaped(sentence(text))}</li>" for text in texts[:_MOST]]
    if len(texts) > _MOST:
        items.append(f"<li>and {len(texts) - _MOST:,} more</li>")
    return f"<ul>{''.join(items)}</ul>" if items else ""
