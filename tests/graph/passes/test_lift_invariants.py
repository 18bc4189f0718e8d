"""Weights that a loop carries along: the score, the roles and the values of the loop that captures them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from epsinas_onnx import Status, fill, inspect, score, strip
from epsinas_onnx.graph.load import load_model
from tests.builders import build

LOOP = (
    "(float[N,4] x) => (float[N,4] y) {{ {outputs} = Loop(three, , {carried}) <body = b (int64 i, bool c, {inputs})"
    " => (bool d, {results}) {{ d = Identity(c)  m = MatMul(h, {weight})  n = Tanh(m) {copies} }}> {behind} }}"
)
CAPTURED = LOOP.format(
    outputs="y", carried="x", inputs="float[N,4] h", results="float[N,4] n", weight="W", copies="", behind=""
)
CARRIED = {
    "before the signal": LOOP.format(
        outputs="V, y", carried="W, x", inputs="float[4,4] w, float[N,4] h", results="float[4,4] w, float[N,4] n",
        weight="w", copies="", behind="",
    ),
    "through an Identity": LOOP.format(
        outputs="y, V", carried="x, W", inputs="float[N,4] h, float[4,4] w", results="float[N,4] n, float[4,4] u",
        weight="w", copies="u = Identity(w)", behind="",
    ),
    "under the name that it has outside": LOOP.format(
        outputs="y, V", carried="x, W", inputs="float[N,4] h, float[4,4] W", results="float[N,4] n, float[4,4] W",
        weight="W", copies="", behind="",
    ),
    "in a Scan": (
        "(float[N,4] x) => (float[N,4] y) { V, y, s = Scan(W, x, turns) <num_scan_inputs = 1,"
        " body = b (float[4,4] w, float[N,4] h, float[1] t) => (float[4,4] u, float[N,4] n, float[1] k)"
        " { m = MatMul(h, w)  n = Tanh(m)  k = Identity(t)  u = Identity(w) }> }"
    ),
}  # fmt: skip


def model(graph: str) -> onnx.ModelProto:
    return build(graph, W=(4, 4), three=np.array(3), turns=np.zeros((3, 1), np.float32))


def result(source: Any) -> tuple[Any, ...]:
    found = score(source, weights=(0.1, 0.4), batch=5, providers="cpu")
    return found.status, found.raw_score, found.parameters


def run(proto: onnx.ModelProto) -> np.ndarray[Any, Any]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": np.arange(8, dtype=np.float32).reshape(2, 4) / 9})[0])


@pytest.mark.parametrize("name", CARRIED)
def test_a_carried_weight_is_a_weight(name: str) -> None:
    carried, captured = model(CARRIED[name]), model(CAPTURED)
    assert [use.role for use in inspect(carried).uses if use.operator == "MatMul"] == ["weight"]
    assert result(carried) == result(captured)
    assert result(carried)[0] is Status.OK
    assert np.array_equal(run(ir.to_proto(load_model(carried).model)), run(carried))
    for form in (strip(carried), strip(carried, anonymise=True), fill(carried)):
        assert result(form) == result(captured)


def test_what_is_read_behind_the_loop_stays_what_it_was() -> None:
    graph = LOOP.format(
        outputs="V, h2", carried="W, x", inputs="float[4,4] w, float[N,4] h", results="float[4,4] w, float[N,4] n",
        weight="w", copies="", behind="y = MatMul(h2, V)",
    )  # fmt: skip
    proto = model(graph)
    assert np.array_equal(run(ir.to_proto(load_model(proto).model)), run(proto))
    assert [use.role for use in inspect(proto).uses if use.operator == "MatMul"] == ["weight", "weight"]


def test_a_state_that_changes_or_is_handed_on_twice_is_left_alone() -> None:
    changing = LOOP.format(
        outputs="V, y", carried="W, x", inputs="float[4,4] w, float[N,4] h", results="float[4,4] u, float[N,4] n",
        weight="w", copies="u = Neg(w)", behind="",
    )  # fmt: skip
    swapped = LOOP.format(
        outputs="U, V, y", carried="W, W, x", inputs="float[4,4] a, float[4,4] b, float[N,4] h",
        results="float[4,4] b, float[4,4] a, float[N,4] n", weight="a", copies="", behind="",
    )  # fmt: skip
    for graph in (changing, swapped):
        proto = model(graph)
        back = ir.to_proto(load_model(proto).model)
        assert len(next(node for node in back.graph.node if node.op_type == "Loop").input) == len(
            next(node for node in proto.graph.node if node.op_type == "Loop").input
        )
        assert np.array_equal(run(back), run(proto))
