"""Small networks of every kind in 60 digits and no range: signals of 1e-400 and less, and inputs scaled by 2^-300."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath
import numpy as np
import numpy.typing as npt
import onnx
import pytest

from epsinas_onnx.evaluate_lumped.evaluator import Constant
from tests.builders import build
from tests.evaluate_lumped.whole import prepared

Array = npt.NDArray[Any]
Numbers = npt.NDArray[np.object_]
DIGITS = 60
TINY = Constant(1.0, -700)
"""2^-700 = 1e-211: two layers fall to 1e-422, whose square float64 does not have by far."""

_each: dict[str, Callable[[Numbers], Numbers]] = {
    name: np.frompyfunc(function, 1, 1)
    for name, function in {
        "tanh": mpmath.tanh, "sigmoid": lambda v: 1 / (1 + mpmath.exp(-v)), "relu": lambda v: max(v, mpmath.mpf(0)),
        "exp": mpmath.exp, "sqrt": mpmath.sqrt, "erf": mpmath.erf, "abs": abs,
        "softplus": lambda v: mpmath.log(1 + mpmath.exp(v)),
    }.items()
}  # fmt: skip


class Network(NamedTuple):
    """A network as text, its weights by shape, and what it computes of numbers with 60 digits.

    smallest: log10 that the signal is below; far: whether scaling the input only scales the output.
    """

    text: str
    weights: dict[str, tuple[int, ...]]
    formula: Callable[[Numbers, Any], Numbers]
    smallest: float
    scales: bool = False


def dense(x: Numbers, c: Any, width: int = 3) -> Numbers:
    return np.repeat(c * x.sum(axis=-1, keepdims=True), width, axis=-1)


def windows(x: Numbers, size: int) -> Numbers:
    """Return what windows along the last axis hold, along a new last axis; no pads."""
    return np.stack([x[..., i : x.shape[-1] - size + 1 + i] for i in range(size)], axis=-1)


def conv(x: Numbers, c: Any, size: int = 2) -> Numbers:
    return np.repeat(c * windows(x, size).sum(axis=(-3, -1) if x.ndim == 3 else -1)[:, None], 3, axis=1)


def softmax(x: Numbers) -> Numbers:
    raised = _each["exp"](x)
    return raised / raised.sum(axis=-1, keepdims=True)


def normed(x: Numbers, axis: int, c: Any) -> Numbers:
    mean = x.sum(axis=axis, keepdims=True) / x.shape[axis]
    variance = ((x - mean) ** 2).sum(axis=axis, keepdims=True) / x.shape[axis]
    return c * (x - mean) / _each["sqrt"](variance + mpmath.mpf(float(np.float32(1e-5))))


def attention(x: Numbers, c: Any) -> Numbers:
    q = dense(x, c)
    scores = np.einsum("bij,bkj->bik", q, q)
    return np.einsum("bik,bkj->bij", softmax(scores), dense(x, c))


def recurrent(x: Numbers, c: Any) -> Numbers:
    """Return the last state of an RNN with 3 units over the time axis 0."""
    h = np.full((x.shape[1], 3), mpmath.mpf(0))
    for step in x:
        h = _each["tanh"](dense(step, c) + dense(h, c))
    return h


V = {"V": (3, 3), "W": (3, 3)}
K = {"V": (3, 3, 2), "W": (3, 3, 2)}
FLAT, SEQUENCE = "(float[N,3] x) => (float[N,P] y)", "(float[N,3,6] x) => (float[N,P,Q] y)"
NETWORKS = {
    "perceptron": Network(f"{FLAT} {{ a = MatMul(x, V)  b = Relu(a)  y = MatMul(b, W) }}", V,
        lambda x, c: dense(_each["relu"](dense(x, c)), c), -400, True),
    "tanh": Network(f"{FLAT} {{ a = MatMul(x, V)  b = Tanh(a)  y = MatMul(b, W) }}", V,
        lambda x, c: dense(_each["tanh"](dense(x, c)), c), -400),
    "sigmoid": Network(f"{FLAT} {{ a = MatMul(x, V)  b = Sigmoid(a)  y = MatMul(b, W) }}", V,
        lambda x, c: dense(_each["sigmoid"](dense(x, c)), c), -400),
    "softplus": Network(f"{FLAT} {{ a = MatMul(x, V)  b = Softplus(a)  y = MatMul(b, W) }}", V,
        lambda x, c: dense(_each["softplus"](dense(x, c)), c), -400),
    "erf": Network(f"{FLAT} {{ a = MatMul(x, V)  b = Erf(a)  d = Mul(a, b)  y = MatMul(d, W) }}", V,
        lambda x, c: dense(dense(x, c) * _each["erf"](dense(x, c)), c), -600),
    "exponential": Network(f"{FLAT} {{ a = MatMul(x, V)  b = Exp(a)  y = MatMul(b, W) }}", V,
        lambda x, c: dense(_each["exp"](dense(x, c)), c), -400),
    "swish": Network(f"{FLAT} {{ a = MatMul(x, V)  s = Sigmoid(a)  b = Mul(a, s)  y = MatMul(b, W) }}", V,
        lambda x, c: dense(dense(x, c) * _each["sigmoid"](dense(x, c)), c), -400),
    "residual": Network(f"{FLAT} {{ a = MatMul(x, V)  b = Relu(a)  d = MatMul(b, W)  y = Mul(d, a) }}", V,
        lambda x, c: dense(_each["relu"](dense(x, c)), c) * dense(x, c), -600),
    "gate": Network(f"{FLAT} {{ a = MatMul(x, V)  s = Sigmoid(a)  b = Mul(x, s)  d = MatMul(b, W)  y = Sub(d, a) }}", V,
        lambda x, c: dense(x * _each["sigmoid"](dense(x, c)), c) - dense(x, c), -200),
    "absolute": Network(f"{FLAT} {{ a = MatMul(x, V)  b = Abs(a)  y = MatMul(b, W) }}", V,
        lambda x, c: dense(_each["abs"](dense(x, c)), c), -400, True),
    "squares": Network(f"{FLAT} {{ a = MatMul(x, V)  b = Mul(a, a)  y = MatMul(b, W) }}", V,
        lambda x, c: dense(dense(x, c) ** 2, c), -600, True),
    "root": Network(f"{FLAT} {{ a = MatMul(x, V)  b = Mul(a, a)  d = Sqrt(b)  y = MatMul(d, W) }}", V,
        lambda x, c: dense(_each["abs"](dense(x, c)), c), -400, True),
    "softmax": Network(f"{FLAT} {{ a = MatMul(x, V)  b = Mul(a, x)  d = Softmax(b)  e = Mul(d, x)  y = MatMul(e, W) }}",
        V, lambda x, c: dense(softmax(dense(x, c) * x) * x, c), -200),
    "batch norm": Network(f"{FLAT} {{ a = MatMul(x, V)  b = BatchNormalization(a, s, t, m, v)  y = MatMul(b, W) }}",
        V | dict.fromkeys("stmv", (3,)), lambda x, c: dense(normed(dense(x, c), 0, c), c), -600),
    "layer norm": Network(f"{FLAT} {{ a = Mul(x, x)  b = LayerNormalization(a, s)  d = Relu(b)  y = MatMul(d, W) }}",
        V | {"s": (3,)}, lambda x, c: dense(_each["relu"](normed(x * x, 1, c)), c), -400),
    "maximum": Network(f"{FLAT} {{ a = MatMul(x, V)  b = Mul(a, x)  d = Max(b, a)  y = MatMul(d, W) }}", V,
        lambda x, c: dense(np.maximum(dense(x, c) * x, dense(x, c)), c), -400),
    "quotient": Network(f"{FLAT} {{ a = MatMul(x, V)  b = Mul(a, x)  d = Div(b, a)  y = MatMul(d, W) }}", V,
        lambda x, c: dense(x, c), -200, True),
    "convolution": Network(f"{SEQUENCE} {{ a = Conv(x, V)  b = Relu(a)  y = Conv(b, W) }}", K,
        lambda x, c: conv(_each["relu"](conv(x, c)), c), -400, True),
    "max pool": Network(f"{SEQUENCE} {{ a = Conv(x, V)  b = MaxPool<kernel_shape = [2]>(a)  y = Conv(b, W) }}", K,
        lambda x, c: conv(windows(conv(x, c), 2).max(axis=-1), c), -400, True),
    "mean pool": Network(f"{SEQUENCE} {{ a = Conv(x, V)  b = AveragePool<kernel_shape = [3]>(a)  y = Conv(b, W) }}", K,
        lambda x, c: conv(windows(conv(x, c), 3).sum(axis=-1) / 3, c), -400, True),
    "attention": Network(f"{SEQUENCE} {{ t = Transpose<perm = [0, 2, 1]>(x)  q = MatMul(t, V)  k = MatMul(t, W) "
        "r = Transpose<perm = [0, 2, 1]>(k)  s = MatMul(q, r)  p = Softmax(s)  v = MatMul(t, U)  y = MatMul(p, v) }",
        V | {"U": (3, 3)}, lambda x, c: attention(np.swapaxes(x, 1, 2), c), -200),
    "recurrent": Network("(float[N,3,6] x) => (float[1,N,3] y) { t = Transpose<perm = [2, 0, 1]>(x) "
        "s, y = RNN<hidden_size = 3>(t, V, W) }", {"V": (1, 3, 3), "W": (1, 3, 3)},
        lambda x, c: recurrent(np.transpose(x, (2, 0, 1)), c), -200),
    "response": Network("(float[N,3,6,1] x) => (float[N,3,5,1] y) { n = LRN<size = 3, alpha = 0.5>(x) "
        "y = Conv(n, V) }",
        {"V": (3, 3, 2, 1)}, lambda x, c: conv(responded(x[..., 0]), c)[..., None], -200),
}  # fmt: skip


def responded(x: Numbers) -> Numbers:
    power = np.frompyfunc(lambda v: v ** mpmath.mpf(0.75), 1, 1)
    near = [(x[:, max(0, c - 1) : c + 2] ** 2).sum(axis=1) for c in range(x.shape[1])]
    return x / power(1 + np.stack(near, axis=1) / 6)


def proto_of(network: Network) -> onnx.ModelProto:
    return build(network.text, 20, **network.weights)


def inputs(network: Network) -> Array:
    shape = {FLAT[:15]: (5, 3)}.get(network.text[:15], (5, 3, 6, 1) if "3,6,1" in network.text else (5, 3, 6))
    return np.random.default_rng(3).uniform(0.2, 1.5, shape).astype(np.float32)


def moved(network: Network, constant: Constant, x: Array) -> tuple[Array, int]:
    """Return how far outputs are from the first sample's, over the largest of that, and its exponent."""
    with mpmath.workdps(DIGITS + 450):  # as many as a tiny signal lies below the base, and 60 of its own
        c = mpmath.mpf(constant.mantissa) * mpmath.mpf(2) ** constant.exponent
        y = network.formula(np.vectorize(mpmath.mpf, otypes=[object])(x.astype(np.float64)), c)
        apart = (y - y[:1]).reshape(len(x), -1)
        top = max(abs(v) for v in apart.reshape(-1))
        return np.vectorize(float, otypes=[float])(apart / top), int(mpmath.floor(mpmath.log(top, 2)))


def exactly(network: Network, constant: Constant, x: Array) -> tuple[Array, int]:
    made = prepared(proto_of(network), len(x))
    entries = made.entries(made.exactly(constant, {"x": x}))
    apart = entries.array.reshape(len(x), -1) if entries.array.size >= len(x) else entries.array
    apart = apart - apart[:1]
    top = np.abs(apart).max()
    return apart / top, int(np.floor(np.log2(top * entries.mantissa))) + entries.exponent


@pytest.mark.parametrize("constant", [Constant(0.4), TINY], ids=["moderate", "tiny"])
@pytest.mark.parametrize("name", NETWORKS)
def test_small_networks_in_sixty_digits(name: str, constant: Constant) -> None:
    network = NETWORKS[name]
    x = inputs(network)
    wanted, size = moved(network, constant, x)
    found, exponent = exactly(network, constant, x)
    if constant is TINY:
        assert size * np.log10(2) < network.smallest
    assert abs(exponent - size) <= 1
    # of lumped outputs one stands for all of a class
    columns = [int(np.abs(wanted - column[:, None]).max(axis=0).argmin()) for column in found.T]
    np.testing.assert_allclose(found, wanted[:, columns], rtol=1e-9, atol=1e-11)
    assert all(np.abs(found - column[:, None]).max(axis=0).min() < 1e-9 for column in wanted.T)


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if network.scales])
def test_a_tiny_input_changes_nothing(name: str) -> None:
    """Float32 ends at 2^-149, so that the inputs are given in float64."""
    network = NETWORKS[name]
    x = inputs(network).astype(np.float64)
    plain, _ = exactly(network, Constant(0.4), x)
    tiny, _ = exactly(network, Constant(0.4), np.ldexp(x, -300))
    np.testing.assert_allclose(plain, tiny, rtol=4e-16, atol=1e-16)  # a root of another scale rounds its last bit anew


def test_there_are_networks_of_every_kind() -> None:
    assert len(NETWORKS) >= 20
