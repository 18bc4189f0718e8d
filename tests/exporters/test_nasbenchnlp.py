"""NAS-Bench-NLP: recipes and their errors, and the graphs against an independent torch module."""

from __future__ import annotations

import gc
import json
import random
import weakref
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epsinas_exporters import spaces
from epsinas_exporters.spaces import ArchitectureError, NotEnumerable, nasbenchnlp
from epsinas_exporters.spaces.nasbenchnlp import parse
from epsinas_onnx import inspect
from epsinas_onnx.graph.traversal import all_graphs
from tests.exporters.filling import fill, random_values

SPACE = spaces.get("nasbenchnlp")
EVERYTHING = json.dumps({
    "h_new_1": {"op": "elementwise_sum", "input": ["act", "h_new_0"]},
    "act": {"op": "activation_leaky_relu", "input": ["pre"]},
    "pre": {"op": "linear", "input": ["x", "h_prev_0", "h_prev_1"]},
    "gate": {"op": "activation_sigm", "input": ["pre2"]},
    "pre2": {"op": "linear", "input": ["x", "act"]},
    "mix": {"op": "blend", "input": ["gate", "h_prev_1", "act"]},
    "prod": {"op": "elementwise_prod", "input": ["mix", "gate"]},
    "h_new_0": {"op": "activation_tanh", "input": ["prod"]},
})  # fmt: skip
SMALL = {"steps": 5, "width": 6, "hidden": 4, "tokens": 20}

recipes = st.integers(0, 2**32).map(lambda seed: SPACE.draw(random.Random(seed)))


@given(recipes)
def test_a_recipe_is_parsed_back_from_its_text(arch: str) -> None:
    assert str(parse(arch)) == arch


@given(recipes, st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_in_the_text_does_not_matter(arch: str, rng: random.Random) -> None:
    items = list(json.loads(arch).items())
    rng.shuffle(items)
    assert parse(json.dumps(dict(items))).nodes == parse(arch).nodes


@given(recipes)
def test_every_node_of_a_drawn_recipe_is_used(arch: str) -> None:
    nodes = json.loads(arch)
    used = {operand for node in nodes.values() for operand in node["input"]}
    assert all(name in used or name.startswith("h_new_") for name in nodes)
    assert "x" in used


@settings(deadline=None)
@given(recipes, st.integers(0, 2**32))
def test_a_mutation_is_another_recipe_in_which_everything_is_used(arch: str, seed: int) -> None:
    changed = SPACE.mutate(arch, random.Random(seed))
    assert changed != arch
    assert SPACE.parse(changed) == changed
    assert nasbenchnlp.pruned(parse(changed).nodes) == parse(changed).nodes


def test_the_benchmarks_spelling_of_its_column_is_understood() -> None:
    assert SPACE.from_row({"recepie": EVERYTHING, "test_loss": "4.9"}) == SPACE.parse(EVERYTHING)


def test_there_is_no_list_of_all_recipes() -> None:
    with pytest.raises(NotEnumerable, match="draw some"):
        list(SPACE.enumerate())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"act": {"op": "relu", "input": ["pre"]}}, ["'act'", "'relu'", "activation_tanh"]),
        ({"act": {"op": "activation_tanh", "input": ["pre", "pre2"]}}, ["'act'", "2 operands", "not 1"]),
        ({"act": {"op": "activation_tanh", "input": ["x"]}}, ["'act'", "input x", "linear"]),
        ({"act": {"op": "activation_tanh", "input": ["nothing"]}}, ["'act'", "'nothing'"]),
        ({"act": {"op": "activation_tanh", "input": ["h_prev_2"]}}, ["'act'", "'h_prev_2'", "hidden state"]),
        ({"act": {"op": "activation_tanh", "input": ["h_new_0"]}}, ["take each other", "h_new_0"]),
        ({"act": {"op": "activation_tanh", "input": "pre"}}, ["'act'", "list"]),
        ({"h_new_3": {"op": "activation_tanh", "input": ["pre"]}}, ["h_new_3", "counted from h_new_0"]),
    ],
)
def test_a_bad_recipe_is_refused_with_the_node_that_is_wrong(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ArchitectureError) as caught:
        parse(json.dumps({**json.loads(EVERYTHING), **change}))
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1}'])
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(ArchitectureError, match="write it like"):
        parse(text)


def test_a_table_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[20, 5\], not \[20, 6\]"):
        nasbenchnlp.build(EVERYTHING, embedding=np.ones((20, 5), np.float32), **SMALL)


def test_the_file_is_sound_small_and_holds_no_weight_bytes() -> None:
    proto = ir.to_proto(SPACE.build(EVERYTHING))
    onnx.checker.check_model(proto, full_check=True)
    assert len(proto.SerializeToString()) < 20_000
    assert max(len(tensor.raw_data) for tensor in proto.graph.initializer) <= 4 * 8


def test_biases_and_initial_states_are_weights_and_a_given_table_is_kept() -> None:
    uses = {use.tensor: use.role for use in inspect(nasbenchnlp.build(EVERYTHING, **SMALL), batch=4).uses}
    kinds = {name.rpartition(".")[2]: role for name, role in uses.items()}
    assert kinds == {"weight": "embedding", "weight0": "weight", "weight1": "weight", "weight2": "weight",
                     "bias": "weight", "h_0_0": "weight", "h_0_1": "weight", "one": "constant",
                     "start": "constant"}  # fmt: skip
    table = np.ones((20, 6), np.float32)
    given = inspect(nasbenchnlp.build(EVERYTHING, embedding=table, **SMALL), batch=4)
    assert next(use.role for use in given.uses if use.tensor == "embedding.weight") == "constant"


@pytest.mark.parametrize("arch", [EVERYTHING, *SPACE.sample(4, seed=3)])
def test_onnxruntime_and_torch_agree_on_random_weights(arch: str) -> None:
    torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs the torch extra")
    from torch_nasbenchnlp import run

    proto = ir.to_proto(nasbenchnlp.build(arch, **SMALL))
    values = random_values(proto, lambda shape: 0.5)
    fill(proto, values)
    tokens = np.random.default_rng(0).integers(0, SMALL["tokens"], (3, SMALL["steps"]))
    ours = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"tokens": tokens})[0]
    theirs = run(json.loads(arch), {name: torch.from_numpy(value) for name, value in values.items()}, tokens, layers=3)
    assert np.ptp(theirs.numpy()) > 0
    # Small entries are differences of large ones, whose rounding they have: 1.3e-4 beside 527, without AVX-512.
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-6 * max(10.0, float(theirs.abs().max())))


def test_nothing_keeps_a_network_that_nobody_has_any_more() -> None:
    """Attributes are shared between networks, but for those that hold a graph."""
    model = SPACE.build(SPACE.sample(1, 0)[0])
    seen = weakref.ref(list(all_graphs(model.graph))[-1])
    del model
    gc.collect()
    assert seen() is None
