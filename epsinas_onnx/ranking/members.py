"""Which scores rank a set: their names, named combinations, and what a score's absence says of a network."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epsinas_onnx._util.text import first_names
from epsinas_onnx.errors import UsageError
from epsinas_onnx.proxies.measurement import MeasurementStatus
from epsinas_onnx.ranking.combine import Column
from epsinas_onnx.scoring.result import Status

EPSINAS = "epsinas"
"""What the score of this package is called beside other training-free scores."""

DEFAULT = "default"
COMBINATIONS: Mapping[str, tuple[str, ...]] = {
    DEFAULT: ("swap", "meco", "expressivity"),
    "broad": ("jacov", "swap", "macs", "params"),
    "counts": ("macs", "params"),
}
"""Named combinations of scores; `docs/ranking.md` says what each is worth."""

_LAST: Collection[str] = frozenset({str(Status.CONSTANT), str(MeasurementStatus.UNDEFINED)})
"""Statuses that say of a network that it is worse than any with a number: its output does not depend on its input, or
the formula ends in the logarithm of 0. All others say of the file, or of us, that there is no number."""


@dataclass(frozen=True)
class Found:
    """One score of one network, out of a record: its number, or its status and the reason why there is none.

    order: what numbers compare within, NaN where all compare or nobody knows.
    """

    value: float | None
    status: str
    reason: str | None = None
    order: float = math.nan

    @property
    def is_last(self) -> bool:
        """Whether there is no number because the network is worse than any with one."""
        return self.value is None and self.status in _LAST


def parse_members(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Return the scores of `jacov,params`, in which a name may be that of a combination, each once.

    known: the scores there are beside epsinas. Raises UsageError for an unknown name, or none.
    """
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    found = [member for name in wanted for member in COMBINATIONS.get(name, (name,))]
    unknown = [name for name in found if name not in (EPSINAS, *known)]
    if unknown or not found:
        what = f"there is no score {first_names(unknown)}" if unknown else "no score was named"
        raise UsageError(
            f"{what}; the scores are {', '.join((EPSINAS, *known))}, and the combinations {', '.join(COMBINATIONS)}"
        )
    return tuple(dict.fromkeys(found))


def measured(members: Sequence[str]) -> tuple[str, ...]:
    """Return the members that are asked for beside epsinas, which every record has."""
    return tuple(name for name in members if name != EPSINAS)


def found(record: Mapping[str, Any], member: str) -> Found:
    """Return what a record of `Score.to_dict()` says of one score.

    A score that the record does not hold has the status `missing`.
    """
    if member == EPSINAS:
        order = finite(record.get("order"))
        status = str(record.get("status") or Status.OK)
        return _found(record.get("score"), status, record.get("reason"), math.nan if order is None else order)
    proxies = record.get("proxies")
    entry = proxies.get(member) if isinstance(proxies, Mapping) else None
    if not isinstance(entry, Mapping):
        flat = f"proxies.{member}."  # as a row of a CSV has it
        entry = {key.removeprefix(flat): value for key, value in record.items() if str(key).startswith(flat)}
    if not entry.get("status") and entry.get("value") in (None, ""):
        return Found(None, "missing", f"the results hold no {member}; score with --with {member}")
    return _found(entry.get("value"), str(entry.get("status") or MeasurementStatus.OK), entry.get("reason"))


def column_of(entries: Sequence[Found]) -> Column:
    """Return one score of a set as numbers; those of several orders compare within each alone."""
    values = np.array([math.nan if one.value is None else one.value for one in entries], np.float64)
    orders = np.array([one.order for one in entries], np.float64)
    several = len(np.unique(orders[np.isfinite(values)])) > 1
    return Column(values, np.array([one.is_last for one in entries], np.bool_), orders if several else None)


def _found(value: Any, status: str, reason: Any, order: float = math.nan) -> Found:
    number = finite(value)
    why = None if reason in (None, "") else str(reason)
    if number is None and status == Status.OK:  # in a file that somebody edited, or another program wrote
        said = "no number" if value in (None, "") else f"{str(value)[:40]!r}, which is no finite number"
        return Found(None, "missing", f"the results say ok, and hold {said}", order)
    return Found(number, status, why, order)


def finite(value: Any) -> float | None:
    """Return a finite number out of JSON or CSV, else None."""
    if isinstance(value, bool):
        return None
    try:
        number = math.nan if value in (None, "") else float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
