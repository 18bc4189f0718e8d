"""An evaluation as text: tables for a terminal, Markdown, and a record for programs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from rich.console import Console

from epsinas_onnx.evaluation.outcome import Outcome
from epsinas_onnx.evaluation.ranking import BEST, Estimate, Ranking
from epsinas_onnx.report.columns import Column, Give, Row, print_rows, put, put_sentence
from epsinas_onnx.report.markup import code_cell, plain

_PLACES = {"best": "{:.0f}", "top_share": "{:.0%}"}

_GIVES = {"statistic": Give.LINES, "score": Give.MIDDLE, "architecture": Give.WHOLE}
"""What columns of text do on a narrow terminal; the others hold numbers."""

Rows = list[list[str]]

_OF_ORDERS = ("spearman", "kendall", "top_share")
_ALONE = "each score over the architectures that it puts in a place, with 95 % intervals"
_ORDERS = "by order: networks of different order lie on different scales, so that their scores compare within one order"


def to_record(outcome: Outcome, top: int = 0) -> dict[str, Any]:
    """Return plain JSON types; numbers that are not defined are None."""
    comparison = outcome.comparison
    return {
        "space": outcome.space,
        "column": outcome.column,
        "lower_is_better": outcome.lower_is_better,
        "name": outcome.name,
        "scores": outcome.scores.source,
        "statuses": dict(outcome.scores.statuses),
        **_plain(dataclasses.asdict(outcome.ranking)),
        "paper": None if outcome.paper is None else {**outcome.paper.values, "remark": outcome.paper.remark},
        "float32": None if outcome.published is None else _plain(dataclasses.asdict(outcome.published)),
        "orders": [
            {"order": order, **_plain(dataclasses.asdict(ranking))} for order, ranking in outcome.by_order.items()
        ],
        "alone": [{"name": name, **_plain(dataclasses.asdict(one))} for name, one in outcome.alone.items()],
        "agreement": outcome.agreement,
        "comparison": None if comparison is None else _plain(dataclasses.asdict(comparison)),
        "top": [dataclasses.asdict(architecture) for architecture in outcome.best(top)],
    }


def to_markdown(outcome: Outcome, top: int = 0) -> str:
    """Return the evaluation as Markdown tables with a line of coverage."""
    parts = [f"{plain(_headline(outcome))}\n\n{plain(outcome.coverage())}", _markdown(*_statistics(outcome))]
    if outcome.paper is not None:
        parts.append(f"Paper: {plain(outcome.paper.remark)}.")
    if outcome.by_order:
        parts += [_ORDERS, _markdown(*_orders(outcome))]
    if outcome.agreement is not None:
        parts.append(f"{plain(outcome.agreement)}.")
    if outcome.alone:
        parts += [_ALONE, _markdown(*_alone(outcome))]
    if outcome.comparison is not None:
        parts += [_common(outcome), _markdown(*_proxies(outcome))]
    if top:
        parts.append(_markdown(*_best(outcome, top)))
    return "\n\n".join(parts)


def print_outcome(outcome: Outcome, top: int, console: Console) -> None:
    """Print the evaluation as tables."""
    put_sentence(_headline(outcome), console)
    put_sentence(f"coverage: {outcome.coverage()}", console)
    put("", console)
    _print(*_statistics(outcome), console)
    if outcome.paper is not None:
        put_sentence(f"paper: {outcome.paper.remark}", console)
    if outcome.by_order:
        put("", console)
        put_sentence(_ORDERS, console)
        _print(*_orders(outcome), console)
    if outcome.agreement is not None:
        put("", console)
        put_sentence(outcome.agreement, console)
    if outcome.alone:
        put("", console)
        put_sentence(_ALONE, console)
        _print(*_alone(outcome), console)
    if outcome.comparison is not None:
        put("", console)
        put_sentence(_common(outcome), console)
        _print(*_proxies(outcome), console)
    if top:
        put("", console)
        _print(*_best(outcome, top), console)


def _headline(outcome: Outcome) -> str:
    kind = "lower is better" if outcome.lower_is_better else "higher is better"
    return f"{outcome.space}, {outcome.column} ({kind}), scores: {outcome.scores.source}"


def _common(outcome: Outcome) -> str:
    assert outcome.comparison is not None
    return (
        f"the same {outcome.comparison.common:,} of {outcome.comparison.total:,} architectures, those with every "
        f"score; z and p of Steiger's test of Spearman against the first"
    )


def _statistics(outcome: Outcome) -> tuple[list[str], Rows]:
    better = "lowest" if outcome.lower_is_better else "highest"
    best = min(BEST, outcome.ranking.scored)
    labels = {
        "spearman": "Spearman, all scored",
        "kendall": "Kendall, all scored",
        "top_spearman": f"Spearman, the tenth with the {better} {outcome.column}",
        "top_kendall": f"Kendall, the tenth with the {better} {outcome.column}",
        "top_share": f"of the best-scored tenth, in the tenth with the {better} {outcome.column}",
        "best": f"of the {best} best-scored, in the twentieth with the {better} {outcome.column}",
    }
    titles = ["statistic", "value", "95 % interval"]
    rows = [[label, *_estimate(outcome.ranking, name)] for name, label in labels.items()]
    if outcome.published is not None:
        titles += ["in float32", "95 % interval"]
        rows = [[*row, *_estimate(outcome.published, name)] for row, name in zip(rows, labels, strict=True)]
    if outcome.paper is not None:
        titles.append("paper")
        rows = [[*row, _paper(name, outcome.paper.values.get(name))] for row, name in zip(rows, labels, strict=True)]
    return titles, rows


def _estimate(ranking: Ranking, name: str) -> tuple[str, str]:
    """Return a statistic and its interval."""
    estimate: Estimate = getattr(ranking, name)
    if estimate.low is None or estimate.high is None:
        return _number(name, estimate.value), ""
    return _number(name, estimate.value), f"{_number(name, estimate.low)} to {_number(name, estimate.high)}"


def _orders(outcome: Outcome) -> tuple[list[str], Rows]:
    rows = [
        [f"{order:g}", f"{ranking.scored:,}", *(_number(name, getattr(ranking, name).value) for name in _OF_ORDERS)]
        for order, ranking in outcome.by_order.items()
    ]
    return ["order", "scored", "Spearman", "Kendall", "top tenth"], rows


def _alone(outcome: Outcome) -> tuple[list[str], Rows]:
    rows = [
        [
            name,
            f"{one.scored:,} ({one.scored / max(one.total, 1):.1%})",
            *(_with_interval(key, getattr(one, key)) for key in ("spearman", "kendall", "top_share", "best")),
        ]
        for name, one in outcome.alone.items()
    ]
    return ["score", "scored", "Spearman", "Kendall", "top tenth", f"{BEST} best"], rows


def _with_interval(name: str, found: Estimate) -> str:
    value = _number(name, found.value)
    if found.low is None or found.high is None:
        return value
    return f"{value} ({_number(name, found.low)} to {_number(name, found.high)})"


def _proxies(outcome: Outcome) -> tuple[list[str], Rows]:
    assert outcome.comparison is not None
    rows = [
        [
            proxy.name, f"{proxy.scored:,}", _number("spearman", proxy.spearman), _number("kendall", proxy.kendall),
            _number("top_share", proxy.top_share), _number("best", proxy.best),
            "" if proxy.z is None else f"{proxy.z:.2f}", _probability(proxy.p),
        ]
        for proxy in outcome.comparison.proxies
    ]  # fmt: skip
    best = min(BEST, outcome.comparison.common)
    return ["score", "scored alone", "Spearman", "Kendall", "top tenth", f"{best} best", "z", "p"], rows


def _best(outcome: Outcome, top: int) -> tuple[list[str], Rows]:
    rows = []
    for rank, found in enumerate(outcome.best(top), start=1):
        parameters = "" if found.parameters is None else f"{found.parameters:,}"
        rows.append([str(rank), found.arch, f"{found.score:.6f}", f"{found.accuracy:g}", parameters])
    return ["#", "architecture", "score", outcome.column, "parameters"], rows


def _probability(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2g}" if value >= 1e-300 else "<1e-300"


def _number(name: str, value: float | None) -> str:
    return "" if value is None else _PLACES.get(name, "{:.3f}").format(value)


def _paper(name: str, value: float | None) -> str:
    return "" if value is None else _PLACES.get(name, "{:.2f}").format(value)


def _markdown(titles: list[str], rows: Rows) -> str:
    aligned = [":-" if title in _GIVES else "-:" for title in titles]
    cells = [
        [code_cell(c) if t == "architecture" else plain(c) for t, c in zip(titles, row, strict=True)] for row in rows
    ]
    lines = [list(map(plain, titles)), aligned, *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _print(titles: list[str], rows: Rows, console: Console) -> None:
    columns = [Column(title, _GIVES.get(title, Give.NOTHING), right=title not in _GIVES) for title in titles]
    print_rows(columns, [Row(row) for row in rows], console)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
