"""What the page of results shows, as plain JSON types: columns, places by each score, correlations, and details."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epsinas_onnx._util.names import escaped
from epsinas_onnx._util.text import sentence, shown, without_subject
from epsinas_onnx.proxies.measurement import MeasurementStatus
from epsinas_onnx.ranking.combine import places_of, ranks_of
from epsinas_onnx.ranking.members import EPSINAS, column_of, finite, found
from epsinas_onnx.ranking.result import RankedSet, rank_records
from epsinas_onnx.scoring.result import Status

Record = Mapping[str, Any]

_FLAT = re.compile(r"proxies\.(?P<name>.+)\.status", re.DOTALL)
_FEWEST = 3  # models that a correlation is given for
_DIGITS = 6
_SETTINGS = {
    "weights": "constants", "input": "input", "batch": "samples", "seed": "seed", "arithmetic": "arithmetic",
    "norm_stats": "normalisation", "provider": "provider", "proxy_batch": "samples of other scores",
    "output": "outputs compared", "versions": "versions",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A number of each model, None where it has none. key: what the script calls it."""

    key: str
    title: str
    values: list[float | None]

    @property
    def is_empty(self) -> bool:
        """Whether no model has this number."""
        return all(value is None for value in self.values)


def statuses(records: Sequence[Record]) -> dict[str, int]:
    """Return how many models have which status, `ok` first, then the most frequent."""
    counts = Counter(_status(record) for record in records)
    return dict(sorted(counts.items(), key=lambda one: (one[0] != Status.OK, -one[1], one[0])))


def other_scores(records: Iterable[Record]) -> list[str]:
    """Return the names of the other scores that any record has, in the order in which they come."""
    names: dict[str, None] = {}
    for record in records:
        nested = record.get("proxies")
        flat = [m["name"] for m in map(_FLAT.fullmatch, map(str, record)) if m]  # as a row of a CSV has it
        names.update(dict.fromkeys([*(nested if isinstance(nested, Mapping) else ()), *flat]))
    return [name for name in names if any(found(record, name).status != "missing" for record in records)]


def columns_of(records: Sequence[Record], accuracies: Mapping[str, float], accuracy: str) -> list[Column]:
    """Return the numbers that models have; accuracies: by model, called `accuracy`."""
    others = other_scores(records)
    numbers = {name: [found(record, name).value for record in records] for name in others}
    parameters = [finite(record.get("parameters")) for record in records]
    if "params" in numbers:
        pairs = zip(parameters, numbers.pop("params"), strict=True)
        parameters = [one if one is not None else two for one, two in pairs]
    columns = [
        Column("score", "score", [found(record, EPSINAS).value for record in records]),
        Column("order", "order", [finite(record.get("order")) for record in records]),
        Column("parameters", "parameters", parameters),
        Column("macs", "multiply-adds", numbers.pop("macs", [None] * len(records))),
        Column("accuracy", shown(accuracy), [finite(accuracies.get(str(record["model"]))) for record in records]),
        *(Column(f"score:{i}", shown(name), values) for i, (name, values) in enumerate(numbers.items())),
        Column("seconds", "seconds", [seconds_of(record) for record in records]),
    ]
    return [column for column in columns if column.key == "score" or not column.is_empty]


def to_data(
    records: Sequence[Record], columns: Sequence[Column], sets: Sequence[RankedSet], members: bool = False
) -> dict[str, Any]:
    """Return all that the page's script needs.

    sets: the same models, ranked by several scores each. members: whether single places are those of the scores that
    rank, among the models that have all of them; else those of every score, among all models that it puts in one.
    """
    names = [str(record["model"]) for record in records]
    places = {**_combined(names, sets), **(_of_members(names, sets) if members else _single(records))}
    known = {status: index for index, status in enumerate(statuses(records))}
    texts = _Texts()
    remarks = [[texts.index(text) for text in _remarks(record)] for record in records]
    return {
        "names": [shown(escaped(name)) for name in names],
        "statuses": list(known),
        "status": [known[_status(record)] for record in records],
        "columns": [
            {"key": column.key, "title": column.title, "values": [_short(value) for value in column.values]}
            for column in columns
        ],
        "places": [{"title": title, "values": values} for title, values in places.items()],
        "combined": len(sets),
        "charts": _charts(columns),
        "texts": texts.all,
        "remarks": remarks,
        "settings": [texts.index("\n".join(_settings(record))) for record in records],
    }


class _Texts:
    """Texts, each once: thousands of models have the same settings."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._known: dict[str, int] = {}

    def index(self, text: str) -> int:
        """Return where a text stands."""
        if text not in self._known:
            self._known[text] = len(self.all)
            self.all.append(text)
        return self._known[text]


def _status(record: Record) -> str:
    return shown(str(record.get("status") or Status.OK))


def seconds_of(record: Record) -> float | None:
    """Return how long a model took, None where the record does not say."""
    given = record.get("seconds")
    return sum(map(float, given.values())) if isinstance(given, Mapping) else finite(given)


def _combined(names: Sequence[str], sets: Sequence[RankedSet]) -> dict[str, list[int | None]]:
    found_places = {}
    for ranked in sets:
        by_model = {one.model: one.place for one in ranked.placed}
        title = f"together: {', '.join(ranked.members)}" if len(ranked.members) > 1 else "".join(ranked.members)
        found_places[title] = [by_model.get(name) for name in names]
    return found_places


def _of_members(names: Sequence[str], sets: Sequence[RankedSet]) -> dict[str, list[int | None]]:
    found_places = {}
    for ranked in sets:
        for member in ranked.members:
            by_model = {one.model: one.members[member].place for one in ranked.placed}
            found_places[shown(member)] = [by_model.get(name) for name in names]
    return found_places


def _single(records: Sequence[Record]) -> dict[str, list[int | None]]:
    """Return the places by each score alone, of the scores that any model has."""
    found_places = {}
    for name in [EPSINAS, *other_scores(records)]:
        column = column_of([found(record, name) for record in records])
        if np.isfinite(column.values).any():
            places = places_of(ranks_of(column, column.places))
            found_places[shown(name)] = [int(place) if math.isfinite(place) else None for place in places]
    return found_places


def _charts(columns: Sequence[Column]) -> dict[str, Any]:
    """Return which columns are drawn against which, and Spearman's correlation of each pair, with its coverage."""
    across = [column for column in columns if column.key in ("parameters", "macs", "accuracy")]
    up = [column for column in columns if column.key == "score" or column.key.startswith("score:")]
    return {
        "across": [column.key for column in across],
        "up": [column.key for column in up if not column.is_empty],
        "said": {f"{y.key} {x.key}": _correlation(y, x) for y in up for x in across},
    }


def _correlation(one: Column, other: Column) -> str:
    from scipy.stats import spearmanr

    pairs = [(x, y) for x, y in zip(one.values, other.values, strict=True) if x is not None and y is not None]
    of = f"{len(pairs):,} of {len(one.values):,} models"
    x, y = np.array(pairs, np.float64).reshape(-1, 2).T
    if len(pairs) < _FEWEST or not np.ptp(x) or not np.ptp(y):
        return f"{of} have both, too few different ones for a correlation"
    return f"Spearman {float(spearmanr(x, y).statistic):.3f} over {of}, which have both"


def _remarks(record: Record) -> list[str]:
    """Return the reason in full, the warnings, and why other scores have no number."""
    model = str(record["model"])
    said = [] if not record.get("reason") else [without_subject(sentence(str(record["reason"])), model)]
    warnings = record.get("warnings") or []
    said += [f"note: {one}" for one in (warnings.split("; ") if isinstance(warnings, str) else warnings)]
    told: dict[str, list[str]] = {}
    for name in other_scores([record]):
        entry = found(record, name)
        if entry.value is None and entry.status != MeasurementStatus.OK:
            told.setdefault(without_subject(sentence(entry.reason or entry.status), model), []).append(name)
    return [sentence(text) for text in [*said, *(f"no {', '.join(names)}: {why}" for why, names in told.items())]]


def _settings(record: Record) -> list[str]:
    """Return how a model was scored, a line a setting: its name, a tab, and its value."""
    lines = []
    if record.get("float32_status") not in (None, "", _status(record)):
        lines.append(f"float32\t{shown(str(record['float32_status']))}")
    if finite(record.get("nodes")) is not None:
        lines.append(f"nodes\t{int(float(record['nodes'])):,}")
    for key, title in _SETTINGS.items():
        value = record.get(key)
        if value in (None, "", [], {}):
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {one}" for name, one in value.items())
        elif isinstance(value, (list, tuple)):
            value = ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value)
        lines.append(f"{title}\t{shown(str(value))}")
    return lines


def _short(value: float | None) -> float | int | None:
    """Return a number with as many digits as are shown, whole ones as integers: thousands of them are in a page."""
    if value is None:
        return None
    return int(value) if value == int(value) and abs(value) < 10**15 else float(f"{value:.{_DIGITS}g}")


def ranked_sets(records: Sequence[Record], combinations: Iterable[Sequence[str]]) -> list[RankedSet]:
    """Return the models ranked by each combination of scores; none where there are fewer than two models."""
    wanted = dict.fromkeys(map(tuple, combinations))
    return [rank_records(records, members) for members in wanted] if len(records) > 1 else []
