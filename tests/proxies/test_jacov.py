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


def by_autograd(prepared: Prepared) -> np.ndarray:
    """Return the correlation of derivatives as autograd gives them in float64."""
    graph = prepared.graph.graph
    values = list(differentiated_by(prepared))
    names = [str(value.name) for value in values]
    feeds = {name: torch.from_numpy(np.array(array)) for name, array in prepared.feeds.items()}
    feeds = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in feeds.items()}
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in interpret(graph, feeds, names).items()}
    output = str(prepared.output.name)
    made = interpret(graph, {**feeds, **leaves}, [output])[output]
    gradients = torch.autograd.grad(made.sum(), list(leaves.values()))
    axes = [prepared.sample_axis(value) or 0 for value in values]
    rows = [g.movedim(axis, 0).reshape(prepared.batch, -1).numpy() for g, axis in zip(gradients, axes, strict=True)]
    return np.corrcoef(np.concatenate(rows, axis=1))


def by_graph(prepared: Prepared) -> tuple[np.ndarray, float]:
    proxy = Jacov()
    names = proxy.ask(prepared)
    fetched = prepared.run(names)
    rows = [
        np.moveaxis(fetched[name], axis, 0).reshape(prepared.batch, -1)
        for name, axis in zip(names, proxy._axes, strict=True)
    ]
    return correlation(rows, "net"), proxy.value(prepared, fetched)


def check(model: ir.Model, batch: int = 4) -> None:
    prepared = prepare(ir.to_proto(model), batch=batch, threads=1, providers="cpu")
    expected = by_autograd(prepared)
    matrix, score = by_graph(prepared.fresh())
    np.testing.assert_allclose(matrix, expected, rtol=1e-3, atol=1e-4)
    v = np.linalg.eigvalsh(expected)
    assert score == pytest.approx(-np.sum(np.log(v + 1e-5) + 1 / (v + 1e-5)), rel=1e-2)
    assert np.isfinite(score)


SPACES = [
    (NASBench201(), {"cells": 1}), (NASBench101(), {"channels": 16}), (NATSSizes(), {"cells": 1}), (NASBenchMacro(), {}),
    (DARTS(), {"cells": 3, "channels": 8}), (NASBenchNLP(), {"layers": 2, "steps": 5, "width": 8, "hidden": 6}),
]  # fmt: skip


@pytest.mark.parametrize(("space", "sizes"), SPACES, ids=[space.name for space, _ in SPACES])
@pytest.mark.parametrize("seed", [0, 1])
def test_search_spaces(space, sizes, seed: int) -> None:
    arch = space.draw(random.Random(seed))
    known = {name: size for name, size in sizes.items() if name in space.sizes}
    check(space.build(arch, **known))


CLASSICS = [
    lambda: classics.resnet50(classes=10, size=32), lambda: classics.mobilenet_v2(classes=10, size=32),
    classics.mlp, lambda: classics.lstm(tokens=20, embedding=8, hidden=6, steps=5),
    lambda: classics.transformer(tokens=20, width=8, heads=2, steps=6),
    lambda: classics.llama(layers=2, width=16, heads=4, hidden=24, vocabulary=30, kv_heads=2),
]  # fmt: skip


@pytest.mark.parametrize("model", CLASSICS, ids=["resnet50", "mobilenet_v2", "mlp", "lstm", "transformer", "llama"])
def test_classics(model) -> None:
    check(model())


def test_the_formula() -> None:
    matrix = np.asarray([[1.0, 0.5], [0.5, 1.0]])
    assert jacov(matrix) == pytest.approx(-(np.log(1.50001) + 1 / 1.50001 + np.log(0.50001) + 1 / 0.50001))


def test_correlation_is_numpys() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((4, 70_000)).astype(np.float32), rng.standard_normal((4, 3)).astype(np.float32) + 9]
    np.testing.assert_allclose(correlation(parts, "net"), np.corrcoef(np.concatenate(parts, 1).astype(float)), atol=1e-12)


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
    matrix, _ = by_graph(prepared)
    np.testing.assert_allclose(matrix, np.corrcoef(1 - np.tanh(joined) ** 2), atol=1e-5)


def test_an_embedding_is_what_tokens_are_derived_by() -> None:
    model = build(
        "(int64[N,6] ids) => (float[N,6] y) { p = Equal(ids, zero)  f = Cast <to = 1> (p)  e = Gather(table, ids)"
        "  t = Tanh(e)  s = ReduceSum <keepdims = 0> (t, last)  y = Sub(s, f) }",
        table=(9, 4), zero=np.asarray(0), last=np.asarray([2]),
    )  # fmt: skip
    assert [value.name for value in differentiated_by(prepare(model, batch=4))] == ["e"]
    assert isinstance(model, onnx.ModelProto)
