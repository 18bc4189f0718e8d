"""Places the values of a graph in layers for a picture: a row for each depth, and a column near what feeds each."""

from __future__ import annotations

from collections.abc import Sequence

from epsinas_onnx.explanation.result import ExplainedValue


def columns(values: Sequence[ExplainedValue]) -> list[float]:
    """Return for each value its column, from 0 on; those of one depth are at least 1 apart.

    Each stands where its operands do on the average, as far as its neighbours leave room.
    """
    rows: dict[int, list[int]] = {}
    for index, value in enumerate(values):
        rows.setdefault(value.depth, []).append(index)
    index_of = {value.name: index for index, value in enumerate(values)}
    placed = [0.0] * len(values)
    for depth in sorted(rows):
        wanted = {}
        for index in rows[depth]:
            before = [placed[index_of[name]] for name in values[index].operands]
            wanted[index] = sum(before) / len(before) if before else 0.0
        row = sorted(rows[depth], key=lambda index: (wanted[index], index))
        at: list[float] = []
        for index in row:
            at.append(max(wanted[index], at[-1] + 1) if at else wanted[index])
        moved = sum(one - wanted[index] for one, index in zip(at, row, strict=True)) / len(row)
        for one, index in zip(at, row, strict=True):
            placed[index] = one - moved
    least = min(placed, default=0.0)
    return [round(one - least, 3) for one in placed]
