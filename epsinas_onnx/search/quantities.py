"""What a search looks for: quantities with a direction, and bounds, read from `params:min` and `latency<=5ms`."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from epsinas_onnx.errors import UsageError
from epsinas_onnx.proxies.registry import proxy_names
from epsinas_onnx.ranking.members import COMBINATIONS, EPSINAS, parse_members

LATENCY, SIZE = "latency", "size"
ACCURACY = "accuracy"
"""What a table of accuracies gives."""
RANK = "rank:"
"""What a combination of scores begins with, `rank:swap,meco`; a named one is called by its name alone."""

_MINIMISED = ("params", "macs", LATENCY, SIZE)
_UNITS = {
    LATENCY: {"us": 1e-3, "ms": 1.0, "s": 1e3, "": 1.0},
    SIZE: {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "": 1.0},
}
_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_BOUND = re.compile(
    r"\s*(?P<name>[^<>=]+?)\s*(?P<sign><=|>=)\s*(?P<number>[-+0-9.]+(?:[eE][-+]?\d+)?)\s*(?P<unit>[a-zA-Z]*)\s*"
)


class Kind(StrEnum):
    """How a quantity comes about."""

    SCORE = "score"
    RANK = "rank"
    LATENCY = "latency"
    SIZE = "size"
    OWN = "own"


@dataclass(frozen=True)
class Quantity:
    """A number that a network has.

    name: how records call it. kind: how it comes about. members: the training-free scores that it is made of.
    """

    name: str
    kind: Kind
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Objective:
    """A quantity, and whether it is to be small."""

    quantity: Quantity
    minimised: bool

    def __str__(self) -> str:
        return f"{self.quantity.name}:{'min' if self.minimised else 'max'}"

    def worth(self, value: float) -> float:
        """Return a number that is larger for the better."""
        return -value if self.minimised else value


@dataclass(frozen=True)
class Constraint:
    """A bound of a quantity. upper: whether it may not be above the bound; otherwise it may not be below."""

    quantity: Quantity
    bound: float
    upper: bool
    text: str

    def violation(self, value: float) -> float:
        """Return by how much a value lies outside as a share of the bound; at most 0 where it lies inside."""
        outside = value - self.bound if self.upper else self.bound - value
        return outside / (abs(self.bound) or 1.0)


def quantity_of(text: str, own: Collection[str] = ()) -> Quantity:
    """Return the quantity that `epsinas`, `swap`, `default`, `rank:swap,meco`, `latency` or `size` names.

    own: names that the caller measures. Raises UsageError for a name that means nothing.
    """
    name = text.strip()
    if name in own:
        return Quantity(name, Kind.OWN)
    if name in (LATENCY, SIZE):
        return Quantity(name, Kind(name))
    if name == EPSINAS or name in proxy_names():
        return Quantity(name, Kind.SCORE, (name,))
    if name in COMBINATIONS:
        return Quantity(name, Kind.RANK, COMBINATIONS[name])
    if name.startswith(RANK):
        members = parse_members(name.removeprefix(RANK), proxy_names())
        return Quantity(RANK + ",".join(members), Kind.RANK, members)
    more = "; accuracy needs a table, --accuracies" if name == ACCURACY else ""
    known = ", ".join([EPSINAS, *proxy_names(), LATENCY, SIZE, *own])
    raise UsageError(
        f"there is nothing called {name!r} to search for; there are {known}, the combinations "
        f"{', '.join(COMBINATIONS)}, and others as rank:swap,meco{more}"
    )


def parse_objective(text: str, own: Collection[str] = (), minimised: Collection[str] = ()) -> Objective:
    """Return the objective of `NAME`, `NAME:max` or `NAME:min`.

    Without a word params, macs, latency, size and what `minimised` names are to be small, all others large. Raises
    UsageError.
    """
    name, sign, direction = text.rpartition(":")
    if sign and direction in ("min", "max"):
        return Objective(quantity_of(name, own), direction == "min")
    found = quantity_of(text, own)
    return Objective(found, found.name in (*_MINIMISED, *minimised))


def parse_objectives(
    texts: str | Sequence[str], own: Collection[str] = (), minimised: Collection[str] = ()
) -> tuple[Objective, ...]:
    """Return one objective or several, each quantity once; raises UsageError for none, or for one twice."""
    found = tuple(parse_objective(one, own, minimised) for one in ([texts] if isinstance(texts, str) else texts))
    if not found:
        raise UsageError("a search needs an objective, such as epsinas")
    names = [one.quantity.name for one in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"the objective {twice} is named twice")
    return found


def parse_guide(text: str) -> Objective:
    """Return the training-free score that a search goes by, larger for the better unless it says `NAME:min`.

    Raises UsageError for what is none.
    """
    found = parse_objective(text)
    if not found.quantity.members:
        raise UsageError(f"warm-up and move go by a training-free score, and {found.quantity.name} is none")
    return Objective(found.quantity, found.minimised and text.endswith(":min"))


def parse_constraint(text: str, own: Collection[str] = ()) -> Constraint:
    """Return the bound of `params<=1e6`, `latency<=5ms`, `size<=4MB` or `epsinas>=0.1`; raises UsageError."""
    match = _BOUND.fullmatch(text)
    if match is None:
        raise UsageError(f"a constraint is written like 'params<=1e6', 'latency<=5ms' or 'epsinas>=0.1', not {text!r}")
    quantity = quantity_of(match["name"], own)
    units = _UNITS.get(quantity.name) or (_COUNTS if quantity.name in ("params", "macs") else {"": 1.0})
    unit = match["unit"].lower()
    if unit not in units:
        known = ", ".join(name for name in units if name) or "none"
        raise UsageError(
            f"the constraint {text!r} has the unit {match['unit']!r}; those of {quantity.name} are {known}"
        )
    try:
        bound = float(match["number"]) * units[unit]
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise UsageError(f"the constraint {text!r} has no number behind {match['sign']}")
    return Constraint(quantity, bound, match["sign"] == "<=", f"{quantity.name}{match['sign']}{bound:g}")
