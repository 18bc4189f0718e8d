"""What the judge may ask for of exact arithmetic: moved inputs, other constants, the node that loses the signal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from epsinas_onnx.inputs.generate import perturb
from epsinas_onnx.scoring.diagnosis import SignalLoss, advice
from epsinas_onnx.scoring.evaluated import ExactExecutor, widened
from epsinas_onnx.scoring.feeds import Feeds
from epsinas_onnx.scoring.metric import EXACT

Array = npt.NDArray[Any]


class ExactReruns:
    """Runs again what was run (`verdict.Runner`).

    cut_axes: where samples are run one by one. check: raises where an output has another number of entries than the
    others (by constant).
    """

    def __init__(
        self,
        executor: ExactExecutor,
        feeds: Feeds,
        seed: int,
        cut_axes: Mapping[str, int] | None,
        check: Callable[[Mapping[float, int]], None],
    ) -> None:
        self._executor, self._feeds, self._cut_axes = executor, widened(feeds.arrays), cut_axes
        self._seed, self._check = seed, check
        self._perturbed: dict[tuple[float, float | None], Array] = {}

    def rerun_perturbed(self, constant: float, change: float | None = None) -> Array:
        """Run once more with other last bits, or with everything moved by the share `change`."""
        key = (constant, change)
        if key not in self._perturbed:
            moved = {name: perturb(array, self._seed, change) for name, array in self._feeds.items()}
            nudged = float(np.nextafter(constant, np.inf)) if change is None else constant * (1 + change)
            self._perturbed[key] = self._run(nudged, moved)
        return self._perturbed[key]

    def run_probe_constant(self, constant: float) -> tuple[Array, Array]:
        """Run with another constant, plain and moved a little."""
        return self._run(constant, self._feeds), self.rerun_perturbed(constant, EXACT.change)

    def _run(self, constant: float, feeds: Mapping[str, Array]) -> Array:
        (result,) = self._executor.run([constant], feeds, self._cut_axes)
        self._check({constant: result.output.size})
        return result.output

    def find_loss(self, constant: float) -> SignalLoss | None:
        """Return the node behind which samples no longer differ, None where it is not known."""
        return None

    def find_explosion(self, constant: float) -> SignalLoss | None:
        """Return the node in which infinities or NaN begin."""
        return None

    def advice(self, loss: SignalLoss) -> str:
        """Return what a user could do about a loss, as the end of a sentence, or nothing."""
        return advice(loss.node)
