"""Scores as a Markdown table, ranked, to paste into an issue or a document."""

from __future__ import annotations

from collections.abc import Sequence

from epsinas_onnx._util.names import escaped
from epsinas_onnx.report import beyond_float32, coverage, order, other, others, ranked, remarks, scales
from epsinas_onnx.report.markup import code_cell, plain
from epsinas_onnx.scoring.result import Score

_TITLES = ("#", "model", "score", "status", "order", "float32", "parameters", "seconds", "why")
_ALIGNED = ("-:", ":-", "-:", ":-", "-:", ":-", "-:", "-:", ":-")


def to_markdown(scores: Sequence[Score]) -> str:
    """Return the ranked table and a line of coverage."""
    more = others(scores)
    lines = [
        "| " + " | ".join([*_TITLES[:-1], *map(plain, more), _TITLES[-1]]) + " |",
        "| " + " | ".join([*_ALIGNED[:-1], *("-:" for _ in more), _ALIGNED[-1]]) + " |",
    ]
    for rank, score in enumerate(ranked(scores), start=1):
        cells = [
            str(rank) if score.score is not None else "",
            code_cell(escaped(score.model)),
            "" if score.score is None else f"{score.score:.6f}",
            str(score.status),
            order(score),
            beyond_float32(score),
            "" if score.parameters is None else f"{score.parameters:,}",
            f"{sum(score.seconds.values()):.2f}",
            *(other(score, name) for name in more),
            plain("; ".join(remarks(score))),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    remark = scales(scores)
    return "\n".join([*lines, "", coverage(scores), "", *([] if remark is None else [remark, ""])])
