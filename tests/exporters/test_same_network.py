"""The promise of the project: the same network from every framework has the same score."""

from __future__ import annotations

import pytest

from tests.exporters.agreement import CONSTANTS, assert_same_scores, stored

ALL = {"torch", "torchscript", "jax", "keras", "tensorflow", "paddle"}
FRAMEWORKS = {"cnn": ALL, "mlp": ALL | {"sklearn"}, "lstm": ALL}


@pytest.mark.parametrize("weights", CONSTANTS)
@pytest.mark.parametrize(
    ("network", "framework"), [(name, one) for name in FRAMEWORKS for one in sorted(FRAMEWORKS[name])]
)
def test_every_framework_gives_the_same_score(network: str, framework: str, weights: tuple[float, float]) -> None:
    found = stored()[network]
    assert set(found) == FRAMEWORKS[network]
    assert_same_scores({network: found[framework]}, weights)
