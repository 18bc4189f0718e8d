"""What a store holds, as a table: in the order of coming in, since it is not one set that could be ranked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from rich.console import Console

from epsinas_onnx._util.text import without_subject
from epsinas_onnx.report.columns import Column, Give, Row, print_rows, put_sentence
from epsinas_onnx.scoring.result import Score

_PAGE = 10_000  # rows that columns are made wide enough for at a time


def print_stored(scores: Iterable[Score], console: Console) -> None:
    """Print a row for each result, errors with the reason below, and how many have which status."""
    columns = [
        Column("model", Give.MIDDLE), Column("score", right=True), Column("status"), Column("batch", right=True),
        Column("constants", Give.NAMED), Column("input", Give.NAMED), Column("version", Give.NAMED),
        Column("other scores", Give.NAMED),
    ]  # fmt: skip
    counts: dict[str, int] = {}
    coming = iter(scores)
    while page := list(islice(coming, _PAGE)):
        for score in page:
            counts[score.status] = counts.get(score.status, 0) + 1
        print_rows(columns, [_row(score) for score in page], console)
    total = sum(counts.values())
    said = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items(), key=lambda one: -one[1]))
    put_sentence(f"{total:,} results{f': {said}' if said else ''}", console)


def print_counts(counts: Mapping[str, Mapping[str, int]], console: Console) -> None:
    """Print how many results have which status, by search space; `""` is for models that are of none."""
    statuses = list(dict.fromkeys(status for found in counts.values() for status in found))
    columns = [Column("space"), Column("results", right=True), *(Column(status, right=True) for status in statuses)]
    rows = [
        Row([space or "(files)", f"{sum(found.values()):,}", *(f"{found.get(status, 0):,}" for status in statuses)])
        for space, found in counts.items()
    ]
    print_rows(columns, rows, console)


def _row(score: Score) -> Row:
    constants = ",".join(f"{weight:g}" for weight in score.weights)
    number = "" if score.score is None else f"{score.score:.6g}"
    reason = [] if score.reason is None else [without_subject(score.reason, score.model)]
    return Row(
        [score.model, number, str(score.status), str(score.batch), constants, score.input,
         score.versions.get("epsinas-onnx", ""), " ".join(score.proxies)],
        reason,
    )  # fmt: skip
