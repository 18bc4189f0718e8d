"""Quantised models: turned back they compute what ONNX Runtime does, and their score is the float model's."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from epsinas_onnx import fill, inspect, score, strip
from epsinas_onnx.graph.load import load_model
from tests.builders import build

MODELS = Path(__file__).parents[3] / "models"
ONE = np.asarray(1, np.float32)
ZERO, ZERO_U = np.asarray(0, np.int8), np.asarray(0, np.uint8)
RNG = np.random.default_rng(5)


def integers(*shape: int, low: int = -3, high: int = 4, dtype: Any = np.int8) -> np.ndarray[Any, Any]:
    return RNG.integers(low, high, shape).astype(dtype)


def quantised(graph: str, **tensors: Any) -> onnx.ModelProto:
    proto = build(graph, **{"s": ONE, "z": ZERO, "u": ZERO_U, **tensors})
    if "com.microsoft" in graph:
        proto.opset_import.add(domain="com.microsoft", version=1)
    return proto


def run(proto: onnx.ModelProto, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    options = ort.SessionOptions()  # some optimisations round stored integers anew
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {proto.graph.input[0].name: x})[0])


def turned_back(proto: onnx.ModelProto) -> onnx.ModelProto:
    return ir.to_proto(load_model(proto).model)


IN, OUT = "(float[2,4] x) => (float[2,?] y) { q = QuantizeLinear(x, s, z) ", " y = DequantizeLinear(r, s, z) }"
IMAGE = "(float[1,4,6,6] x) => (float[1,?,?,?] y) { q = QuantizeLinear(x, s, z) "
GRAPHS = {
    "QDQ": (
        "(float[2,4] x) => (float[2,3] y) { q = QuantizeLinear(x, s, z)  a = DequantizeLinear(q, s, z)"
        "  w = DequantizeLinear(W, s, z)  m = MatMul(a, w)  y = Relu(m) }",
        {"W": integers(4, 3)},
    ),
    "saturation for ReLU": (
        "(float[2,4] x) => (float[2,3] y) { w = DequantizeLinear(W, s, z)  m = MatMul(x, w)"
        "  q = QuantizeLinear(m, s, u)  y = DequantizeLinear(q, s, u) }",
        {"W": integers(4, 3)},
    ),
    "QLinearMatMul": (f"{IN} r = QLinearMatMul(q, s, z, W, s, z, s, z) {OUT}", {"W": integers(4, 3)}),
    "QLinearMatMul with ReLU": (
        "(float[2,4] x) => (float[2,3] y) { q = QuantizeLinear(x, s, u)"
        "  r = QLinearMatMul(q, s, u, W, s, z, s, u)  y = DequantizeLinear(r, s, u) }",
        {"W": integers(4, 3)},
    ),
    "QLinearConv": (
        f"{IMAGE} r = QLinearConv <pads = [1, 1, 1, 1], strides = [2, 2]> (q, s, z, W, s, z, s, z, B) {OUT}",
        {"W": integers(8, 4, 3, 3, low=-1, high=2), "B": integers(8, dtype=np.int32)},
    ),
    "grouped QLinearConv": (
        f"{IMAGE} r = QLinearConv <group = 4, dilations = [2, 2]> (q, s, z, W, s, z, s, z) {OUT}",
        {"W": integers(8, 1, 2, 2)},
    ),
    "ConvInteger": (
        "(float[1,4,6,6] x) => (float[1,5,5,5] y) { q = QuantizeLinear(x, s, u)  r = ConvInteger(q, W)"
        "  y = Cast <to = 1> (r) }",
        {"W": integers(5, 4, 2, 2, dtype=np.uint8, low=0)},
    ),
    "MatMulInteger": (
        "(float[2,4] x) => (float[2,3] y) { q = QuantizeLinear(x, s, z)  r = MatMulInteger(q, W)"
        "  y = Cast <to = 1> (r) }",
        {"W": integers(4, 3)},
    ),
    "dynamic": (
        "(float[2,4] x) => (float[2,3] y) { q, a, b = DynamicQuantizeLinear(x)  m = MatMulInteger(q, W, b, z)"
        "  f = Cast <to = 1> (m)  t = Mul(a, s)  y = Mul(f, t) }",
        {"W": integers(4, 3)},
    ),
    "dynamic with a bias": (
        "(float[2,4] x) => (float[2,3] y) { q, a, b = DynamicQuantizeLinear(x)  m = MatMulInteger(q, W, b, z)"
        "  t = Mul(a, s)  d = Div(B, t)  e = Floor(d)  c = Cast <to = 6> (e)  v = Reshape(c, row)  n = Add(m, v)"
        "  f = Cast <to = 1> (n)  y = Mul(f, t) }",
        {"W": integers(4, 3), "B": np.arange(3, dtype=np.float32), "row": np.array([1, 3])},
    ),
    "QGemm": (
        f"{IN} r = com.microsoft.QGemm <transB = 1> (q, s, z, W, s, z, B, s, z) {OUT}",
        {"W": integers(3, 4), "B": integers(3, dtype=np.int32)},
    ),
    "QGemm to float": (
        "(float[2,4] x) => (float[2,3] y) { q = QuantizeLinear(x, s, z)"
        "  y = com.microsoft.QGemm <transB = 1> (q, s, z, W, s, z, B) }",
        {"W": integers(3, 4), "B": integers(3, dtype=np.int32)},
    ),
    "MatMulIntegerToFloat": (
        "(float[2,4] x) => (float[2,3] y) { q = QuantizeLinear(x, s, u)"
        "  y = com.microsoft.MatMulIntegerToFloat(q, W, s, s, u, u, B) }",
        {"W": integers(4, 3, low=0, dtype=np.uint8), "B": np.arange(3, dtype=np.float32)},
    ),
    "DynamicQuantizeMatMul": (
        "(float[2,4] x) => (float[2,3] y) { y = com.microsoft.DynamicQuantizeMatMul(x, W, s, u, B) }",
        {"W": integers(4, 3, low=0, dtype=np.uint8), "B": np.arange(3, dtype=np.float32)},
    ),
    "QLinearAdd and QLinearMul": (
        f"{IN} a = com.microsoft.QLinearAdd(q, s, z, q, s, z, s, z)"
        f"  r = com.microsoft.QLinearMul(a, s, z, q, s, z, s, z) {OUT}", {},
    ),
    "QLinearConcat": (
        f"{IN} r = com.microsoft.QLinearConcat <axis = 1> (s, z, q, s, z, q, s, z) {OUT}", {},
    ),
    "pooling": (
        f"{IMAGE} m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (q)"
        f"  r = com.microsoft.QLinearLeakyRelu <alpha = 1.0> (m, s, z, s, z) {OUT}", {},
    ),
    "moved about": (
        f"{IN} a = Transpose(q)  b = Reshape(a, d)  r, c = Split <axis = 0, num_outputs = 2> (b) {OUT}",
        {"d": np.array([2, 4])},
    ),
    "output that is quantised": (
        "(float[2,4] x) => (int8[2,3] r) { q = QuantizeLinear(x, s, z)"
        "  r = QLinearMatMul(q, s, z, W, s, z, s, z) }", {"W": integers(4, 3)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_with_a_scale_of_one_integers_compute_what_floats_do(name: str) -> None:
    graph, tensors = GRAPHS[name]
    proto = quantised(graph, **tensors)
    dims = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    positive = "u)" in graph.partition("QuantizeLinear")[2][:12] or "Dynamic" in graph
    x = RNG.integers(0 if positive else -3, 4, dims).astype(np.float32)
    if "Dynamic" in graph:  # a range from 0 to 255 has the scale 1
        x[0, :2] = 0, 255
    back = turned_back(proto)
    assert not [node.op_type for node in back.graph.node if node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear")]
    assert [value.name for value in back.graph.output] == [value.name for value in proto.graph.output]
    expected = run(proto, x).astype(np.float64)
    assert expected.std() > 0
    assert run(back, x).astype(np.float64) == pytest.approx(expected, abs=1e-4)


class Samples(CalibrationDataReader):
    """Four minibatches from which the quantiser takes its ranges."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        given = proto.graph.input[0]
        dims = [dim.dim_value or 2 for dim in given.type.tensor_type.shape.dim]
        whole = given.type.tensor_type.elem_type == onnx.TensorProto.INT64
        draw = (lambda: RNG.integers(0, 9, dims)) if whole else (lambda: RNG.random(dims).astype(np.float32))
        self.rest = iter([{given.name: draw()} for _ in range(4)])

    def get_next(self) -> Any:
        return next(self.rest, None)


def quantise(proto: onnx.ModelProto, form: str, folder: Path) -> Path:
    """Let ONNX Runtime's quantiser make a model of `proto`."""
    plain, made = folder / "plain.onnx", folder / f"{form}.onnx"
    onnx.save(proto, plain)
    logging.disable(logging.WARNING)
    try:
        if form == "dynamic":
            quantize_dynamic(plain, made)
        else:
            kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
            style = {"qdq": QuantFormat.QDQ, "qoperator": QuantFormat.QOperator}[form]
            quantize_static(plain, made, Samples(proto), quant_format=style, **kinds)
    finally:
        logging.disable(logging.NOTSET)
    return made


NETWORKS = {
    "convolutions": build(
        "(float[N,3,8,8] x) => (float[N,5] y) { a = Conv <pads = [1, 1, 1, 1]> (x, W, b)  r = Relu(a)"
        "  c = Conv(r, V)  g = GlobalAveragePool(c)  f = Flatten(g)  y = Gemm(f, L, k) }",
        W=(8, 3, 3, 3), b=(8,), V=(6, 8, 3, 3), L=(6, 5), k=(5,),
    ),
    "residual": build(
        "(float[N,3,8,8] x) => (float[N,6,8,8] y) { a = Conv <pads = [1, 1, 1, 1]> (x, W, b)"
        "  n = BatchNormalization(a, g, b, m, v)  r = Relu(n)  c = Conv <pads = [1, 1, 1, 1]> (r, V, b)"
        "  t = BatchNormalization(c, g, b, m, v)  e = Add(n, t)  y = Relu(e) }",
        W=(6, 3, 3, 3), b=(6,), V=(6, 6, 3, 3), g=(6,), m=(6,), v=np.ones(6, np.float32),
    ),
    "tokens": build(
        "(int64[N,7] ids) => (float[N,5] y) { e = Gather(E, ids)  t = Transpose <perm = [1, 0, 2]> (e)"
        "  all, last = LSTM <hidden_size = 6> (t, W, R, B)  s = Squeeze(last, axes)  y = MatMul(s, V) }",
        E=(9, 4), W=(1, 24, 4), R=(1, 24, 6), B=(1, 48), V=(6, 5), axes=np.array([0]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", ["dynamic", "qdq", "qoperator"])
@pytest.mark.parametrize("network", NETWORKS)
def test_what_the_quantiser_writes_scores_as_the_float_model(network: str, form: str, tmp_path: Path) -> None:
    if (network, form) == ("residual", "qoperator"):
        pytest.skip("the quantiser leaves out the ReLU behind a sum, and nothing in its file tells where one was")
    proto = NETWORKS[network]
    made = quantise(proto, form, tmp_path)
    expected = score(proto, weights=(1e-3, 0.1), batch=8, providers="cpu", arithmetic="float32")
    found = score(made, weights=(1e-3, 0.1), batch=8, providers="cpu", arithmetic="float32")
    assert (found.status, found.parameters) == (expected.status, expected.parameters)
    assert found.raw_score == pytest.approx(expected.raw_score, rel=1e-5)
    assert expected.raw_score
    assert any("quantised model" in note for note in found.warnings)
    assert any("quantised model" in note for note in inspect(made).warnings)
    for shared in (strip(made), strip(made, anonymise=True), fill(strip(made))):
        again = score(shared, weights=(1e-3, 0.1), batch=8, providers="cpu", arithmetic="float32")
        assert (again.raw_score, again.status, again.parameters) == (found.raw_score, found.status, found.parameters)


def test_a_residual_network_keeps_its_relus_in_qdq_form(tmp_path: Path) -> None:
    found = load_model(quantise(NETWORKS["residual"], "qdq", tmp_path)).model
    assert sum(node.op_type == "Relu" for node in found.graph) >= 2


def test_packed_weights_are_counted_and_scored() -> None:
    graph = (
        "(float[N,64] x) => (float[N,32] y) {"
        "  h = com.microsoft.MatMulNBits <K = 64, N = 32, bits = 4, block_size = 32> (x, P, S)  y = Tanh(h) }"
    )
    packed = quantised(graph, P=np.zeros((32, 2, 16), np.uint8), S=np.ones(64, np.float32))
    plain = build("(float[N,64] x) => (float[N,32] y) { h = MatMul(x, W)  y = Tanh(h) }", W=(64, 32))
    ours, theirs = (
        score(model, weights=(1e-3, 0.1), batch=8, providers="cpu", arithmetic="float32") for model in (packed, plain)
    )
    assert (ours.raw_score, ours.parameters) == (theirs.raw_score, theirs.parameters)
    assert ours.raw_score


def test_a_table_of_bytes_that_nobody_scales_stays_a_table() -> None:
    graph = (
        "(int64[N,4] x) => (float[N,3] y) { c = Gather(T, x)  f = Cast <to = 1> (c)  m = MatMul(f, W)  y = Tanh(m) }"
    )
    proto = build(graph, T=integers(9, dtype=np.uint8, low=0), W=(4, 3))
    assert [node.op_type for node in turned_back(proto).graph.node] == ["Gather", "Cast", "MatMul", "Tanh"]


def test_models_without_integer_arithmetic_are_left_alone() -> None:
    loaded = load_model(MODELS / "mlp.onnx")
    assert loaded.quantised.notes() == []
