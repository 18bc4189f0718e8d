"""Which constants suit a set of networks, as text: tables for a terminal, Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from epsinas_onnx._util.text import to_json as json_text
from epsinas_onnx.constants.choose import PairCoverage
from epsinas_onnx.constants.result import FoundWeights
from epsinas_onnx.report.columns import Column, Row, print_rows, put, put_sentence
from epsinas_onnx.report.markup import plain

_FIELDS = ("first", "second", "scored", "total", "coverage", "spearman", "kendall", "ranked", "statuses")
_COVERAGE = "networks scored with each pair"
_SPEARMAN = "Spearman with the accuracies, over the networks that each pair scores"


def to_json(found: FoundWeights) -> str:
    """Return one record: the choice, and every pair."""
    return json_text(found.to_dict())


def to_csv(found: FoundWeights) -> str:
    """Return a CSV with a header and a line for each pair."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(_FIELDS)
    for pair in found.pairs:
        statuses = " ".join(f"{status}={count}" for status, count in pair.statuses.items())
        writer.writerow(
            [
                *map(repr, pair.weights), pair.scored, pair.total, round(pair.coverage, 6), pair.spearman, pair.kendall,
                pair.ranked, statuses,
            ]
        )  # fmt: skip
    return written.getvalue()


def to_markdown(found: FoundWeights) -> str:
    """Return the choice, and a table a figure with the smaller constants down and the larger ones across."""
    parts = [plain(headline(found)), plain(chosen(found))]
    for title, cell in _figures(found):
        titles, rows = _matrix(found, cell)
        lines = [titles, ["-:"] * len(titles), *rows]
        parts += [title, "\n".join("| " + " | ".join(line) + " |" for line in lines)]
    return "\n\n".join(parts) + "\n"


def print_found(found: FoundWeights, console: Console) -> None:
    """Print the choice and the tables; on a terminal the pair that was chosen is bold."""
    put_sentence(headline(found), console)
    for title, cell in _figures(found):
        put("", console)
        put_sentence(title, console)
        titles, rows = _matrix(found, cell)
        marked = [Row([_marked(found, i, j, text) for j, text in enumerate(row)]) for i, row in enumerate(rows)]
        print_rows([Column(title, right=True) for title in titles], marked, console)
    put("", console)
    put_sentence(chosen(found), console)
    for network in found.failed[:_MOST_FAILED]:
        put_sentence(f"not run: {network.reason}", console)
    if len(found.failed) > _MOST_FAILED:
        put_sentence(f"and {len(found.failed) - _MOST_FAILED} others were not run", console)


_MOST_FAILED = 5


def headline(found: FoundWeights) -> str:
    """Return what was run, in words."""
    ran = len(found.networks) - len(found.failed)
    count = f"{ran:,} network" + ("" if ran == 1 else "s")
    fed = f", input {found.input}, batch {found.batch}" if ran else ""
    return f"{count}, {len(found.constants)} constants, {len(found.pairs)} pairs, arithmetic {found.arithmetic}{fed}"


def chosen(found: FoundWeights) -> str:
    """Return the pair and why, in words."""
    if found.weights is None:
        return found.reason
    return f"weights {as_option(found.weights)}: {found.reason}"


def as_option(weights: tuple[float, float]) -> str:
    """Return a pair as `--weights` takes it."""
    return ",".join(f"{weight:g}" for weight in weights)


def _figures(found: FoundWeights) -> list[tuple[str, Callable[[PairCoverage], str]]]:
    if len(found.failed) == len(found.networks):
        return []
    figures: list[tuple[str, Callable[[PairCoverage], str]]] = [(_COVERAGE, _percent)]
    if found.by == "correlation":
        figures.append((_SPEARMAN, _correlation))
    return figures


def _percent(pair: PairCoverage) -> str:
    return f"{pair.coverage:.1%}"


def _correlation(pair: PairCoverage) -> str:
    return "" if pair.spearman is None else f"{pair.spearman:.3f}"


def _matrix(found: FoundWeights, cell: Callable[[PairCoverage], str]) -> tuple[list[str], list[list[str]]]:
    of = {pair.weights: cell(pair) for pair in found.pairs}
    lower, upper = found.constants[:-1], found.constants[1:]
    rows = [[f"{low:g}", *(of.get((low, high), "") for high in upper)] for low in lower]
    return ["", *(f"{high:g}" for high in upper)], rows


def _marked(found: FoundWeights, row: int, column: int, text: str) -> str | Text:
    if column == 0:
        return Text(text, style="bold")
    is_chosen = found.weights == (found.constants[row], found.constants[column])
    return Text(text, style="bold green") if is_chosen else text
