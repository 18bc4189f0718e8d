"""Which role a stored tensor has at each place of use (docs/roles.md)."""

from typing import Any

import numpy as np
import onnx
import pytest

from epsinas_onnx.errors import ModelError, UsageError
from tests.graph.models import build, decisions_of, rewritten, roles_of, run_rewritten

W, B, S, E, C = "weight", "bias", "statistics", "embedding", "constant"

VECTOR = "(float[N,3] x) => (float[N,4] y)"
IMAGE = "(float[N,3,8,8] x) => (float[N,4,A,D] y)"
SAME_IMAGE = "(float[N,4,8,8] x) => (float[N,4,8,8] y)"
SEQUENCE = "(float[N,5,3] x) => (float[L,P,N,H] y)"
TOKENS = "(int64[N,5] ids) => (float[N,5,H] y)"

OPERATORS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "Conv": (
        f"{IMAGE} {{ y = Conv(x, W, B) }}",
        {"W": (4, 3, 3, 3), "B": (4,)},
        {"Conv(y):1": W, "Conv(y):2": B},
    ),
    "ConvTranspose": (
        f"{IMAGE} {{ y = ConvTranspose(x, W, B) }}",
        {"W": (3, 4, 2, 2), "B": (4,)},
        {"ConvTranspose(y):1": W, "ConvTranspose(y):2": B},
    ),
    "Gemm": (
        f"{VECTOR} {{ y = Gemm(x, W, B) }}",
        {"W": (3, 4), "B": (4,)},
        {"Gemm(y):1": W, "Gemm(y):2": B},
    ),
    "Gemm with a stored first operand": (
        "(float[N,3] x) => (float[4,N] y) { y = Gemm <transA = 1, transB = 1> (W, x) }",
        {"W": (3, 4)},
        {"Gemm(y):0": W},
    ),
    "MatMul with a stored second operand": (f"{VECTOR} {{ y = MatMul(x, W) }}", {"W": (3, 4)}, {"MatMul(y):1": W}),
    "MatMul with a stored first operand": (
        "(float[N,3,5] x) => (float[N,4,5] y) { y = MatMul(W, x) }",
        {"W": (4, 3)},
        {"MatMul(y):0": W},
    ),
    "MatMul of two signals": (
        "(float[N,3,3] x) => (float[N,3,3] y) { y = MatMul(x, x) }",
        {},
        {},
    ),
    "Einsum with a stored second operand": (
        f'{VECTOR} {{ y = Einsum <equation = "bi,io->bo"> (x, W) }}',
        {"W": (3, 4)},
        {"Einsum(y):1": W},
    ),
    "Einsum with a stored first operand": (
        f'{VECTOR} {{ y = Einsum <equation = "io,bi->bo"> (W, x) }}',
        {"W": (3, 4)},
        {"Einsum(y):0": W},
    ),
    "LSTM with peepholes and initial states": (
        f"""{SEQUENCE} {{
            s = Transpose <perm = [1, 0, 2]> (x)
            y = LSTM <hidden_size = 4> (s, W, R, B, "", H0, C0, P)
        }}""",
        {"W": (1, 16, 3), "R": (1, 16, 4), "B": (1, 32), "H0": (1, 2, 4), "C0": (1, 2, 4), "P": (1, 12)},
        {"LSTM(y):1": W, "LSTM(y):2": W, "LSTM(y):3": B, "LSTM(y):5": C, "LSTM(y):6": C, "LSTM(y):7": W},
    ),
    "GRU": (
        f"{SEQUENCE} {{ s = Transpose <perm = [1, 0, 2]> (x)  y = GRU <hidden_size = 4> (s, W, R, B) }}",
        {"W": (1, 12, 3), "R": (1, 12, 4), "B": (1, 24)},
        {"GRU(y):1": W, "GRU(y):2": W, "GRU(y):3": B},
    ),
    "RNN": (
        f"{SEQUENCE} {{ s = Transpose <perm = [1, 0, 2]> (x)  y = RNN <hidden_size = 4> (s, W, R, B) }}",
        {"W": (1, 4, 3), "R": (1, 4, 4), "B": (1, 8)},
        {"RNN(y):1": W, "RNN(y):2": W, "RNN(y):3": B},
    ),
    "BatchNormalization": (
        f"{SAME_IMAGE} {{ y = BatchNormalization(x, G, B, M, V) }}",
        {"G": (4,), "B": (4,), "M": (4,), "V": np.ones(4, np.float32)},
        {
            "BatchNormalization(y):1": W,
            "BatchNormalization(y):2": B,
            "BatchNormalization(y):3": S,
            "BatchNormalization(y):4": S,
        },
    ),
    "InstanceNormalization": (
        f"{SAME_IMAGE} {{ y = InstanceNormalization(x, G, B) }}",
        {"G": (4,), "B": (4,)},
        {"InstanceNormalization(y):1": W, "InstanceNormalization(y):2": B},
    ),
    "LayerNormalization": (
        "(float[N,4] x) => (float[N,4] y) { y = LayerNormalization(x, G, B) }",
        {"G": (4,), "B": (4,)},
        {"LayerNormalization(y):1": W, "LayerNormalization(y):2": B},
    ),
    "GroupNormalization": (
        f"{SAME_IMAGE} {{ y = GroupNormalization <num_groups = 2> (x, G, B) }}",
        {"G": (4,), "B": (4,)},
        {"GroupNormalization(y):1": W, "GroupNormalization(y):2": B},
    ),
    "PRelu": (f"{SAME_IMAGE} {{ y = PRelu(x, P) }}", {"P": (4, 1, 1)}, {"PRelu(y):1": W}),
    "Add of a vector behind MatMul": (
        f"{VECTOR} {{ h = MatMul(x, W)  y = Add(h, B) }}",
        {"W": (3, 4), "B": (4,)},
        {"MatMul(h):1": W, "Add(y):1": B},
    ),
    "Add of a vector in front of MatMul's result": (
        f"{VECTOR} {{ h = MatMul(x, W)  y = Add(B, h) }}",
        {"W": (3, 4), "B": (4,)},
        {"MatMul(h):1": W, "Add(y):0": B},
    ),
    "Add of a vector behind MatMul and Reshape": (
        "(float[N,5,3] x) => (float[M,4] y) { h = MatMul(x, W)  r = Reshape(h, s)  y = Add(r, B) }",
        {"W": (3, 4), "B": (4,), "s": np.array([-1, 4])},
        {"MatMul(h):1": W, "Add(y):1": B},
    ),
    "Sub of a vector behind MatMul": (
        f"{VECTOR} {{ h = MatMul(x, W)  y = Sub(h, B) }}",
        {"W": (3, 4), "B": (4,)},
        {"MatMul(h):1": W, "Sub(y):1": B},
    ),
    "Add of a vector behind a MatMul of two signals": (
        "(float[N,4,4] x) => (float[N,4,4] y) { h = MatMul(x, x)  y = Add(h, B) }",
        {"B": (4,)},
        {"Add(y):1": C},
    ),
    "Add of a rank-0 scalar behind MatMul": (
        f"{VECTOR} {{ h = MatMul(x, W)  y = Add(h, B) }}",
        {"W": (3, 4), "B": np.float32(2) * np.ones((), np.float32)},
        {"MatMul(h):1": W, "Add(y):1": C},
    ),
    "Add of one entry behind a MatMul with several features": (
        f"{VECTOR} {{ h = MatMul(x, W)  y = Add(h, B) }}",
        {"W": (3, 4), "B": (1,)},
        {"MatMul(h):1": W, "Add(y):1": C},
    ),
    "Add of one entry behind a MatMul with one feature": (
        "(float[N,3] x) => (float[N,1] y) { h = MatMul(x, W)  y = Add(h, B) }",
        {"W": (3, 1), "B": (1,)},
        {"MatMul(h):1": W, "Add(y):1": B},
    ),
    "Add of a matrix behind MatMul (a mask)": (
        "(float[N,4,3] x) => (float[N,4,4] y) { h = MatMul(x, W)  y = Add(h, M) }",
        {"W": (3, 4), "M": (4, 4)},
        {"MatMul(h):1": W, "Add(y):1": C},
    ),
    "Add of a channel vector behind Conv": (
        f"{IMAGE} {{ h = Conv(x, W)  y = Add(h, B) }}",
        {"W": (4, 3, 3, 3), "B": (4, 1, 1)},
        {"Conv(h):1": W, "Add(y):1": B},
    ),
    "layer scale behind MatMul": (
        f"{VECTOR} {{ h = MatMul(x, W)  y = Mul(h, G) }}",
        {"W": (3, 4), "G": (4,)},
        {"MatMul(h):1": W, "Mul(y):1": W},
    ),
    "layer scale behind MatMul and its bias, scale first": (
        f"{VECTOR} {{ h = MatMul(x, W)  b = Add(h, B)  y = Mul(G, b) }}",
        {"W": (3, 4), "B": (4,), "G": (4,)},
        {"MatMul(h):1": W, "Add(b):1": B, "Mul(y):0": W},
    ),
    "Mul by a scalar behind MatMul": (
        f"{VECTOR} {{ h = MatMul(x, W)  y = Mul(h, G) }}",
        {"W": (3, 4), "G": np.full((), 0.125, np.float32)},
        {"MatMul(h):1": W, "Mul(y):1": C},
    ),
    "Mul by a vector behind no weight": (
        "(float[N,4] x) => (float[N,4] y) { h = Relu(x)  y = Mul(h, G) }",
        {"G": (4,)},
        {"Mul(y):1": C},
    ),
    "pixel mean and deviation": (
        f"{IMAGE} {{ c = Sub(x, M)  n = Div(c, D)  y = Conv(n, W) }}",
        {"M": (1, 3, 1, 1), "D": (1, 3, 1, 1), "W": (4, 3, 3, 3)},
        {"Sub(c):1": C, "Div(n):1": C, "Conv(y):1": W},
    ),
    "pixel mean and reciprocal deviation": (
        f"{IMAGE} {{ c = Add(x, M)  n = Mul(c, D)  y = Conv(n, W) }}",
        {"M": (1, 3, 1, 1), "D": (1, 3, 1, 1), "W": (4, 3, 3, 3)},
        {"Add(c):1": C, "Mul(n):1": C, "Conv(y):1": W},
    ),
    "embedding by tokens": (f"{TOKENS} {{ y = Gather(E, ids) }}", {"E": (11, 4)}, {"Gather(y):0": E}),
    "embedding by stored positions": (
        "(float[N,5,4] x) => (float[N,5,4] y) { p = Gather(P, at)  y = Add(x, p) }",
        {"P": (11, 4), "at": np.arange(5)[None]},
        {"Gather(p):0": E, "Add(y):1": C},
    ),
    "statistics computed in the graph": (
        """(float[N,4,8,8] x) => (float[N,4,8,8] y) {
            m = ReduceMean <keepdims = 0> (x, axes)
            v = ReduceL2 <keepdims = 0> (x, axes)
            y = BatchNormalization(x, G, B, m, v)
        }""",
        {"axes": np.array([0, 2, 3]), "G": (4,), "B": (4,)},
        {"BatchNormalization(y):1": W, "BatchNormalization(y):2": B},
    ),
    "a stored mean beside a computed variance": (
        """(float[N,4,8,8] x) => (float[N,4,8,8] y) {
            v = ReduceL2 <keepdims = 0> (x, axes)
            y = BatchNormalization(x, G, B, M, v)
        }""",
        {"axes": np.array([0, 2, 3]), "G": (4,), "B": (4,), "M": (4,)},
        {"BatchNormalization(y):1": W, "BatchNormalization(y):2": B, "BatchNormalization(y):3": C},
    ),
    "MatMul with a formula": (
        f"{VECTOR} {{ r = Range(from, to, by)  w = Cos(r)  s = Reshape(w, shape)  y = MatMul(x, s) }}",
        {
            "from": np.zeros((), np.float32),
            "to": np.full((), 12, np.float32),
            "by": np.ones((), np.float32),
            "shape": np.array([3, 4]),
        },
        {"MatMul(y):1": C},
    ),
    "division by a size of the input": (
        f"{VECTOR} {{ s = Shape <start = 1> (x)  f = Cast <to = 1> (s)  d = Div(x, f)  y = MatMul(d, W) }}",
        {"W": (3, 4)},
        {"Div(d):1": C, "MatMul(y):1": W},
    ),
}


@pytest.mark.parametrize("case", OPERATORS)
def test_every_use_of_a_stored_tensor_has_the_role_of_its_place(case: str) -> None:
    graph, tensors, expected = OPERATORS[case]
    assert roles_of(build(graph, **tensors)) == expected


def test_scale_of_root_mean_square_normalisation_is_a_weight() -> None:
    proto = build("(float[N,4] x) => (float[N,4] y) { y = RMSNormalization(x, G) }", opset=23, G=(4,))
    assert roles_of(proto) == {"RMSNormalization(y):1": W}


DIVISIONS = {
    "Div by Sqrt": "s = Sqrt(ve)  n = Div(d, s)",
    "Mul by Reciprocal of Sqrt": "s = Sqrt(ve)  i = Reciprocal(s)  n = Mul(d, i)",
    "Mul by Pow -0.5": "i = Pow(ve, minus_half)  n = Mul(d, i)",
}


@pytest.mark.parametrize("division", DIVISIONS)
@pytest.mark.parametrize("swapped", [False, True])
def test_scale_and_shift_behind_a_decomposed_layer_norm_are_weight_and_bias(division: str, swapped: bool) -> None:
    tail = "w = Mul(G, n)  y = Add(B, w)" if swapped else "w = Mul(n, G)  y = Add(w, B)"
    scalars = {"two": 2.0, "eps": 1e-5, "minus_half": -0.5}
    proto = build(
        f"""(float[N,5,4] x) => (float[N,5,4] y) {{
            m = ReduceMean(x, last)  d = Sub(x, m)  p = Pow(d, two)  v = ReduceMean(p, last)  ve = Add(v, eps)
            {DIVISIONS[division]}  {tail}
        }}""",
        last=np.array([-1]),
        G=(4,),
        B=(4,),
        **{name: np.full((), value, np.float32) for name, value in scalars.items()},
    )
    roles = roles_of(proto)
    slot = 0 if swapped else 1
    assert roles.pop(f"Mul(w):{slot}") == W
    assert roles.pop(f"Add(y):{slot}") == B
    assert roles
    assert set(roles.values()) == {C}


TIED = """(int64[N,5] ids) => (float[N,5,11] y) {
    h = Gather(E, ids)
    t = Transpose <perm = [1, 0]> (E)
    y = MatMul(h, t)
}"""


def test_tied_embedding_is_an_embedding_where_gathered_and_a_weight_where_multiplied() -> None:
    assert roles_of(build(TIED, E=(11, 4))) == {"Gather(h):0": E, "MatMul(y):1": W}


def test_tied_embedding_counts_once_among_the_parameters() -> None:
    assert decisions_of(build(TIED, E=(11, 4))).parameters() == 44


# Chains from stored tensors to the second operand `w` of a MatMul, [3, 4] there.
CHAINS: dict[str, tuple[str, dict[str, Any], int]] = {
    "Transpose": ("w = Transpose <perm = [1, 0]> (W)", {"W": (4, 3)}, 12),
    "Reshape": ("w = Reshape(W, s)", {"W": (12,), "s": np.array([3, -1])}, 12),
    "Cast": ("w = Cast <to = 1> (W)", {"W": np.ones((3, 4), np.float16)}, 12),
    "Slice": ("w = Slice(W, a, b)", {"W": (6, 4), "a": np.array([2, 0]), "b": np.array([5, 4])}, 24),
    "Concat": ("w = Concat <axis = 1> (U, V)", {"U": (3, 1), "V": (3, 3)}, 12),
    "DequantizeLinear": (
        "w = DequantizeLinear(Q, s)",
        {"Q": np.ones((3, 4), np.int8), "s": np.full((), 0.1, np.float32)},
        12,
    ),
    "DequantizeLinear by channel, then Transpose": (
        "q = DequantizeLinear <axis = 0> (Q, s, z)  w = Transpose <perm = [1, 0]> (q)",
        {"Q": np.ones((4, 3), np.uint8), "s": np.full(4, 0.1, np.float32), "z": np.full(4, 128, np.uint8)},
        12,
    ),
    "Identity": ("w = Identity(W)", {"W": (3, 4)}, 12),
    "Squeeze": ("w = Squeeze(W, a)", {"W": (1, 3, 4), "a": np.array([0])}, 12),
    "Split": ("w, rest = Split <axis = 0> (W, s)", {"W": (5, 4), "s": np.array([3, 2])}, 20),
    "Gather of stored rows": ("w = Gather(W, rows)", {"W": (9, 4), "rows": np.array([5, 0, 1])}, 36),
    "weight normalisation": (
        "l = ReduceL2(V, a)  u = Div(V, l)  w = Mul(u, G)",
        {"V": (3, 4), "a": np.array([0]), "G": (4,)},
        16,
    ),
    "several links": (
        "a = Identity(W)  b = Reshape(a, s)  c = Transpose <perm = [1, 0]> (b)  w = Identity(c)",
        {"W": (2, 6), "s": np.array([4, 3])},
        12,
    ),
    "a Constant node": ("w = Constant <value = float[3,4] {0,1,2,3,4,5,6,7,8,9,10,11}> ()", {}, 12),
    "ConstantOfShape": ("w = ConstantOfShape <value = float[1] {0.5}> (s)", {"s": np.array([3, 4])}, 12),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_weight_is_followed_through_a_chain_of_foldable_nodes_to_its_shape(chain: str) -> None:
    nodes, tensors, _ = CHAINS[chain]
    decisions = decisions_of(build(f"{VECTOR} {{ {nodes}  y = MatMul(x, w) }}", **tensors))
    uses = {use.place: (str(use.role), use.shape) for use in decisions.uses if use.node.op_type == "MatMul"}
    assert uses == {"MatMul(y):1": (W, (3, 4))}


@pytest.mark.parametrize("chain", CHAINS)
def test_parameters_behind_a_chain_are_the_elements_of_the_stored_tensors(chain: str) -> None:
    nodes, tensors, expected = CHAINS[chain]
    assert decisions_of(build(f"{VECTOR} {{ {nodes}  y = MatMul(x, w) }}", **tensors)).parameters() == expected


@pytest.mark.parametrize("chain", CHAINS)
def test_weight_behind_a_chain_is_full_of_the_constant(chain: str) -> None:
    nodes, tensors, _ = CHAINS[chain]
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    (got,) = run_rewritten(rewritten(build(f"{VECTOR} {{ {nodes}  y = MatMul(x, w) }}", **tensors)), 0.3, {"x": x})
    np.testing.assert_allclose(got, np.repeat(0.3 * x.sum(1, keepdims=True), 4, axis=1), rtol=1e-6)


IF = """(bool flag, float[N,3] x) => (float[N,4] y) {
    y = If (flag) <
        then_branch = t () => (float[N,4] p) <float[3,4] U = {0,1,2,3,4,5,6,7,8,9,10,11}> { p = MatMul(x, U) },
        else_branch = e () => (float[N,4] q) { k = MatMul(x, W)  q = Add(k, B) }
    >
}"""
LOOP = """(float[N,3] x) => (float[N,3] y) {
    y = Loop (times, "", x) <
        body = b (int64 i, bool go, float[N,3] h) => (bool on, float[N,3] r) { on = Identity(go)  r = MatMul(h, W) }
    >
}"""
SCAN = """(float[N,5,3] x) => (float[N,3] y, float[5,N,3] all) {
    s = Transpose <perm = [1, 0, 2]> (x)
    start = ReduceMax <keepdims = 0> (x, one)
    y, all = Scan <
        num_scan_inputs = 1,
        body = b (float[N,3] h, float[N,3] t) => (float[N,3] r, float[N,3] o) {
            a = Add(h, t)  r = MatMul(a, W)  o = Identity(r)
        }
    > (start, s)
}"""


def test_weights_stored_in_a_branch_and_captured_by_one_have_their_roles() -> None:
    expected = {"MatMul(p):1": W, "MatMul(k):1": W, "Add(q):1": B}
    assert roles_of(build(IF, W=(3, 4), B=(4,))) == expected


def test_weight_captured_by_a_loop_body_is_a_weight() -> None:
    assert roles_of(build(LOOP, times=np.array(3), W=(3, 3))) == {"MatMul(r):1": W}


def test_weight_captured_by_a_scan_body_is_a_weight() -> None:
    assert roles_of(build(SCAN, one=np.array([1]), W=(3, 3))) == {"MatMul(r):1": W}


def test_weight_laid_out_anew_outside_is_a_weight_inside_a_body() -> None:
    graph = LOOP.replace("y = Loop", "T = Transpose <perm = [1, 0]> (W)  y = Loop").replace("(h, W)", "(h, T)")
    decisions = decisions_of(build(graph, times=np.array(3), W=(3, 3)))
    assert [(use.place, str(use.role), use.shape) for use in decisions.uses] == [("MatMul(r):1", W, (3, 3))]


def test_a_state_that_a_loop_changes_is_not_static_in_its_body() -> None:
    graph = """(float[N,3] x) => (float[N,3] y) {
        y, k = Loop (times, "", x, K) <
            body = b (int64 i, bool go, float[N,3] h, float[3,3] c) => (bool on, float[N,3] r, float[3,3] n) {
                on = Identity(go)  n = Neg(c)  r = MatMul(h, c)
            }
        >
    }"""
    assert "MatMul(r):1" not in roles_of(build(graph, times=np.array(3), K=(3, 3)))


def test_weights_handed_to_a_model_local_function_have_their_roles() -> None:
    function = '<domain: "local", opset_import: ["" : 21]> dense (a, w, b) => (o) { m = MatMul(a, w)  o = Add(m, b) }'
    proto = build(f"{VECTOR} {{ y = local.dense(x, W, B) }}", functions=function, W=(3, 4), B=(4,))
    uses = decisions_of(proto).uses
    assert [(use.node.op_type, use.slot, str(use.role), use.shape) for use in uses] == [
        ("MatMul", 1, W, (3, 4)),
        ("Add", 1, B, (4,)),
    ]


def test_weight_stored_in_a_model_local_function_is_a_weight_at_every_call() -> None:
    function = """<domain: "local", opset_import: ["" : 21]> twist (a) => (o) {
        w = Constant <value = float[3,3] {0,1,2,3,4,5,6,7,8}> ()  o = MatMul(a, w)
    }"""
    proto = build("(float[N,3] x) => (float[N,3] y) { h = local.twist(x)  y = local.twist(h) }", functions=function)
    uses = decisions_of(proto).uses
    assert [(use.node.op_type, use.slot, str(use.role)) for use in uses] == [("MatMul", 1, W)] * 2
    assert uses[0].place != uses[1].place


DENSE = f"{VECTOR} {{ h = MatMul(x, W)  y = Add(h, B) }}"
SHAPES: dict[str, Any] = {"W": (3, 4), "B": (4,)}
PATTERNS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "NODE:SLOT": ({"Add(y):1": W}, {"MatMul(h):1": W, "Add(y):1": W}),
    "glob over NODE:SLOT": ({"Mat*:1": C}, {"MatMul(h):1": C, "Add(y):1": B}),
    "node name": ({"Add(y)": C}, {"MatMul(h):1": W, "Add(y):1": C}),
    "tensor name": ({"B": W}, {"MatMul(h):1": W, "Add(y):1": W}),
    "the special one first": ({"W": C, "*:1": W}, {"MatMul(h):1": C, "Add(y):1": W}),
    "the general one first": ({"*:1": C, "W": B}, {"MatMul(h):1": C, "Add(y):1": C}),
}


@pytest.mark.parametrize("case", PATTERNS)
def test_first_pattern_that_matches_decides_before_the_operator(case: str) -> None:
    given, expected = PATTERNS[case]
    assert roles_of(build(DENSE, **SHAPES), given) == expected


def test_pattern_over_a_node_name_gives_the_role_to_the_stored_operands_of_the_node() -> None:
    assert roles_of(build(DENSE, **SHAPES), {"Add(y)": "weight"}) == {"MatMul(h):1": W, "Add(y):1": W}


def test_pattern_for_one_use_of_a_tied_tensor_leaves_the_other_alone() -> None:
    roles = roles_of(build(TIED, E=(11, 4)), {"Gather(h):0": "constant"})
    assert roles == {"Gather(h):0": C, "MatMul(y):1": W}


def test_pattern_that_matches_nothing_is_reported() -> None:
    decisions = decisions_of(build(DENSE, **SHAPES), {"W": C, "nothing*": W})
    assert decisions.unused_patterns == ("nothing*",)


def test_role_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="'wieght'"):
        roles_of(build(DENSE, **SHAPES), {"W": "wieght"})


def test_role_for_an_operand_computed_at_run_time_is_refused_with_its_producer() -> None:
    with pytest.raises(ModelError, match=r"'MatMul\(h\)'"):
        roles_of(build(DENSE, **SHAPES), {"Add(y):0": "weight"})


def test_metadata_of_a_node_wins_over_the_operator() -> None:
    proto = build(DENSE, **SHAPES)
    proto.graph.node[1].metadata_props.append(onnx.StringStringEntryProto(key="epsinas.role.1", value="weight"))
    assert roles_of(proto) == {"MatMul(h):1": W, "Add(y):1": W}


def test_metadata_of_the_model_wins_over_the_operator() -> None:
    proto = build(DENSE, **SHAPES)
    onnx.helper.set_model_props(proto, {"epsinas.role:B": "constant"})
    assert roles_of(proto) == {"MatMul(h):1": W, "Add(y):1": C}


def test_given_pattern_wins_over_metadata() -> None:
    proto = build(DENSE, **SHAPES)
    proto.graph.node[1].metadata_props.append(onnx.StringStringEntryProto(key="epsinas.role.1", value="weight"))
    onnx.helper.set_model_props(proto, {"epsinas.role:W": "constant"})
    assert roles_of(proto, {"Add(y):1": "constant", "W": "bias"}) == {"MatMul(h):1": B, "Add(y):1": C}


def test_metadata_gives_a_role_to_what_no_operator_knows() -> None:
    proto = build("(float[N,4] x) => (float[N,4] y) { y = Max(x, M) }", M=(4,))
    assert roles_of(proto) == {"Max(y):1": C}
    onnx.helper.set_model_props(proto, {"epsinas.role:Max*:1": "weight"})
    assert roles_of(proto) == {"Max(y):1": W}


def test_parameters_are_the_elements_of_weights_biases_and_embeddings_but_not_of_statistics_and_constants() -> None:
    proto = build(
        """(float[N,3,8,8] x) => (float[N,5] y) {
            c = Sub(x, mean)  a = Conv(c, W, B)  n = BatchNormalization(a, G, S, M, V)
            p = GlobalAveragePool(n)  f = Flatten(p)  y = Gemm(f, D, E)
        }""",
        mean=(3, 1, 1),
        W=(4, 3, 3, 3),
        B=(4,),
        G=(4,),
        S=(4,),
        M=(4,),
        V=np.ones(4, np.float32),
        D=(4, 5),
        E=(5,),
    )
    assert decisions_of(proto).parameters() == 108 + 4 + 4 + 4 + 20 + 5


def test_weight_used_by_two_layers_counts_once() -> None:
    proto = build("(float[N,3] x) => (float[N,3] y) { h = MatMul(x, W)  y = MatMul(h, W) }", W=(3, 3))
    decisions = decisions_of(proto)
    assert len(decisions.uses) == 2
    assert decisions.parameters() == 9


def test_every_decision_names_the_rule_that_made_it() -> None:
    decisions = decisions_of(build(DENSE, **SHAPES), {"W": "constant"})
    rules = {use.place: use.rule for use in decisions.uses}
    assert rules["MatMul(h):1"] == "given: W=constant"
    assert "'MatMul(h)'" in rules["Add(y):1"]
