"""Graphs of every kind: which widths are tied, what is recognised, and what is left alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx
import pytest

from epsinas_onnx.errors import UsageError
from epsinas_onnx.search.around.activations import CHOICES, FUNCTIONS
from epsinas_onnx.search.around.space import Around
from tests.builders import build


def widths(model: onnx.ModelProto, *more: str) -> dict[str, int]:
    return {name: width.size for name, width in Around(model, kinds=["width", *more]).template.widths.items()}


def survives(model: onnx.ModelProto, count: int = 8, **options: Any) -> Around:
    """Draw some variants, which were run."""
    space = Around(model, **options)
    rng = random.Random(0)
    assert len({space.draw(rng) for _ in range(count)}) > 1
    return space


CONV = "(float[N,3,8,8] x) => (float[N,2] y) {{ {} p = GlobalAveragePool(z) f = Flatten(p) y = Gemm(f, V) }}"


def test_a_concat_is_the_sum_of_its_parts() -> None:
    body = (
        "a = Conv(x, A) b = Conv(x, B) c = Concat<axis=1>(a, b) n = BatchNormalization(c, S, S2, M, R) z = Conv(n, C)"
    )
    vectors = dict.fromkeys(("S", "S2", "M", "R"), (10,))
    model = build(CONV.format(body), A=(4, 3, 1, 1), B=(6, 3, 1, 1), C=(8, 10, 1, 1), V=(8, 2), **vectors)
    assert widths(model) == {"A": 4, "B": 6, "C": 8}
    survives(model)


def test_a_channel_shuffle_keeps_its_groups() -> None:
    body = (
        "a = Conv(x, A) s = Reshape(a, L) t = Transpose<perm=[0,2,1,3,4]>(s) u = Reshape(t, K) z = Conv<group=2>(u, G)"
    )
    lists = {"L": np.array([0, 2, 4, 8, 8]), "K": np.array([0, -1, 8, 8])}
    model = build(CONV.format(body), A=(8, 3, 1, 1), G=(6, 4, 1, 1), V=(6, 2), **lists)
    space = survives(model)
    assert {name: (one.size, one.step) for name, one in space.template.widths.items()} == {"A": (8, 2), "G": (6, 2)}


def test_a_split_into_equal_parts_ties_the_whole() -> None:
    body = "a = Conv(x, A) b, c = Split<axis=1>(a, L) d = Sigmoid(c) z = Mul(b, d)"
    model = build(CONV.format(body), A=(8, 3, 1, 1), V=(4, 2), L=np.array([4, 4]))
    space = survives(model)
    assert {name: (one.size, one.step) for name, one in space.template.widths.items()} == {"A": (8, 2)}


def test_a_squeeze_and_excitation_has_a_width_of_its_own() -> None:
    body = (
        "a = Conv(x, A) g = GlobalAveragePool(a) r = Conv(g, R, RB) h = Relu(r) e = Conv(h, E) s = HardSigmoid(e) "
        "z = Mul(a, s)"
    )
    model = build(CONV.format(body), A=(8, 3, 1, 1), R=(4, 8, 1, 1), RB=(4,), E=(8, 4, 1, 1), V=(8, 2))
    assert widths(model) == {"A": 8, "R": 4}
    survives(model)


def test_a_transposed_convolution_and_a_flatten_follow() -> None:
    text = (
        "(float[N,3,4,4] x) => (float[N,2] y) "
        "{ a = Conv(x, A) b = ConvTranspose<strides=[2,2],group=2>(a, B) f = Flatten(b) y = Gemm(f, V) }"
    )
    model = build(text, A=(4, 3, 1, 1), B=(4, 3, 2, 2), V=(6 * 64, 2))
    space = survives(model)
    assert sorted(one.size for one in space.template.widths.values()) == [3, 4]


def test_what_reaches_the_output_stays() -> None:
    model = build("(float[N,3] x) => (float[N,4] a, float[N,2] y) { a = MatMul(x, A) h = Relu(a) y = MatMul(h, B) }",
                  A=(3, 4), B=(4, 2))  # fmt: skip
    with pytest.raises(UsageError, match="nothing in it can be changed"):
        Around(model, kinds=["width"])


def test_a_single_matrix_has_nothing_to_change() -> None:
    with pytest.raises(UsageError, match=r"nothing in it can be changed \(width, depth, kernel, activation\)"):
        Around(build("(float[N,3] x) => (float[N,2] y) { y = Gemm(x, A) }", A=(3, 2)))


def test_two_layers_with_one_weight_stay_tied() -> None:
    text = (
        "(float[N,8] x) => (float[N,2] y) "
        "{ a = MatMul(x, A) h = Relu(a) b = MatMul(h, W) g = Relu(b) c = MatMul(g, W) y = MatMul(c, B) }"
    )
    model = build(text, A=(8, 6), W=(6, 6), B=(6, 2))
    assert widths(model) == {"A": 6}
    survives(model)


def test_what_a_body_reads_is_left_alone() -> None:
    text = """(float[N,4] x, bool c) => (float[N,2] y) {
        a = MatMul(x, A) h = Relu(a) d = MatMul(h, D) r = Relu(d)
        b = If (c) <then_branch = t () => (float[N,6] o) { o = Neg(r) },
                    else_branch = e () => (float[N,6] q) { q = Abs(r) }>
        y = MatMul(b, B) }"""
    model = build(text, A=(4, 5), D=(5, 6), B=(6, 2))
    assert widths(model) == {"A": 5}
    survives(model)


def test_an_operator_without_a_rule_keeps_its_shapes() -> None:
    text = (
        "(float[N,4] x) => (float[N,2] y) { a = MatMul(x, A) s = Relu(a) d = MatMul(s, D) m = Reshape(d, L) "
        "t = Det(m) u = Unsqueeze(t, O) y = Concat<axis=1>(u, u) }"
    )
    model = build(text, A=(4, 5), D=(5, 9), L=np.array([-1, 3, 3]), O=np.array([1]))
    assert widths(model) == {"A": 5}
    survives(model, kinds=["width"])


def test_functions_are_inlined() -> None:
    model = build(
        "(float[N,3] x) => (float[N,2] y) { a = MatMul(x, A) h = local.act(a) y = MatMul(h, B) }",
        functions='<domain: "local", opset_import: ["" : 21]> act (v) => (w) { s = Sigmoid(v) w = Mul(v, s) }',
        A=(3, 8), B=(8, 2),
    )  # fmt: skip
    space = survives(model)
    assert list(space.template.functions) == ["silu"]


def test_quantised_networks_are_changed_in_float() -> None:
    text = """(float[N,4] x) => (float[N,2] y) {
        w = DequantizeLinear(W, s, z) a = MatMul(x, w) h = Relu(a) y = MatMul(h, B) }"""
    model = build(text, W=np.ones((4, 32), np.int8), s=np.array(0.1, np.float32), z=np.array(0, np.int8), B=(32, 2))
    space = Around(model)
    assert space.check("original") == "original"
    assert space.draw(random.Random(0))


SPELLINGS = {
    "silu": "s = Sigmoid(a) h = Mul(a, s)",
    "gelu": "d = Div(a, R) e = Erf(d) o = Add(e, O) m = Mul(a, o) h = Mul(m, H)",
    "hardswish": "t = Add(a, T) k = Clip(t, Z, S) m = Mul(a, k) h = Div(m, S)",
    "relu6": "h = Clip(a, Z, S)",
    "quickgelu": "q = Mul(a, Q) s = Sigmoid(q) h = Mul(a, s)",
    "mish": "p = Softplus(a) t = Tanh(p) h = Mul(a, t)",
    "relu": "h = Max(a, Z)",
}
NUMBERS = {
    "R": 2**0.5, "O": 1.0, "H": 0.5, "T": 3.0, "Z": 0.0, "S": 6.0, "Q": 1.702,
}  # fmt: skip


@pytest.mark.parametrize("function", SPELLINGS)
def test_an_activation_is_known_by_what_it_computes(function: str) -> None:
    numbers = {name: np.array(value, np.float32) for name, value in NUMBERS.items() if name in SPELLINGS[function]}
    model = build(
        f"(float[N,3] x) => (float[N,2] y) {{ a = MatMul(x, A) {SPELLINGS[function]} y = MatMul(h, B) }}",
        A=(3, 8), B=(8, 2), **numbers,
    )  # fmt: skip
    space = Around(model)
    assert list(space.template.functions) == [function]
    for other in CHOICES:
        assert space.check(f"activation:{function}={other}")


def test_a_gate_is_no_activation() -> None:
    model = build(
        "(float[N,3] x) => (float[N,2] y) { a = MatMul(x, A) s = Sigmoid(a) y = MatMul(s, B) }", A=(3, 8), B=(8, 2)
    )
    assert not Around(model).template.functions


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
@pytest.mark.parametrize("function", CHOICES)
def test_an_activation_computes_what_its_name_says_in_every_operator_set(function: str, opset: int) -> None:
    import onnx_ir as ir
    import onnxruntime as ort

    original = "Softplus" if function in ("relu", "tanh") else "Relu"
    model = build(f"(float[9] x) => (float[9] y) {{ a = Mul(x, T) h = {original}(a) y = Mul(h, T) }}", opset,
                  T=np.array(1, np.float32))  # fmt: skip
    space = Around(model)
    [name] = space.template.functions
    if name == function:
        return
    proto = ir.to_proto(space.build(f"activation:{name}={function}"))
    x = np.linspace(-4, 4, 9, dtype=np.float32)
    [found] = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    expected = np.where(x > 0, x, 0.01 * x) if function == "leakyrelu" else FUNCTIONS[function](x.astype(np.float64))
    np.testing.assert_allclose(found, expected, atol=1e-5)
