"""A rank that one network has by itself: where it would stand in a fixed sample of its search space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epsinas_onnx.errors import UsageError
from epsinas_onnx.ranking.members import EPSINAS, Found, found

FloatArray = npt.NDArray[np.float64]
_LOWEST, _LAST = 0.5, 0.25
"""Ranks that a number below all of the sample goes towards, and of a network that is worse than any with a number."""
_LEAST = 2
"""Networks with a number that a reference needs of each score."""


@dataclass(frozen=True)
class _Scale:
    """The different numbers of one score in the sample, in order, float64 `[m]`, and their ranks.

    size: how many numbers there are, equal ones too. spread: what counts as far beyond the largest or the smallest.
    """

    values: FloatArray
    ranks: FloatArray
    size: int
    spread: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> _Scale:
        ordered = np.sort(np.asarray(numbers, np.float64))
        values, first, counts = np.unique(ordered, return_index=True, return_counts=True)
        ranks = first + (counts + 1) / 2
        spread = float(ordered[-1] - np.median(ordered)) or abs(float(ordered[-1])) or 1.0
        return cls(values, ranks, len(ordered), spread)

    def share(self, value: float) -> float:
        """Return where a number stands, above 0 and below 1, more for more: its rank over one more than the numbers.

        Between two numbers of the sample it is interpolated; beyond the largest it goes on towards the rank after the
        last, and below the smallest towards half a rank, so that no two numbers become equal.
        """
        if value > self.values[-1]:
            beyond = (value - self.values[-1]) / self.spread
            rank = self.ranks[-1] + (self.size + 1 - self.ranks[-1]) * beyond / (1 + beyond)
        elif value < self.values[0]:
            below = (self.values[0] - value) / self.spread
            rank = self.ranks[0] - (self.ranks[0] - _LOWEST) * below / (1 + below)
        else:
            rank = float(np.interp(value, self.values, self.ranks))
        return float(rank / (self.size + 1))


class Reference:
    """A sample of networks that others are ranked against.

    The value of a network is the sum over members of log(share), the share being the rank that its number has among the
    sample, over the ranks there are: the sum of `rank`, with a set that stays. So it depends on the network alone, in
    whatever order networks come, and numbers of one search compare. Numbers of epsinas are ranked within their order;
    where the sample has none of an order, in the middle, as `rank` has it.

    Raises UsageError where a member has no number for two networks of the sample.
    """

    def __init__(self, members: Sequence[str], columns: Mapping[str, Sequence[tuple[float, float]]]) -> None:
        self.members = tuple(members)
        self._columns = {name: [tuple(pair) for pair in columns[name]] for name in members}
        self._scales: dict[str, dict[float, _Scale]] = {}
        for name in members:
            pairs = columns[name]
            if len(pairs) < _LEAST:
                raise UsageError(
                    f"{name} has a number for only {len(pairs)} networks of the sample that ranks are taken in; leave "
                    "it out, or take a larger sample with --reference"
                )
            orders = {order for _, order in pairs}
            self._scales[name] = {order: _Scale.of([value for value, at in pairs if at == order]) for order in orders}

    @classmethod
    def of_records(cls, members: Sequence[str], records: Sequence[Mapping[str, Any]]) -> Reference:
        """Return the reference of `Score.to_dict()` records."""
        return cls(
            members,
            {
                name: [_pair(one) for one in (found(r, name) for r in records) if one.value is not None]
                for name in members
            },
        )

    def to_dict(self) -> dict[str, list[list[float]]]:
        """Return the numbers and orders of each member as JSON has them."""
        return {name: [list(pair) for pair in pairs] for name, pairs in self._columns.items()}

    def value(self, record: Mapping[str, Any]) -> Found:
        """Return the sum of log shares of a record, at most 0, or why there is none."""
        total = 0.0
        for name in self.members:
            one = found(record, name)
            if one.value is None and not one.is_last:
                return Found(None, one.status, one.reason or f"there is no {name}")
            total += math.log(self._share(name, one))
        return Found(total, "ok")

    def _share(self, name: str, one: Found) -> float:
        scales = self._scales[name]
        if one.value is None:
            return _LAST / (max(scale.size for scale in scales.values()) + 1)
        scale = scales.get(_pair(one)[1] if name == EPSINAS else 0.0)
        return 0.5 if scale is None else scale.share(one.value)


def _pair(one: Found) -> tuple[float, float]:
    """Return a number and its order, 0 where the number has none."""
    return one.value or 0.0, 0.0 if math.isnan(one.order) else one.order
