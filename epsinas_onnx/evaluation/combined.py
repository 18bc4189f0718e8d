"""Several scores of a table's architectures: each as ranks, and those that rank together as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epsinas_onnx.evaluation.scoring import Scores
from epsinas_onnx.evaluation.table import FloatArray
from epsinas_onnx.ranking.combine import Column, combine, ranks_of
from epsinas_onnx.ranking.members import EPSINAS, Found, column_of, found
from epsinas_onnx.ranking.result import agreement, telling_members

BESIDE = ("params", "macs")
"""Counts that every other score is shown beside, since they are hard to beat."""


@dataclass(frozen=True)
class Together:
    """Scores that rank together. name: what they are called. scores: the sums of log ranks. agreement: a sentence."""

    name: str
    scores: Scores
    agreement: str


def asked(members: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """Return what is computed beside epsinas: the members, what else was asked for, and the counts."""
    names = [name for name in (*members, *others) if name != EPSINAS]
    return tuple(dict.fromkeys([*names, *BESIDE])) if members or others else ()


def ranks(
    keys: Sequence[str], records: Mapping[str, Mapping[str, Any]], names: Sequence[str], taken: Collection[str] = ()
) -> dict[str, FloatArray]:
    """Return each score of the rows whose architectures are `keys`, as ranks among those that it can put in a place.

    Ranks hold what a number cannot: that a network is worse than any with one. float64 `[rows]`, NaN where there is no
    place. taken: names that belong to columns of the table; a score of the same name is called differently.
    """
    columns = {name: column_of(_entries(keys, records, name)) for name in names}
    return {
        f"{name} (computed)" if name in taken else name: ranks_of(column, column.places)
        for name, column in columns.items()
    }


def together(
    keys: Sequence[str], records: Mapping[str, Mapping[str, Any]], members: Sequence[str], plain: Scores
) -> Together:
    """Return the scores that `members` have together, for the rows whose architectures are `keys`.

    plain: the scores of epsinas for the same rows, which tell parameters.
    """
    entries = {name: _entries(keys, records, name) for name in members}
    columns: dict[str, Column] = {name: column_of(of) for name, of in entries.items()}
    combined = combine(columns)
    used = tuple(combined.ranks)
    statuses = Counter(
        "ok" if has else _lacking({name: entries[name][row] for name in used or members})
        for row, has in enumerate(combined.ranked)
    )
    name = ", ".join(used or members)
    source = f"{name} by the sum of log ranks" if len(used) > 1 else f"{name} by ranks"
    if combined.left_out:
        source += f", without {', '.join(combined.left_out)}, which no network has"
    telling = telling_members([of[combined.ranked] for of in combined.ranks.values()])
    return Together(
        name,
        Scores(combined.sums, statuses, plain.parameters, source),
        agreement(used, telling, combined.concordance),
    )


def _entries(keys: Sequence[str], records: Mapping[str, Mapping[str, Any]], name: str) -> list[Found]:
    missing = Found(None, "missing")
    return [found(records[key], name) if key in records else missing for key in keys]


def _lacking(entries: Mapping[str, Found]) -> str:
    """Return what keeps a network from a place, in a few words."""
    return next(
        (f"{one.status} {name}" for name, one in entries.items() if one.value is None and not one.is_last), "unranked"
    )
