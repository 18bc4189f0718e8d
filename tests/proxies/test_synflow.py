"""Synaptic flow beside PyTorch's autograd in float64, with the same weights, and what has no rule."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from epsinas_exporters.frameworks.pytorch import export_module  # noqa: E402
from epsinas_onnx.errors import UnsupportedError  # noqa: E402
from epsinas_onnx.proxies.drawn import DRAWN  # noqa: E402
from epsinas_onnx.proxies.growth.rewrite import add_growth  # noqa: E402
from epsinas_onnx.proxies.measure import measure  # noqa: E402
from epsinas_onnx.proxies.measurement import MeasurementStatus  # noqa: E402
from epsinas_onnx.proxies.prepared import prepare  # noqa: E402
from epsinas_onnx.proxies.synflow import Synflow  # noqa: E402
from tests.builders import build  # noqa: E402
from tests.proxies.networks import Residual, with_drawn  # noqa: E402

IMAGES = (1, 3, 16, 16)


class Deep(nn.Module):
    """Fifty layers, each of which grows the value ninefold."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(3 * 16 * 16, 64)]
        for _ in range(48):
            layers += [nn.ReLU(), nn.Linear(64, 64)]
        self.body, self.last = nn.Sequential(*layers), nn.Linear(64, 5)

    def forward(self, x: Any) -> Any:
        return self.last(self.body(x))


class Excited(nn.Module):
    """What MobileNetV3 and EfficientNet are made of: depthwise convolutions, gates, HardSwish, SiLU and ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.bend = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.gate, self.soft, self.sigmoid, self.relu6 = nn.Hardsigmoid(), nn.SiLU(), nn.Sigmoid(), nn.ReLU6()
        self.last = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = 0.001 * self.bend(self.norm(self.stem(x)))
        x = x + self.depthwise(x)
        x = x * self.gate(self.excite(self.relu6(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = self.soft(x) * self.sigmoid(0.1 * x)
        return self.last(x.mean((2, 3)))


class Hourglass(nn.Module):
    """What a U-Net is made of: pooling, a transposed convolution, resizing, and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(16, 2, 1)
        self.pool, self.average, self.large = nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Upsample(scale_factor=2)
        self.relu, self.elu, self.tanh = nn.ReLU(), nn.ELU(), nn.Tanh()

    def forward(self, x: Any) -> Any:
        wide = self.relu(self.down(x))
        low = self.elu(self.deep(self.pool(wide)))
        return self.out(torch.cat([wide, self.up(low), self.large(self.tanh(0.01 * low))], 1))


class Mixer(nn.Module):
    """What transformers are made of beside attention: tokens, LayerNorm, GELU, sums, and products of two signals."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 4, 4)
        self.norm, self.wide, self.narrow = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6)
        self.gelu, self.last, self.other = nn.GELU(), nn.Linear(8, 3), nn.Linear(6, 8)

    def forward(self, x: Any) -> Any:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.narrow(self.gelu(0.01 * self.wide(self.norm(x))))
        both = self.other(x)
        first, second = both[..., :4], both[..., 4:]
        x = torch.cat([first @ second.transpose(1, 2) @ second, torch.maximum(first, second)], 2)
        return self.last(x.mean(1) / 0.7 - 0.01 * x[:, 0])


NETWORKS = [Residual, Deep, Excited, Hourglass, Mixer]


@cache
def exported(kind: type[nn.Module]) -> ir.Model:
    return export_module(kind(), [IMAGES])


def reference(module: nn.Module) -> float:
    """Return the log of the sum of w dR/dw over weights, found by autograd in float64."""
    module = module.double().eval()
    for one in module.modules():
        if isinstance(one, nn.BatchNorm2d | nn.LayerNorm):
            one.forward = lambda x: x  # type: ignore[method-assign]
    with torch.no_grad():
        for value in module.parameters():
            value.abs_()
    module(torch.ones(IMAGES, dtype=torch.float64)).sum().backward()
    weights = [value for value in module.parameters() if value.grad is not None and value.ndim > 1]
    return math.log(sum(float((value * value.grad).sum().detach()) for value in weights))


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_number_is_autograds(kind: type[nn.Module]) -> None:
    prepared = prepare(exported(kind), batch=4, seed=5)
    wanted = reference(with_drawn(kind(), prepared))
    assert Synflow().value(prepared, {}) == pytest.approx(wanted, abs=1e-4)
    if kind is Deep:
        assert wanted > math.log(np.finfo(np.float32).max)


def test_the_graphs_own_initializers_are_the_weights() -> None:
    """The rewrite takes any graph whose drawn weights are marked: their signs are left out, and nothing else."""
    prepared = prepare(exported(Residual), batch=4)
    before = {value.name: value.const_value.numpy().copy() for value in drawn(prepared.graph)}
    assert add_growth(prepared.graph, "m") is not None
    after = {value.name: value.const_value.numpy() for value in drawn(prepared.graph)}
    assert before.keys() == after.keys() != set()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], np.abs(array))


def drawn(model: ir.Model) -> list[Any]:
    return [value for value in model.graph.initializers.values() if DRAWN in value.meta]


def test_the_minibatch_and_inputs_do_not_count() -> None:
    model = exported(Residual)
    found = {
        measure(model, "synflow", batch=batch, inputs=inputs)[0].value
        for batch, inputs in ((4, "normal"), (9, "uniform"), (3, np.zeros((3, 3, 16, 16), np.float32)))
    }
    [value] = {round(one or 0.0, 4) for one in found}
    assert value > 0


def one_layer(nodes: str, **tensors: Any) -> onnx.ModelProto:
    return build(f"(float[N,3] x) => (float[N,M] y) {{ h = MatMul(x, W) {nodes} }}", W=(3, 4), **tensors)


def value_of(model: onnx.ModelProto) -> float:
    [found] = measure(model, "synflow", batch=2)
    assert found.value is not None, found.reason
    return found.value


def test_a_homogeneous_network_is_its_depth_times_its_value() -> None:
    """Euler: with k layers and ReLU, c dR/dc at c = 1 is k R; one layer of |W| and ones is the sum of |W|."""
    model = one_layer("y = Relu(h)")
    [weight] = drawn(prepare(model, batch=2).graph)
    assert value_of(model) == pytest.approx(math.log(np.abs(weight.const_value.numpy()).sum()), abs=1e-5)


@pytest.mark.parametrize("joined", ["y = Mul(h24, h24)", "r = Relu(h24) y = MatMul(r, V)"])
def test_what_has_grown_is_normalised_before_it_leaves_float32(joined: str) -> None:
    """The network is homogeneous, so its growth is its degree times its value, which float64 holds."""
    layers = " ".join(f"h{number + 1} = MatMul(h{number}, W{number})" for number in range(24))
    shapes = {f"W{number}": (64, 64) for number in range(24)} | ({"V": (64, 5)} if "V" in joined else {})
    model = build(f"(float[N,64] x) => (float[N,M] y) {{ h0 = Identity(x) {layers} {joined} }}", **shapes)
    weights = [np.abs(one.const_value.numpy().astype(np.float64)) for one in drawn(prepare(model, batch=2).graph)]
    value = np.ones((1, 64))
    for weight in weights:
        value = value @ weight
    degree = len(weights)
    if "Mul(h24, h24)" in joined:
        value, degree = value**2, 2 * degree
        assert value.max() > np.finfo(np.float32).max
    assert value_of(model) == pytest.approx(math.log(degree * value.sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("nodes", "factor"),
    [
        ("y = LeakyRelu(h)", 1), ("y = Abs(h)", 1), ("y = PRelu(h, s)", 1), ("n = Neg(h) y = Neg(n)", 1),
        ("y = Add(h, h)", 2), ("y = Sum(h, h, h)", 3), ("n = Neg(h) y = Sub(h, n)", 2),
        ("y = Concat <axis = 1> (h, h)", 2), ("y = Max(h, zero)", 1), ("n = Neg(h) y = Min(h, h)", 1),
        ("s1, s2 = Split <num_outputs = 2, axis = 1> (h) y = Concat <axis = 1> (s2, s1)", 1),
        ("y = Where(yes, h, zero)", 1), ("y = Div(h, half)", 2), ("y = Clip(h, zero)", 1),
        ("r = ReduceMax <keepdims = 1> (h, axis) t = Tile(r, four) y = Mul(t, zero) ", 0),
        ("t = Cast <to = 1> (h) y = Gather <axis = 1> (t, order)", 1),
        ("y = Pad(h, pads)", 1), ("b = LayerNormalization(h, ones) y = Identity(b)", 1),
        ("m = ReduceMean(h, axis) d = Sub(h, m) q = Mul(d, d) v = ReduceMean(q, axis) e = Add(v, half) "
         "s0 = Sqrt(e) y = Div(d, s0)", 1),
    ],
)  # fmt: skip
def test_operators_that_pass_or_multiply(nodes: str, factor: float) -> None:
    """Beside the plain layer, whose entries are all above 0."""
    tensors = {
        "s": np.float32(0.25), "zero": np.zeros([], np.float32), "yes": np.ones([], np.bool_), "half": np.float32(0.5),
        "axis": np.asarray([1]), "four": np.asarray([1, 4]), "order": np.asarray([3, 1, 2, 0]),
        "pads": np.asarray([0, 1, 0, 2]), "ones": np.ones(4, np.float32),
    }  # fmt: skip
    used = {key: np.asarray(one) for key, one in tensors.items() if key in nodes.replace("<", " ").replace(",", " ,")}
    model = one_layer(nodes, **used)
    [found] = measure(model, "synflow", batch=2)
    if not factor:
        assert found.status is MeasurementStatus.UNDEFINED
        return
    assert found.value == pytest.approx(value_of(one_layer("y = Relu(h)")) + math.log(factor), abs=1e-5), found.reason


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ("[soft] s = Softmax(h) y = MatMul(s, V)", "node 'soft' (Softmax): saturates"),
        ("[odd] s = Cos(h) y = MatMul(s, V)", "node 'odd' (Cos): has no rule"),
        ("[int] i = Cast <to = 7> (h) s = Cast <to = 1> (i) y = MatMul(s, V)", "node 'int' (Cast): makes INT64"),
        ("[pad] p = Pad(h, pads, seven) s = Relu(p) y = MatMul(s, V)", "node 'pad' (Pad): pads with a number"),
    ],
)
def test_what_has_no_rule_is_named(nodes: str, words: str) -> None:
    width = 5 if "Pad" in nodes else 4
    more = {"pads": np.asarray([0, 0, 0, 1]), "seven": np.float32(7)} if "Pad" in nodes else {}
    model = one_layer(nodes, V=(width, 2), **{key: np.asarray(one) for key, one in more.items()})
    [found] = measure(model, "synflow", batch=2)
    assert found.status is MeasurementStatus.UNSUPPORTED
    assert words in str(found.reason)
    prepared = prepare(model, batch=2)
    with pytest.raises(UnsupportedError, match=r"m: node '"):
        add_growth(prepared.graph, "m")


def test_what_no_weight_reaches_or_shrinks_is_undefined() -> None:
    still = one_layer("y = Mul(h, zero)", zero=np.zeros([], np.float32))
    falling = one_layer("y = Neg(h)")
    for model in (still, falling):
        [found] = measure(model, "synflow", batch=2)
        assert found.status is MeasurementStatus.UNDEFINED, found
