"""Finished results as text: one file a format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from epsinas_onnx._util.text import without_subject
from epsinas_onnx.scoring.result import Score, Status

ENDINGS = {
    ".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".md": "markdown", ".txt": "table", ".html": "html",
    ".htm": "html",
}  # fmt: skip


_MOST_COUNTED = 10**15
_PLACES = 6
"""Decimals to which scores are shown."""


def ranked(scores: Sequence[Score]) -> list[Score]:
    """Return the scored models, best first, then the unscored and then the failed ones, each in their order.

    Scores that are shown alike stay in their order, because what tells them apart is rounding.
    """
    scored = sorted((s for s in scores if s.score is not None), key=lambda s: -round(s.score or 0.0, _PLACES))
    unscored = [s for s in scores if s.score is None and s.status is not Status.ERROR]
    return [*scored, *unscored, *(s for s in scores if s.status is Status.ERROR)]


def remarks(score: Score) -> list[str]:
    """Return a score's reason and its warnings, a sentence each, without the file's name, which stands beside them."""
    reason = [] if score.reason is None else [without_subject(score.reason, score.model)]
    return [*reason, *other_remarks(score), *(f"note: {warning}" for warning in score.warnings)]


def beyond_float32(score: Score) -> str:
    """Return the status that float32 gives where it gives no score and exact arithmetic does, else nothing."""
    other = score.float32_status
    return str(other) if score.score is not None and other is not None and other is not Status.OK else ""


def order(score: Score) -> str:
    """Return the order as text."""
    return "" if score.order is None else f"{score.order:g}"


def others(scores: Sequence[Score]) -> list[str]:
    """Return the names of the other scores that any of these has, in the order they were asked for."""
    return list(dict.fromkeys(name for score in scores for name in score.proxies))


def other(score: Score, name: str) -> str:
    """Return the number of another score as text, or its status where there is none, or nothing."""
    found = score.proxies.get(name)
    if found is None:
        return ""
    return str(found.status) if found.value is None else number(found.value)


def number(value: float) -> str:
    """Return a number as a person reads it: a count in full, six digits of any other."""
    whole = value == int(value) and 10 <= abs(value) < _MOST_COUNTED
    return f"{int(value):,}" if whole else f"{value:.6g}"


def other_remarks(score: Score) -> list[str]:
    """Return why other scores have no number, a sentence for those that say the same."""
    told: dict[str, list[str]] = {}
    for name, found in score.proxies.items():
        if found.value is None:
            told.setdefault(without_subject(found.reason or str(found.status), score.model), []).append(name)
    return [f"{', '.join(names)}: {why}" for why, names in told.items()]


def scales(scores: Sequence[Score]) -> str | None:
    """Return what a reader should know of scores of different order, None where all have the same."""
    return different_orders(score.order for score in scores if score.score is not None)


def different_orders(given: Iterable[float | None]) -> str | None:
    """Return what a reader should know of scores of these orders, None where all are the same."""
    orders = sorted({order for order in given if order is not None})
    if len(orders) < 2:
        return None
    return (
        f"orders from {orders[0]:g} to {orders[-1]:g}: scores of different order lie on different scales, so compare "
        f"those of one order"
    )


def coverage(scores: Sequence[Score]) -> str:
    """Return how many models were scored, and how many not for which reason, as a sentence."""
    counts: dict[Status, int] = {}
    for score in scores:
        counts[score.status] = counts.get(score.status, 0) + 1
    rest = ", ".join(f"{count} {status}" for status, count in counts.items() if status is not Status.OK)
    return f"{counts.get(Status.OK, 0)} of {len(scores)} scored" + (f" ({rest})" if rest else "")
