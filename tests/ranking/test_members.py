"""Which scores rank, and what a record says of each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from epsinas_onnx.errors import UsageError
from epsinas_onnx.proxies.registry import proxy_names
from epsinas_onnx.ranking.members import COMBINATIONS, DEFAULT, EPSINAS, column_of, found, measured, parse_members

KNOWN = ("params", "macs", "swap", "jacov", "nwot", "meco", "expressivity")


def test_names_and_combinations_are_read_and_each_is_taken_once() -> None:
    assert parse_members(" jacov, params ", KNOWN) == ("jacov", "params")
    assert parse_members("epsinas", KNOWN) == (EPSINAS,)
    assert parse_members(f"{DEFAULT},macs,swap", KNOWN) == (*COMBINATIONS[DEFAULT], "macs")
    assert measured(("jacov", EPSINAS, "params")) == ("jacov", "params")


@pytest.mark.parametrize("text", ["", " , ", "jacov,bogus", "Epsinas"])
def test_what_is_no_score_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(UsageError, match=r"the scores are epsinas, params, .*combinations default, broad"):
        parse_members(text, KNOWN)


@pytest.mark.parametrize("members", COMBINATIONS.values(), ids=list(COMBINATIONS))
def test_combinations_name_scores_that_there_are(members: tuple[str, ...]) -> None:
    assert set(members) <= {EPSINAS, *proxy_names()}


@pytest.mark.parametrize(
    "record",
    [
        {"proxies": {"swap": {"value": 3.0, "status": "ok", "reason": None, "seconds": 0.1}}},
        {"proxies.swap.value": "3.0", "proxies.swap.status": "ok", "proxies.swap.reason": ""},
    ],
    ids=["json", "csv"],
)
def test_a_number_is_found_in_records_of_either_form(record: dict[str, Any]) -> None:
    one = found(record, "swap")
    assert (one.value, one.status, one.reason) == (3.0, "ok", None)


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "no number"), (math.nan, "'nan'"), (math.inf, "'inf'"), ("abc", "'abc'"), (True, "'True'"), ([4], "[4]")],
)
def test_a_number_that_somebody_broke_is_told(value: Any, said: str) -> None:
    one = found({"proxies": {"swap": {"value": value, "status": "ok"}}}, "swap")
    assert one.value is None
    assert not one.is_last
    assert str(one.reason).startswith("the results say ok, and hold ")
    assert said in str(one.reason)


def test_a_score_that_nobody_asked_for_is_missing_with_what_to_do() -> None:
    one = found({"model": "a", "score": 1.0}, "swap")
    assert (one.value, one.status) == (None, "missing")
    assert one.reason == "the results hold no swap; score with --with swap"
    assert not one.is_last


@pytest.mark.parametrize(
    ("member", "status", "last"),
    [
        ("nwot", "undefined", True), ("nwot", "unsupported", False), ("nwot", "error", False),
        (EPSINAS, "constant", True), (EPSINAS, "underflow", False), (EPSINAS, "noise", False),
        (EPSINAS, "error", False),
    ],
)  # fmt: skip
def test_only_an_absence_that_is_a_verdict_on_the_network_is_last(member: str, status: str, last: bool) -> None:
    entry = {"value": None, "status": status, "reason": "why"}
    other = {"score": 1.0, "status": "ok", "proxies": {"nwot": entry}}
    record = {"score": None, **entry} if member == EPSINAS else other
    assert found(record, member).is_last is last


def test_epsinas_compares_within_an_order_where_there_are_several() -> None:
    def records(*orders: float | None) -> list[Any]:
        return [found({"score": 0.5, "status": "ok", "order": order}, EPSINAS) for order in orders]

    assert column_of(records(6, 6)).groups is None
    assert column_of(records(None, None)).groups is None
    groups = column_of(records(6, 36)).groups
    assert groups is not None
    assert groups.tolist() == [6, 36]


def test_numbers_that_json_or_a_foreign_file_cannot_mean_are_none() -> None:
    for value in ("", None, "nan", "inf", "text"):
        assert found({"proxies": {"swap": {"value": value, "status": "ok"}}}, "swap").value is None
    values = column_of([found({"proxies": {"swap": {"value": v, "status": "ok"}}}, "swap") for v in (1, None)]).values
    assert values[0] == 1
    assert math.isnan(values[1])
    assert values.dtype == np.float64
