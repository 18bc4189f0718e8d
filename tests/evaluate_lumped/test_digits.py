"""Small networks in a thousand digits: the deviation is right where the signal is 1e-400 of the value, or by itself."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import onnx
import pytest

from tests.builders import build
from tests.evaluate_lumped.whole import prepared

Array = npt.NDArray[Any]
Matrix = list[list[Any]]
SAMPLES, WIDTH = 5, 3
DIGITS = 1500

_SCALARS: dict[str, Callable[[Any], Any]] = {
    "Relu": lambda x: max(x, mpmath.mpf(0)),
    "LeakyRelu": lambda x: x if x > 0 else x * mpmath.mpf(float(np.float32(0.01))),
    "Sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "Tanh": mpmath.tanh,
    "Softplus": lambda x: mpmath.log(1 + mpmath.exp(x)),
    "Erf": mpmath.erf,
    "Exp": mpmath.exp,
    "Elu": lambda x: x if x > 0 else mpmath.exp(x) - 1,
    "Softsign": lambda x: x / (1 + abs(x)),
    "Gelu": lambda x: x * (1 + mpmath.erf(x / mpmath.sqrt(2))) / 2,
    "Swish": lambda x: x / (1 + mpmath.exp(-x)),
    "Clip": lambda x: min(max(x, mpmath.mpf(-1)), mpmath.mpf(6)),
}
KINDS = [*_SCALARS, "Dense", "Dense", "Dense", "Norm", "Skip", "Gate", "Square"]


def applied(kind: str, x: Matrix, before: Matrix, constant: Any) -> Matrix:
    """Return one layer of the network."""
    if kind == "Dense":
        return [[constant * sum(row)] * WIDTH for row in x]
    if kind == "Norm":
        columns = []
        for column in zip(*x, strict=True):
            mean = sum(column) / len(column)
            variance = sum((v - mean) ** 2 for v in column) / len(column)
            spread = mpmath.sqrt(variance + mpmath.mpf(float(np.float32(1e-5))))
            columns.append([constant * (v - mean) / spread for v in column])
        return [list(row) for row in zip(*columns, strict=True)]
    if kind in ("Skip", "Gate"):
        return [
            [a + b if kind == "Skip" else a * b for a, b in zip(p, q, strict=True)]
            for p, q in zip(x, before, strict=True)
        ]
    if kind == "Square":
        return [[v * v for v in row] for row in x]
    return [[_SCALARS[kind](v) for v in row] for row in x]


def text(kind: str, index: int, before: str) -> str:
    """Return the nodes of one layer as text."""
    x, y = f"h{index}", f"h{index + 1}"

    def number(name: str, value: float) -> str:
        return f"{name}{index} = Constant<value = float {{{value}}}>()"

    nodes = {
        "Dense": f"{y} = MatMul({x}, W{index})",
        "Norm": f"{y} = BatchNormalization({x}, S{index}, B{index}, M{index}, V{index})",
        "Skip": f"{y} = Add({x}, {before})",
        "Gate": f"{y} = Mul({x}, {before})",
        "Square": f"{y} = Mul({x}, {x})",
        "Swish": f"s{index} = Sigmoid({x}) {y} = Mul({x}, s{index})",
        "Clip": f"{number('lo', -1.0)} {number('hi', 6.0)} {y} = Clip({x}, lo{index}, hi{index})",
        "Gelu": f"{number('r', 1.4142135623730951)} d{index} = Div({x}, r{index}) e{index} = Erf(d{index}) "
        f"{number('o', 1.0)} p{index} = Add(e{index}, o{index}) q{index} = Mul({x}, p{index}) "
        f"{number('v', 0.5)} {y} = Mul(q{index}, v{index})",
    }
    return nodes.get(kind, f"{y} = {kind}({x})")


def network(kinds: list[str]) -> onnx.ModelProto:
    nodes = [text(kind, index, f"h{max(0, index - 2)}") for index, kind in enumerate(kinds)]
    tensors: dict[str, Any] = {}
    for index, kind in enumerate(kinds):
        if kind == "Dense":
            tensors[f"W{index}"] = (WIDTH, WIDTH)
        if kind == "Norm":
            tensors |= {f"{letter}{index}": (WIDTH,) for letter in "SBMV"}
    body = " ".join(nodes)
    last = f"h{len(kinds)}"
    return build(f"(float[N,{WIDTH}] h0) => (float[N,{WIDTH}] {last}) {{ {body} }}", 20, **tensors)


def in_digits(kinds: list[str], x: Array, constant: float) -> tuple[Array, float]:
    """Return the output's differences from the first sample, over the largest, and the logarithm of that."""
    with mpmath.workdps(DIGITS):
        layers: list[Matrix] = [[[mpmath.mpf(float(v)) for v in row] for row in x]]
        for index, kind in enumerate(kinds):
            layers.append(applied(kind, layers[-1], layers[max(0, index - 2)], mpmath.mpf(constant)))
        last = layers[-1]
        moved = [[v - first for v, first in zip(row, last[0], strict=True)] for row in last]
        top = max(abs(v) for row in moved for v in row)
        shares = np.asarray([[float(v / top) if top else 0.0 for v in row] for row in moved])
        return shares, float(mpmath.log(top, 10)) if top else -np.inf


def drawn(seed: int, length: int) -> list[str]:
    rng = random.Random(seed)
    return ["Dense", *(rng.choice(KINDS) for _ in range(length)), "Dense"]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("constant", [1e-60, 0.3])
def test_random_chains(seed: int, constant: float) -> None:
    kinds = drawn(seed, 9)
    x = np.random.default_rng(seed).uniform(-1, 1, (SAMPLES, WIDTH)).astype(np.float32)
    wanted, size = in_digits(kinds, x, constant)
    made = prepared(network(kinds), SAMPLES)
    if made.lowered.cut_off is not None:
        assert not wanted.any()
        return
    value = made.exactly(constant, {"h0": x})
    if not wanted.any():
        assert value.deviation is None or value.deviation.peak == 0
        return
    assert value.deviation is not None
    part = value.deviation.settled()
    found = made.split(np.broadcast_to(part.array, value.shape)).reshape(SAMPLES, -1)
    moved = found - found[0]
    top = np.abs(moved).max()
    assert np.log10(top * part.mantissa) + part.exponent * np.log10(2) == pytest.approx(size, abs=1e-6)
    whole = np.repeat(moved, wanted.size // found.size, axis=1)
    np.testing.assert_allclose(whole / top, wanted, rtol=1e-6, atol=1e-9)


def test_the_signals_are_that_small() -> None:
    kinds = ["Dense", "Tanh"] * 8
    x = np.random.default_rng(0).uniform(-1, 1, (SAMPLES, WIDTH)).astype(np.float32)
    _, size = in_digits(kinds, x, 1e-60)
    assert size < -470
