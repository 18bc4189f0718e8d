"""Puts the nodes of two graphs side by side, in graph order: what both have in one row, moved ones in two."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from epsinas_onnx.compare.align import Aligned, NodeText, changed_roles, described, maker
from epsinas_onnx.graph.fingerprint import Line


class Fate(StrEnum):
    """What became of a node."""

    SAME = "same"
    """Both models have it."""
    CHANGED = "changed"
    """Both have it, with other attributes, tensors or operands."""
    ROLES = "roles"
    """Both have it, and a stored operand has another role."""
    MOVED = "moved"
    """Both have it, at another place among the nodes around it."""
    REMOVED = "removed"
    """The second model has not."""
    ADDED = "added"
    """The first model has not."""


@dataclass(frozen=True)
class AlignedNode:
    """A row of two graphs side by side.

    Attributes:
        fate: what became of the node.
        before: in the first model; None where it is not there, or not in this row.
        after: in the second.
        changes: what is different, one part of a sentence each.
        reads: the rows that it reads from, in the first model and in the second.
        partner: for a moved node the row in which it stands in the other model.
    """

    fate: Fate
    before: NodeText | None
    after: NodeText | None
    changes: tuple[str, ...] = ()
    reads: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    partner: int | None = None


def side_by_side(aligned: Aligned) -> tuple[AlignedNode, ...]:
    """Return a row for each node that either graph has."""
    places = list(_places(aligned))
    ours = {index: row for row, (index, _) in enumerate(places) if index is not None}
    theirs = {other: row for row, (_, other) in enumerate(places) if other is not None}
    rows = []
    for index, other in places:
        row = _row(aligned, index, other)
        reads = _read(aligned.before.lines, index, ours), _read(aligned.after.lines, other, theirs)
        partner = None
        if row.fate is Fate.MOVED and other is not None:
            partner = ours[aligned.back[other]]
        elif row.fate is Fate.MOVED and index is not None:
            partner = theirs[aligned.match[index]]
        rows.append(replace(row, reads=reads, partner=partner))
    return tuple(rows)


def _places(aligned: Aligned) -> Iterator[tuple[int | None, int | None]]:
    """Yield the line of each graph that a row holds: both where they are in one order in both graphs."""
    pairs = sorted(aligned.match.items())
    in_order = [pairs[i] for i in _longest_rise([other for _, other in pairs])]
    i = j = 0
    for index, other in [*in_order, (len(aligned.before.lines), len(aligned.after.lines))]:
        yield from ((one, None) for one in range(i, index))
        yield from ((None, one) for one in range(j, other))
        if index < len(aligned.before.lines):
            yield index, other
        i, j = index + 1, other + 1


def _longest_rise(values: Sequence[int]) -> list[int]:
    """Return the indices of a longest part of some different numbers that rises; by patience sorting."""
    tops: list[int] = []
    at: list[int] = []
    before: list[int | None] = []
    for i, value in enumerate(values):
        pile = bisect_left(tops, value)
        before.append(at[pile - 1] if pile else None)
        tops[pile : pile + 1] = [value]
        at[pile : pile + 1] = [i]
    found: list[int] = []
    last = at[-1] if at else None
    while last is not None:
        found.append(last)
        last = before[last]
    return found[::-1]


def _row(aligned: Aligned, index: int | None, other: int | None) -> AlignedNode:
    before = None if index is None else described(aligned.before.lines[index])
    after = None if other is None else described(aligned.after.lines[other])
    if index is None or other is None:
        index = aligned.back.get(other) if other is not None else index
        other = aligned.match.get(index) if index is not None else other
        if index is None or other is None:
            return AlignedNode(Fate.ADDED if index is None else Fate.REMOVED, before, after)
        return AlignedNode(Fate.MOVED, before, after, tuple(aligned.changes(index, other)))
    if aligned.is_same:
        return AlignedNode(Fate.SAME, before, after)
    changes = tuple(aligned.changes(index, other))
    has_roles = any(changed_roles(aligned.before.lines[index], aligned.after.lines[other]))
    fate = Fate.ROLES if has_roles else Fate.CHANGED if changes else Fate.SAME
    return AlignedNode(fate, before, after, changes)


def _read(lines: Sequence[Line], index: int | None, row_of: Mapping[int, int]) -> tuple[int, ...]:
    if index is None:
        return ()
    made = [maker(operand) for operand in (*lines[index].operands, *lines[index].results)]
    return tuple(dict.fromkeys(row_of[one] for one in made if one is not None and one in row_of))
