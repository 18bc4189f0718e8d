"""Where a signal ends, by node of the user's file; scores that are exactly 0; what a run will take."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from epsinas_onnx.evaluate_lumped.evaluator import Constant
from epsinas_onnx.evaluate_lumped.homogeneous import degree
from epsinas_onnx.evaluate_lumped.trace import Trace
from epsinas_onnx.scoring.metric import normalised_dispersion
from tests.builders import build
from tests.evaluate_lumped.whole import prepared

Array = npt.NDArray[Any]
X = np.random.default_rng(1).uniform(0.1, 1, (4, 3)).astype(np.float32)


def network(body: str, **tensors: Any) -> onnx.ModelProto:
    """Return a network with nodes named by what they give."""
    proto = build(f"(float[N,3] x) => (float[N,?] y) {{ {body} }}", 20, **{"V": (3, 3), "W": (3, 3)} | tensors)
    for node in proto.graph.node:
        node.name = f"make_{node.output[0]}"
    return proto


def traced(proto: onnx.ModelProto, constant: Constant, x: Array = X) -> Any:
    made = prepared(proto, len(x))
    trace = Trace(made.lowered, made.planned.outputs)
    return trace.lost(constant, {"x": x}, made.axes), trace.exploded(constant, {"x": x}, made.axes)


LOSSES = [
    ("a = MatMul(x, V)  b = Sign(a)  y = MatMul(b, W)", "make_b", "rounds"),
    ("a = MatMul(x, V)  b = Floor(a)  y = MatMul(b, W)", "make_b", "rounds"),
    ("a = MatMul(x, V)  b = Cast<to = 7>(a)  c = Cast<to = 1>(b)  y = MatMul(c, W)", "make_b", "rounds"),
    ("a = MatMul(x, V)  b = ArgMax<axis = 0, keepdims = 1>(a)  d = Cast<to = 1>(b)  c = Mul(d, zero)  y = Add(a, c)",
     None, None),
    ("a = MatMul(x, V)  b = Clip(a, one, two)  y = MatMul(b, W)", "make_b", "bounds"),
    ("a = MatMul(x, V)  n = Neg(a)  b = Relu(n)  y = MatMul(b, W)", "make_b", "bounds"),
    ("a = MatMul(x, V)  b = Mul(a, zero)  c = MatMul(b, W)  y = Add(c, c)", "make_b", "zero"),
    ("a = MatMul(x, V)  s = Mul(a, four)  b = Sigmoid(s)  y = MatMul(b, W)", None, None),
    ("a = MatMul(x, V)  y = Tanh(a)", None, None),
    ("a = LayerNormalization(x, s)  y = MatMul(a, W)", "make_y", "centred"),
    ("a = LayerNormalization(x, s)  b = Neg(a)  c = Sub(a, b)  d = MatMul(c, W)  y = Tanh(d)", "make_d", "centred"),
    ("a = LayerNormalization(x, s)  b = Unsqueeze(a, axis)  c = Transpose<perm = [1, 0, 2]>(b)  y = MatMul(c, W)",
     "make_y", "centred"),
    ("a = LayerNormalization(x, s)  b = Relu(a)  y = MatMul(b, W)", None, None),
    ("a = LayerNormalization(x, s)  b = Mul(a, x)  y = MatMul(b, W)", None, None),
    ("a = LayerNormalization(x, s)  b = Add(a, x)  y = MatMul(b, W)", None, None),
]  # fmt: skip
NUMBERS = {
    "zero": np.float32(0), "one": np.float32(1), "two": np.float32(2), "four": np.float32(4), "axis": np.asarray([1]),
}  # fmt: skip


@pytest.mark.parametrize(("body", "node", "kind"), LOSSES, ids=[f"{i}-{kind}" for i, (*_, kind) in enumerate(LOSSES)])
def test_the_node_that_loses_the_signal_is_named(body: str, node: str | None, kind: str | None) -> None:
    used: dict[str, Any] = {name: np.asarray(number) for name, number in NUMBERS.items() if name in body}
    used |= {"s": (3,)} if "(x, s)" in body else {}
    loss, exploded = traced(network(body, **used), Constant(2.0**-40))
    assert exploded is None
    if node is None:
        assert loss is None
        return
    assert (loss.node, loss.kind, loss.behind) == (node, kind, -math.inf)
    assert loss.before > -200
    assert loss.why


def test_a_signal_of_any_size_is_no_loss() -> None:
    body = "a = MatMul(x, V)  b = Tanh(a)  c = MatMul(b, W)  y = Sigmoid(c)"
    assert traced(network(body), Constant(1.0, -100_000)) == (None, None)


def test_the_node_in_which_infinity_appears_is_named() -> None:
    _, exploded = traced(network("a = MatMul(x, V)  r = Neg(a)  b = Log(r)  y = MatMul(b, W)"), Constant(1.0))
    assert exploded.kind == "not finite"
    assert exploded.node == "make_b"


HOMOGENEOUS = [
    ("a = MatMul(x, V)  b = Relu(a)  y = MatMul(b, W)", 2),
    ("a = MatMul(x, V)  b = LeakyRelu(a)  c = Add(b, a)  d = MatMul(c, W)  e = Abs(d)  y = Mul(e, e)", 4),
    ("a = MatMul(x, V)  b = MatMul(a, W)  c = Max(b, b)  d = Mul(c, c)  y = Sqrt(d)", 2),
    ("a = MatMul(x, V)  b = Tanh(a)  y = MatMul(b, W)", None),
    ("a = MatMul(x, V)  b = Add(a, x)  y = MatMul(b, W)", None),
    ("a = MatMul(x, V)  b = BatchNormalization(a, s, t, m, v)  y = MatMul(b, W)", None),
]


@pytest.mark.parametrize(("body", "wanted"), HOMOGENEOUS, ids=[str(k) for _, k in HOMOGENEOUS])
def test_what_is_homogeneous_in_its_weights_has_a_score_of_0(body: str, wanted: int | None) -> None:
    used = dict.fromkeys("stmv", (3,)) if "BatchNormalization" in body else {}
    made = prepared(network(body, **used), len(X))
    # samples and features differ, so that a function of the sum of features alone is not affine in disguise
    feeds = {"x": np.asarray([[0.1, 0.9, 0.3], [0.8, 0.2, 0.5], [0.4, 0.1, 2.0], [0.7, 0.6, 0.2]], np.float32)}

    def entries(constant: Constant) -> Any:
        return made.entries(made.exactly(constant, feeds))

    assert degree(entries, (1e-7, 1.0)) == wanted
    score = normalised_dispersion(*(entries(Constant(c)).array for c in (1e-7, 1.0)))
    if wanted is not None or "Tanh" in body:
        assert (score < 1e-14) == (wanted is not None)


def test_more_samples_and_larger_images_take_more_memory() -> None:
    def needed(batch: int, size: int) -> int:
        proto = build(f"(float[N,2,{size},{size}] x) => (float[N,C,H,Z] y) {{ y = Conv(x, V) }}", 20, V=(2, 2, 3, 3))
        return prepared(proto, batch).evaluator("exact").peak_bytes()[0]

    assert needed(8, 32) > 3 * needed(2, 32)
    assert needed(2, 64) > 3 * needed(2, 32)
    assert needed(8, 32) >= 8 * 2 * 32 * 32 * 8
