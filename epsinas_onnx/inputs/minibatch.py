"""The minibatch of one model: what a user gave and what is made for the rest, in the shapes of its inputs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.errors import ShapeError, UnsupportedError, UsageError
from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.analysis.shapes import Shapes
from epsinas_onnx.inputs.generate import KINDS, fed_kind, folded, kind_for, make_input, unstretched
from epsinas_onnx.inputs.given import fit, image_files, read_given, read_images
from epsinas_onnx.inputs.operands import Demand

Array = npt.NDArray[Any]

_FIXED_SIZE = 64


_DRAWN = ("normal", "uniform", "tokens")
"""Kinds of inputs that are drawn at random."""


class Minibatch:
    """What `inputs` means for the model called `name`; arrays and folders are read once.

    Raises UsageError when what was given cannot be read, or holds NaN.
    """

    def __init__(self, inputs: Any, seed: int, name: str) -> None:
        self._inputs, self._seed, self._name = inputs, seed, name
        self._kind = inputs if is_kind(inputs) else "auto"
        self._given = None if is_kind(inputs) else read_given(inputs)

    def shapes(self, specs: Sequence[InputSpec]) -> Shapes:
        """Return the shapes of given arrays by input name."""
        if not isinstance(self._given, dict):
            return {}
        return {name: array.shape for name, array in fit(self._given, specs, self._name).items()}

    def size(self, specs: Sequence[InputSpec], wanted: int) -> int:
        """Return how many samples there are: those given, or else as many as wanted."""
        if isinstance(self._given, Path):
            return _at_least_two(len(image_files(self._given, wanted)))
        if not isinstance(self._given, dict):
            return wanted
        arrays = fit(self._given, specs, self._name)
        axes = {spec.name: spec.batch_axis for spec in specs}
        sizes = {int(array.shape[axis]) for name, array in arrays.items() if (axis := axes[name]) is not None}
        if len(sizes) > 1:
            raise ShapeError(f"{self._name}: the given arrays hold {sorted(sizes)} samples; give equally many")
        return _at_least_two(sizes.pop()) if sizes else wanted

    def feeds(self, specs: Sequence[InputSpec], demands: Mapping[str, Demand]) -> dict[str, Array]:
        """Return an array for every input; demands say what its operators ask of each."""
        feeds: dict[str, Array] = {}
        if isinstance(self._given, dict):
            feeds = fit(self._given, specs, self._name)
        elif isinstance(self._given, Path):
            spec = _image_input(specs)
            batch = spec.shape[0] if spec.batch_axis == 0 else 1
            feeds = {spec.name: read_images(self._given, spec, batch, self._name)}
        made = self.made(specs, demands, skip=feeds)
        return {**feeds, **made}

    def made(
        self, specs: Sequence[InputSpec], demands: Mapping[str, Demand], skip: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Return arrays made from nothing for all inputs that are not in `skip`."""
        made = {}
        index = 0  # counts what is drawn, so that a scalar among the inputs does not change what the others get
        for spec in specs:
            if skip is None or spec.name not in skip:
                longest = _longest(other for other in specs if other is not spec)
                try:
                    made[spec.name] = make_input(spec, self._kind, self._seed, demands[spec.name], index, longest)
                except UnsupportedError as error:
                    raise UnsupportedError(f"{self._name}: {error}") from None
            index += kind_for(spec, self._kind) in _DRAWN
        return made

    def fixed(self, specs: Sequence[InputSpec], demands: Mapping[str, Demand]) -> dict[str, Array]:
        """Return the small inputs that are no floats and the same for all samples, such as a sample rate."""
        chosen = {spec.name for spec in specs if _is_fixed(spec)}
        others = {spec.name: np.zeros(0) for spec in specs if spec.name not in chosen}
        given = fit(self._given, specs, self._name) if isinstance(self._given, dict) and chosen else {}
        made = self.made(specs, demands, skip={**others, **given})
        return {**{name: array for name, array in given.items() if name in chosen}, **made}

    def drawn(self, specs: Sequence[InputSpec], demands: Mapping[str, Demand]) -> frozenset[str]:
        """Return the names of inputs that are drawn at random."""
        if isinstance(self._given, dict):
            given = set(fit(self._given, specs, self._name))
        else:
            given = set() if self._given is None else {_image_input(specs).name}
        kinds = {spec.name: fed_kind(spec, self._kind, demands[spec.name]) for spec in specs if spec.name not in given}
        return frozenset(name for name, kind in kinds.items() if kind in _DRAWN)

    def text(self, specs: Sequence[InputSpec], demands: Mapping[str, Demand]) -> str:
        """Return what is fed, in a few words."""
        if self._given is not None:
            return input_text(self._inputs)
        kinds = [fed_kind(spec, self._kind, demands[spec.name]) for spec in specs]
        if len(kinds) == 1:
            return kinds[0]
        return ", ".join(f"{spec.name}={kind}" for spec, kind in zip(specs, kinds, strict=True))


def is_kind(inputs: Any) -> bool:
    """Return whether `inputs` names a kind of input rather than data."""
    return isinstance(inputs, str) and inputs in KINDS


def input_text(inputs: Any) -> str:
    """Return how given inputs are called in a record."""
    return os.fspath(inputs) if isinstance(inputs, (str, os.PathLike)) else "given arrays"


def few_samples(
    feeds: Mapping[str, Array], axes: Mapping[str, int], count: int, demands: Mapping[str, Demand]
) -> dict[str, Array]:
    """Return at most `count` of the samples, evenly spaced from the first to the last; what is one in memory stays one.

    demands: what the operators ask where there are so many samples; indices of samples are folded into it.
    """
    few = {name: evenly(array, axes[name], count) if name in axes else array for name, array in feeds.items()}
    return {name: folded(v, demands[name]) if v.dtype.kind in "iu" else v for name, v in few.items()}


def each_sample(feeds: Mapping[str, Array], axes: Mapping[str, int]) -> Iterator[dict[str, Array]]:
    """Yield minibatches of one sample each; inputs without an axis of samples come along whole."""
    for index in range(min(feeds[name].shape[axis] for name, axis in axes.items())):
        yield {
            name: array[(slice(None),) * axes[name] + (slice(index, index + 1),)] if name in axes else array
            for name, array in feeds.items()
        }


def rolled(feeds: Mapping[str, Array], axes: Mapping[str, int]) -> dict[str, Array]:
    """Return the inputs with every sample in the place of the one behind it."""
    return {name: np.roll(array, 1, axes[name]) if name in axes else array for name, array in feeds.items()}


def all_first(feeds: Mapping[str, Array], axes: Mapping[str, int]) -> dict[str, Array]:
    """Return the inputs with the first sample in the place of each."""
    return {
        name: np.broadcast_to(np.take(array, [0], axes[name]), array.shape) if name in axes else array
        for name, array in feeds.items()
    }


def evenly(array: Array, axis: int, count: int) -> Array:
    """Return at most `count` indices of an axis, evenly spaced from the first to the last; what is one stays one."""
    indices = np.linspace(0, array.shape[axis] - 1, min(array.shape[axis], count)).round().astype(np.int64)
    once = unstretched(array)
    if once.shape[axis] == array.shape[axis]:
        once = np.take(once, indices, axis)
    return np.broadcast_to(once, (*array.shape[:axis], len(indices), *array.shape[axis + 1 :]))


def _longest(specs: Iterable[InputSpec]) -> int | None:
    """Return the most entries that any of some inputs has along an axis that is not its batch; None without one."""
    return max((n for spec in specs for axis, n in enumerate(spec.shape) if axis != spec.batch_axis), default=None)


def _is_fixed(spec: InputSpec) -> bool:
    numbers = spec.dtype.is_integer() or spec.dtype == ir.DataType.BOOL
    return spec.batch_axis is None and numbers and math.prod(spec.shape) <= _FIXED_SIZE


def _image_input(specs: Sequence[InputSpec]) -> InputSpec:
    return next((spec for spec in specs if spec.layout), specs[0])


def _at_least_two(samples: int) -> int:
    if samples < 2:
        raise UsageError(
            "the given input holds a single sample, which has nothing to be compared with; give at least 2"
        )
    return samples
