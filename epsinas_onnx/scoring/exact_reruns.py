"""What the judge may ask for of exact arithmetic: moved inputs, other constants, the node that loses the signal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.errors import RunError
from epsinas_onnx.evaluate_lumped.homogeneous import degree
from epsinas_onnx.evaluate_lumped.trace import Loss, Seen, Trace
from epsinas_onnx.scoring.diagnosis import LostSignal, advice
from epsinas_onnx.scoring.evaluated import ExactExecutor, widened
from epsinas_onnx.scoring.feeds import Feeds, Moved
from epsinas_onnx.scoring.metric import EXACT, varies

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Found:
    """Where a signal ends in exact arithmetic."""

    name: str
    place: str
    why: str
    advice: str


class ExactReruns:
    """Runs again what was run (`verdict.Runner`).

    few: returns a few of the samples, of which every value can be held. cut_axes: where samples are run one by one.
    check: raises where an output has another number of entries than the others (by constant). graph: the user's.
    """

    def __init__(
        self,
        executor: ExactExecutor,
        feeds: Feeds,
        few: Callable[[], Mapping[str, Array]],
        seed: int,
        cut_axes: Mapping[str, int] | None,
        check: Callable[[Mapping[float, int]], None],
        weights: tuple[float, float],
        graph: ir.Graph,
    ) -> None:
        self._executor, self._given, self._cut_axes, self._few = executor, feeds, cut_axes, few
        self._check, self._weights, self._graph = check, weights, graph
        self._moved = Moved(lambda: self._feeds, seed)
        self._perturbed: dict[tuple[float, float | None], Array] = {}

    @cached_property
    def _feeds(self) -> Mapping[str, Array]:
        return widened(self._given.arrays)

    def rerun_perturbed(self, constant: float, change: float | None = None) -> Array:
        """Run once more with other last bits, or with everything moved by the share `change`."""
        key = (constant, change)
        if key not in self._perturbed:
            moved = self._moved.by(change)
            nudged = float(np.nextafter(constant, np.inf)) if change is None else constant * (1 + change)
            self._perturbed[key] = self._run(nudged, moved)
        return self._perturbed[key]

    def run_probe_constant(self, constant: float) -> tuple[Array, Array]:
        """Run with another constant, plain and, where that varies, moved a little."""
        plain = self._run(constant, self._feeds)
        return plain, self.rerun_perturbed(constant, EXACT.change) if varies(plain) else plain

    def _run(self, constant: float, feeds: Mapping[str, Array]) -> Array:
        (result,) = self._executor.run([constant], feeds, self._cut_axes)
        self._check({constant: result.output.size})
        return result.output

    def find_loss(self, constant: float) -> LostSignal | None:
        """Return the node behind which samples no longer differ, None where it is not found."""
        return self._found(constant, Trace.lost_in)

    def find_explosion(self, constant: float) -> LostSignal | None:
        """Return the node in which infinities or NaN begin, None where it is not found."""
        return self._found(constant, Trace.exploded_in)

    def _found(self, constant: float, search: Callable[[Trace, Mapping[str, Seen]], Loss | None]) -> LostSignal | None:
        try:
            loss = search(*self._trace(constant))
        except RunError:  # the verdict stands without the node
            return None
        if loss is None:
            return None
        node = next((node for node in self._graph if node.name == loss.node), None)
        return _Found(loss.node, loss.place, loss.why, advice(node))

    def _trace(self, constant: float) -> tuple[Trace, dict[str, Seen]]:
        if self._cut_axes is None:
            with contextlib.suppress(RunError):  # the graph is made for the whole minibatch
                return self._executor.trace(constant, self._few(), None)
        return self._executor.trace(constant, self._feeds, self._cut_axes)

    def degree(self) -> int | None:
        """Return in which degree the network is homogeneous in its weights, None where it is in none."""
        if self._cut_axes is not None:
            return None
        return degree(lambda constant: self._executor.entries(constant, self._feeds), self._weights)
