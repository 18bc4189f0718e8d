"""Finished results as text: one file a format."""

from __future__ import annotations

from collections.abc import Sequence

from epsinas_onnx._util.text import without_subject
from epsinas_onnx.scoring.result import Score, Status

ENDINGS = {".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".md": "markdown", ".txt": "table"}


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
    return [*reason, *(f"note: {warning}" for warning in score.warnings)]


def beyond_float32(score: Score) -> str:
    """Return the status that float32 gives where it gives no score and exact arithmetic does, else nothing."""
    other = score.float32_status
    return str(other) if score.score is not None and other is not None and other is not Status.OK else ""


def order(score: Score) -> str:
    """Return the order as text."""
    return "" if score.order is None else f"{score.order:g}"


def scales(scores: Sequence[Score]) -> str | None:
    """Return what a reader should know of scores of different order, None where all have the same."""
    orders = sorted({score.order for score in scores if score.score is not None and score.order is not None})
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
