"""Networks that compute the same are run once: families hold but for rounding, and each network has its own record."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from epsinas_exporters import spaces
from epsinas_exporters.spaces import nasbench201
from epsinas_onnx import Score, Status, score
from epsinas_onnx.evaluation import scoring
from epsinas_onnx.graph.load import Buildable

OPTIONS: dict[str, Any] = {"weights": (1e-7, 1.0), "inputs": "grey", "batch": 8, "seed": 0}
OWN = ("model", "parameters", "nodes", "seconds", "warnings", "reason")


SPACES = ("nasbench201", "nasbenchmacro")


def families(name: str = "nasbench201") -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    space = spaces.get(name)
    for arch in space.enumerate():
        found[space.family(arch)].append(arch)
    return found


def test_families_of_nasbench201_are_the_functions_that_its_cells_are() -> None:
    """Cells are told apart by what they make of a vector, with any two nonlinear functions and any linear one."""
    rng = np.random.default_rng(0)
    first, second, mean = (rng.normal(size=(6, 6)) / 2 for _ in range(3))
    functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "none": np.zeros_like,
        "skip_connect": np.array,
        "nor_conv_1x1": lambda x: np.tanh(first @ x),
        "nor_conv_3x3": lambda x: np.arctan(second @ x),
        "avg_pool_3x3": lambda x: mean @ x,
    }
    space = spaces.get("nasbench201")
    by_output: dict[bytes, set[str]] = defaultdict(set)
    start = rng.normal(size=6)
    for arch in space.enumerate():
        nodes = [start]
        operations = iter(nasbench201.parse(arch).operations)
        for target in (1, 2, 3):
            nodes.append(sum((functions[next(operations)](node) for node in nodes[:target]), np.zeros(6)))
        by_output[(np.round(nodes[3], 9) + 0.0).tobytes()].add(space.family(arch))
    assert all(len(names) == 1 for names in by_output.values())
    assert len(by_output) == len(families()) == 4_660
    assert len(families()["nothing"]) == 341


def test_nasbenchmacro_has_the_families_that_its_stages_combine() -> None:
    pair, triple = 3 * 3, 3 * (1 + 2 + 4)  # behind the first layer of a stage: nothing, one block, or two
    assert len(families("nasbenchmacro")) == pair * triple * triple


def drawn(count: int, seed: int, name: str = "nasbench201") -> list[tuple[str, str]]:
    """Return pairs of different architectures of one family, of as many families, all of their members as likely."""
    rng = random.Random(seed)
    many = [members for members in families(name).values() if len(members) > 1]
    return [(one, other) for one, other in (rng.sample(members, 2) for members in rng.sample(many, count))]


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [(name, *pair) for name, n in zip(SPACES, (12, 3), strict=True) for pair in drawn(n, 4, name)]
    + [
        # sums whose terms have scales of the same size, and a factor that waits behind a zero
        ("nasbench201", "|nor_conv_1x1~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|skip_connect~2|",
         "|nor_conv_1x1~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"),
        ("nasbench201", "|avg_pool_3x3~0|+|nor_conv_1x1~0|none~1|+|none~0|nor_conv_1x1~1|avg_pool_3x3~2|",
         "|nor_conv_1x1~0|+|avg_pool_3x3~0|none~1|+|none~0|avg_pool_3x3~1|nor_conv_1x1~2|"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("inputs", ["grey", "normal"])
def test_all_of_a_family_have_the_same_score_but_for_rounding(name: str, one: str, other: str, inputs: str) -> None:
    network = spaces.Network(name, one)
    same = [network, network.live(), spaces.Network(name, other)]
    first, *others = [score(network, **{**OPTIONS, "inputs": inputs}).to_dict() for network in same]
    for found in others:
        for key in found:
            if key in ("score", "raw_score"):
                assert found[key] == pytest.approx(first[key], rel=1e-10, abs=1e-300), key
            elif key not in OWN:
                assert found[key] == first[key], key


def test_live_networks_of_a_family_are_one() -> None:
    for one, other in drawn(20, 5):
        built = [spaces.Network("nasbench201", arch).live().build().graph for arch in (one, other)]
        first, second = (
            [(node.name, node.op_type, [str(value and value.name) for value in node.inputs]) for node in graph]
            for graph in built
        )
        assert first == second


@pytest.mark.parametrize("inputs", ["grey", "normal"])
def test_zeros_that_layers_are_made_of_change_no_bit(inputs: str) -> None:
    """A convolution, a rectifier and a pooling of zeros are zeros, which a sum does without: nothing is rounded."""
    arch = "|avg_pool_3x3~0|+|none~0|none~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|"
    network = spaces.Network("nasbench201", arch)
    options = {**OPTIONS, "weights": (1e-3, 1.0), "inputs": inputs}
    whole, live = (score(one, **options).to_dict() for one in (network, network.live()))
    for key in whole:
        if key not in ("parameters", "nodes", "seconds"):
            assert live[key] == whole[key], key


def test_what_does_not_reach_the_output_is_not_in_the_live_network() -> None:
    network = spaces.Network("nasbench201", "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|")
    live = {node.name for node in network.live().build().graph if ".cell" in str(node.name)}
    assert live == set()  # the skip alone reaches it
    assert {node.name for node in network.live().build().graph} < {node.name for node in network.build().graph}


def test_what_is_pooled_is_pooled_together_in_the_live_network() -> None:
    """p(x) + p(c1(x) + p(x)) is p(x + c1(x) + p(x))."""
    network = spaces.Network(
        "nasbench201", "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|none~1|avg_pool_3x3~2|"
    )
    live = [node for node in network.live().build().graph if "stage1.cell3" in str(node.name)]
    assert [node.op_type for node in live if node.op_type in ("AveragePool", "Conv")] == [
        "Conv",
        "AveragePool",
        "AveragePool",
    ]
    assert str(live[-1].name) == "stage1.cell3.p(x+c1(x)+p(x)).pool"


def test_what_the_output_has_twice_is_once_in_the_live_network() -> None:
    network = spaces.Network(
        "nasbench201", "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"
    )
    live = [node for node in network.live().build().graph if ".cell0" in str(node.name) and "stage0" in str(node.name)]
    # one Relu in front of both convolutions of the input, and one 3x3 convolution for two nodes
    assert [sum(node.op_type == kind for node in live) for kind in ("Relu", "Conv", "BatchNormalization")] == [2, 3, 3]
    stored = network.live().build().graph.initializers
    kernel, shift = (stored[name].const_value for name in ("parameter_16x16x3x3_1", "parameter_16_0"))
    assert kernel is not None
    assert shift is not None
    assert (kernel.numpy() == 1).all()  # what the whole network's parameters hold
    assert (shift.numpy() == 0).all()


@pytest.mark.parametrize("arch", random.Random(9).sample(families()["nothing"], 8))
def test_a_constant_network_has_the_reason_of_the_whole_one(arch: str) -> None:
    network = spaces.Network("nasbench201", arch)
    assert len(network.live().build().graph) < len(network.build().graph)
    whole, live = (score(one, **OPTIONS).to_dict() for one in (network, network.live()))
    assert whole["status"] == Status.CONSTANT
    for key in whole:
        if key not in ("parameters", "nodes", "seconds"):
            assert live[key] == whole[key], key
    (record,) = scoring.scored([network], OPTIONS, None)
    assert {**record, "seconds": {}, "proxies": {}} == {**whole, "seconds": {}}


@pytest.mark.parametrize(("name", "arch"), [(name, arch) for name in SPACES for arch in spaces.get(name).sample(8, 5)])
def test_counts_are_those_of_the_network_that_is_built(name: str, arch: str) -> None:
    built = score(spaces.Network(name, arch), **OPTIONS)
    counts = spaces.get(name).counts(arch)
    assert counts is not None
    assert (counts.parameters, counts.nodes) == (built.parameters, built.nodes)


def run(
    archs: Sequence[str], path: Path | None = None, status: Status = Status.OK
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the records of a run in which nothing is computed, and which networks it ran."""
    called: list[str] = []

    def score_as_done(models: Sequence[Buildable], **_: Any) -> Iterator[tuple[int, Score]]:
        for index, model in enumerate(models):
            called.append(model.name)
            yield index, Score(
                model=model.name, score=0.5 if status is Status.OK else None, raw_score=0.5, status=status,
                reason=None if status is Status.OK else f"node {model.name}", weights=(1e-7, 1.0), input="grey",
                batch=8, provider=None, parameters=7, nodes=1, seconds={}, arithmetic="exact",
            )  # fmt: skip

    with mock.patch("epsinas_onnx.scoring.api.score_as_done", score_as_done):
        networks = [spaces.Network("nasbench201", arch) for arch in archs]
        return list(scoring.scored(networks, OPTIONS, path)), called


def test_one_of_a_family_is_run_and_the_others_say_so(tmp_path: Path) -> None:
    (first, second), (third, _) = drawn(2, seed=6)
    records, called = run([first, second, third])
    assert called == [first, third]
    by_name = {record["model"]: record for record in records}
    assert set(by_name) == {first, second, third}
    counts = spaces.get("nasbench201").counts(second)
    assert counts is not None
    assert by_name[second]["parameters"] == counts.parameters
    assert by_name[second]["score"] == by_name[first]["score"]
    assert by_name[second]["warnings"] == [f"computes the same as {first}, which was run instead"]
    assert by_name[first]["warnings"] == []


def test_without_a_score_each_is_run_for_a_reason_of_its_own() -> None:
    ((first, second),) = drawn(1, seed=7)
    records, called = run([first, second], status=Status.UNDERFLOW)
    assert called == [first, second, first, second]  # the live networks first, which may lack a node that is to blame
    assert [record["reason"] for record in records] == [f"node {first}", f"node {second}"]


def test_networks_are_run_as_they_are_where_roles_name_their_nodes() -> None:
    ran: list[Buildable] = []

    def score_as_done(models: Sequence[Buildable], **_: Any) -> Iterator[tuple[int, Score]]:
        ran.extend(models)
        return iter(())

    network = spaces.Network("nasbench201", drawn(1, seed=3)[0][0])
    with mock.patch("epsinas_onnx.scoring.api.score_as_done", score_as_done):
        list(scoring.scored([network], {**OPTIONS, "roles": {"stem.*": "constant"}}, None))
        list(scoring.scored([network], OPTIONS, None))
    assert ran == [network, network.live()]


def test_a_run_that_goes_on_takes_what_the_file_has_of_a_family(tmp_path: Path) -> None:
    ((first, second),) = drawn(1, seed=8)
    path = tmp_path / "scores.jsonl"
    run([first], path)
    records, called = run([first, second], path)
    assert called == []
    assert [record["model"] for record in records] == [first, second]
    again, called = run([first, second], path)
    assert called == []
    assert {record["model"]: record for record in again} == {record["model"]: record for record in records}
