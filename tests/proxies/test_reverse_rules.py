"""Each rule of the reverse pass beside central differences in float64, and by ONNX Runtime in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .reversing import check


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def unary(op: str, attributes: str = "") -> str:
    return f"(float[3,4] x) => (float[3,4] y) {{ y = {op} {attributes} (x) }}"


ACTIVATIONS = [
    "Relu", "LeakyRelu <alpha = 0.3>", "ThresholdedRelu <alpha = 0.4>", "Elu <alpha = 1.5>",
    "Celu <alpha = 1.5>", "Selu", "HardSigmoid <alpha = 0.3, beta = 0.4>", "HardSwish", 'Gelu <approximate = "tanh">',
    "Mish", "Sigmoid", "Tanh", "Exp", "Abs", "Softplus", "Softsign", "Sin", "Cos",
    "Tan", "Atan", "Sinh", "Cosh", "Asinh", "Neg", "Identity", "Softmax", "Softmax <axis = 0>", "LogSoftmax", "Dropout",
    "LpNormalization", "ReduceSum <keepdims = 1>", "Flatten", "Sum", "Mean", "Max",
]  # fmt: skip


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_functions_of_an_entry(op: str) -> None:
    kind, _, attributes = op.partition(" ")
    shape = "1,1" if kind == "ReduceSum" else "3,4"
    check(f"(float[3,4] x) => (float[{shape}] y) {{ y = {kind} {attributes} (x) }}")


@pytest.mark.parametrize("op", ["Swish", "Swish <alpha = 1.7>"])
def test_swish(op: str) -> None:
    kind, _, attributes = op.partition(" ")
    check(f"(float[3,4] x) => (float[3,4] y) {{ y = {kind} {attributes} (x) }}", opset=24)


@pytest.mark.parametrize("op", ["Log", "Sqrt", "Reciprocal", "ReduceLogSum"])
def test_functions_of_positive_entries(op: str) -> None:
    shape = "1,1" if op == "ReduceLogSum" else "3,4"
    x = np.random.default_rng(0).uniform(0.5, 2, (3, 4))
    check(f"(float[3,4] x) => (float[{shape}] y) {{ y = {op}(x) }}", feeds={"x": x})


@pytest.mark.parametrize("op", ["Asin", "Acos", "Atanh"])
def test_functions_of_small_entries(op: str) -> None:
    check(unary(op), feeds={"x": np.random.default_rng(0).uniform(-0.9, 0.9, (3, 4))})


def test_acosh() -> None:
    check(unary("Acosh"), feeds={"x": np.random.default_rng(0).uniform(1.5, 3, (3, 4))})


@pytest.mark.parametrize(
    ("graph", "tensors"),
    [
        ("(float[3,4] x, float[4] s) => (float[3,4] y) { y = PRelu(x, s) }", {}),
        ("(float[3,4] x) => (float[3,4] y) { y = Clip(x, a, b) }", {"a": np.float64(-0.5), "b": np.float64(0.7)}),
        ("(float[3,4] x) => (float[3,4] y) { y = Clip(x, , b) }", {"b": np.float64(0.2)}),
        ("(float[3,4] x, float[2,1,4] z) => (float[2,3,4] y) { y = Add(x, z) }", {}),
        ("(float[3,4] x, float[2,1,4] z) => (float[2,3,4] y) { y = Sub(x, z) }", {}),
        ("(float[3,4] x, float[2,1,4] z) => (float[2,3,4] y) { y = Mul(x, z) }", {}),
        ("(float[3,4] x, float z) => (float[3,4] y) { y = Mul(x, z) }", {}),
        ("(float[3,4] x) => (float[3,4] y) { y = Mul(x, x) }", {}),
        ("(float[3,4] x, float[2,1,4] z) => (float[2,3,4] y) { e = Exp(z) y = Div(x, e) }", {}),
        ("(float[3,4] x, float[3,1] z, float[4] w) => (float[3,4] y) { y = Sum(x, z, w) }", {}),
        ("(float[3,4] x, float[3,1] z, float[4] w) => (float[3,4] y) { y = Mean(x, z, w) }", {}),
        ("(float[3,4] x, float[3,1] z, float[4] w) => (float[3,4] y) { y = Max(x, z, w) }", {}),
        ("(float[3,4] x, float[3,1] z, float[4] w) => (float[3,4] y) { y = Min(x, z, w) }", {}),
        ("(bool[3,1] c, float[3,4] x, float[4] z) => (float[3,4] y) { y = Where(c, x, z) }", {}),
        ("(float[3,4] x) => (float[3,4] y) { y = Pow(x, p) }", {"p": np.float64(2)}),
        ("(float[3,4] x) => (float[3,4] y) { y = Pow(x, p) }", {"p": ints(3)}),
        ("(float[3,4] x) => (float[3,4] y) { y = Pow(x, p) }", {"p": np.asarray([1.0, 2.0, 3.0, 4.0])}),
        ("(float[3,4] x, float[4] p) => (float[3,4] y) { e = Exp(x) y = Pow(e, p) }", {}),
        ("(float[3,4] x) => (float[3,4] y) { y = Mod <fmod = 1> (x, p) }", {"p": np.float64(0.7)}),
    ],
)
def test_arithmetic(graph: str, tensors: dict[str, Any]) -> None:
    check(graph, **tensors)


@pytest.mark.parametrize(
    "graph",
    [
        "(float[3,4] a, float[4,5] b) => (float[3,5] y) { y = MatMul(a, b) }",
        "(float[2,3,4] a, float[4,5] b) => (float[2,3,5] y) { y = MatMul(a, b) }",
        "(float[3,4] a, float[2,4,5] b) => (float[2,3,5] y) { y = MatMul(a, b) }",
        "(float[2,1,3,4] a, float[3,4,5] b) => (float[2,3,3,5] y) { y = MatMul(a, b) }",
        "(float[4] a, float[4] b) => (float y) { y = MatMul(a, b) }",
        "(float[4] a, float[2,4,5] b) => (float[2,5] y) { y = MatMul(a, b) }",
        "(float[2,3,4] a, float[4] b) => (float[2,3] y) { y = MatMul(a, b) }",
        "(float[3,4] a, float[4,5] b, float[5] c) => (float[3,5] y) { y = Gemm <alpha=0.5, beta=2.0> (a, b, c) }",
        "(float[4,3] a, float[4,5] b) => (float[3,5] y) { y = Gemm <transA=1> (a, b) }",
        "(float[3,4] a, float[5,4] b, float[3,1] c) => (float[3,5] y) { y = Gemm <transB=1> (a, b, c) }",
        "(float[4,3] a, float[5,4] b) => (float[3,5] y) { y = Gemm <transA=1, transB=1> (a, b) }",
        '(float[2,3,4] a, float[2,4,5] b) => (float[2,3,5] y) { y = Einsum <equation="bij,bjk->bik"> (a, b) }',
        '(float[2,3,4] a, float[4,5] b) => (float[2,3,5] y) { y = Einsum <equation="...j,jk->...k"> (a, b) }',
        '(float[2,3,4] a, float[2,5] b) => (float[2,5] y) { y = Einsum <equation="bij,bk->bk"> (a, b) }',
        '(float[3,4] a) => (float[4,3] y) { y = Einsum <equation="ij->ji"> (a) }',
        '(float[3,4] a, float[4,5] b) => (float[3,5] y) { y = Einsum <equation="ij,jk"> (a, b) }',
    ],
)
def test_products(graph: str) -> None:
    check(graph)


LAYOUTS: list[tuple[str, dict[str, Any]]] = [
    ("(float[2,3,4] x) => (float[6,4] y) { y = Reshape(x, s) }", {"s": ints(-1, 4)}),
    ("(float[2,3,4] x) => (float[4,2,3] y) { y = Transpose <perm=[2,0,1]> (x) }", {}),
    ("(float[2,3,4] x) => (float[4,3,2] y) { y = Transpose(x) }", {}),
    ("(float[2,1,4] x) => (float[2,4] y) { y = Squeeze(x, a) }", {"a": ints(1)}),
    ("(float[2,4] x) => (float[2,1,4] y) { y = Unsqueeze(x, a) }", {"a": ints(1)}),
    ("(float[2,1,4] x) => (float[3,2,5,4] y) { y = Expand(x, s) }", {"s": ints(3, 1, 5, 1)}),
    ("(float[2,3] x) => (float[4,9] y) { y = Tile(x, r) }", {"r": ints(2, 3)}),
    ("(float[2,3] x, float[2,2] z) => (float[2,5] y) { y = Concat <axis=1> (x, z) }", {}),
    ("(float[2,3] x, float[4,3] z) => (float[6,3] y) { y = Concat <axis=-2> (x, z) }", {}),
    ("(float[5,3] x) => (float[2,3] y, float[1,3] z) { y, u, z = Split(x, s) }", {"s": ints(2, 2, 1)}),
    ("(float[4,6] x) => (float[4,3] y) { y, z = Split <axis=1, num_outputs=2> (x) }", {}),
    ("(float[5,6] x) => (float[3,2] y) { y = Slice(x, a, b) }", {"a": ints(1, -3), "b": ints(4, -1)}),
    ("(float[5,7] x) => (float[5,3] y) { y = Slice(x, a, b, i, s) }",
     {"a": ints(1), "b": ints(99), "i": ints(1), "s": ints(2)}),
    ("(float[5,7] x) => (float[5,3] y) { y = Slice(x, a, b, i, s) }",
     {"a": ints(-1), "b": ints(-2**62), "i": ints(-1), "s": ints(-3)}),
    ("(float[3,4] x) => (float[6,5] y) { y = Pad(x, p) }", {"p": ints(1, 0, 2, 1)}),
    ('(float[3,4] x) => (float[5,7] y) { y = Pad <mode="reflect"> (x, p) }', {"p": ints(1, 2, 1, 1)}),
    ('(float[3,4] x) => (float[5,7] y) { y = Pad <mode="edge"> (x, p) }', {"p": ints(1, 2, 1, 1)}),
    ('(float[3,4] x) => (float[3,7] y) { y = Pad <mode="wrap"> (x, p, , i) }', {"p": ints(2, 1), "i": ints(1)}),
    ("(float[2,8,2,3] x) => (float[2,2,4,6] y) { y = DepthToSpace <blocksize=2> (x) }", {}),
    ('(float[2,8,2,3] x) => (float[2,2,4,6] y) { y = DepthToSpace <blocksize=2, mode="CRD"> (x) }', {}),
    ("(float[2,2,4,6] x) => (float[2,8,2,3] y) { y = SpaceToDepth <blocksize=2> (x) }", {}),
    ("(float[4,4] x) => (float[4,4] y) { y = Trilu <upper=0> (x, k) }", {"k": np.asarray(1, np.int64)}),
    ("(float[2,3,4] x) => (float[2,4] y) { y = Gather <axis=1> (x, i) }", {"i": np.asarray(-1, np.int64)}),
    ("(float[2,5,4] x) => (float[2,3,4] y) { y = Gather <axis=1> (x, i) }", {"i": ints(0, 2, 4)}),
    ("(float[2,5,4] x) => (float[2,2,2,4] y) { y = Gather <axis=1> (x, i) }", {"i": ints(3, 1, 3, -2).reshape(2, 2)}),
    ("(float[2,5,4] x, int64[3] i) => (float[2,3,4] y) { y = Gather <axis=1> (x, i) }", {}),
    ("(float[3,4] x, int64[3,2] i) => (float[3,2] y) { y = GatherElements <axis=1> (x, i) }", {}),
    ("(float[3,4] x, int64[2,1] i) => (float[2,4] y) { y = GatherND(x, i) }", {}),
    ("(float[3,4] x, float[2,4] u) => (float[3,4] y) { y = ScatterElements(x, i, u) }",
     {"i": ints(0, 1, 2, 0, 2, 0, 1, 2).reshape(2, 4)}),
    ("(float[3,4] x, float[2,4] u) => (float[3,4] y) { y = ScatterND(x, i, u) }", {"i": ints(2, 0).reshape(2, 1)}),
    ("(float[3,4] x) => (float[3,2] y) { y, i = TopK(x, k) }", {"k": ints(2)}),
    ("(float[3,4] x) => (float[3,4] y) { y = CumSum(x, a) }", {"a": np.asarray(1, np.int64)}),
    ("(float[3,4] x) => (float[3,4] y) { y = CumSum <reverse=1, exclusive=1> (x, a) }", {"a": np.asarray(0, np.int64)}),
    ("(float[2,6] x) => (float[2,2,3] y) { s = Shape(x) b = Slice(s, z, o) c = Concat<axis=0>(b,r) y = Reshape(x, c) }",
     {"z": ints(0), "o": ints(1), "r": ints(2, 3)}),
    ("(float[4,5] x) => (float[6,3] y) { y = CenterCropPad(x, s) }", {"s": ints(6, 3)}),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "tensors"), LAYOUTS)
def test_layout(graph: str, tensors: dict[str, Any]) -> None:
    check(graph, **tensors)


REDUCTIONS = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
              "ReduceSumSquare", "ReduceLogSumExp"]  # fmt: skip


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("keep", [0, 1])
def test_reductions(op: str, keep: int) -> None:
    shape = "2,1,4" if keep else "2,4"
    check(f"(float[2,3,4] x) => (float[{shape}] y) {{ y = {op} <keepdims={keep}> (x, a) }}", a=ints(1))
    if op != "ReduceSum":
        check(f"(float[2,3,4] x) => (float[{shape}] y) {{ y = {op} <keepdims={keep}, axes=[-2]> (x) }}", opset=13)


CONVOLUTIONS: list[tuple[str, dict[str, Any]]] = [
    ("(float[2,3,5,6] x) => (float[2,4,5,6] y) { y = Conv <pads=[1,1,1,1]> (x, w) }", {"w": (4, 3, 3, 3)}),
    ("(float[2,4,5,6] x) => (float[2,6,3,3] y) { y = Conv <pads=[1,1,1,1],strides=[2,2]> (x, w, b) }",
     {"w": (6, 4, 3, 3), "b": (6,)}),
    ("(float[2,3,7,7] x) => (float[2,2,4,4] y) { y = Conv <strides=[2,2]> (x, w) }", {"w": (2, 3, 1, 1)}),
    ("(float[1,3,8] x) => (float[1,2,6] y) { y = Conv <dilations=[2],pads=[2,0]> (x, w) }", {"w": (2, 3, 3)}),
    ("(float[1,2,7,7] x) => (float[1,2,4,4] y) { y = Conv <auto_pad=\"SAME_UPPER\",strides=[2,2]> (x, w) }",
     {"w": (2, 2, 4, 4)}),
    ("(float[1,1,4,4] x) => (float[1,1,8,8] y) { y = Conv <pads=[3,3,3,3]> (x, w) }", {"w": (1, 1, 3, 3)}),
    ("(float[1,2,3,4,4] x) => (float[1,2,2,2,2] y) { y = Conv <strides=[1,2,2]> (x, w) }", {"w": (2, 2, 2, 2, 2)}),
    ("(float[2,4,5,5] x, float[6,4,3,3] w, float[6] b) => (float[2,6,2,3] y)"
     " { y = Conv <strides=[2,2],pads=[0,1,0,1]> (x, w, b) }", {}),
    ("(float[1,3,5,5] x, float[2,3,2,2] w) => (float[1,2,3,3] y) { y = Conv <dilations=[2,2]> (x, w) }", {}),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "tensors"), CONVOLUTIONS)
def test_convolutions(graph: str, tensors: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    check(graph, **{name: rng.standard_normal(shape) for name, shape in tensors.items()})


NORMALISATIONS: list[tuple[str, int]] = [
    ("(float[2,3,4] x, float[3] s, float[3] b) => (float[2,3,4] y) { y = BatchNormalization(x, s, b, n, v) }", 21),
    ("(float[3,2,4] x, float[2] s, float[2] b) => (float[3,2,4] y)"
     " { y, m, v = BatchNormalization <training_mode=1> (x, s, b, z, o) }", 21),
    ("(float[2,3,4,2] x, float[3] s, float[3] b) => (float[2,3,4,2] y) { y = InstanceNormalization(x, s, b) }", 21),
    ("(float[2,3,4] x, float[4] s, float[4] b) => (float[2,3,4] y) { y = LayerNormalization(x, s, b) }", 21),
    ("(float[2,3,4] x, float[3,4] s) => (float[2,3,4] y) { y = LayerNormalization <axis=1> (x, s) }", 21),
    ("(float[2,3,4] x, float[4] s) => (float[2,3,4] y) { y = RMSNormalization(x, s) }", 23),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "opset"), NORMALISATIONS)
def test_normalisations(graph: str, opset: int) -> None:
    tensors = {"n": [0.1, 0.2, -0.3], "v": [0.5, 1.0, 2.0], "z": np.zeros(2), "o": np.ones(2)}
    check(
        graph, opset, **{name: array for name, array in tensors.items() if f" {name}," in graph or f" {name})" in graph}
    )


POOLS = [
    "(float[2,2,6,6] x) => (float[2,2,3,3] y) { y = AveragePool <kernel_shape=[2,2],strides=[2,2]> (x) }",
    "(float[2,2,5,5] x) => (float[2,2,5,5] y) { y = AveragePool <kernel_shape=[3,3],pads=[1,1,1,1]> (x) }",
    "(float[2,2,5,5] x) => (float[2,2,3,3] y)"
    " { y = AveragePool <kernel_shape=[3,3],pads=[1,1,1,1],strides=[2,2],count_include_pad=1> (x) }",
    "(float[1,2,6] x) => (float[1,2,3] y) { y = AveragePool <kernel_shape=[3],strides=[2],pads=[0,1]> (x) }",
    "(float[2,2,6,6] x) => (float[2,2,3,3] y) { y = MaxPool <kernel_shape=[2,2],strides=[2,2]> (x) }",
    "(float[2,2,5,5] x) => (float[2,2,3,3] y) { y = MaxPool <kernel_shape=[3,3],pads=[1,1,1,1],strides=[2,2]> (x) }",
    "(float[1,2,6] x) => (float[1,2,4] y) { y = MaxPool <kernel_shape=[3]> (x) }",
    "(float[2,3,4,2] x) => (float[2,3,1,1] y) { y = GlobalAveragePool(x) }",
    "(float[2,3,4,2] x) => (float[2,3,1,1] y) { y = GlobalMaxPool(x) }",
    "(float[2,2,5,5] x) => (float[2,2,3,3] y) { y = LpPool <kernel_shape=[3,3],pads=[1,1,1,1],strides=[2,2]> (x) }",
]


@pytest.mark.parametrize("graph", POOLS)
def test_pools(graph: str) -> None:
    check(graph)


RECURRENT: list[tuple[str, dict[str, tuple[int, ...]]]] = [
    ("(float[3,2,4] x, float[1,2,3] h, float[1,2,3] c) => (float[3,1,2,3] y, float[1,2,3] e, float[1,2,3] d)"
     " { y, e, d = LSTM <hidden_size=3> (x, w, r, b, , h, c, p) }",
     {"w": (1, 12, 4), "r": (1, 12, 3), "b": (1, 24), "p": (1, 9)}),
    ("(float[3,2,4] x) => (float[3,1,2,3] y) { y = LSTM <hidden_size=3> (x, w, r) }",
     {"w": (1, 12, 4), "r": (1, 12, 3)}),
    ("(float[3,2,4] x, float[1,2,3] h) => (float[3,1,2,3] y, float[1,2,3] e)"
     " { y, e = GRU <hidden_size=3> (x, w, r, b, , h) }", {"w": (1, 9, 4), "r": (1, 9, 3), "b": (1, 18)}),
    ("(float[3,2,4] x) => (float[3,1,2,3] y) { y = GRU <hidden_size=3, linear_before_reset=1> (x, w, r, b) }",
     {"w": (1, 9, 4), "r": (1, 9, 3), "b": (1, 18)}),
    ("(float[3,2,4] x) => (float[1,2,3] e) { y, e = RNN <hidden_size=3> (x, w, r, b) }",
     {"w": (1, 3, 4), "r": (1, 3, 3), "b": (1, 6)}),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "tensors"), RECURRENT)
def test_recurrent(graph: str, tensors: dict[str, tuple[int, ...]]) -> None:
    rng = np.random.default_rng(5)
    check(graph, **{name: rng.standard_normal(shape) for name, shape in tensors.items()})


SCANS = [
    "(float[2,3] h, float[4,2,3] x, float[3] v) => (float[2,3] e, float[4,2,3] y) { e, y = Scan <num_scan_inputs=1,"
    " body = b (float[2,3] s, float[2,3] t) => (float[2,3] u, float[2,3] o)"
    " { k = Mul(s, v) a = Add(k, t) u = Tanh(a) o = Mul(u, t) }> (h, x) }",
    "(float[2,3] h, float[2,4,3] x) => (float[2,3] e, float[2,3,4] y) { e, y = Scan <num_scan_inputs=1,"
    " scan_input_axes=[1], scan_input_directions=[1], scan_output_axes=[2], scan_output_directions=[1],"
    " body = b (float[2,3] s, float[2,3] t) => (float[2,3] u, float[2,3] o)"
    " { a = Add(s, t) u = Tanh(a) o = Mul(s, t) }> (h, x) }",
]


@pytest.mark.parametrize("graph", SCANS)
def test_scans(graph: str) -> None:
    check(graph)


WRITTEN_OUT = (
    "(float[3,2,4] x) => (float[3,2,4] y) { m = ReduceMean(x, a)  c = Sub(x, m)  q = Mul(c, c)  v = ReduceMean(q, a)"
    "  t = Add(v, e)  d = Sqrt(t)  f = Div(s, d)  n = Mul(c, f)  y = Add(n, b) }"
)


@pytest.mark.parametrize("graph", [WRITTEN_OUT, WRITTEN_OUT.replace("n = Mul(c, f)", "n = Mul(f, c)"),
                                   WRITTEN_OUT.replace("n = Mul(c, f)", "k = Mul(c, f)  n = Add(k, m)")])  # fmt: skip
def test_normalisations_that_are_written_out(graph: str) -> None:
    scale = np.asarray([[0.5], [2.0]])
    check(graph, a=ints(0, 2), e=np.float64(1e-2), s=scale, b=scale)
