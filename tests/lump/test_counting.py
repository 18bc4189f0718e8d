"""Multiply-adds of user models: counted by hand, the same from every framework, and never silently too few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import epsinas_onnx
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.lump.counting import MultiplyAdds, count_multiply_adds
from epsinas_onnx.scoring.options import GraphOptions
from epsinas_onnx.scoring.plan import plan
from tests.builders import build
from tests.check.checking import QUICK, checked, of
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


BODY = "body = b (int64 i, bool c, float[N,8] h) => (bool d, float[N,8] k) {{ {0} k = MatMul(h, W) }}"
LOOP = "(float[N,8] x{0}) => (float[N,8] y) {{ y = Loop (t, c0, x) <{1}> }}"
SAME, ENDING = BODY.format("d = Identity(c)"), BODY.format("m = ReduceMax <keepdims = 0> (h) d = Less(m, most)")
TRUE, FIVE = np.asarray(True), np.asarray(5)

# One sample by hand, and what is said.
COUNTS: dict[str, tuple[onnx.ModelProto, MultiplyAdds]] = {
    "a convolution, a Gemm": (
        build("(float[N,3,8,8] x) => (float[N,5] y) { c = Conv <pads = [1,1,1,1]> (x, W) f = Flatten(c)"
              " y = Gemm(f, V) }",
              W=(8, 3, 3, 3), V=(512, 5)),
        MultiplyAdds(8 * 64 * 27 + 512 * 5),
    ),
    "the same, fused": (
        build("(float[N,3,8,8] x) => (float[N,5] y) { c = com.microsoft.FusedConv"
              " <pads = [1,1,1,1], activation = \"Relu\"> (x, W) f = Flatten(c)"
              " y = com.microsoft.FusedGemm <activation = \"Relu\"> (f, V) }",
              W=(8, 3, 3, 3), V=(512, 5)),
        MultiplyAdds(8 * 64 * 27 + 512 * 5),
    ),
    "a deformable convolution and that of its offsets": (
        build("(float[N,4,6,6] x) => (float[N,8,6,6] y) { o = Conv <pads = [1,1,1,1]> (x, V)"
              " y = DeformConv <pads = [1,1,1,1]> (x, W, o) }", W=(8, 4, 3, 3), V=(18, 4, 3, 3)),
        MultiplyAdds(36 * 36 * 18 + 36 * 36 * 8),
    ),
    "an Einsum": (
        build('(float[N,6,16] x) => (float[N,6,16] y) { y = Einsum <equation = "bij,jk->bik"> (x, W) }', W=(16, 16)),
        MultiplyAdds(6 * 16 * 16),
    ),
    "a loop": (build(LOOP.format("", SAME), W=(8, 8), t=FIVE, c0=TRUE), MultiplyAdds(5 * 64)),
    "a loop of no known length": (
        build(LOOP.format(", int64 t", SAME), W=(8, 8), c0=TRUE), MultiplyAdds(64, once="'Loop(y)' (Loop)")
    ),
    "a loop that may end before": (
        build(LOOP.format("", ENDING), W=(8, 8), t=FIVE, c0=TRUE, most=np.float32(9)),
        MultiplyAdds(64, once="'Loop(y)' (Loop)"),
    ),
    "a loop that may not begin": (
        build(LOOP.format(", bool c0", SAME), W=(8, 8), t=FIVE), MultiplyAdds(64, once="'Loop(y)' (Loop)")
    ),
    "a scan": (
        build("(float[7,N,8] x, float[N,8] s) => (float[N,8] y) { y, z = Scan <num_scan_inputs = 1, body = b "
              "(float[N,8] h, float[N,8] e) => (float[N,8] k, float[N,8] l) { m = MatMul(h, W) k = Add(m, e)"
              " l = Identity(k) }> (s, x) }", W=(8, 8)),
        MultiplyAdds(7 * 64),
    ),
    "a mixture of experts with a layer behind": (
        build("(float[N,16] x) => (float[N,5] y) { r = MatMul(x, R) e = com.microsoft.MoE <k = 2> (x, r, A, , B)"
              " y = MatMul(e, V) }", R=(16, 4), A=(4, 24, 16), B=(4, 16, 24), V=(16, 5)),
        MultiplyAdds(16 * 4 + 2 * 2 * 16 * 24 + 16 * 5),
    ),
    "weights multiplied with each other": (
        build("(float[N,8] x) => (float[N,6] y) { w = MatMul(A, B) y = MatMul(x, w) }", A=(8, 2), B=(2, 6)),
        MultiplyAdds(8 * 6),
    ),
    "what no output needs": (
        build("(float[N,8] x) => (float[N,6] y) { y = MatMul(x, A) z = MatMul(x, B) }", A=(8, 6), B=(8, 9)),
        MultiplyAdds(8 * 6),
    ),
    "an operator that nobody knows": (
        build("(float[N,8] x) => (float[N,6] y) { h = MatMul(x, A) [odd] y = my.domain.Odd(h) }", A=(8, 6)),
        MultiplyAdds(8 * 6, "'odd' (Odd)", "it is an operator that the count does not know"),
    ),
}  # fmt: skip


for _model, _ in COUNTS.values():
    _model.opset_import.add(domain="com.microsoft", version=1)


@pytest.mark.parametrize("case", COUNTS)
def test_every_command_counts_alike(case: str, tmp_path: Path) -> None:
    model, expected = COUNTS[case]
    found = epsinas_onnx.inspect(model, batch=4)
    compared = epsinas_onnx.diff(model, model, with_score=False).before
    assert found.multiply_adds == compared.facts.multiply_adds == expected.known
    for note in expected.notes():
        assert note in found.warnings
        assert note in compared.notes
    if found.lumping is not None:
        assert found.lumping.multiply_adds[0] == 4 * expected.total
    for most in (expected.total - 1, expected.total):
        rule = f"rules.multiply-add-budget = {{ max = {most} }}\n"
        messages = [one.message for one in of("multiply-add-budget", checked(model, tmp_path, QUICK + rule).findings)]
        if most < expected.total:
            assert messages[0].startswith(f"it has {expected.total:,} multiply-adds for one sample, and {most:,} are")
        else:
            assert [message.split(": ", 1)[1] for message in messages] == expected.notes()


def test_sizes_are_followed_through_the_operators_of_old_sets() -> None:
    sizes = "s = Shape(x) n = Gather(s, zero) a = Unsqueeze <axes = [0]> (n) t = Concat <axis = 0> (a, rest)"
    graph = f"(float[N,2,3] x) => (float[N,4] y) {{ {sizes} r = Reshape(x, t) h = MatMul(r, W) y = Tanh(h) }}"
    model = build(graph, opset=11, W=(6, 4), zero=np.array(0, np.int64), rest=np.array([-1], np.int64))
    assert counted(model) == MultiplyAdds(6 * 4)


def test_a_window_larger_than_its_input_is_said() -> None:
    graph = "(float[N,1,L] x) => (float[N,4,M] y) { [wide] y = Conv(x, W) }"
    found = counted(build(graph, W=(4, 1, 3000)))
    assert found == MultiplyAdds(0, "'wide' (Conv)", "its window is larger than its input")
