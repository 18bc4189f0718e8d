"""Every pair's score against `score` with those weights, an independent way to it; and each constant is run once."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from epsinas_exporters import spaces
from epsinas_onnx import Status, find_weights, score
from epsinas_onnx.constants.find import CONSTANTS
from epsinas_onnx.evaluate_lumped.evaluator import Evaluator
from epsinas_onnx.graph.load import ModelSource
from epsinas_onnx.scoring.executors import LumpedExecutor
from epsinas_onnx.scoring.options import Arithmetic
from epsinas_onnx.scoring.result import same_score
from tests.builders import build

MODELS = Path(__file__).parents[2] / "models"
FEW = (1e-7, 1e-3, 1.0)
"""An odd number, so that the last run of two in float32 is not full."""


def network(space: str, seed: int = 3) -> ModelSource:
    found = spaces.get(space)
    return found.network(found.sample(1, seed)[0])


def compared(model: ModelSource, constants: tuple[float, ...], arithmetic: Arithmetic, **options: Any) -> set[Status]:
    """Compare every pair, and return the statuses that there were."""
    (one,) = find_weights([model], constants=constants, arithmetic=arithmetic, batch=8, **options).networks
    assert one.reason is None
    assert list(one.pairs) == list(itertools.combinations(constants, 2))
    for pair, found in one.pairs.items():
        alone = score(model, weights=pair, arithmetic=arithmetic, batch=8, **options)
        assert (found.status, found.arithmetic) == (alone.status, alone.arithmetic), pair
        if arithmetic == "exact" or found.score is None:
            assert found.score == alone.score, pair
        else:
            assert same_score(found.score, alone.score), pair
    return {found.status for found in one.pairs.values()}


@pytest.mark.parametrize("name", ["nb201-c3-c3-p-s-c3-s", "nb201-n-n-n-n-n-n", "mlp", "lstm", "transformer"])
def test_exact_pairs_are_to_the_bit_what_they_are_alone(name: str) -> None:
    compared(str(MODELS / f"{name}.onnx"), CONSTANTS, "exact")


@pytest.mark.parametrize("space", ["nasbench201", "nasbenchmacro", "nats-sss"])
def test_exact_pairs_of_spaces(space: str) -> None:
    assert compared(network(space), FEW, "exact") == {Status.OK}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nb201-c3-n-n-c1-c3-n", {Status.UNDERFLOW, Status.OK}),
        ("nb201-p-c1-s-c1-s-s", {Status.OK}),
        ("mlp", {Status.NOISE, Status.UNDERFLOW}),
    ],
)
def test_pairs_in_float32(name: str, expected: set[Status]) -> None:
    constants = (1e-7, 1e-3, 0.01, 0.1, 1.0)
    assert compared(str(MODELS / f"{name}.onnx"), constants, "float32") <= expected


def test_pairs_in_auto() -> None:
    assert compared(str(MODELS / "nb201-c3-n-n-c1-c3-n.onnx"), FEW, "auto") == {Status.OK}
    assert compared(network("nasbenchnlp"), FEW, "auto") <= {Status.OK, Status.UNDERFLOW, Status.NOISE}


def test_a_graph_that_cannot_be_lumped_is_run_as_it_is() -> None:
    graph = build("(float[N,4] x) => (float[N,2] y) { h = my.domain.Odd(x)  y = MatMul(h, W) }", W=(4, 2))
    (one,) = find_weights([graph], batch=8).networks
    assert one.reason is not None  # nobody runs this operator
    assert "Odd" in one.reason


def test_what_is_not_lumped_is_the_same_within_rounding() -> None:
    name = str(MODELS / "nb201-p-c1-s-c1-s-s.onnx")
    compared(name, FEW, "float32", lump=False)


def test_each_constant_is_run_once_in_exact_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[float] = Counter()
    end = Evaluator.end

    def counted(self: Evaluator, constant: Any, *args: Any) -> Any:
        asked[constant.mantissa * 2.0**constant.exponent] += 1
        return end(self, constant, *args)

    monkeypatch.setattr(Evaluator, "end", counted)
    find_weights([str(MODELS / "nb201-p-c1-s-c1-s-s.onnx")], arithmetic="exact", batch=8)
    assert asked == dict.fromkeys(CONSTANTS, 1)


def test_each_constant_is_run_once_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[float] = Counter()
    run = LumpedExecutor.run

    def counted(self: LumpedExecutor, constants: Any, *args: Any) -> Any:
        asked.update(constants)
        return run(self, constants, *args)

    monkeypatch.setattr(LumpedExecutor, "run", counted)
    find_weights([str(MODELS / "nb201-p-c1-s-c1-s-s.onnx")], constants=(1e-7, 0.01, 1), arithmetic="float32", batch=8)
    assert {constant: asked[constant] for constant in (1e-7, 0.01, 1)} == dict.fromkeys((1e-7, 0.01, 1), 1)


def test_networks_of_one_family_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    space = spaces.get("nasbench201")
    none, skip = "none", "skip_connect"
    first = f"|{skip}~0|+|{none}~0|{none}~1|+|{skip}~0|{none}~1|{none}~2|"
    second = f"|{none}~0|+|{skip}~0|{none}~1|+|{skip}~0|{none}~1|{none}~2|"
    assert space.family(first) == space.family(second)
    built = Counter[str]()
    build_one = type(space).build
    monkeypatch.setattr(type(space), "build", lambda self, arch: (built.update([arch]), build_one(self, arch))[1])
    found = find_weights([space.network(first), space.network(second)], batch=8)
    assert built.total() == 1
    one, other = found.networks
    assert (one.model, other.model) == (first, second)
    assert one.pairs == other.pairs
