"""The reverse pass on whole graphs: several uses, several outputs, what is unused, and what has no rule."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from epsinas_onnx.errors import UnsupportedError
from epsinas_onnx.graph.passes.infer_shapes import infer_shapes
from epsinas_onnx.proxies.reverse import append_gradient

from ..builders import build
from .reversing import check, differentiate, run


def loaded(graph: str, opset: int = 21, **tensors: np.ndarray) -> ir.Model:
    model = ir.from_proto(build(graph, opset, **tensors))
    infer_shapes(model)
    return model


def test_values_that_are_used_several_times() -> None:
    check(
        "(float[3,4] x, float[3,4] z) => (float[3,4] y, float[4] r, float[2,4] s) {"
        " a = Tanh(x)  b = Mul(a, a)  c = Add(b, a)  d, e = Split <axis = 0, num_outputs = 2> (c)  u = Exp(z)"
        " v, i = TopK(u, k)  f = Sigmoid(d)  m, w = Split <axis = 0, num_outputs = 2> (z)  n = Sum(f, m, d, d)"
        " y = Div(c, u)  r = ReduceMean <keepdims = 0> (y, zero)  s = Mul(n, m)  unused = Floor(y) }",
        k=np.asarray([2]), zero=np.asarray([0]),
    )  # fmt: skip


def test_an_output_in_the_middle_and_the_input_itself() -> None:
    model = loaded("(float[3] x) => (float[3] y) { a = Tanh(x)  y = Exp(a) }")
    values = {str(v.name): v for node in model.graph for v in node.outputs} | {"x": model.graph.inputs[0]}
    asked = [values["a"], values["y"], values["y"], values["x"]]
    model.graph.outputs[:] = append_gradient(model, asked, [values["x"], values["a"]])
    x = np.asarray([0.1, -0.4, 2.0], np.float32)
    by_x, by_a = run(ir.to_proto(model), {"x": x})
    a = np.tanh(x)
    np.testing.assert_allclose(by_x, 1 + (1 - a**2) * (1 + 2 * np.exp(a)), rtol=1e-5)
    np.testing.assert_allclose(by_a, 1 + 2 * np.exp(a), rtol=1e-5)


@pytest.mark.parametrize("op", ["Sign", "Floor", "Round", "Ceil"])
def test_what_stands_still_gives_zeros(op: str) -> None:
    proto = differentiate(loaded(f"(float[3] x) => (float[3] y) {{ y = {op}(x) }}"))
    assert run(proto, {"x": np.asarray([0.3, 1.2, -4.4], np.float32)})[0].tolist() == [0, 0, 0]


def test_no_derivative_goes_through_integers() -> None:
    graph = "(float[3] x) => (float[3] y) { i = Cast <to = 7> (x)  f = Cast <to = 1> (i)  y = Mul(f, x) }"
    (gradient,) = run(differentiate(loaded(graph)), {"x": np.asarray([2.5, 3.5, -1.5], np.float32)})
    assert gradient.tolist() == [2, 3, -1]


def test_a_model_is_differentiated_twice() -> None:
    model = loaded("(float[3] x) => (float[3] y) { a = Mul(x, x)  y = Mul(a, x) }")
    x = model.graph.inputs[0]
    (first,) = append_gradient(model, list(model.graph.outputs), [x])
    infer_shapes(model)
    model.graph.outputs[:] = append_gradient(model, [first], [x])
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    np.testing.assert_allclose(run(ir.to_proto(model), {"x": np.asarray([1, 2, -3], np.float32)})[0], [6, 12, -18])


REFUSED = [
    ("(float[2,3,3] x) => (float[2] y) { [here] y = Det(x) }",
     r"node 'here' \(Det\): there is no rule for its derivative"),
    ("(float[3] x, bool c) => (float[3] y) { [here] y = If (c) <then_branch = t () => (float[3] u) { u = Tanh(x) },"
     " else_branch = e () => (float[3] v) { v = Exp(x) }> }",
     r"node 'here' \(If\): there is no rule"),
    ("(float[3] x) => (float[3] y) { [here] y = Dropout(x, half, yes) }",
     r"node 'here' \(Dropout\): it drops at random"),
    ("(float[3,3] x) => (float[3] y) { [here] y = Einsum <equation = \"ii->i\"> (x) }",
     r"\(Einsum\): it takes a diagonal"),
    ("(float[3,2,4] x) => (float[3,1,2,3] y) { [here] y = LSTM <hidden_size = 3, clip = 1.0> (x, w, r) }",
     r"node 'here' \(LSTM\): a cell with 'clip'"),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "message"), REFUSED)
def test_what_has_no_rule_is_named(graph: str, message: str) -> None:
    tensors = {"half": np.asarray(0.5, np.float32), "yes": np.asarray(True),
               "w": np.zeros((1, 12, 4), np.float32), "r": np.zeros((1, 12, 3), np.float32)}  # fmt: skip
    used = {name: array for name, array in tensors.items() if f", {name}" in graph}
    model = loaded(graph, **used)
    before = len(list(model.graph))
    with pytest.raises(UnsupportedError, match=message):
        append_gradient(model, list(model.graph.outputs), [model.graph.inputs[0]])
    assert len(list(model.graph)) == before


def test_the_file_is_named() -> None:
    model = loaded("(float[2,3,3] x) => (float[2] y) { y = Det(x) }")
    with pytest.raises(UnsupportedError, match=r"^net\.onnx: node "):
        append_gradient(model, list(model.graph.outputs), list(model.graph.inputs), "net.onnx")


def test_integers_have_no_derivative() -> None:
    model = loaded("(int64[3] x) => (float[3] y) { y = Cast <to = 1> (x) }")
    with pytest.raises(UnsupportedError, match="'x' holds INT64, which has no derivative"):
        append_gradient(model, list(model.graph.outputs), list(model.graph.inputs))
