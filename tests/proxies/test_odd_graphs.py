"""Scores of graphs that are built unlike most: time first, values that are no numbers, no entries at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from epsinas_onnx import score
from epsinas_onnx.proxies.jacov import correlation
from epsinas_onnx.proxies.measure import measure
from epsinas_onnx.proxies.measurement import MeasurementStatus
from epsinas_onnx.proxies.prepared import prepare
from epsinas_onnx.proxies.proxy import UndefinedError
from tests.builders import build

BODY = "a = MatMul(h, W)  r = Relu(a)  b = MatMul(r, U)  s = Relu(b)"
FIRST = f"(float[N,8,5] x) => (float[N,3] y) {{ h = Identity(x) {BODY} m = ReduceMean<keepdims = 0>(s, axis) END }}"
MOVED = FIRST.replace("h = Identity(x)", "h = Transpose<perm = [1, 0, 2]>(x)")
FED = FIRST.replace("float[N,8,5]", "float[8,N,5]")
WEIGHTS: dict[str, Any] = {"W": (5, 7), "U": (7, 6), "V": (6, 3)}


def sequence(text: str, axis: int) -> onnx.ModelProto:
    return build(text.replace("END", "y = MatMul(m, V)"), axis=np.array([axis]), **WEIGHTS)


def numbers(model: onnx.ModelProto, names: list[str], **options: Any) -> dict[str, float | None]:
    return {one.name: one.value for one in measure(model, names, **options)}


@pytest.mark.parametrize("batch", [8, 6])
def test_samples_are_told_from_as_many_steps_of_time(batch: int) -> None:
    names = ["nwot", "swap", "relu_units", "jacov"]
    expected = numbers(sequence(FIRST, 1), names, batch=batch)
    found = numbers(sequence(MOVED, 0), names, batch=batch)
    assert found == {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()}


def test_samples_along_the_second_axis_of_an_input_are_the_same_samples() -> None:
    names = ["nwot", "swap", "jacov"]
    x = np.random.default_rng(0).standard_normal((8, 8, 5)).astype(np.float32)
    expected = numbers(sequence(FIRST, 1), names, inputs={"x": x})
    found = numbers(sequence(FED, 0), names, inputs={"x": np.ascontiguousarray(x.transpose(1, 0, 2))})
    assert found == {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()}


def test_steps_of_time_are_no_samples_of_a_feature_map() -> None:
    by_batch = {batch: measure(sequence(MOVED, 0), ["meco"], batch=batch)[0] for batch in (8, 6)}
    assert {one.status for one in by_batch.values()} == {MeasurementStatus.UNSUPPORTED}


@pytest.mark.parametrize("name", ["swap", "nwot", "jacov"])
def test_what_is_not_a_number_has_no_score(name: str) -> None:
    model = build(
        "(float[N,6] x) => (float[N,2] y) { a = MatMul(x, W)  l = Log(a)  r = Relu(l)  y = MatMul(r, V) }",
        W=(6, 5), V=(5, 2),
    )  # fmt: skip
    (found,) = measure(model, [name], batch=4)
    assert found.status is MeasurementStatus.UNDEFINED
    assert "not a number" in str(found.reason)


@pytest.mark.parametrize("name", ["expressivity", "progressivity"])
def test_features_without_entries_have_no_entropy(name: str) -> None:
    model = build(
        "(float[N,6] x) => (float[N,2] y) { a = MatMul(x, W)  r = Relu(a)  b = MatMul(r, U)  y = MatMul(b, V) }",
        W=(6, 0), U=(0, 3), V=(3, 2),
    )  # fmt: skip
    (found,) = measure(model, [name], batch=4)
    assert found.status is MeasurementStatus.UNDEFINED
    assert "no entries" in str(found.reason)


def test_derivatives_that_differ_by_rounding_alone_have_no_correlation() -> None:
    rows = np.full((3, 50), 0.1, np.float32)
    rows[:, ::3] = np.nextafter(rows[:, ::3], np.float32(1))
    with pytest.raises(UndefinedError, match="3 of 3 samples"):
        correlation([rows], "m")
    rows[:, ::3] *= np.float32(1.001)
    assert correlation([rows], "m") == pytest.approx(np.ones((3, 3)))


TWO = (
    "(float[N,6] x) => (float[N,2] y, float[N,5] z) { a = MatMul(x, W)  r = Relu(a)  y = MatMul(r, V)"
    "  b = MatMul(r, U)  s = Relu(b)  c = MatMul(s, T)  z = Add(c, B) }"
)
SHAPES: dict[str, Any] = {"W": (6, 4), "V": (4, 2), "U": (4, 3), "T": (3, 5), "B": (5,)}


def test_the_named_output_is_the_one_that_is_scored() -> None:
    model = build(TWO, **SHAPES)
    assert numbers(model, ["depth", "relu_units"], batch=4) == {"depth": 2, "relu_units": 4}
    assert numbers(model, ["depth", "relu_units"], batch=4, outputs="z") == {"depth": 3, "relu_units": 7}


def test_outputs_and_roles_of_a_score_are_those_of_the_others() -> None:
    model = build(TWO, **SHAPES)
    plain = score(model, batch=4, outputs="z", scores=["depth", "params"], proxy_batch=4).proxies
    assert (plain["depth"].value, plain["params"].value) == (3, 24 + 8 + 12 + 15 + 5)
    kept = score(model, batch=4, roles={"U": "constant"}, scores=["params"], proxy_batch=4)
    assert kept.proxies["params"].value == kept.parameters == 24 + 8 + 15 + 5


def test_outputs_that_a_node_leaves_out_are_not_measured() -> None:
    model = build(
        "(float[N,4,5] x) => (float[N,3] y) { t = Transpose<perm = [1, 0, 2]>(x)  e = Exp(times)"
        "  m = ReduceMax<keepdims = 0>(t)  c = Greater(e, m)  k = Compress<axis = 0>(t, c)"
        "  h = GRU<hidden_size = 2>(k, W, R)"
        "  s = Squeeze(h, axis)  r = Relu(s)  y = MatMul(r, V) }",
        W=(1, 6, 5), R=(1, 6, 2), V=(2, 3), axis=np.array([0]), times=np.full(4, 3, np.float32),
    )  # fmt: skip
    (node,) = (node for node in model.graph.node if node.op_type == "GRU")
    node.output[:] = ["", "h"]
    prepared = prepare(model, batch=4)
    for value in (value for node in prepared.planned.model.graph for value in node.outputs if not value.name):
        value.dtype = ir.DataType.FLOAT  # as inference says of some files
    assert prepared._measured["k"] == (4, 4, 5)
    assert "" not in prepared._measured


def test_the_axis_of_samples_is_found_where_inference_misses_shapes() -> None:
    """The samples lie along axis 1, of a value whose shape only a run tells."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]> g (float[N, 4, 6] x) => (float[K, N, 5] y)
        <float[6, 5] w> {
            t = Transpose <perm = [1, 0, 2]> (x)
            s = Shape (x)
            k = NonZero (s)
            f = Flatten <axis = 0> (k)
            i = Squeeze (f)
            c = Gather <axis = 0> (t, i)
            m = MatMul (c, w)
            y = Relu (m)
        }"""
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((6, 5), np.float32), "w"))
    prepared = prepare(model, batch=7)
    (value,) = (v for node in prepared.graph.graph for v in node.outputs if v.name == "m")
    assert prepared.shape(value) == (3, 7, 5)
    assert prepared.sample_axis(value) == 1
