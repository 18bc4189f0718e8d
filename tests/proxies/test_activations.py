"""Which values are pre-activations, in every form that exporters write, and which are not."""

from __future__ import annotations

import numpy as np
import pytest

from epsinas_onnx.proxies.prepared import prepare
from tests.builders import build

HEAD = "(float[N,8] x) => (float[N,4] y) { h = MatMul(x, W) "
TAIL = " y = MatMul(r, V) }"


def pre_activations(form: str, opset: int = 21) -> list[str | None]:
    """Return the names of the pre-activations of a network whose only bent part is `form`, from `h` to `r`."""
    numbers = {
        "zero": 0, "one": 1, "half": 0.5, "three": 3, "six": 6, "root": 2**0.5, "quick": 1.702, "cube": 3,
        "tail": 0.044715, "slope": 0.1, "scale": 0.79788456,
    }  # fmt: skip
    tensors = {name: np.float32(number) for name, number in numbers.items() if name in form}
    model = build(HEAD + form + TAIL, opset, W=(8, 8), V=(8, 4), **tensors)
    return [activation.value.name for activation in prepare(model, batch=4).activations]


@pytest.mark.parametrize(
    "form",
    [
        "r = Relu(h)",
        "r = LeakyRelu<alpha = 0.1>(h)",
        "r = PRelu(h, slope)",
        "r = Elu(h)",
        "r = Selu(h)",
        "r = Celu(h)",
        "r = ThresholdedRelu<alpha = 0.5>(h)",
        "r = Softplus(h)",
        "r = HardSwish(h)",
        "r = Gelu(h)",
        'r = Gelu<approximate = "tanh">(h)',
        "r = Mish(h)",
        "r = Clip(h, zero, six)",
        "r = Clip(h, zero)",
        "r = Max(h, zero)",
        "k = Relu(h) r = Min(k, six)",
        "c = Greater(h, zero) r = Where(c, h, zero)",
        "c = LessOrEqual(h, zero) s = Mul(h, slope) r = Where(c, s, h)",
        "s = Sigmoid(h) r = Mul(h, s)",
        "k = Mul(h, quick) s = Sigmoid(k) r = Mul(h, s)",
        "d = Div(h, root) e = Erf(d) a = Add(e, one) m = Mul(h, a) r = Mul(m, half)",
        "m = Mul(h, half) d = Div(h, root) e = Erf(d) a = Add(e, one) r = Mul(m, a)",
        "d = Div(h, root) e = Erf(d) a = Add(e, one) m = Mul(a, half) r = Mul(m, h)",
        "p = Pow(h, cube) t = Mul(p, tail) a = Add(h, t) s = Mul(a, scale) e = Tanh(s) b = Add(e, one) "
        "m = Mul(h, half) r = Mul(m, b)",
        "q = Mul(h, h) p = Mul(q, h) t = Mul(p, tail) a = Add(h, t) s = Mul(a, scale) e = Tanh(s) b = Add(e, one) "
        "m = Mul(h, b) r = Mul(m, half)",
        "s = Softplus(h) t = Tanh(s) r = Mul(h, t)",
        "a = Add(h, three) c = Clip(a, zero, six) m = Mul(h, c) r = Div(m, six)",
        "a = Add(h, three) c = Clip(a, zero, six) d = Div(c, six) r = Mul(d, h)",
        "a = Add(h, three) c = Relu(a) d = Min(c, six) m = Mul(h, d) r = Div(m, six)",
        "s = HardSigmoid<alpha = 0.16666667>(h) r = Mul(h, s)",
    ],
)
def test_kin_of_relu_is_recognised_once_with_its_pre_activation(form: str) -> None:
    assert pre_activations(form) == ["h"]


@pytest.mark.parametrize(
    ("form", "opset"), [("r = Clip<min = 0.0, max = 6.0>(h)", 10), ("r = Relu(h)", 7), ("r = Swish(h)", 24)]
)
def test_other_operator_sets(form: str, opset: int) -> None:
    assert pre_activations(form, opset) == ["h"]


@pytest.mark.parametrize(
    "form",
    [
        "r = Sigmoid(h)",
        "r = Tanh(h)",
        "r = HardSigmoid(h)",
        "a = Add(h, three) c = Clip(a, zero, six) r = Div(c, six)",
        "r = Softmax(h)",
        "r = Clip(h, slope, six)",
        "s = Sigmoid(h) m = ReduceMean(h) r = Mul(s, m)",
        "p = MatMul(h, U) s = Sigmoid(p) r = Mul(h, s)",
        "s = Sigmoid(h) z = Mul(x, s) r = Add(z, h)",
        "p = MatMul(h, U) q = Add(h, p) s = Sigmoid(q) r = Mul(h, s)",
    ],
)
def test_gates_of_other_features_and_sigmoids_alone_do_not_count(form: str) -> None:
    numbers = {
        name: np.float32(n) for name, n in (("zero", 0), ("three", 3), ("six", 6), ("slope", 0.1)) if name in form
    }
    others = {"U": (8, 8)} if "U" in form.replace("Mul", "") else {}
    model = build(HEAD + form + TAIL, 21, W=(8, 8), V=(8, 4), **numbers, **others)
    assert prepare(model, batch=4).activations == ()


def test_a_value_that_two_nodes_are_applied_to_counts_twice() -> None:
    assert pre_activations("a = Relu(h) b = Elu(h) r = Add(a, b)") == ["h", "h"]


def test_what_is_computed_from_weights_alone_is_no_pre_activation() -> None:
    model = build("(float[N,8] x) => (float[N,4] y) { w = Relu(W) y = MatMul(x, w) }", W=(8, 4))
    assert prepare(model, batch=4).activations == ()
