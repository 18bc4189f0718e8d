"""A ranked set as a record: who has which place, where scores disagree, and what is said of the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from epsinas_onnx.errors import UsageError
from epsinas_onnx.ranking.result import RankedSet, rank_records


def record(model: str, score: float | None = None, order: float | None = 6, **values: float | str) -> dict[str, Any]:
    """Return a record; a text in place of a number is the status of a score without one."""
    proxies = {
        name: {"value": None, "status": value, "reason": f"{model}: {name} has a reason"}
        if isinstance(value, str)
        else {"value": value, "status": "ok", "reason": None}
        for name, value in values.items()
    }
    status = "constant" if score is None else "ok"
    reason = "the output stands still" if score is None else None
    return {"model": model, "score": score, "status": status, "reason": reason, "order": order, "proxies": proxies}


def models(ranked: RankedSet) -> list[str]:
    return [one.model for one in ranked.placed]


def test_the_best_is_first_and_each_member_says_its_place() -> None:
    ranked = rank_records([record("a", jacov=1, params=5), record("b", jacov=9, params=7)], ("jacov", "params"))
    assert models(ranked) == ["b", "a"]
    assert [one.place for one in ranked.placed] == [1, 2]
    assert {name: (of.place, of.value) for name, of in ranked.placed[1].members.items()} == {
        "jacov": (2, 1.0), "params": (2, 5.0),
    }  # fmt: skip
    assert ranked.concordance == pytest.approx(1)
    assert "agree closely: Kendall's W is 1.00" in ranked.agreement()
    assert "0.50 what unrelated scores have" in ranked.agreement()
    assert ranked.disputed() == []


def test_disagreement_names_the_networks() -> None:
    sets = [
        record(name, jacov=i, params=(0 if name == "e" else 9 if name == "a" else i)) for i, name in enumerate("abcde")
    ]
    ranked = rank_records(sets, ("jacov", "params"))
    assert {one.model for one in ranked.disputed()} == {"a", "e"}
    assert "hardly agree" in ranked.agreement()


def test_what_has_no_place_says_why_by_score_without_its_own_name() -> None:
    sets = [record("a", jacov=1, swap=1), record("b", jacov="error", swap="unsupported"), record("c", jacov=2, swap=3)]
    ranked = rank_records(sets, ("jacov", "swap"))
    assert models(ranked) == ["c", "a"]
    [lacking] = ranked.unplaced
    assert lacking.model == "b"
    assert lacking.reason == "no jacov: jacov has a reason; no swap: swap has a reason"
    assert lacking.failed
    assert (
        not rank_records([*sets[::2], record("b", jacov=1, swap="unsupported")], ("jacov", "swap")).unplaced[0].failed
    )


def test_an_undefined_score_is_the_last_place_and_said() -> None:
    ranked = rank_records([record("a", nwot="undefined"), record("b", nwot=-3)], ("nwot",))
    assert models(ranked) == ["b", "a"]
    assert ranked.placed[1].members["nwot"].value is None
    assert ranked.notes == ("last by nwot, which has no number for what is worse than any with one: a",)


def test_a_score_that_no_network_has_is_left_out_with_a_reason() -> None:
    sets = [record("a", swap="unsupported", params=2), record("b", swap="unsupported", params=1)]
    ranked = rank_records(sets, ("swap", "params"))
    assert ranked.members == ("params",)
    assert models(ranked) == ["a", "b"]
    assert ranked.left_out == {"swap": "swap has a reason (a)"}
    assert ranked.agreement() == "ranked by params alone"


def test_epsinas_ranks_within_orders_and_says_so() -> None:
    """By the bare numbers all of order 36 would stand above all of order 6."""
    sets = [
        record("a", 1.0, 6),
        record("b", 2.0, 6),
        record("c", 100.0, 36),
        record("d", 200.0, 36),
        record("e", order=None),
    ]
    ranked = rank_records(sets, ("epsinas",))
    assert [(one.model, one.place) for one in ranked.placed] == [("b", 1), ("d", 1), ("a", 3), ("c", 3), ("e", 5)]
    assert any("of which there are 2" in note for note in ranked.notes)
    own = rank_records([record("a", 1.0, 6), record("c", 100.0, 36)], ("epsinas",))
    assert [one.place for one in own.placed] == [1, 1]
    assert any("epsinas says nothing here" in note for note in own.notes)


@pytest.mark.parametrize("sets", [[], [record("a", params=1)]])
def test_a_set_of_one_is_refused(sets: list[dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match=rf"a set of {len(sets)} has no order"):
        rank_records(sets, ("params",))


def test_the_record_is_plain_json() -> None:
    sets = [record("a", jacov=1, params=5), record("b", jacov=9, params=7), record("c", jacov="error", params=1)]
    plain = rank_records(sets, ("jacov", "params")).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert [one["model"] for one in plain["networks"]] == ["b", "a"]
    assert [one["model"] for one in plain["unranked"]] == ["c"]
    assert plain["pairs"] == [{"members": ["jacov", "params"], "kendall": pytest.approx(1)}]
