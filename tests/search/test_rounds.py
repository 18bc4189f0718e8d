"""Searches for a table's accuracy: curves that only rise, a guide that helps as much as it is right, and its limits."""

from __future__ import annotations

import random

import numpy as np
import pytest

from epsinas_onnx.errors import UsageError
from epsinas_onnx.report.search_rounds import to_csv
from epsinas_onnx.search.rounds import Rounds, TableSpace, Variant, compare_rounds, run_round
from epsinas_onnx.search.strategy import Strategy
from tests.search.toy import BEST, Toy, apart, total

SPACE = Toy()
ACCURACIES = {arch: total(arch) for arch in SPACE.enumerate()}
STRATEGY = Strategy(warmup=200, population=8, tournament=3)


def compared(guides: dict[str, dict[str, float | None]], lower: bool = False, **more: object) -> Rounds:
    accuracies = {arch: -value for arch, value in ACCURACIES.items()} if lower else ACCURACIES
    *_, (_, _, found) = compare_rounds(SPACE, accuracies, guides, STRATEGY, 40, 20, lower_is_better=lower)
    assert found is not None
    return found


def test_curves_rise_and_never_above_the_best_of_the_table() -> None:
    found = compared({"right": dict(ACCURACIES)})
    assert [str(one.variant) for one in found.curves] == [
        "random search",
        "ageing evolution",
        "random search, warm-up by right",
        "ageing evolution, warm-up by right",
        "ageing evolution, move (parent) by right",
        "ageing evolution, warm-up and move (parent) by right",
    ]
    assert found.optimum == total(BEST)
    for curve in found.curves:
        assert curve.best.shape == (20, 40)
        assert (np.diff(curve.best, axis=1) >= 0).all()
        assert (found.regret(curve) >= 0).all()


def test_losses_are_the_mirror_image() -> None:
    up, down = compared({}), compared({}, lower=True)
    for one, other in zip(up.curves, down.curves, strict=True):
        assert (one.best == -other.best).all()


def test_a_right_guide_begins_with_the_best_of_its_warm_up() -> None:
    for number in range(5):
        warm = random.Random(f"0:{number}:warm-up").sample(list(ACCURACIES), 200)
        best = run_round(
            Variant("random", True, guide="right"), SPACE, ACCURACIES, dict(ACCURACIES), STRATEGY, 30, number, False
        )
        assert (best == max(map(total, warm))).all()


def test_a_guide_that_knows_nothing_helps_nothing() -> None:
    drawn = random.Random(5)
    found = compared({"blind": {arch: drawn.random() for arch in ACCURACIES}, "right": dict(ACCURACIES)})
    last = {str(one.variant): one.best[:, 10].mean() for one in found.curves}
    assert abs(last["random search, warm-up by blind"] - last["random search"]) < 1.5
    assert last["random search, warm-up by right"] > last["random search"] + 1.5


def test_a_guide_that_was_not_asked_of_all_has_no_move_and_says_so() -> None:
    some = dict(list(ACCURACIES.items())[::4])
    found = compared({"some": some})
    assert [one.variant.move for one in found.curves] == ["none"] * 4
    assert found.notes == (
        "only 1,024 of 4,096 architectures were scored for some: the warm-up is drawn from those, and there is no move",
    )


def test_a_guide_without_any_number_is_refused() -> None:
    with pytest.raises(UsageError, match="no architecture of the table has a number of none"):
        compared({"none": dict.fromkeys(ACCURACIES)})


def test_a_table_of_a_part_of_the_space_is_searched_within_it() -> None:
    archs = [arch for arch in ACCURACIES if arch[0] == "0"]
    table = TableSpace(SPACE, archs)
    rng = random.Random(0)
    for _ in range(100):
        arch = table.draw(rng)
        child = table.mutate(arch, rng)
        assert child in archs
        assert apart(arch, child) == 1
    alone = TableSpace(SPACE, ["000000", "333333"])
    assert alone.mutate("000000", rng) in ("000000", "333333")


def test_a_csv_has_a_line_for_each_search_and_number() -> None:
    lines = to_csv(compared({})).splitlines()
    assert lines[0] == "search,trained,low,median,high,regret"
    assert len(lines) == 1 + 2 * 40
