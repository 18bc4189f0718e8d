"""A ranked set as a record: each network's place, each member's, where they disagree, and what has no place and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from epsinas_onnx._util.notebook import ShownInNotebook
from epsinas_onnx._util.text import first_names, sentence, without_subject
from epsinas_onnx.errors import UsageError
from epsinas_onnx.ranking.combine import FloatArray, Pair, combine, mean_spearman, places_of
from epsinas_onnx.ranking.members import EPSINAS, Found, column_of, found

_APART = 0.5
"""From this share of the set on, between the best and the worst of its ranks, members disagree about a network."""
_AGREEMENT = ((0.8, "agree closely"), (0.5, "agree on the whole"), (0.2, "agree loosely"), (-1.0, "hardly agree"))
"""In words, by the mean of Spearman's rho over all pairs of members."""


@dataclass(frozen=True)
class Standing:
    """What one member says of one network.

    Attributes:
        value: its number, None where it has none and is last.
        place: 1 for the best; equal numbers share the better place.
        rank: from 1 for the worst to the number of networks for the best, equal ones the mean of theirs.
    """

    value: float | None
    place: int
    rank: float


@dataclass(frozen=True)
class Placed:
    """A network with a place.

    Attributes:
        model: as results call it.
        place: 1 for the best; equal networks share the better place.
        log_rank: the sum over members of log(rank / n), at most 0; larger is better.
        members: by name, what each says.
        spread: how far apart the members put it, as a share of the set, from 0 to 1.
        order: of the network (`Score.order`), None where nobody knows.
    """

    model: str
    place: int
    log_rank: float
    members: Mapping[str, Standing]
    spread: float
    order: float | None = None


@dataclass(frozen=True)
class Unplaced:
    """A network without a place.

    Attributes:
        model: as results call it.
        reason: why, a sentence.
        failed: whether its file could not be read or run.
    """

    model: str
    reason: str
    failed: bool = False


@dataclass(frozen=True)
class RankedSet(ShownInNotebook):
    """A set of networks in order. Frozen; `to_dict()` is its JSON record.

    Attributes:
        members: the scores that rank it.
        placed: the networks with a place, the best first, equal ones in the order they came.
        unplaced: those without.
        left_out: scores that were asked for and have no number for any network, and why for the first.
        concordance: Kendall's W, None where fewer than two members tell the networks apart.
        telling: how many members do.
        pairs: Kendall's tau of every two members.
        notes: what a careful reader should know, a sentence each.
    """

    members: tuple[str, ...]
    placed: tuple[Placed, ...] = field(repr=False)
    unplaced: tuple[Unplaced, ...] = field(repr=False)
    left_out: Mapping[str, str]
    concordance: float | None
    telling: int
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many networks the set has."""
        return len(self.placed) + len(self.unplaced)

    def disputed(self, most: int = 5) -> list[Placed]:
        """Return the networks that members put furthest apart, at least half of the set, the furthest first."""
        apart = [one for one in self.placed if one.spread >= _APART]
        return sorted(apart, key=lambda one: -one.spread)[:most]

    def agreement(self) -> str:
        """Return how far the members agree, as a sentence."""
        return agreement(self.members, self.telling, self.concordance)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types only."""
        return {
            "members": list(self.members),
            "size": self.size,
            "concordance": self.concordance,
            "agreement": self.agreement(),
            "pairs": [{"members": [pair.one, pair.other], "kendall": pair.tau} for pair in self.pairs],
            "networks": [
                {
                    "place": one.place,
                    "model": one.model,
                    "log_rank": one.log_rank,
                    "order": one.order,
                    "spread": one.spread,
                    "members": {
                        name: {"place": of.place, "rank": of.rank, "value": of.value}
                        for name, of in one.members.items()
                    },
                }
                for one in self.placed
            ],
            "disputed": [one.model for one in self.disputed()],
            "unranked": [{"model": one.model, "reason": one.reason} for one in self.unplaced],
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
        }


def agreement(members: Sequence[str], telling: int, concordance: float | None) -> str:
    """Return how far scores agree, as a sentence. telling: how many of them tell networks apart."""
    if len(members) < 2:
        return f"ranked by {''.join(members) or 'nothing'} alone"
    if concordance is None:
        return "fewer than two of the scores tell these networks apart, so there is nothing to agree on"
    mean = mean_spearman(concordance, telling)
    words = next(words for least, words in _AGREEMENT if mean >= least or least == -1.0)
    return (
        f"the {telling} scores {words}: Kendall's W is {concordance:.2f}, where 1 is the same order by all and "
        f"{1 / telling:.2f} what unrelated scores have on average"
    )


def telling_members(ranks: Sequence[FloatArray]) -> int:
    """Return how many of some ranks, float64 `[n]` each, tell networks apart."""
    return sum(len(one) > 1 and bool(np.ptp(one) > 0) for one in ranks)


def rank_records(records: Sequence[Mapping[str, Any]], members: Sequence[str]) -> RankedSet:
    """Return the networks of `Score.to_dict()` records, ranked by the sum over members of log(rank / n).

    A network has a place where every member can put it in one: by its number, or last where the score itself says that
    the network is worse than any with a number. Otherwise it has none: ranks over different scores do not compare.

    Raises UsageError for fewer than two networks.
    """
    if len(records) < 2:
        raise UsageError(
            f"a set of {len(records)} has no order: a rank says how a network stands among others; name at least two"
        )
    names = [str(record.get("model", "")) for record in records]
    entries = {member: [found(record, member) for record in records] for member in members}
    columns = {member: column_of(of) for member, of in entries.items()}
    combined = combine(columns)
    used = tuple(combined.ranks)
    left_out = {member: _first_reason(entries[member], names) for member in combined.left_out}
    by_member = {name: places_of(ranks) for name, ranks in combined.ranks.items()}
    spread = combined.spread()
    order = np.argsort(np.where(combined.ranked, combined.places, np.inf), kind="stable")
    placed = tuple(
        Placed(
            names[i],
            int(combined.places[i]),
            float(combined.sums[i]),
            {
                name: Standing(entries[name][i].value, int(by_member[name][i]), float(combined.ranks[name][i]))
                for name in used
            },
            float(spread[i]),
            found(records[i], EPSINAS).order if np.isfinite(found(records[i], EPSINAS).order) else None,
        )
        for i in order
        if combined.ranked[i]
    )
    unplaced = tuple(
        _unplaced(names[i], {name: entries[name][i] for name in used or members})
        for i in np.flatnonzero(~combined.ranked)
    )
    telling = telling_members([ranks[combined.ranked] for ranks in combined.ranks.values()])
    return RankedSet(
        used, placed, unplaced, left_out, combined.concordance, telling, combined.pairs,
        tuple(_notes(placed, used, columns[EPSINAS].groups is not None if EPSINAS in used else False)),
    )  # fmt: skip


def _unplaced(model: str, entries: Mapping[str, Found]) -> Unplaced:
    lacking = {name: one for name, one in entries.items() if one.value is None and not one.is_last}
    told: dict[str, list[str]] = {}
    for name, one in lacking.items():
        told.setdefault(without_subject(sentence(one.reason or one.status), model), []).append(name)
    reason = "; ".join(f"no {', '.join(names)}: {why}" for why, names in told.items())
    return Unplaced(model, reason, any(one.status == "error" for one in lacking.values()))


def _first_reason(entries: Sequence[Found], names: Sequence[str]) -> str:
    told = [(one.status == "error", one.reason, name) for one, name in zip(entries, names, strict=True) if one.reason]
    if not told:
        return "no network has a number"
    _, reason, name = min(told, key=lambda each: each[0])  # a network that was run says more of a score
    return f"{without_subject(sentence(reason), name)} ({first_names([name])})"


def _notes(placed: Sequence[Placed], members: Sequence[str], grouped: bool) -> Iterator[str]:
    last = {name: [one.model for one in placed if one.members[name].value is None] for name in members}
    for name, models in last.items():
        if models:
            yield (
                f"last by {name}, which has no number for what is worse than any with one: {first_names(models)}"
                + (f" ({len(models)})" if len(models) > 3 else "")
            )
    if grouped:
        known = [one.order for one in placed if one.members[EPSINAS].value is not None]
        orders = set(known)
        each = (
            ": every network has an order of its own, so epsinas says nothing here" if len(orders) == len(known) else ""
        )
        yield (
            f"epsinas compares networks of one order alone, so that each is ranked among its own order, of which there "
            f"are {len(orders)}{each}"
        )
