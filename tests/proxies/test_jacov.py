"""jacov beside PyTorch's autograd on the same network, the same weights and the same inputs."""

from __future__ import annotations

import random

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from epsinas_onnx.errors import UnsupportedError
from epsinas_onnx.proxies.jacov import Jacov, correlation, differentiated_by, jacov
from epsinas_onnx.proxies.prepared import Prepared, prepare
from epsinas_onnx.proxies.proxy import UndefinedError

from ..builders import build

torch = pytest.importorskip("torch")

from epsinas_exporters import classics  # noqa: E402
from epsinas_exporters.spaces.darts import DARTS  # noqa: E402
from epsinas_exporters.spaces.nasbench101 import NASBench101  # noqa: E402
from epsinas_exporters.spaces.nasbench201 import NASBench201  # noqa: E402
from epsinas_exporters.spaces.nasbenchmacro import NASBenchMacro  # noqa: E402
from epsinas_exporters.spaces.nasbenchnlp import NASBenchNLP  # noqa: E402
from epsinas_exporters.spaces.nats_sss import NATSSizes  # noqa: E402

from .interpreting import interpret  # noqa: E402

Feeds = dict[str, torch.Tensor]


def autograd(prepared: Prepared) -> tuple[Feeds, np.ndarray, np.ndarray]:
    """Return the inputs, the derivatives `[samples, entries]` by autograd in float64, and their correlation."""
    graph, values = prepared.graph.graph, list(differentiated_by(prepared))
    names = [str(value.name) for value in values]
    feeds = {name: torch.from_numpy(np.array(array)) for name, array in prepared.feeds.items()}
    feeds = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in feeds.items()}
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in interpret(graph, feeds, names).items()}
    output = str(prepared.output.name)
    made = interpret(graph, {**feeds, **leaves}, [output])[output]
    gradients = torch.autograd.grad(made.sum(), list(leaves.values()))
    axes = [prepared.sample_axis(value) or 0 for value in values]
    derivatives = rows(prepared, axes, [gradient.numpy() for gradient in gradients])
    return feeds, derivatives, np.corrcoef(derivatives)


def rows(prepared: Prepared, axes: list[int], gradients: list[np.ndarray]) -> np.ndarray:
    moved = [np.moveaxis(g, axis, 0).reshape(prepared.batch, -1) for g, axis in zip(gradients, axes, strict=True)]
    return np.concatenate(moved, axis=1)


def check(model: ir.Model, batch: int = 4, float32: bool = True) -> None:
    """Hold the derivative to autograd: the graph that was written in float64, and ONNX Runtime's run of it.

    float32: whether its arithmetic is good enough for the network, which it is not for normalisations of four numbers:
    PyTorch's own float32 is off by 1e-3 for the ResNet-50 here, ONNX Runtime by 4e-4.
    """
    prepared = prepare(ir.to_proto(model), batch=batch, threads=1, providers="cpu")
    feeds, derivatives, expected = autograd(prepared)
    proxy = Jacov()
    *names, _ = proxy.ask(prepared)
    with torch.no_grad():
        exact = interpret(prepared.graph.graph, feeds, names)
    ours = rows(prepared, proxy._axes, [exact[name].numpy() for name in names])
    np.testing.assert_allclose(ours, derivatives, rtol=1e-5, atol=1e-6 * np.abs(derivatives).max())
    fetched = prepared.run([*names, str(prepared.output.name)])
    score = proxy.value(prepared, fetched)
    matrix = correlation([rows(prepared, proxy._axes, [fetched[name] for name in names])], "net")
    assert np.isfinite(score)
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-3 if float32 else 1e-2)
    if float32:
        v = np.linalg.eigvalsh(expected)
        assert score == pytest.approx(-np.sum(np.log(v + 1e-5) + 1 / (v + 1e-5)), rel=1e-3)


SPACES = [
    (NASBench201(), {"cells": 1, "channels": 8}, 0, True),
    (NASBench101(), {"channels": 8, "cells": 1}, 0, True),
    (NASBenchNLP(), {"layers": 2, "steps": 5, "width": 8, "hidden": 6, "tokens": 50}, 0, True),
    (NASBenchNLP(), {"layers": 1, "steps": 7, "width": 8, "hidden": 6, "tokens": 50}, 1, True),
]  # fmt: skip


LARGE = [
    (NASBench201(), {"cells": 1}, 1, True), (NATSSizes(), {}, 0, True), (NASBenchMacro(), {}, 0, True),
    (DARTS(), {"layers": 3, "channels": 4}, 0, False),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("space", "sizes", "seed", "float32"), LARGE, ids=[one[0].name for one in LARGE])
def test_search_spaces_at_size(space, sizes, seed: int, float32: bool) -> None:
    check(space.build(space.draw(random.Random(seed)), **sizes), float32=float32)


@pytest.mark.parametrize(("space", "sizes", "seed", "float32"), SPACES, ids=[f"{s[0].name}{s[2]}" for s in SPACES])
def test_search_spaces(space, sizes, seed: int, float32: bool) -> None:
    check(space.build(space.draw(random.Random(seed)), **sizes), float32=float32)


@pytest.mark.parametrize(
    "build_model",
    [
        pytest.param(classics.mobilenet_v2, marks=pytest.mark.exhaustive),
        pytest.param(classics.resnet50, marks=pytest.mark.slow),
    ],
)
def test_deep_classics(build_model) -> None:
    check(build_model(classes=10, size=32), float32=False)


CLASSICS = {
    "mlp": classics.mlp, "lstm": lambda: classics.lstm(tokens=20, embedding=8, hidden=6, steps=5),
    "transformer": lambda: classics.transformer(tokens=20, width=8, heads=2, steps=6),
    "llama": lambda: classics.llama(layers=2, width=16, heads=4, hidden=24, vocabulary=30, kv_heads=2),
}  # fmt: skip


@pytest.mark.parametrize("model", CLASSICS.values(), ids=CLASSICS)
def test_classics(model) -> None:
    check(model())


def test_the_formula() -> None:
    matrix = np.asarray([[1.0, 0.5], [0.5, 1.0]])
    assert jacov(matrix) == pytest.approx(-(np.log(1.50001) + 1 / 1.50001 + np.log(0.50001) + 1 / 0.50001))


def test_correlation_is_numpys() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((4, 70_000)).astype(np.float32), rng.standard_normal((4, 3)).astype(np.float32) + 9]
    np.testing.assert_allclose(
        correlation(parts, "net"), np.corrcoef(np.concatenate(parts, 1).astype(float)), atol=1e-12
    )


def test_a_sample_without_a_derivative_has_no_score() -> None:
    model = build("(float[N,3] x) => (float[N,3] y) { a = Sign(x)  y = MatMul(a, w) }", w=(3, 3))
    prepared = prepare(model, batch=4)
    proxy = Jacov()
    with pytest.raises(UndefinedError, match="same in all entries of 4 of 4 samples"):
        proxy.value(prepared, prepared.run(proxy.ask(prepared)))


def test_an_operator_without_a_rule_is_named() -> None:
    model = build("(float[N,4,4] x) => (float[N] y) { [det] y = Det(x) }")
    with pytest.raises(UnsupportedError, match=r"node 'det' \(Det\): there is no rule for its derivative"):
        Jacov().ask(prepare(model, batch=4))


def test_several_inputs_stand_side_by_side() -> None:
    model = build("(float[N,3] x, float[N,2] z) => (float[N,5] y) { c = Concat <axis = 1> (x, z)  y = Tanh(c) }")
    prepared = prepare(model, batch=4)
    joined = np.concatenate([prepared.feeds["x"], prepared.feeds["z"]], axis=1)
    proxy = Jacov()
    fetched = prepared.run(proxy.ask(prepared))
    matrix = correlation([fetched[name] for name in proxy._names], "net")
    np.testing.assert_allclose(matrix, np.corrcoef(1 - np.tanh(joined) ** 2), atol=1e-5)


def test_an_embedding_is_what_tokens_are_derived_by() -> None:
    model = build(
        "(int64[N,6] ids) => (float[N,6] y) { p = Equal(ids, zero)  f = Cast <to = 1> (p)  e = Gather(table, ids)"
        "  t = Tanh(e)  s = ReduceSum <keepdims = 0> (t, last)  y = Sub(s, f) }",
        table=(9, 4), zero=np.asarray(0), last=np.asarray([2]),
    )  # fmt: skip
    assert [value.name for value in differentiated_by(prepare(model, batch=4))] == ["e"]
    assert isinstance(model, onnx.ModelProto)
