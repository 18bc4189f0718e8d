"""Rewritten graphs against references made by hand: the same model with its tensors filled by NumPy."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epsinas_onnx.edit.rewrite import rewrite
from epsinas_onnx.errors import ModelError, ShapeError
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.graph.random_table import uniform_table
from epsinas_onnx.scoring.options import GraphOptions
from epsinas_onnx.scoring.plan import plain_graph, plan
from tests.graph.models import (
    Array,
    build,
    filled,
    newest_opset,
    rewritten,
    run,
    run_rewritten,
    stored_sizes,
)

OPSETS = (7, 8, 9, 11, 13, 17, 18, 21, newest_opset())
CONSTANTS = (1e-7, 0.3, 1.0)


def normal(*shape: int, seed: int = 3) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_close(got: Array, wanted: Array, relative: float = 1e-6) -> None:
    """Assert that no entry is off by more than a share of the largest one, and that there is something to compare."""
    assert got.shape == wanted.shape
    largest = float(np.abs(wanted).max())
    assert 0 < largest < np.inf
    np.testing.assert_allclose(got.astype(np.float64), wanted.astype(np.float64), rtol=0, atol=relative * largest)


CONVOLUTIONS = """(float[N,3,8,8] x) => (float[N,5] y) {
    a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, W1, B1)  r = Relu(a)
    d = Conv <group = 4, pads = [1, 1, 1, 1]> (r, W2, B2)  s = Add(d, r)
    u = ConvTranspose(s, W3, B3)  q = PRelu(u, P)
    p = GlobalAveragePool(q)  f = Flatten(p)  y = Gemm <transB = 1> (f, W4, B4)
}"""
CONVOLUTION_TENSORS: dict[str, Any] = {
    "W1": (4, 3, 3, 3), "B1": (4,), "W2": (4, 1, 3, 3), "B2": (4,), "W3": (4, 6, 2, 2), "B3": (6,),
    "P": (6, 1, 1), "W4": (5, 6), "B4": (5,),
}  # fmt: skip

LSTM = """(float[N,5,3] x) => (float[L,N,H] y) {
    s = Transpose <perm = [1, 0, 2]> (x)  all, y = LSTM <hidden_size = 4> (s, W, R, B)
}"""
IF = """(bool flag, float[N,3] x) => (float[N,4] y) {
    y = If (flag) <
        then_branch = t () => (float[N,4] p) <float[3,4] U = {0,1,2,3,4,5,6,7,8,9,10,11}> { p = MatMul(x, U) },
        else_branch = e () => (float[N,4] q) { k = MatMul(x, W)  i = MatMul(k, X)  q = Add(i, B) }
    >
}"""
LOOP = """(float[N,3] x) => (float[N,3] y) {
    y = Loop (times, "", x) <
        body = b (int64 i, bool go, float[N,3] h) => (bool on, float[N,3] r) {
            on = Identity(go)  m = MatMul(h, W)  r = Add(m, B)
        }
    >
}"""
SCAN = """(float[N,5,3] x) => (float[N,3] y) {
    s = Transpose <perm = [1, 0, 2]> (x)  start = ReduceMax <keepdims = 0> (x, one)
    y, all = Scan <
        num_scan_inputs = 1,
        body = b (float[N,3] h, float[N,3] t) => (float[N,3] r, float[N,3] o) {
            a = Add(h, t)  m = MatMul(a, W)  r = Add(m, B)  o = Identity(r)
        }
    > (start, s)
}"""

# graph, its tensors, and which of them are weights and biases
MODELS: dict[str, tuple[str, dict[str, Any], list[str], list[str]]] = {
    "convolutions": (CONVOLUTIONS, CONVOLUTION_TENSORS, ["W1", "W2", "W3", "P", "W4"], ["B1", "B2", "B3", "B4"]),
    "MatMul on both sides with biases and layer scale": (
        """(float[N,4,3] x) => (float[N,2,6] y) {
            h = MatMul(x, W)  b = Add(B, h)  g = Mul(b, G)  m = MatMul(V, g)  y = Tanh(m)
        }""",
        {"W": (3, 6), "B": (6,), "G": (6,), "V": (2, 4)},
        ["W", "G", "V"],
        ["B"],
    ),
    "Gemm with transposed stored first operand": (
        "(float[N,3] x) => (float[4,N] y) { y = Gemm <transA = 1, transB = 1, alpha = 0.5> (W, x, B) }",
        {"W": (3, 4), "B": (4, 1)},
        ["W"],
        ["B"],
    ),
    "Einsum": (
        '(float[N,3] x) => (float[N,4] y) { y = Einsum <equation = "bi,io->bo"> (x, W) }',
        {"W": (3, 4)},
        ["W"],
        [],
    ),
    "LSTM": (LSTM, {"W": (1, 16, 3), "R": (1, 16, 4), "B": (1, 32)}, ["W", "R"], ["B"]),
    "LSTM with peepholes and initial states": (
        LSTM.replace("(s, W, R, B)", '(s, W, R, B, "", H0, C0, P)'),
        {"W": (1, 16, 3), "R": (1, 16, 4), "B": (1, 32), "H0": (1, 2, 4), "C0": (1, 2, 4), "P": (1, 12)},
        ["W", "R", "P"],
        ["B"],
    ),
    "GRU": (
        LSTM.replace("LSTM", "GRU"),
        {"W": (1, 12, 3), "R": (1, 12, 4), "B": (1, 24)},
        ["W", "R"],
        ["B"],
    ),
    "RNN": (
        LSTM.replace("LSTM", "RNN"),
        {"W": (1, 4, 3), "R": (1, 4, 4), "B": (1, 8)},
        ["W", "R"],
        ["B"],
    ),
    "normalisations within samples": (
        """(float[N,4,6,6] x) => (float[N,4,6,6] y) {
            i = InstanceNormalization(x, G1, B1)  g = GroupNormalization <num_groups = 2> (i, G2, B2)
            y = LayerNormalization(g, G3, B3)
        }""",
        {"G1": (4,), "B1": (4,), "G2": (4,), "B2": (4,), "G3": (6,), "B3": (6,)},
        ["G1", "G2", "G3"],
        ["B1", "B2", "B3"],
    ),
    "weights behind Transpose, Reshape and Concat": (
        """(float[N,3] x) => (float[N,5] y) {
            t = Transpose <perm = [1, 0]> (W)  c = Concat <axis = 1> (t, V)  h = MatMul(x, c)  y = Add(h, B)
        }""",
        {"W": (2, 3), "V": (3, 3), "B": (5,)},
        ["W", "V"],
        ["B"],
    ),
    "kept constants": (
        """(float[N,3,4] x) => (float[N,3,5] y) {
            c = Sub(x, M)  s = Mul(c, K)  h = MatMul(s, W)  y = Add(h, T)
        }""",
        {"M": (3, 4), "K": np.full((), 0.125, np.float32), "W": (4, 5), "T": (3, 5)},
        ["W"],
        [],
    ),
    "Loop": (LOOP, {"times": np.array(3), "W": (3, 3), "B": (3,)}, ["W"], ["B"]),
    "Scan": (SCAN, {"one": np.array([1]), "W": (3, 3), "B": (3,)}, ["W"], ["B"]),
}


def feeds_of(proto: onnx.ModelProto, batch: int = 2) -> dict[str, Array]:
    feeds = {}
    stored = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name not in stored:
            dims = value.type.tensor_type.shape.dim
            feeds[value.name] = normal(*(dim.dim_value or batch for dim in dims))
    return feeds


@pytest.mark.parametrize("constant", CONSTANTS)
@pytest.mark.parametrize("case", MODELS)
def test_rewritten_graph_gives_what_stored_tensors_full_of_the_constant_give(case: str, constant: float) -> None:
    graph, tensors, weights, biases = MODELS[case]
    proto = build(graph, **tensors)
    feeds = feeds_of(proto)
    (wanted,) = run(filled(proto, constant, weights, biases), feeds)
    (got,) = run_rewritten(rewritten(proto), constant, feeds)
    assert_close(got, wanted)


@pytest.mark.parametrize("flag", [True, False])
def test_weights_inside_and_captured_by_branches_are_rewritten(flag: bool) -> None:
    proto = build(IF, W=(3, 5), X=(5, 4), B=(4,))
    feeds = {"flag": np.array(flag), "x": normal(2, 3)}
    (wanted,) = run(filled(proto, 0.3, ["U", "W", "X"], ["B"]), feeds)
    (got,) = run_rewritten(rewritten(proto), 0.3, feeds)
    assert_close(got, wanted)


def test_constant_is_an_input_so_that_one_graph_serves_any_number_of_them() -> None:
    proto = build("(float[N,3] x) => (float[N,1] y) { y = MatMul(x, W) }", W=(3, 1))
    prepared = rewritten(proto)
    x = np.ones((2, 3), np.float32)
    assert [run_rewritten(prepared, c, {"x": x})[0][0, 0] for c in (0.0, 1.0, -2.0)] == [0.0, 3.0, -6.0]


# Graphs that mean the same with every operator set from 7 on.
OLD_LSTM = LSTM.replace("[L,N,H]", "[1,N,4]")


@pytest.mark.parametrize("opset", OPSETS)
def test_convolutional_graph_is_rewritten_with_every_operator_set(opset: int) -> None:
    proto = build(CONVOLUTIONS, opset, **CONVOLUTION_TENSORS)
    feeds = feeds_of(proto)
    (wanted,) = run(filled(proto, 0.3, ["W1", "W2", "W3", "P", "W4"], ["B1", "B2", "B3", "B4"]), feeds)
    (got,) = run_rewritten(rewritten(proto), 0.3, feeds)
    assert_close(got, wanted)


@pytest.mark.parametrize("opset", OPSETS)
def test_recurrent_graph_is_rewritten_with_every_operator_set(opset: int) -> None:
    proto = build(OLD_LSTM, opset, W=(1, 16, 3), R=(1, 16, 4), B=(1, 32))
    feeds = feeds_of(proto)
    (wanted,) = run(filled(proto, 0.3, ["W", "R"], ["B"]), feeds)
    (got,) = run_rewritten(rewritten(proto), 0.3, feeds)
    assert_close(got, wanted)


EMBEDDED = "(int64[N,5] ids) => (float[N,5,7] y) { h = Gather(E, ids)  m = MatMul(h, W)  y = Add(m, B) }"
IDS = np.array([[0, 1, 2, 3, 4], [10, 9, 8, 7, 6]])


@pytest.mark.parametrize("opset", OPSETS)
def test_embedding_is_the_uniform_table_with_every_operator_set(opset: int) -> None:
    proto = build(EMBEDDED, opset, E=(11, 4), W=(4, 7), B=(7,))
    table = uniform_table((11, 4), 5)
    (wanted,) = run(filled(proto, 0.3, ["W"], ["B"], E=table), {"ids": IDS})
    (got,) = run_rewritten(rewritten(proto, seed=5), 0.3, {"ids": IDS})
    assert_close(got, wanted)


# Batch normalisation.

BATCH_NORM = """(float[N,{inner}] x) => (float[N,4{rest}] y) {{
    a = {layer}  y = BatchNormalization <epsilon = 0.001> (a, G, S, M, V)
}}"""
LAYERS: dict[int, tuple[str, str, tuple[int, ...], tuple[int, ...]]] = {
    # rank: layer, what follows the channels, input shape, weight shape
    2: ("Gemm(x, W, B)", "", (6, 3), (3, 4)),
    3: ("Conv(x, W, B)", ",A", (6, 3, 7), (4, 3, 2)),
    4: ("Conv(x, W, B)", ",A,D", (6, 3, 5, 5), (4, 3, 2, 2)),
}


def batch_norm(rank: int, opset: int) -> tuple[onnx.ModelProto, Array]:
    layer, rest, shape, weight = LAYERS[rank]
    graph = BATCH_NORM.format(inner=",".join(map(str, shape[1:])), rest=rest, layer=layer)
    tensors: dict[str, Any] = dict.fromkeys("BGSM", (4,))
    proto = build(graph, opset, W=weight, V=np.array([1, 2, 3, 4], np.float32), **tensors)
    return proto, normal(*shape)


def behind_the_layer(proto: onnx.ModelProto, x: Array, constant: float) -> Array:
    """Run the layer in front of the normalisation alone, in float64 from there on."""
    front = filled(proto, constant, ["W"], ["B"])
    front.graph.node.pop()
    front.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, None))
    return run(front, {"x": x})[0].astype(np.float64)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("rank", LAYERS)
def test_batch_normalisation_takes_the_statistics_of_the_minibatch(rank: int, opset: int) -> None:
    proto, x = batch_norm(rank, opset)
    a = behind_the_layer(proto, x, 0.3)
    axes = (0, *range(2, rank))
    wanted = 0.3 * (a - a.mean(axes, keepdims=True)) / np.sqrt(a.var(axes, keepdims=True) + 0.001)
    (got,) = run_rewritten(rewritten(proto, 6), 0.3, {"x": x})
    assert_close(got, wanted)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("rank", LAYERS)
def test_reset_statistics_are_mean_0_and_variance_1(rank: int, opset: int) -> None:
    proto, x = batch_norm(rank, opset)
    wanted = 0.3 * behind_the_layer(proto, x, 0.3) / np.sqrt(1.001)
    (got,) = run_rewritten(rewritten(proto, 6, norm_stats="reset"), 0.3, {"x": x})
    assert_close(got, wanted)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("rank", LAYERS)
def test_stored_statistics_are_those_of_the_file(rank: int, opset: int) -> None:
    proto, x = batch_norm(rank, opset)
    (wanted,) = run(filled(proto, 0.3, ["W", "G"], ["B", "S"]), {"x": x})
    (got,) = run_rewritten(rewritten(proto, 6, norm_stats="stored"), 0.3, {"x": x})
    assert_close(got, wanted)


def test_batch_normalisation_keeps_scale_and_shift_that_were_given_the_role_constant() -> None:
    proto, x = batch_norm(4, 21)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor).astype(np.float64) for tensor in proto.graph.initializer}
    a = behind_the_layer(proto, x, 0.3)
    normalised = (a - a.mean((0, 2, 3), keepdims=True)) / np.sqrt(a.var((0, 2, 3), keepdims=True) + 0.001)
    wanted = normalised * stored["G"][:, None, None] + stored["S"][:, None, None]
    (got,) = run_rewritten(rewritten(proto, 6, roles={"G": "constant", "S": "constant"}), 0.3, {"x": x})
    assert_close(got, wanted)


def test_batch_normalisation_in_training_mode_takes_the_statistics_of_the_minibatch() -> None:
    graph = """(float[N,4,5,5] x) => (float[N,4,5,5] y) {
        y, m, v = BatchNormalization <training_mode = 1> (x, G, B, M, V)
    }"""
    proto = build(graph, G=(4,), B=(4,), M=(4,), V=np.ones(4, np.float32))
    x = normal(6, 4, 5, 5)
    a = x.astype(np.float64)
    wanted = 0.3 * (a - a.mean((0, 2, 3), keepdims=True)) / np.sqrt(a.var((0, 2, 3), keepdims=True) + 1e-5)
    (got,) = run_rewritten(rewritten(proto, 6), 0.3, {"x": x})
    assert_close(got, wanted)


def test_batch_normalisation_does_not_lose_a_small_variation_beside_a_large_mean() -> None:
    proto = build(
        "(float[N,1,4,4] x) => (float[N,1,4,4] y) { y = BatchNormalization <epsilon = 1e-12> (x, G, B, M, V) }",
        **{name: np.ones(1, np.float32) for name in "GBMV"},
    )
    x = (1000 + normal(6, 1, 4, 4)).astype(np.float32)
    a = x.astype(np.float64)
    (got,) = run_rewritten(rewritten(proto, 6), 1.0, {"x": x})
    assert_close(got, (a - a.mean()) / a.std(), 1e-3)


def test_two_batch_normalisations_in_a_row_and_one_as_output_keep_their_names() -> None:
    proto = build(
        """(float[N,4,5,5] x) => (float[N,4,5,5] y) {
            h = BatchNormalization(x, G, B, M, V)  r = Relu(h)  y = BatchNormalization(r, G, B, M, V)
        }""",
        G=(4,),
        B=(4,),
        M=(4,),
        V=np.ones(4, np.float32),
    )
    prepared = rewritten(proto, 6)
    assert prepared.outputs == ("y",)
    assert {"h", "y"} <= {value.name for node in prepared.model.graph for value in node.outputs}
    assert len(prepared.statistics) == 2
    names = [name for pair in prepared.statistics for name in pair]
    assert names == [value.name for value in prepared.model.graph.outputs][1:]


def test_statistics_of_a_batch_normalisation_are_the_mean_and_variance_of_each_channel() -> None:
    proto, x = batch_norm(4, 21)
    prepared = rewritten(proto, 6)
    a = behind_the_layer(proto, x, 0.3)
    outputs = run(ir.to_proto(prepared.model), {"x": x, "epsinas_weight": np.asarray(0.3, np.float32)})
    assert_close(outputs[1].reshape(-1), a.mean((0, 2, 3)))
    assert_close(outputs[2].reshape(-1), a.var((0, 2, 3)), 1e-5)


def test_batch_normalisation_inside_a_loop_takes_the_statistics_of_the_minibatch() -> None:
    graph = """(float[N,4] x) => (float[N,4] y) {
        y = Loop (times, "", x) <
            body = b (int64 i, bool go, float[N,4] h) => (bool on, float[N,4] r) {
                on = Identity(go)  r = BatchNormalization(h, G, B, M, V)
            }
        >
    }"""
    proto = build(graph, times=np.array(2), G=(4,), B=(4,), M=(4,), V=np.ones(4, np.float32))
    x = normal(6, 4)
    wanted = x.astype(np.float64)
    for _ in range(2):
        wanted = 0.3 * (wanted - wanted.mean(0)) / np.sqrt(wanted.var(0) + 1e-5)
    (got,) = run_rewritten(rewritten(proto, 6), 0.3, {"x": x})
    assert_close(got, wanted)


# Operands that disappear.


def operators(prepared: Any, kind: str) -> list[ir.Node]:
    return [node for node in prepared.model.graph.all_nodes() if node.op_type == kind]


def test_zero_bias_of_an_lstm_is_dropped() -> None:
    proto = build(LSTM, W=(1, 16, 3), R=(1, 16, 4), B=(1, 32))
    (node,) = operators(rewritten(proto), "LSTM")
    assert len(node.inputs) == 3


def test_zero_bias_of_an_lstm_with_later_operands_is_left_out_in_its_place() -> None:
    graph, tensors, _, _ = MODELS["LSTM with peepholes and initial states"]
    (node,) = operators(rewritten(build(graph, **tensors)), "LSTM")
    assert [value is None for value in node.inputs] == [False, False, False, True, True, False, False, False]


@pytest.mark.parametrize(("opset", "operands"), [(9, 3), (11, 2), (21, 2)])
def test_zero_bias_of_gemm_is_dropped_from_operator_set_11_on(opset: int, operands: int) -> None:
    proto = build("(float[N,3] x) => (float[N,4] y) { y = Gemm(x, W, B) }", opset, W=(3, 4), B=(4,))
    prepared = rewritten(proto)
    (node,) = operators(prepared, "Gemm")
    assert len(node.inputs) == operands
    (got,) = run_rewritten(prepared, 0.3, {"x": normal(2, 3)})
    assert_close(got, run(filled(proto, 0.3, ["W"], ["B"]), {"x": normal(2, 3)})[0])


# Element types.


def typed(dtype: str, array_type: Any) -> onnx.ModelProto:
    tensors = {"W": (3, 6), "B": (6,), "K": (), "G": (6,), "S": (6,), "M": (6,), "V": (6,)}
    arrays = {name: np.ones(shape, array_type) * array_type(0.5) for name, shape in tensors.items()}
    return build(
        f"""({dtype}[N,3] x) => ({dtype}[N,6] y) {{
            h = MatMul(x, W)  b = Add(h, B)  k = Mul(b, K)  n = BatchNormalization(k, G, S, M, V)  y = Tanh(n)
        }}""",
        **arrays,
    )


@pytest.mark.parametrize("name", ["float16", "bfloat16", "double"])
def test_other_float_types_are_computed_in_float32(name: str) -> None:
    import ml_dtypes

    kinds = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "double": np.float64}
    prepared = rewritten(typed(name, kinds[name]), 6)
    feeds = {"x": normal(6, 3)}
    (got,) = run_rewritten(prepared, 0.3, feeds)
    (wanted,) = run_rewritten(rewritten(typed("float", np.float32), 6), 0.3, feeds)
    assert got.dtype == np.float32
    assert prepared.specs[0].dtype == ir.DataType.FLOAT
    np.testing.assert_array_equal(got, wanted)


def test_float32_model_gives_the_formula_of_its_layers() -> None:
    x = normal(6, 3)
    h = 0.3 * 0.5 * x.astype(np.float64).sum(1, keepdims=True) @ np.ones((1, 6))
    wanted = np.tanh(0.3 * (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5))
    (got,) = run_rewritten(rewritten(typed("float", np.float32), 6), 0.3, {"x": x})
    assert_close(got, wanted)


def test_casts_and_constants_of_half_precision_inside_a_graph_become_float32() -> None:
    proto = build(
        """(float[N,3] x) => (float[N,4] y) {
            h = Cast <to = 10> (x)  m = MatMul(h, W)  s = Mul(m, k)  y = Cast <to = 1> (s)
        }""",
        W=np.ones((3, 4), np.float16),
    )
    tenth = onnx.numpy_helper.from_array(np.array(0.1, np.float16))
    proto.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["k"], value=tenth))
    x = normal(2, 3)
    (got,) = run_rewritten(rewritten(proto), 0.3, {"x": x})
    wanted = float(np.float16(0.1)) * 0.3 * x.astype(np.float64).sum(1, keepdims=True)
    assert_close(got, np.broadcast_to(wanted, (2, 4)))


def test_double_constants_beyond_the_float32_range_stay_finite() -> None:
    proto = build(
        "(double[N,3] x) => (double[N,3] y) { y = Max(x, M) }",
        M=np.array([1e300, -1e300, 0.5]),
    )
    (got,) = run_rewritten(rewritten(proto), 1.0, {"x": np.zeros((2, 3), np.float32)})
    np.testing.assert_array_equal(got[0], np.array([np.finfo(np.float32).max, 0, 0.5], np.float32))


def test_native_types_keep_float16() -> None:
    proto = typed("float16", np.float16)
    prepared = rewritten(proto, 6, native_types=True)
    x = normal(6, 3).astype(np.float16)
    (got,) = run_rewritten(prepared, 0.3, {"x": x})
    (wanted,) = run_rewritten(rewritten(proto, 6), 0.3, {"x": x.astype(np.float32)})
    assert prepared.specs[0].dtype == ir.DataType.FLOAT16
    assert got.dtype == np.float16
    assert_close(got, wanted, 5e-3)


def test_native_types_give_what_float16_tensors_full_of_the_constant_give() -> None:
    proto = build(
        "(float16[N,3] x) => (float16[N,4] y) { h = MatMul(x, W)  b = Add(h, B)  y = Tanh(b) }",
        W=np.ones((3, 4), np.float16),
        B=np.ones(4, np.float16),
    )
    x = normal(2, 3).astype(np.float16)
    (got,) = run_rewritten(rewritten(proto, native_types=True), 0.3, {"x": x})
    (wanted,) = run(filled(proto, 0.3, ["W"], ["B"]), {"x": x})
    assert got.dtype == wanted.dtype == np.float16
    assert_close(got, wanted, 2e-3)


# Embedding tables.


def gathered(rows: int, width: int, seed: int, opset: int = 21) -> Array:
    proto = build(
        f"(int64[N,{rows}] ids) => (float[N,{rows},{width}] y) {{ y = Gather(E, ids) }}", opset, E=(rows, width)
    )
    ids = np.stack([np.arange(rows)] * 2)
    return run_rewritten(rewritten(proto, seed=seed), 1.0, {"ids": ids})[0][0]


@pytest.mark.parametrize("opset", [7, 10, 11, 21])
@pytest.mark.parametrize("seed", [0, 1, 12345, 2**31])
def test_embedding_in_the_graph_equals_the_numpy_table_exactly(seed: int, opset: int) -> None:
    np.testing.assert_array_equal(gathered(97, 13, seed, opset), uniform_table((97, 13), seed))


TWO_LOOKUPS = "(int64[N,9] ids) => (float[N,9,4] a, float[N,9,4] b) { a = Gather(E, ids)  b = Gather(F, ids) }"


def test_every_embedding_of_a_model_is_drawn_anew() -> None:
    ids = np.stack([np.arange(9)] * 2)
    prepared = rewritten(build(TWO_LOOKUPS, E=(9, 4), F=(9, 4)), outputs=("a", "b"))
    first, second = run_rewritten(prepared, 1.0, {"ids": ids})
    assert np.abs(first - second).min() > 0


def test_two_uses_of_one_embedding_read_the_same_table() -> None:
    ids = np.stack([np.arange(9)] * 2)
    prepared = rewritten(build(TWO_LOOKUPS.replace("F", "E"), E=(9, 4)), outputs=("a", "b"))
    first, second = run_rewritten(prepared, 1.0, {"ids": ids})
    np.testing.assert_array_equal(first, second)


@given(seed=st.integers(0, 2**40), rows=st.integers(1, 60), width=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_table_lies_in_the_half_open_unit_interval_and_is_reproducible(seed: int, rows: int, width: int) -> None:
    table = uniform_table((rows, width), seed)
    assert table.dtype == np.float32
    assert table.shape == (rows, width)
    assert table.min() >= 0
    assert table.max() < 1
    np.testing.assert_array_equal(table, uniform_table((rows, width), seed))
    np.testing.assert_array_equal(table.reshape(-1), uniform_table((rows * width,), seed))


def test_table_never_holds_1_even_where_the_integer_is_next_to_the_modulus() -> None:
    prime, step, start = 2**31 - 1, 1_640_531_527, 12_345
    root = pow(prime - 2, pow(5, -1, prime - 1), prime)  # its fifth power is the largest residue but one
    seed = (root - start) * pow(step, -1, prime) % prime
    assert uniform_table((1,), seed)[0] < 1


@pytest.mark.parametrize("seed", [0, 1, 77])
def test_table_is_roughly_uniform_and_uncorrelated(seed: int) -> None:
    flat = uniform_table((200, 100), seed).reshape(-1).astype(np.float64)
    error = 1 / np.sqrt(flat.size)
    shares = np.linspace(0.05, 0.95, 19)
    assert np.abs(np.quantile(flat, shares) - shares).max() < 2 * error
    assert abs(flat.mean() - 0.5) < 4 * error / np.sqrt(12)
    assert abs(flat.var() - 1 / 12) < 0.1 * error * 4
    for lag in (1, 2, 100):
        assert abs(np.corrcoef(flat[:-lag], flat[lag:])[0, 1]) < 4 * error


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_tables_of_neighbouring_seeds_are_uncorrelated(seed: int) -> None:
    first, second = (uniform_table((5000,), s).astype(np.float64) for s in (seed, seed + 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 6 / np.sqrt(5000)


# No weight bytes.


@pytest.mark.parametrize("opset", [7, 11, 21])
def test_wide_layers_and_large_tables_leave_no_bytes_in_the_file(opset: int) -> None:
    proto = build(
        """(int64[N,5] ids) => (float[N,5,300] y) {
            e = Gather(E, ids)  h = MatMul(e, W)  b = Add(h, B)  t = Transpose <perm = [0, 2, 1]> (b)
            c = Conv(t, K, D)  n = BatchNormalization(c, G, S, M, V)  y = Transpose <perm = [0, 2, 1]> (n)
        }""",
        opset,
        E=(11, 80) if opset < 11 else (5000, 80),
        W=(80, 200),
        B=(200,),
        K=(300, 200, 1),
        D=(300,),
        **{name: np.ones(300, np.float32) for name in "GSMV"},
    )
    left = ir.to_proto(rewritten(proto).model)
    limit = 880 if opset < 11 else 64  # before operator set 11 a table is stored: there is no Range to compute it
    assert max(stored_sizes(left)) <= limit
    assert len(left.SerializeToString()) < 20_000


def test_metadata_and_documentation_are_dropped() -> None:
    proto = build("(float[N,3] x) => (float[N,4] y) { y = MatMul(x, W) }", W=(3, 4))
    proto.graph.node[0].doc_string = "trace " * 1000
    proto.graph.node[0].metadata_props.append(onnx.StringStringEntryProto(key="stack", value="trace " * 1000))
    assert b"trace" not in ir.to_proto(rewritten(proto).model).SerializeToString()


def without_data(folder: Path, **tensors: tuple[int, ...]) -> Path:
    """Write a model whose tensors lie in a data file that does not exist."""
    proto = build(
        "(float[N,3] x) => (float[N,5] y) { s = Max(x, M)  h = MatMul(s, W)  b = Add(h, B)  y = Tanh(b) }", **tensors
    )
    for tensor in proto.graph.initializer:
        length = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "gone.bin"), ("offset", "0"), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_of_weights_and_biases_is_never_opened(tmp_path: Path) -> None:
    path = without_data(tmp_path, M=(3,), W=(3, 5), B=(5,))
    prepared = plain_graph(plan(load_model(path), 2, GraphOptions(roles={"M": "bias"})))
    x = normal(2, 3)
    (got,) = run_rewritten(prepared, 0.3, {"x": x})
    assert_close(got, np.tanh(0.3 * np.maximum(x, 0).sum(1, keepdims=True) @ np.ones((1, 5), np.float32)))


def test_kept_constant_in_a_missing_data_file_is_named(tmp_path: Path) -> None:
    path = without_data(tmp_path, M=(3,), W=(3, 5), B=(5,))
    with pytest.raises(ModelError, match=r"'M'.*gone\.bin"):
        plain_graph(plan(load_model(path), 2, GraphOptions()))


def test_weight_of_unknown_shape_is_refused_with_its_place() -> None:
    proto = build(
        "(float[N,3] x) => (float[N,A] y) { w = Compress <axis = 1> (W, keep)  y = MatMul(x, w) }",
        W=(3, 4),
        keep=np.array([True, False, True, True]),
    )
    with pytest.raises(ShapeError, match=r"MatMul\(y\).*:1=constant"):
        rewritten(proto, roles={"MatMul(y):1": "weight"})


def test_given_model_is_not_modified() -> None:
    proto = build(CONVOLUTIONS, **CONVOLUTION_TENSORS)
    before = proto.SerializeToString(deterministic=True)
    rewritten(proto)
    assert proto.SerializeToString(deterministic=True) == before
    model = ir.from_proto(proto)
    plain_graph(plan(load_model(model), 2, GraphOptions()))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == ir.to_proto(
        ir.from_proto(proto)
    ).SerializeToString(deterministic=True)


@pytest.mark.parametrize("case", MODELS)
def test_rewritten_file_passes_the_checker_of_onnx(case: str) -> None:
    graph, tensors, _, _ = MODELS[case]
    onnx.checker.check_model(rewrite(build(graph, **tensors), 0.3), full_check=True)


@pytest.mark.parametrize("case", MODELS)
def test_rewritten_file_gives_what_the_scored_graph_gives(case: str) -> None:
    graph, tensors, _, _ = MODELS[case]
    proto = build(graph, **tensors)
    feeds = feeds_of(proto)
    file = rewrite(proto, 0.3)
    assert [value.name for value in file.graph.input] == list(feeds)
    assert_close(run(file, feeds)[0], run_rewritten(rewritten(proto), 0.3, feeds)[0])
