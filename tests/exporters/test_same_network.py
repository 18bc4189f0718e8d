"""The promise of the project: the same network from PyTorch, JAX and Keras has the same score."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from epsinas_onnx import Status, score

FILES = Path(__file__).parents[1] / "data" / "same_network.zip"
FRAMEWORKS = {"cnn": {"torch", "jax", "keras"}, "mlp": {"torch", "jax", "keras"}, "lstm": {"torch", "keras"}}


@pytest.mark.parametrize("network", FRAMEWORKS)
@pytest.mark.parametrize("weights", [(1e-2, 0.3), (1e-3, 0.1)])
def test_every_framework_gives_the_same_score(network: str, weights: tuple[float, float]) -> None:
    with zipfile.ZipFile(FILES) as files:
        found = {
            name.split(".")[1]: score(files.read(name), weights=weights, batch=16, providers="cpu")
            for name in files.namelist()
            if name.startswith(f"{network}.")
        }
    assert set(found) == FRAMEWORKS[network]
    assert {result.status for result in found.values()} == {Status.OK}
    expected = found["torch"].raw_score
    assert expected
    for framework, result in found.items():
        assert result.raw_score == pytest.approx(expected, rel=0, abs=min(1e-4, expected / 1000)), framework
