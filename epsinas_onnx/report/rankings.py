"""A ranked set as a table, Markdown, JSON and CSV, each with what a stranger has to know to read it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.console import Console

from epsinas_onnx._util import text
from epsinas_onnx._util.names import escaped
from epsinas_onnx._util.text import first_names
from epsinas_onnx.ranking.combine import Pair
from epsinas_onnx.ranking.members import EPSINAS
from epsinas_onnx.ranking.result import Placed, RankedSet, Standing
from epsinas_onnx.report import number
from epsinas_onnx.report.columns import Column, Give, Row, print_rows, put, put_sentence
from epsinas_onnx.report.markup import code_cell, plain

_IN_PARENTHESES = "in parentheses the place by one score alone"


def to_json(ranked: RankedSet) -> str:
    """Return the record."""
    return text.to_json(ranked.to_dict())


def to_csv(ranked: RankedSet) -> str:
    """Return a CSV with a header, a line a network: those with a place first, the best of all on top."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    of_members = [f"{name}.{key}" for name in ranked.members for key in ("value", "place")]
    writer.writerow(["place", "model", "log_rank", "spread", "order", *of_members, "reason"])
    for one in ranked.placed:
        standings = [part for name in ranked.members for part in (one.members[name].value, one.members[name].place)]
        writer.writerow([one.place, escaped(one.model), one.log_rank, one.spread, one.order, *standings, ""])
    for other in ranked.unplaced:
        writer.writerow(["", escaped(other.model), "", "", "", *("" for _ in of_members), escaped(other.reason)])
    return written.getvalue()


def to_markdown(ranked: RankedSet) -> str:
    """Return the table with the sentences that belong to it, to paste into an issue or a document."""
    titles = _titles(ranked)
    lines = [
        "| " + " | ".join(map(plain, titles)) + " |",
        "| " + " | ".join(":-" if title == "model" else "-:" for title in titles) + " |",
    ]
    for one in ranked.placed:
        cells = _cells(one, ranked)
        lines.append("| " + " | ".join([cells[0], code_cell(cells[1]), *map(plain, cells[2:])]) + " |")
    parts = ["\n".join(lines), *(plain(_sentence(said)) for said in sentences(ranked))]
    if ranked.unplaced:
        rows = [f"| {code_cell(escaped(one.model))} | {plain(one.reason)} |" for one in ranked.unplaced]
        parts.append("\n".join(["| without a place | why |", "| :- | :- |", *rows]))
    return "\n\n".join(parts) + "\n"


def print_ranked(ranked: RankedSet, console: Console) -> None:
    """Print the table, what has no place below the rest, and the sentences that belong to it."""
    titles = _titles(ranked)
    columns = [Column(t, Give.MIDDLE if t == "model" else Give.NOTHING, right=t != "model") for t in titles]
    rows = [Row(_cells(one, ranked)) for one in ranked.placed]
    rows += [
        Row(["", escaped(one.model), *("" for _ in titles[2:])], [f"not ranked, {one.reason}"])
        for one in ranked.unplaced
    ]
    print_rows(columns, rows, console)
    put("", console)
    for said in sentences(ranked):
        put_sentence(said, console)


def sentences(ranked: RankedSet, alone: str = _IN_PARENTHESES) -> list[str]:
    """Return what a reader has to know of the ranking: how it came about, how far its scores agree, and what lacks.

    alone: where the places by one score stand.
    """
    found = [f"{len(ranked.placed):,} of {ranked.size:,} networks ranked by {listed(ranked.members) or 'nothing'}"]
    if len(ranked.members) > 1:
        found += [f"place: by the sum over scores of log(rank / n), 1 the best; {alone}", ranked.agreement()]
    if len(ranked.members) > 2:
        found += _extremes(ranked.pairs)
    disputed = ranked.disputed()
    if disputed:
        found.append("they disagree most about " + "; ".join(_dispute(one, ranked) for one in disputed))
    found += [f"left out: {name}, which no network has: {why}" for name, why in ranked.left_out.items()]
    found += [f"note: {note}" for note in ranked.notes]
    return found


def listed(names: Sequence[str]) -> str:
    """Return names as a list in a sentence."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def ordinal(place: int) -> str:
    """Return `1st`, `2nd`, `11th`."""
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place:,}{ending}"


def standing(found: Standing) -> str:
    """Return a number and its place as text."""
    return f"{'none' if found.value is None else number(found.value)} ({found.place:,})"


def _titles(ranked: RankedSet) -> list[str]:
    return ["place", "model", *(["order"] if _shows_order(ranked) else []), *ranked.members]


def _shows_order(ranked: RankedSet) -> bool:
    """Whether epsinas ranks within orders, so that its numbers make no sense without them."""
    return EPSINAS in ranked.members and len({one.order for one in ranked.placed}) > 1


def _cells(one: Placed, ranked: RankedSet) -> list[str]:
    orders = [] if not _shows_order(ranked) else ["" if one.order is None else f"{one.order:g}"]
    return [
        f"{one.place:,}",
        escaped(one.model),
        *orders,
        *(standing(one.members[name]) for name in ranked.members),
    ]


def _dispute(one: Placed, ranked: RankedSet) -> str:
    best = max(ranked.members, key=lambda name: one.members[name].rank)
    worst = min(ranked.members, key=lambda name: one.members[name].rank)
    return (
        f"{first_names([one.model])} ({ordinal(one.members[best].place)} by {best}, "
        f"{ordinal(one.members[worst].place)} by {worst})"
    )


def _extremes(pairs: Sequence[Pair]) -> list[str]:
    """Say which two members agree most and least, by Kendall's tau."""
    known = sorted((pair for pair in pairs if pair.tau is not None), key=lambda pair: pair.tau or 0.0)
    if len(known) < 2:
        return []
    least, most = known[0], known[-1]
    return [
        f"{most.one} and {most.other} agree most (Kendall's tau {most.tau:.2f}), {least.one} and {least.other} least "
        f"({least.tau:.2f})"
    ]


def _sentence(said: str) -> str:
    return said[:1].upper() + said[1:] + "."
