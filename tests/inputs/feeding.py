"""What is fed to a model, and whether ONNX Runtime takes it for the model as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from epsinas_onnx import Score, score
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.inputs.minibatch import Minibatch
from epsinas_onnx.scoring.options import GraphOptions
from epsinas_onnx.scoring.plan import plan

from ..graph.models import run

Array = npt.NDArray[Any]
BATCH = 4


def feeds_of(
    proto: onnx.ModelProto, shapes: Mapping[str, int | Sequence[int]] | None = None, attempt: int = 0
) -> dict[str, Array]:
    """Return the minibatch that is made for a model."""
    decided = plan(load_model(proto), BATCH, GraphOptions(shapes=dict(shapes or {}), attempt=attempt))
    specs = [spec.with_batch(BATCH) for spec in decided.specs]
    return Minibatch("auto", 0, "m").feeds(specs, decided.demands)


def runs(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Run a model as it is, weights and all, and assert that its float outputs are finite."""
    outputs = run(proto, feeds)
    assert all(np.isfinite(array).all() for array in outputs if array.dtype.kind == "f")
    return outputs


def scores(proto: onnx.ModelProto, **options: Any) -> tuple[Score, Score]:
    """Score a model, lumped and plain."""
    given: dict[str, Any] = {"batch": BATCH, "weights": (0.01, 0.1), "providers": "cpu", "threads": 1, **options}
    return score(proto, **given), score(proto, lump=False, **given)
