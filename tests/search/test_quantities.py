"""Objectives and bounds as texts, and what is said of those that mean nothing."""

from __future__ import annotations

import pytest

from epsinas_onnx.errors import UsageError
from epsinas_onnx.search.quantities import Kind, parse_constraint, parse_objective, parse_objectives, quantity_of


@pytest.mark.parametrize(
    ("text", "minimised"),
    [("epsinas", False), ("swap", False), ("default", False), ("params", True), ("macs", True), ("latency", True),
     ("size", True), ("params:max", False), ("epsinas:min", True), ("rank:swap,meco", False)],
)  # fmt: skip
def test_a_direction_follows_from_the_name_or_a_word(text: str, minimised: bool) -> None:
    found = parse_objective(text)
    assert found.minimised is minimised
    assert found.worth(2.0) == (-2.0 if minimised else 2.0)


def test_combinations_are_ranks_of_their_members() -> None:
    assert quantity_of("default").members == ("swap", "meco", "expressivity")
    assert quantity_of("rank: meco,swap").name == "rank:meco,swap"
    assert quantity_of("rank:counts").members == ("macs", "params")


def test_a_name_of_the_callers_own() -> None:
    assert quantity_of("accuracy", {"accuracy"}).kind is Kind.OWN
    assert parse_objective("loss", {"loss"}, {"loss"}).minimised


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("params<=1e6", 1e6, 1.1e6),
        ("params <= 2M", 2e6, 2.1e6),
        ("latency<=5ms", 5.0, 6.0),
        ("latency<=0.005s", 5.0, 5.1),
        ("size<=4MB", 4e6, 4.1e6),
        ("epsinas>=0.1", 0.1, 0.05),
        ("default>=-2.5", -2.0, -3.0),
    ],
)
def test_a_bound_lets_through_what_it_says(text: str, inside: float, outside: float) -> None:
    bound = parse_constraint(text)
    assert bound.violation(inside) <= 1e-12
    assert bound.violation(outside) > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("params<1e6", "written like"),
        ("latency<=fast", "written like"),
        ("latency<=5 parsecs", "has the unit 'parsecs'; those of latency are us, ms, s"),
        ("epsinas>=1k", "those of epsinas are none"),
        ("beauty<=3", "there is nothing called 'beauty' to search for"),
        ("params<=1.2.3", "has no number behind <="),
    ],
)
def test_a_bound_that_means_nothing(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_constraint(text)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["beauty"], "there is nothing called 'beauty'"),
        (["accuracy"], "accuracy needs a table, --accuracies"),
        (["rank:beauty"], "there is no score beauty"),
        (["params", "params:max"], "the objective params is named twice"),
        ([], "a search needs an objective"),
    ],
)
def test_an_objective_that_means_nothing(texts: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_objectives(texts)
