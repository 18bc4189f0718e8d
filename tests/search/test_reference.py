"""Ranks against a sample: those of `rank` for the sample itself, monotone for everything else."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epsinas_onnx.errors import UsageError
from epsinas_onnx.ranking.result import rank_records
from epsinas_onnx.search.reference import Reference


def record(name: str, order: float = 1, **values: float | None) -> dict[str, Any]:
    proxies = {
        key: {
            "value": value,
            "status": "ok" if value is not None else "undefined",
            "reason": None if value is not None else "log of 0",
        }
        for key, value in values.items()
    }
    return {"model": name, "status": "ok", "score": values.get("epsinas", 0.5), "order": order, "proxies": proxies}


numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3))


whole = st.integers(-(10**6), 10**6)  # which rank tells apart however close they are


@settings(deadline=None)
@given(st.lists(st.tuples(whole, whole), min_size=2, max_size=12, unique_by=(lambda p: p[0], lambda p: p[1])))
def test_of_the_sample_itself_the_value_is_the_sum_of_rank(drawn: list[tuple[int, int]]) -> None:
    records = [record(str(i), swap=float(a), meco=float(b)) for i, (a, b) in enumerate(drawn)]
    reference = Reference.of_records(("swap", "meco"), records)
    size = len(drawn)
    for placed in rank_records(records, ("swap", "meco")).placed:
        value = reference.value(records[int(placed.model)]).value
        assert value == pytest.approx(placed.log_rank + 2 * math.log(size / (size + 1)))


@settings(deadline=None)
@given(st.lists(numbers, min_size=2, max_size=8), st.lists(numbers, min_size=2, max_size=8))
def test_more_is_better_and_nothing_saturates(sample: list[float], asked: list[float]) -> None:
    reference = Reference.of_records(("swap",), [record(str(i), swap=value) for i, value in enumerate(sample)])
    for low, high in zip(sorted(asked), sorted(asked)[1:], strict=False):
        one, other = (reference.value(record("x", swap=value)).value for value in (low, high))
        assert (one or -99) <= (other or -99) <= 0
    far = [max(sample) + step for step in (1.0, 2.0, 3.0)]
    beyond = [reference.value(record("x", swap=value)).value or 0.0 for value in far]
    assert beyond[0] < beyond[1] < beyond[2] < 0
    below = [reference.value(record("x", swap=min(sample) - step)).value or 0.0 for step in (1.0, 2.0, 3.0)]
    assert below[0] > below[1] > below[2]


def test_what_the_score_itself_calls_worst_is_below_every_number() -> None:
    reference = Reference.of_records(("swap",), [record(str(i), swap=float(i)) for i in range(5)])
    worst = reference.value(record("x", swap=None)).value
    lowest = reference.value(record("y", swap=-1e9)).value
    assert (worst or 0) < (lowest or 0) < 0


def test_a_missing_score_gives_no_value_and_says_which() -> None:
    reference = Reference.of_records(("swap",), [record("a", swap=1.0), record("b", swap=2.0)])
    found = reference.value(record("x", meco=1.0))
    assert found.value is None
    assert "swap" in str(found.reason)


def test_epsinas_is_ranked_within_its_order() -> None:
    sample = [record(str(i), order=1, epsinas=float(i)) for i in range(4)]
    sample += [record(f"o{i}", order=7, epsinas=100.0 + i) for i in range(4)]
    reference = Reference.of_records(("epsinas",), sample)
    best_of_1 = reference.value(record("x", order=1, epsinas=3.0)).value
    best_of_7 = reference.value(record("y", order=7, epsinas=103.0)).value
    assert best_of_1 == pytest.approx(best_of_7)
    assert reference.value(record("z", order=99, epsinas=5.0)).value == pytest.approx(math.log(0.5))


def test_it_comes_back_from_json_as_it_was() -> None:
    reference = Reference.of_records(("swap",), [record(str(i), swap=float(i**2)) for i in range(6)])
    again = Reference(("swap",), reference.to_dict())  # type: ignore[arg-type]
    asked = record("x", swap=7.0)
    assert repr(again.value(asked)) == repr(reference.value(asked))  # an order of NaN is not equal to itself


def test_a_sample_without_numbers_is_refused() -> None:
    with pytest.raises(UsageError, match="swap has a number for only 1 networks of the sample"):
        Reference.of_records(("swap",), [record("a", swap=1.0), record("b", meco=2.0)])
