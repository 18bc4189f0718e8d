"""Whole networks: exact is the plain graph in float64, float32 is ONNX Runtime, and no exponent is too small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epsinas_onnx
from epsinas_onnx.evaluate_lumped.evaluator import Constant, Evaluator, order
from epsinas_onnx.scoring.metric import normalised_dispersion, varies
from tests.builders import build
from tests.evaluate_lumped.whole import Prepared, plain_double, prepared
from tests.lump.networks import SIZE, random_network

Array = npt.NDArray[Any]
MODELS = sorted((Path(__file__).parents[2] / "models").glob("nb201*.onnx"))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), constant=st.sampled_from([0.05, 0.4]))
def test_exact_is_the_plain_graph_in_float64(seed: int, constant: float) -> None:
    made = prepared(ir.to_proto(random_network(seed)), 5)  # a file has its attributes in float32
    feeds = {"input": np.random.default_rng(seed).standard_normal((5, 3, SIZE, SIZE), np.float32)}
    got = made.exactly(constant, feeds)
    wanted, again = (plain_double(made.planned, constant * (1 + nudge), feeds) for nudge in (0.0, 1e-13))
    array = made.split(got.formed()).reshape(5, -1)
    array = np.repeat(array, wanted.size // array.size, axis=1).reshape(-1)
    # a mean of what a normalisation has brought to a mean of 0 is cancellation in float64
    noise = 10 * np.abs(again - wanted).max()
    np.testing.assert_allclose(array, wanted, rtol=1e-9, atol=noise + 1e-12 * np.abs(wanted).max())


def grey(batch: int) -> Array:
    return np.broadcast_to((np.arange(batch) / batch).astype(np.float32).reshape(-1, 1, 1, 1), (batch, 3, 32, 32))


def score(made: Prepared, feeds: dict[str, Array]) -> float:
    first, second = (made.entries(made.exactly(constant, feeds)).array for constant in (1e-7, 1.0))
    return normalised_dispersion(first, second)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_float32_is_what_onnx_runtime_gives(path: Path) -> None:
    made, feeds = prepared(path, 16), {"input": grey(16)}
    known = epsinas_onnx.score(path, batch=16, arithmetic="float32")
    if made.lowered.cut_off is not None:
        assert known.status is epsinas_onnx.Status.CONSTANT
        return
    evaluator = made.evaluator("float32")
    (name,) = made.lowered.outputs
    outputs = [made.split(evaluator.plain(constant, feeds)[name]) for constant in (1e-7, 1.0)]
    if known.status is epsinas_onnx.Status.UNDERFLOW:
        assert not all(map(varies, outputs))
        return
    assert normalised_dispersion(*outputs) == pytest.approx(known.raw_score, rel=2e-3, abs=1e-6)
    if known.score is not None:
        assert score(made, feeds) == pytest.approx(known.score, rel=2e-3, abs=1e-6)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_orders_of_nasbench201(path: Path) -> None:
    """Each convolution on the shortest path through a cell adds 2 for each of 15 cells; the rest adds 6."""
    made = prepared(path, 4)
    if made.lowered.cut_off is not None:
        return
    evaluator = made.evaluator("exact")
    found = order(evaluator, {"input": grey(4)}, made.axes)
    assert found in (6.0, 36.0, 66.0, 96.0)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_tiny_input_changes_nothing_but_the_normalisation_in_front(path: Path) -> None:
    """The first BatchNormalization's epsilon is all that has a size of its own: beside it the input becomes linear."""
    made = prepared(path, 8)
    if made.lowered.cut_off is not None:
        return
    # float32 ends at 2^-149, so that the inputs are given in float64
    first, second = (
        made.entries(made.exactly(Constant(1.0, -40), {"input": np.ldexp(grey(8).astype(np.float64), shift)})).array
        for shift in (-300, -600)
    )
    np.testing.assert_allclose(first / np.abs(first).max(), second / np.abs(second).max(), rtol=1e-12)


@pytest.mark.parametrize("beside_a_signal", [False, True])
def test_what_is_0_by_proof_needs_nothing_in_front_of_it(beside_a_signal: bool) -> None:
    last = "y = Add(c, x)" if beside_a_signal else "y = Tanh(c)"
    body = f"a = LayerNormalization(x, s)  b = Add(a, a)  c = MatMul(b, W)  {last}"
    made = prepared(build(f"(float[N,4] x) => (float[N,4] y) {{ {body} }}", s=(4,), W=(4, 4)), 6)
    every, spared = (Evaluator(made.lowered, made.lowered.outputs, "exact", spare=spare) for spare in (False, True))
    assert len(spared.program.nodes) < len(every.program.nodes)
    x = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    for samples in (6, 3):
        feeds = {"x": x[:samples]}
        (one,), (other,) = (each.values(Constant(0.1), feeds, made.axes).values() for each in (every, spared))
        assert one.shape == other.shape
        assert one.shape[0] == samples
        np.testing.assert_array_equal(one.formed(), other.formed())
        assert one.formed().any() == beside_a_signal
