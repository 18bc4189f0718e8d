"""Whole models of every kind: exact is the plain graph in float64, to the digits that float64 has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from epsinas_onnx.inputs.minibatch import Minibatch
from epsinas_onnx.scoring.options import ScoreOptions
from tests.evaluate_lumped.whole import plain_double, prepared
from tests.tiers import tiered

MODELS = sorted((Path(__file__).parents[2] / "models").rglob("*.onnx"))
SAMPLES, CONSTANT = 3, 0.3
CANCELS = {"transformer"}
"""Of these only rounding is left in float64: a normalisation and equal weights give 0."""


SLOW = {"nb201-p-c1-s-c1-s-s"}
"""The reference evaluator takes seconds for poolings."""
EXHAUSTIVE = {path.stem for path in MODELS if "-p-" in path.stem} - SLOW


@pytest.mark.parametrize("path", tiered(MODELS, slow=SLOW, exhaustive=EXHAUSTIVE, name=lambda path: path.stem))
def test_exact_is_the_plain_graph_in_float64(path: Path) -> None:
    made = prepared(path, SAMPLES)
    feeds = Minibatch(ScoreOptions().inputs, 0, path.name).feeds(made.planned.specs, made.planned.demands)
    value = made.exactly(CONSTANT, feeds)
    if made.lowered.cut_off is not None or path.stem in CANCELS:
        assert value.deviation is None
        if path.stem in CANCELS:
            assert np.abs(plain_double(made.planned, CONSTANT, feeds)).max() < 1e-13
        return
    wanted = plain_double(made.planned, CONSTANT, feeds).reshape(SAMPLES, -1)
    found = made.split(value.formed()).reshape(SAMPLES, -1)
    found = np.repeat(found, wanted.shape[1] // found.shape[1], axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * np.abs(wanted).max())
