"""Sparse tensors: the score of the dense model, the values of the dense model, and sentences for broken ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from epsinas_onnx import ModelError, UnsupportedError, fill, rewrite, score, strip
from epsinas_onnx.graph.deserialise import dense
from epsinas_onnx.graph.load import load_model

from ..builders import build

GRAPH = "(float[N,8] x) => (float[N,8] y) { k = Add(x, S)  a = MatMul(k, W)  y = Tanh(a) }"


def sparse(array: np.ndarray[Any, Any], name: str, coordinates: bool = False) -> onnx.SparseTensorProto:
    flat = np.flatnonzero(array)
    indices = np.stack(np.nonzero(array), axis=1) if coordinates else flat
    values = numpy_helper.from_array(array.ravel()[flat], name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(indices, f"{name}_indices"), array.shape)


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(4)
    weight = rng.standard_normal((8, 8)).astype(np.float32) * (rng.random((8, 8)) < 0.3)
    shift = np.where(np.arange(8) % 3, 0, 0.5).astype(np.float32)
    return {"W": weight.astype(np.float32), "S": shift}


def pair(coordinates: bool = False, opset: int = 21) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return the same model with dense and with sparse initializers."""
    stored = arrays()
    thin = build(GRAPH, opset)
    thin.graph.sparse_initializer.extend(sparse(array, name, coordinates) for name, array in stored.items())
    return build(GRAPH, opset, **stored), thin


def result(model: Any) -> tuple[Any, ...]:
    found = score(model, weights=(1e-3, 0.1), batch=4, providers="cpu")
    return found.status, found.raw_score, found.parameters


def run(proto: onnx.ModelProto) -> np.ndarray[Any, Any]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": np.arange(16, dtype=np.float32).reshape(2, 8)})[0])


@pytest.mark.parametrize("coordinates", [False, True])
def test_the_score_is_that_of_the_dense_model(coordinates: bool) -> None:
    whole, thin = pair(coordinates)
    before = thin.SerializeToString()
    assert result(thin) == result(whole)
    assert result(thin)[1]
    assert thin.SerializeToString() == before
    for form in (strip(thin), strip(thin, anonymise=True), fill(thin)):
        assert result(form) == result(whole)
    assert np.array_equal(run(rewrite(thin, 0.1)), run(rewrite(whole, 0.1)))


def test_a_sparse_constant_is_a_stored_tensor() -> None:
    whole, _ = pair()
    thin = build(GRAPH, S=arrays()["S"])
    thin.graph.node.insert(0, helper.make_node("Constant", [], ["W"], sparse_value=sparse(arrays()["W"], "")))
    assert result(thin) == result(whole)
    for form in (strip(thin), fill(thin)):
        assert result(form) == result(whole)
        assert not [node for node in form.graph.node if node.op_type == "Constant"]


def test_in_the_body_of_an_if() -> None:
    graph = (
        "(float[N,8] x, bool c) => (float[N,8] y) { y = If(c) <then_branch = t () => (float[N,8] a)"
        " { a = MatMul(x, W) }, else_branch = e () => (float[N,8] b) { b = MatMul(x, W) }> }"
    )
    thin, whole = build(graph), build(graph, W=arrays()["W"])
    body = thin.graph.node[0].attribute[0].g
    body.sparse_initializer.append(sparse(arrays()["W"], "V"))
    body.node[0].input[1] = "V"
    thin.graph.initializer.append(numpy_helper.from_array(arrays()["W"], "W"))
    assert result(thin)[1] == result(whole)[1]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 99), st.booleans())
def test_reading_is_the_inverse_of_writing(dims: list[int], seed: int, coordinates: bool) -> None:
    rng = np.random.default_rng(seed)
    array = (rng.standard_normal(dims) * (rng.random(dims) < 0.5)).astype(np.float32)
    assert np.array_equal(dense(sparse(array, "a", coordinates)), array)


def test_the_tensor_that_stays_has_its_values() -> None:
    model = load_model(pair()[1]).model
    tensor = model.graph.initializers["S"].const_value
    assert isinstance(tensor, ir.LazyTensor)
    assert np.array_equal(tensor.numpy(), arrays()["S"])


def test_broken_ones_end_in_a_sentence() -> None:
    _, thin = pair()
    thin.graph.sparse_initializer[0].indices.CopyFrom(numpy_helper.from_array(np.array([400]), "i"))
    with pytest.raises(ModelError, match=r"sparse tensor 'W' has indices that do not fit its shape \[8, 8\]"):
        score(thin, batch=4)
    _, thin = pair()
    values = thin.graph.sparse_initializer[0].values
    values.data_location = TensorProto.EXTERNAL
    values.external_data.add(key="location", value="gone.bin")
    with pytest.raises(UnsupportedError, match="'W' lies in an external file"):
        score(thin, batch=4)
