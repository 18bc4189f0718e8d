"""`ablate`: each setting is what `evaluate` makes of it, drawn weights are drawn as they say, and bad input is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from epsinas_exporters import spaces
from epsinas_onnx.evaluation import ablation, initialisations, scoring
from epsinas_onnx.evaluation.ablation import Ablation, Setting
from epsinas_onnx.evaluation.ranking import evaluate_ranking
from epsinas_onnx.proxies.drawn import DRAWN, Draw
from epsinas_onnx.proxies.prepared import Prepared, prepare
from epsinas_onnx.scoring.metric import normalised_dispersion
from tests.builders import build, command, perceptron

Array = npt.NDArray[Any]
SIZES = (8, 12)


@pytest.fixture
def table(tmp_path: Path) -> str:
    space = spaces.get("nasbench201")
    rows = [f"{arch},{80 + index}" for index, arch in enumerate(space.sample(3, seed=2))]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["arch,accuracy", *rows]) + "\n")
    return str(path)


def ablate(what: str, table: str, *args: str) -> Any:
    done = command("ablate", what, table, "--space", "nasbench201", "--column", "accuracy", *args, "--format", "json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def evaluated(table: str, *args: str) -> Any:
    done = command("evaluate", table, "--space", "nasbench201", "--column", "accuracy", *args, "--format", "json")
    return json.loads(done.out)


def drawn(draw: Draw) -> dict[str, Array]:
    """Return the weights of a wide layer and of a narrow convolution."""
    graph = build(
        "(float[N,40,6,6] x) => (float[N,30] y) "
        "{ [conv] c = Conv(x, K)  f = Flatten(c)  [last] y = MatMul(f, W) }",
        K=(20, 40, 3, 3), W=(320, 30),
    )  # fmt: skip
    made = prepare(graph, batch=2).with_draw(draw).graph
    found = {}
    for value in made.graph.initializers.values():
        if DRAWN in value.meta and value.const_value is not None:
            found[value.meta[DRAWN].node.name] = value.const_value.numpy()
    return found


def test_weights_are_drawn_as_the_schemes_say() -> None:
    uniform = drawn(Draw.UNIFORM)["conv"]
    assert 0 <= uniform.min() < 0.01 < 0.99 < uniform.max() < 1
    assert drawn(Draw.GAUSSIAN)["conv"].std() == pytest.approx(1, rel=0.05)
    assert drawn(Draw.KAIMING)["conv"].std() == pytest.approx(np.sqrt(2 / (20 * 9)), rel=0.05)
    assert drawn(Draw.XAVIER)["conv"].std() == pytest.approx(np.sqrt(2 / (20 * 9 + 40 * 9)), rel=0.05)
    assert drawn(Draw.XAVIER)["last"].std() == pytest.approx(np.sqrt(2 / (320 + 30)), rel=0.05)


def test_orthogonal_weights_are_orthonormal() -> None:
    found = drawn(Draw.ORTHOGONAL)
    kernel = found["conv"].reshape(20, -1)
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(20), atol=1e-5)
    np.testing.assert_allclose(found["last"].T @ found["last"], np.eye(30), atol=1e-5)


@pytest.mark.parametrize("scheme", initialisations.NAMES)
def test_the_score_is_the_formula_on_two_draws_for_one_minibatch(scheme: str) -> None:
    prepared = prepare(perceptron(width=16), batch=8, seed=4)
    outputs = []
    for seed in (4, 5):
        made = prepared.with_seed(seed).with_draw(initialisations.NAMES[scheme])
        outputs.append(_by_reference(made, prepared.feeds))
    expected = normalised_dispersion(*outputs)
    assert expected > 0.01
    assert initialisations._score(prepared, initialisations.NAMES[scheme]) == pytest.approx(expected, rel=1e-4)


def _by_reference(made: Prepared, feeds: Any) -> Array:
    output: Array = ReferenceEvaluator(ir.to_proto(made.graph)).run([made.output.name], dict(feeds))[0]
    return output


def test_a_network_that_cannot_be_run_has_a_reason() -> None:
    class Bad:
        name = "bad"

        def build(self) -> ir.Model:
            raise ValueError("there is no such network")

    found = initialisations._scores(Bad(), ["xavier"], {"batch": 8})
    assert found.scores == {}
    assert "there is no such network" in str(found.reason)


def test_batches_and_inputs_are_what_evaluate_makes_of_them(table: str) -> None:
    found = ablate("batch", table, "--values", ",".join(map(str, SIZES)), "--input", "normal", "--seed", "3")
    for size, setting in zip(SIZES, found["settings"], strict=True):
        assert setting["name"] == str(size)
        alone = evaluated(table, "--batch", str(size), "--input", "normal", "--seed", "3")
        for key in ("total", "scored", "spearman", "kendall", "top_share"):
            assert setting["ranking"][key] == alone[key]
    found = ablate("input", table, "--batch", "8", "--arithmetic", "float32", "--values", "uniform")
    assert [setting["name"] for setting in found["settings"]] == ["uniform"]
    for setting in found["settings"]:
        alone = evaluated(table, "--batch", "8", "--input", setting["name"], "--arithmetic", "float32")
        assert setting["ranking"]["spearman"] == alone["spearman"]


def test_initialisations(table: str, tmp_path: Path) -> None:
    target = tmp_path / "schemes.svg"
    found = ablate("initialisation", table, "--values", "constants,kaiming", "--batch", "8", "--plot", str(target))
    assert [setting["name"] for setting in found["settings"]] == ["constants", "kaiming"]
    alone = evaluated(table, "--batch", "8")
    constants, kaiming = (setting["ranking"] for setting in found["settings"])
    assert constants["spearman"] == alone["spearman"]
    assert 0 < kaiming["scored"] <= kaiming["total"] == 3
    assert target.read_text().startswith("<?xml")


def test_tables_hold_the_figures_with_their_coverage(table: str) -> None:
    scores = np.array([0.1, 0.2, np.nan, 0.4, 0.3])
    ranking = evaluate_ranking(scores, np.arange(5.0), resamples=0)
    made = Ablation("space", "accuracy", False, "input", "batch 8", (Setting("a|b", ranking),), ("a note",))
    text = ablation.to_markdown(made)
    assert "| a&#124;b | 4 (80.0%) | 0.800 |" in text
    assert "5 networks, by input; batch 8" in text
    assert "a note" in text
    printed = command("ablate", "batch", table, "--space", "nasbench201", "--column", "accuracy", "--values", "8")
    assert "3 networks, by batch; constants 1e-07,1, input grey, arithmetic auto" in printed.out


def test_ctrl_c_shows_what_there_is(table: str) -> None:
    results = scoring.scored

    def interrupted(*args: Any) -> Iterator[dict[str, Any]]:
        yield next(results(*args))
        raise KeyboardInterrupt

    with mock.patch.object(scoring, "scored", interrupted):
        done = command("ablate", "batch", table, "--space", "nasbench201", "--column", "accuracy", "--values", "8,12")
    assert done.code == 130
    assert "Interrupted: " in done.err
    assert "1 (33.3%)" in done.out


def test_bad_input_is_one_sentence(table: str) -> None:
    def failed(what: str, values: str, *more: str) -> str:
        args = ("--space", "nasbench201", "--column", "accuracy", "--values", values, *more)
        done = command("ablate", what, table, *args)
        assert (done.code, done.out) == (2, "")
        return done.err

    assert "a whole number of samples from 2 on, not '1'" in failed("batch", "8,1")
    assert "there is no initialisation 'zeros'; there are constants, normal" in failed("initialisation", "zeros")
    assert "'nothing.npz' is neither a kind of input nor a file" in failed("input", "nothing.npz")
    assert "takes names with commas between" in failed("input", " , ")
    assert "a plot is a .png, .pdf or .svg file" in failed("batch", "8", "--plot", "a.html")
