"""Kernels that take short cuts, against NumPy's plain way; what a few samples and plain arrays tell, against all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epsinas_exporters import classics
from epsinas_onnx.evaluate_lumped import evaluator as evaluators
from epsinas_onnx.evaluate_lumped import recurrent
from epsinas_onnx.evaluate_lumped.evaluator import Constant, order, variation
from epsinas_onnx.evaluate_lumped.kernels.layout import for_fewer, positive, turned
from epsinas_onnx.evaluate_lumped.kernels.reduction import Average
from epsinas_onnx.evaluate_lumped.kernels.taps import sums_along
from tests.evaluate_lumped.whole import prepared

MODELS = Path(__file__).parents[2] / "models"
MATRICES = {
    "band": np.eye(9) + np.eye(9, k=1) + np.eye(9, k=-1),
    "stride": np.asarray([[1.0, 1, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1]]),
    "classes": np.asarray([[1.0, 1, 0], [1, 1, 1], [0, 1, 2], [0, 0, 3]]),
    "means": np.asarray([[1.5, 1.5, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1.5, 1.5]]),
    "nothing": np.zeros((2, 4)),
    "an empty row": np.asarray([[0.0, 0, 0], [1, 0, 2]]),
    "a mirror": np.eye(9) + np.eye(9, k=1) + np.eye(9, k=-1) + np.diag([0.0] * 8 + [1]),
    "two apart": np.eye(9, 12) + np.eye(9, 12, k=3) + np.eye(9, 12, k=1)[::-1],
    "signs": np.asarray([[-0.5, 0.5, 0], [0, -0.5, 0.5]]),
}


@pytest.mark.parametrize("lay_out", [np.ascontiguousarray, turned], ids=["rows", "samples innermost"])
@pytest.mark.parametrize("place", [2, 3])
@pytest.mark.parametrize("name", MATRICES)
def test_sums_of_slices_are_the_product_with_the_matrix(name: str, place: int, lay_out: Callable[..., Any]) -> None:
    """Whatever runs a matrix has, and along which axis."""
    matrix = MATRICES[name]
    shape = [5, 2, 3, 4]
    shape[place] = matrix.shape[1]
    x = lay_out(np.random.default_rng(0).normal(size=shape))
    made = sums_along(matrix, place)(x)
    np.testing.assert_allclose(made, np.moveaxis(np.tensordot(matrix, x, (1, place)), 0, place), atol=1e-14)


@pytest.mark.parametrize("lay_out", [np.ascontiguousarray, turned], ids=["rows", "samples innermost"])
@pytest.mark.parametrize("samples", [4, 64])
@pytest.mark.parametrize("weights", [None, (1, 1, 3, 5), (1, 1, 3, 1), (1, 1, 1, 5)])
def test_means_of_entries_and_of_squares(
    weights: tuple[int, ...] | None, samples: int, lay_out: Callable[..., Any]
) -> None:
    """Over all axes but that of one channel, by weights whose sum is 1 along each axis that has any."""
    rng = np.random.default_rng(1)
    x = lay_out(rng.normal(size=(samples, 1, 3, 5)))
    given = np.ones((1, 1, 1, 1))
    for axis, size in enumerate(weights or ()):
        along = rng.random(size).reshape([size if place == axis else 1 for place in range(4)])
        given = given * along / along.sum()
    average = Average((0, 2, 3), None if weights is None else given, 4)
    full = np.broadcast_to(given, x.shape) / np.broadcast_to(given, x.shape).sum()
    np.testing.assert_allclose(average(x), (x * full).sum().reshape(1, 1, 1, 1), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(average.squares(x), (x * x * full).sum().reshape(1, 1, 1, 1), rtol=1e-12)


@pytest.mark.parametrize("lay_out", [np.ascontiguousarray, turned], ids=["rows", "samples innermost"])
def test_positive_is_the_larger_of_a_number_and_0(lay_out: Callable[..., Any]) -> None:
    """In either layout, and NaN stays."""
    x = lay_out(np.random.default_rng(2).normal(size=(6, 1, 2, 3)))
    x[0, 0, 0, 0] = np.nan
    np.testing.assert_array_equal(positive(x), np.maximum(x, 0.0))
    assert positive(np.asarray(-1.0)) == 0


@pytest.mark.parametrize(
    ("before", "after", "actual", "wanted"),
    [
        ((256, 3, 8), (256, 24), (4, 3, 8), (4, 24)),
        ((512, 1, 5), (256, 2, 5), (8, 1, 5), (4, 2, 5)),
        ((2, 256, 7), (512, 7), (2, 4, 7), (8, 7)),
        ((256, 1), (1, 256, 1), (4, 1), (1, 4, 1)),
    ],
)
def test_a_reshape_for_fewer_samples(before: Any, after: Any, actual: Any, wanted: Any) -> None:
    """The axis that holds the samples shrinks by as much."""
    assert for_fewer(before, after, actual) == wanted


def test_a_reshape_that_mixes_samples_is_refused() -> None:
    """Where the samples' axis is cut up so that it has no part for each of fewer."""
    with pytest.raises(ValueError, match="as"):
        for_fewer((256, 4), (16, 64), (4, 4))


@pytest.mark.parametrize("file", ["nb201-c3-c3-c3-s-c3-c3", "nb201-c1-n-c1-n-n-c3", "mobilenet_v2", "lstm"])
def test_a_few_samples_tell_the_order(file: str) -> None:
    """As all of them do."""
    batch = 12
    made = prepared(MODELS / f"{file}.onnx", batch)
    spec = made.planned.specs[0]
    if spec.dtype.is_floating_point():
        ramp = np.arange(batch, dtype=np.float32).reshape(-1, 1, 1, 1) / batch
        feeds: dict[str, Any] = {spec.name: np.broadcast_to(ramp, spec.shape)}
    else:
        feeds = {spec.name: np.random.default_rng(3).integers(0, 1000, spec.shape)}
    evaluator = made.evaluator("exact")
    few = order(evaluator, feeds, made.axes)
    assert few == evaluators._order(evaluator, feeds, made.axes)


@pytest.mark.parametrize("constant", [1e-7, 1e-3, 0.05])
def test_recurrent_layers_on_plain_arrays(constant: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """They give what arrays with a scale give, and are what runs where numbers are moderate."""
    made = prepared(classics.lstm(steps=6), 8)
    feeds = {"tokens": np.random.default_rng(4).integers(0, 1000, (8, 6))}
    taken: list[bool] = []
    own = recurrent._moderate
    monkeypatch.setattr(recurrent, "_moderate", lambda *a: taken.append((found := own(*a)) is not None) or found)
    plain = variation([made.exactly(Constant(constant), feeds)])
    assert all(taken)
    monkeypatch.setattr(recurrent, "_moderate", lambda *_: None)
    scaled = variation([made.exactly(Constant(constant), feeds)])
    np.testing.assert_allclose(plain.array, scaled.in_units_of(plain), rtol=1e-9, atol=1e-13 * plain.peak)
