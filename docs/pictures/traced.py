"""Lowers a model for its default minibatch, as scoring does, for the pictures that show what is computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from epsinas_onnx.evaluate_lumped.evaluator import Constant, Evaluator, order
from epsinas_onnx.evaluate_lumped.value import Value
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.inputs.minibatch import Minibatch
from epsinas_onnx.lump.lower import LumpedModel, lump
from epsinas_onnx.lump.step import Target
from epsinas_onnx.scoring.feeds import Feeds
from epsinas_onnx.scoring.options import GraphOptions
from epsinas_onnx.scoring.plan import plan

Array = npt.NDArray[Any]
MODELS = Path(__file__).parents[2] / "models"


class Traced(NamedTuple):
    """A lowered model, its minibatch, along which axes samples lie, and the names of its outputs."""

    lowered: LumpedModel
    feeds: Mapping[str, Array]
    axes: Mapping[str, int]
    outputs: tuple[str, ...]

    def order(self) -> float:
        """Return the exponent with which the output falls as the weights go to 0."""
        return order(Evaluator(self.lowered, self.lowered.outputs, "exact"), self.feeds, self.axes)

    def values(self, constant: float) -> tuple[dict[str, Value], dict[str, Array]]:
        """Return every value that depends on the input, by name: exactly, and in float32 as it stands."""
        fetched = self.lowered.exposed(self.outputs)
        exact = Evaluator(self.lowered, fetched, "exact").values(Constant(constant), self.feeds, self.axes)
        return exact, Evaluator(self.lowered, fetched, "float32").plain(constant, self.feeds)


def traced(name: str, batch: int, node_cost: int = 0) -> Traced:
    """Lower one of the models of the repository; node_cost: 0 keeps every class, whatever it costs."""
    planned = plan(load_model(MODELS / f"{name}.onnx"), batch, GraphOptions(), infer=True)
    minibatch = Minibatch("auto", 0, planned.name)
    axes = {spec.name: spec.batch_axis for spec in planned.specs if spec.batch_axis is not None}
    fixed = minibatch.fixed(planned.specs, planned.demands)
    feeds = Feeds(lambda: minibatch.feeds(planned.specs, planned.demands), axes, fixed)
    target = Target(1, False, True, planned.options.norm_stats, whole_norms=True, node_cost=node_cost)
    lowered = lump(
        planned.model, planned.decisions, planned.specs, planned.name, target, 0, True, fixed,
        feeds.parts(planned.specs),
    )  # fmt: skip
    return Traced(lowered, lowered.fed(feeds.arrays), axes, tuple(planned.outputs))


def write(figure: Any, script: str) -> None:
    """Write a figure beside the script that drew it."""
    path = Path(script).with_suffix(".svg")
    figure.savefig(path, metadata={"Date": None})
    # Matplotlib ends some lines with a space.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def log10(magnitude: Array | float) -> Array:
    """Return the logarithm of magnitudes, NaN for 0, which no line goes through."""
    array = np.asarray(magnitude, np.float64)
    return np.log10(array, where=array > 0, out=np.full(array.shape, np.nan))
