"""Ageing evolution and random search: what they propose, from whom, and that they find what is known to be best."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epsinas_onnx.errors import UsageError
from epsinas_onnx.search.evolution import AgeingEvolution, Individual, RandomSearch, best_first, front
from tests.search.toy import BEST, LENGTH, Toy, apart, total

SPACE = Toy()


def guide(archs: Sequence[str]) -> list[float | None]:
    return [total(arch) for arch in archs]


def searched(
    proposer: AgeingEvolution | RandomSearch, trials: int, seed: int, worth: Callable[[str], float] = total
) -> list[Individual]:
    history: list[Individual] = []
    for number in range(trials):
        tried = {one.arch for one in history}
        arch = proposer.propose(history, number, tried, random.Random(f"{seed}:{number}"))
        history.append(Individual(arch, (worth(arch),)))
    return history


def reimplemented(trials: int, population: int, tournament: int, seed: int) -> float:
    """Return the best that ageing evolution finds, written anew over lists of digits."""
    rng = random.Random(seed)
    alive: list[list[int]] = []
    best = 0
    for _ in range(trials):
        if len(alive) < population:
            child = [rng.randrange(4) for _ in range(LENGTH)]
        else:
            child = list(max(rng.sample(alive, tournament), key=sum))
            place = rng.randrange(LENGTH)
            child[place] = (child[place] + rng.randrange(1, 4)) % 4
            alive.pop(0)
        alive.append(child)
        best = max(best, sum(child))
    return float(best)


def test_evolution_finds_as_much_as_one_that_is_written_anew() -> None:
    rounds, trials = 60, 60
    ours = [max(o.worths[0] for o in searched(AgeingEvolution(SPACE, 10, 4), trials, seed)) for seed in range(rounds)]
    theirs = [reimplemented(trials, 10, 4, seed) for seed in range(rounds)]
    plain = [max(o.worths[0] for o in searched(RandomSearch(SPACE), trials, seed)) for seed in range(rounds)]
    assert abs(sum(ours) - sum(theirs)) / rounds < 0.5  # the deviation of either mean is about 0.13
    assert sum(ours) - sum(plain) > rounds  # better by more than one on average


def test_evolution_finds_the_known_best() -> None:
    assert BEST in [one.arch for one in searched(AgeingEvolution(SPACE, 16, 6), 400, 1)]


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8), st.data())
def test_a_child_is_one_decision_from_one_that_is_alive(seed: int, population: int, data: st.DataObject) -> None:
    tournament = data.draw(st.integers(1, population))
    history = searched(AgeingEvolution(SPACE, population, tournament), population + 12, seed)
    for number in range(population, len(history)):
        alive = history[number - population : number]
        assert min(apart(history[number].arch, one.arch) for one in alive) <= 1


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8))
def test_when_all_compete_the_best_alive_is_the_parent(seed: int, population: int) -> None:
    history = searched(AgeingEvolution(SPACE, population, population), population + 12, seed)
    for number in range(population, len(history)):
        alive = history[number - population : number]
        most = max(one.worths[0] for one in alive)
        assert any(apart(history[number].arch, one.arch) == 1 for one in alive if one.worths[0] == most)


def test_the_best_dies_of_age() -> None:
    history = [Individual(BEST, (18.0,)), *(Individual("000000", (0.0,)) for _ in range(4))]
    proposer = AgeingEvolution(SPACE, 4, 4)
    children = [proposer.propose(history, 5, (), random.Random(seed)) for seed in range(20)]
    assert all(apart(child, "000000") == 1 for child in children)


def test_what_is_outside_the_bounds_is_no_parent_while_another_is_inside() -> None:
    history = [Individual("333333", (18.0,), 0.5), Individual("000000", (0.0,))]
    children = [AgeingEvolution(SPACE, 2, 2).propose(history, 2, (), random.Random(seed)) for seed in range(20)]
    assert all(apart(child, "000000") == 1 for child in children)


def test_the_seeds_come_first_and_the_rest_of_the_population_is_drawn() -> None:
    seeds = ["000000", "111111", "222222"]
    history = searched(AgeingEvolution(SPACE, 5, 2, seeds), 5, 0)
    assert [one.arch for one in history[:3]] == seeds
    assert not {one.arch for one in history[3:]} & set(seeds)


def test_the_move_parent_takes_the_guides_word_and_not_the_worth() -> None:
    history = [Individual("333333", (0.0,)), Individual("000000", (18.0,))]
    proposer = AgeingEvolution(SPACE, 2, 2, move="parent", guide=guide)
    children = [proposer.propose(history, 2, (), random.Random(seed)) for seed in range(20)]
    assert all(apart(child, "333333") == 1 for child in children)


def test_the_move_child_takes_the_best_of_many_mutations() -> None:
    history = [Individual("111111", (1.0,)), Individual("111111", (1.0,))]
    proposer = AgeingEvolution(SPACE, 2, 2, move="child", proposals=200, guide=guide)
    children = [proposer.propose(history, 2, (), random.Random(seed)) for seed in range(20)]
    assert all(total(child) == 8 and apart(child, "111111") == 1 for child in children)


def test_a_guide_without_a_number_loses() -> None:
    assert best_first(["a", "b", "c"], lambda _: [None, -5.0, -1.0]) == ["c", "b", "a"]


def test_a_pool_without_numbers_is_drawn_anew() -> None:
    assert SPACE.parse(AgeingEvolution(SPACE, 4, 2).propose([], 9, (), random.Random(0)))


def test_random_search_tries_nothing_twice_while_there_is_something_new() -> None:
    history = searched(RandomSearch(SPACE), 300, 3)
    assert len({one.arch for one in history}) == 300


points = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from([0.0, 0.0, 1.0])), min_size=1, max_size=12
)


@settings(deadline=None)
@given(points)
def test_the_front_is_what_nobody_beats(drawn: list[tuple[int, int, float]]) -> None:
    ones = [Individual(str(i), (float(a), float(b)), bad) for i, (a, b, bad) in enumerate(drawn)]
    kept = front(ones)
    assert kept
    for one in ones:
        beaten = any(
            other.violation < one.violation
            or (
                other.violation == one.violation
                and other.worths != one.worths
                and all(x >= y for x, y in zip(other.worths, one.worths, strict=True))
            )
            for other in ones
        )
        assert (one in kept) is not beaten


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"population": 1}, "a population of 1 with a tournament of 10 makes no evolution"),
        ({"population": 4, "tournament": 5}, "the tournament from 1 to the population"),
        ({"move": "sideways"}, "there is no move 'sideways'; choose one of none, parent, child"),
        ({"proposals": 0}, "at least 1 mutation, not 0"),
        ({"move": "child"}, "needs a training-free score to go by"),
    ],
)
def test_settings_that_make_no_evolution(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        AgeingEvolution(SPACE, **wrong)  # type: ignore[arg-type]
