"""The minibatch as it is run: its arrays, where its samples lie, and which of their positions hold equal values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy.typing as npt

from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.inputs.generate import perturbed, unstretched
from epsinas_onnx.lump.partition import Partition, of_slices
from epsinas_onnx.lump.value import Parts

Array = npt.NDArray[Any]


class Feeds:
    """A minibatch as it is run; its arrays are made when they are first looked at.

    make: returns every input by name. axes: along which of them samples lie. fixed: those that the graph was lowered
    for. drawn: names of those that are drawn at random, in which no equal positions are looked for.
    """

    def __init__(
        self, make: Callable[[], Mapping[str, Array]], axes: Mapping[str, int], fixed: Mapping[str, Array],
        drawn: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self._make, self.axes, self.fixed, self._drawn = make, axes, fixed, drawn

    @classmethod
    def of(cls, arrays: Mapping[str, Array], axes: Mapping[str, int]) -> Feeds:
        """Return a minibatch of arrays that are there, for none of which a graph is lowered."""
        return cls(lambda: arrays, axes, {})

    @cached_property
    def arrays(self) -> Mapping[str, Array]:
        """Return every input by name."""
        return self._make()

    @cached_property
    def equal(self) -> Mapping[str, Parts]:
        """Return partitions of the axes of inputs, samples apart, that hold for every sample."""
        return {
            name: equal_positions(array, self.axes.get(name))
            for name, array in self.arrays.items()
            if name not in self.fixed and name not in self._drawn
        }

    def parts(self, specs: Sequence[InputSpec]) -> dict[str, Parts]:
        """Return the partitions of inputs that may hold another number of samples."""
        found: dict[str, Parts] = {}
        if all(spec.name in self._drawn or spec.name in self.fixed for spec in specs):
            return found  # whatever is drawn may be large, and need not be made yet
        for spec in specs:
            if spec.name in self.equal:
                parts = list(self.equal[spec.name])
                axis = self.axes.get(spec.name)
                if axis is not None:
                    parts[axis] = Partition.discrete(spec.shape[axis])
                found[spec.name] = tuple(parts)
        return found


def equal_positions(array: Array, samples: int | None) -> Parts:
    """Return for each axis which of its indices hold bitwise equal slices; the axis of samples is all apart.

    An axis along which the array was stretched is one class, and not looked at. Of the others only those are compared
    on that the samples before left with equal slices, so that an array without any costs a look at one sample.
    """
    if array.size == 0:
        return tuple(map(Partition.discrete, array.shape))
    once = unstretched(array)
    parts = [Partition.one(size) for size in array.shape]
    if samples is not None:
        parts[samples] = Partition.discrete(array.shape[samples])
    pending = [axis for axis, size in enumerate(once.shape) if size > 1 and axis != samples]
    start, step = 0, 1
    while pending and start < (1 if samples is None else once.shape[samples]):
        piece = once if samples is None else once[(slice(None),) * samples + (slice(start, start + step),)]
        for axis in pending:
            parts[axis] = parts[axis].join(of_slices(piece, axis))
        pending = [axis for axis in pending if not parts[axis].is_discrete]
        start, step = start + step, 2 * step
    return tuple(parts)


class Moved:
    """Inputs with their floats moved at random. made: returns them as they are.

    What was moved last is kept, because each change is asked for with one constant after the other.
    """

    def __init__(self, made: Callable[[], Mapping[str, Array]], seed: int) -> None:
        self._made, self._seed = made, seed
        self._last: dict[float | None, dict[str, Array]] = {}

    def by(self, change: float | None) -> Mapping[str, Array]:
        """Return them moved by a share, or by one unit in the last place where that is None."""
        if change not in self._last:
            self._last.clear()  # before there are others, which take as much memory
            self._last[change] = perturbed(self._made(), self._seed, change)
        return self._last[change]
