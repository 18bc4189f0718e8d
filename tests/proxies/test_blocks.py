"""Blocks of a graph: cuts against brute force, and the features of networks whose blocks are known."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsinas_onnx.proxies.blocks import _cuts
from epsinas_onnx.proxies.prepared import prepare
from tests.builders import build


@st.composite
def graphs(draw: st.DrawFn) -> ir.Model:
    """Return a graph of additions: each node reads one or two earlier values, and the last is the output."""
    x = ir.Value(name="x")
    values, nodes = [x], []
    for index in range(draw(st.integers(1, 9))):
        read = draw(st.lists(st.sampled_from(values), min_size=1, max_size=2))
        nodes.append(ir.Node("", "Sum", read, name=f"n{index}", outputs=[ir.Value(name=f"v{index}")]))
        values.append(nodes[-1].outputs[0])
    return ir.Model(ir.Graph([x], [values[-1]], nodes=nodes, opset_imports={"": 21}), ir_version=10)


def reaches(model: ir.Model, without: ir.Value | None) -> bool:
    """Whether the input reaches the output when one value is taken out."""
    found = {value for value in model.graph.inputs if value is not without}
    for node in model.graph:
        if any(value in found for value in node.inputs):
            found.update(value for value in node.outputs if value is not without)
    return model.graph.outputs[0] in found


@given(graphs())
def test_cuts_are_the_values_without_which_nothing_gets_through(model: ir.Model) -> None:
    everything = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    expected = [v.name for v in everything if reaches(model, None) and not reaches(model, v)]
    assert [value.name for value in _cuts(model, list(model.graph.inputs))[1]] == (
        expected if reaches(model, None) else []
    )


def features(graph: str, **weights: tuple[int, ...]) -> list[str | None]:
    return [value.name for value in prepare(build(graph, **weights), batch=4).features]


def test_a_chain_has_a_block_a_layer_and_the_head_is_none() -> None:
    found = features(
        "(float[N,5] x) => (float[N,3] y) "
        "{ a = MatMul(x, A) b = Relu(a) c = MatMul(b, B) d = Relu(c) y = MatMul(d, C) }",
        A=(5, 6), B=(6, 7), C=(7, 3),
    )  # fmt: skip
    assert found == ["b", "d"]


def test_a_residual_block_ends_behind_its_sum_and_pooling_is_of_the_head() -> None:
    found = features(
        """(float[N,3,8,8] x) => (float[N,3] y) {
            s = Conv<pads = [1, 1, 1, 1]>(x, A) t = Relu(s)
            a = Conv<pads = [1, 1, 1, 1]>(t, B) b = Relu(a) c = Add(b, t) d = Relu(c)
            g = GlobalAveragePool(d) f = Flatten(g) y = MatMul(f, C) }""",
        A=(4, 3, 3, 3), B=(4, 4, 3, 3), C=(4, 3),
    )  # fmt: skip
    assert found == ["t", "d"]


def test_a_shortcut_around_everything_leaves_no_block_inside() -> None:
    found = features(
        """(float[N,3,8,8] x) => (float[N,2,8,8] y) {
            a = Conv<pads = [1, 1, 1, 1]>(x, A) b = Relu(a) c = Conv<pads = [1, 1, 1, 1]>(b, B) d = Relu(c)
            e = Conv<pads = [1, 1, 1, 1]>(d, B) f = Concat<axis = 1>(e, b) y = Conv(f, C) }""",
        A=(4, 3, 3, 3), B=(4, 4, 3, 3), C=(2, 8, 1, 1),
    )  # fmt: skip
    assert found == ["b", "f"]


@pytest.mark.parametrize("mask", ["mask", "attention_mask"])
def test_an_input_that_is_the_same_for_all_samples_is_no_way_around(mask: str) -> None:
    found = features(
        f"(float[N,5] x, float[N,5] {mask}) => (float[N,3] y) "
        f"{{ m = Mul(x, {mask}) a = MatMul(m, A) b = Mul(a, {mask}) "
        f"c = MatMul(b, B) d = Mul(c, {mask}) y = MatMul(d, C) }}",
        A=(5, 5), B=(5, 5), C=(5, 3),
    )  # fmt: skip
    assert found == ["b", "d"]
