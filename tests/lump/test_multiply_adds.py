"""Multiply-adds of user models: counted by hand, the same from every framework, and never silently too few."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from epsinas_onnx.graph.load import load_model
from epsinas_onnx.lump.multiply_adds import MultiplyAdds, count_multiply_adds
from epsinas_onnx.scoring.options import GraphOptions
from epsinas_onnx.scoring.plan import plan
from tests.builders import build
from tests.exporters.agreement import stored


def counted(model: onnx.ModelProto | bytes) -> MultiplyAdds:
    planned = plan(load_model(model), 1, GraphOptions(outputs=None), infer=True)
    return count_multiply_adds(planned.model, planned.name, planned.specs, planned.decisions)


# By hand: three convolutions with padding over 16x16, and a linear layer; two layers of 64; an LSTM of 12 steps.
BY_HAND = {
    "cnn": 256 * 9 * (3 * 16 + 16 * 32 + 32 * 32) + 32 * 10,
    "mlp": 20 * 64 + 64 * 64 + 64 * 5,
    "lstm": 12 * 4 * 16 * (8 + 16) + 16 * 5,
}


@pytest.mark.parametrize("network", BY_HAND)
def test_every_framework_s_export_of_one_network_counts_the_same(network: str) -> None:
    found = {framework: counted(model) for framework, model in stored()[network].items()}
    differing = {framework: one for framework, one in found.items() if one != MultiplyAdds(BY_HAND[network])}
    # A loop that a framework writes out is a body that counts once, and gates may be separate matrix products.
    assert set(differing) <= ({"jax", "keras", "tensorflow"} if network == "lstm" else set()), differing


def test_a_fixed_batch_counts_for_one_sample() -> None:
    graph = "(float[{0},3] x) => (float[{0},4] y) {{ h = MatMul(x, W) y = Tanh(h) }}"
    for batch in ("N", "1", "6"):
        assert counted(build(graph.format(batch), W=(3, 4))) == MultiplyAdds(12)


def test_the_costlier_branch_counts_and_recurrences_do() -> None:
    branch = "{0} = g{0} () => (float[N,4] {0}_out) {{ {1} }}"
    cheap = branch.format("then_branch", "then_branch_out = MatMul(x, W)")
    costly = branch.format("else_branch", "e = MatMul(x, V) else_branch_out = MatMul(e, U)")
    graph = f"(float[N,3] x, bool c) => (float[N,4] y) {{ y = If (c) <{cheap}, {costly}> }}"
    assert counted(build(graph, W=(3, 4), V=(3, 5), U=(5, 4))) == MultiplyAdds(3 * 5 + 5 * 4)
    gru = "(float[7,N,3] x) => (float[7,1,N,4] y) { y, h = GRU <hidden_size = 4> (x, W, R) }"
    assert counted(build(gru, W=(1, 12, 3), R=(1, 12, 4))) == MultiplyAdds(7 * 12 * (3 + 4))


def test_what_cannot_be_counted_is_named() -> None:
    graph = "(float[N,3] x, int64[K] s) => (float[N,4] y) { r = Reshape(x, s) [lost] h = MatMul(r, W) y = Tanh(h) }"
    found = counted(build(graph, W=(3, 4)))
    assert found.uncounted == "'lost' (MatMul)"


def test_a_shape_that_only_lumping_follows_is_counted() -> None:
    shape = "s = Shape(x) [take] b = Gather(s, zero) [join] t = Concat <axis = 0> (b, rest)"
    graph = f"(float[N,2,3] x) => (float[N,4] y) {{ {shape} r = Reshape(x, t) h = MatMul(r, W) y = Tanh(h) }}"
    model = build(graph, W=(6, 4), zero=np.array([0], np.int64), rest=np.array([-1], np.int64))
    assert counted(model) == MultiplyAdds(6 * 4)
