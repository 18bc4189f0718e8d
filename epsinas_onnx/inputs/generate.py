"""Makes minibatches from nothing: the grey ramp, seeded noise, seeded tokens, and sensible values for the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.errors import UnsupportedError, UsageError
from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.inputs.operands import Demand

Array = npt.NDArray[Any]
KINDS = ("auto", "grey", "normal", "uniform", "tokens")

ANYTHING = Demand()
UNBOUNDED_TOKENS = 100
"""Tokens are drawn below this where nothing in the graph tells how large a vocabulary is."""
SAMPLE_RATE = 16_000
UPPER_BOUND = 1e6
_SAMPLE_RATES = frozenset({"sr", "sample_rate", "sampling_rate", "samplerate", "sample_rate_hz"})


def kind_for(spec: InputSpec, kind: str) -> str:
    """Return what `make_input` will feed, in a word: the kind asked for, or what `auto` chooses for this input.

    Beside the kinds that can be asked for there are `ones` (masks, booleans), `zeros` (segment ids), `positions`,
    `length`, `sample rate`, and for float scalars `lower bound` and `upper bound` (so wide that they exclude nothing)
    and `one`.
    """
    dtype, name = spec.dtype, spec.name.lower()
    if dtype == ir.DataType.STRING:
        return "strings"
    if dtype == ir.DataType.BOOL or "mask" in name:
        return "ones"
    if dtype.is_floating_point():
        if kind == "tokens":
            kind = "auto"
        if not spec.shape:
            return "lower bound" if "min" in name else "upper bound" if "max" in name else "one"
        if kind == "grey" or (kind == "auto" and spec.layout):
            return "grey" if spec.batch_axis is not None or kind == "grey" else "normal"
        return "normal" if kind == "auto" else kind
    if dtype == ir.DataType.UINT8 and spec.layout and kind in ("auto", "grey"):
        return "grey"
    return _integer_kind(spec, name.replace(".", "_").rsplit("/", 1)[-1])


_WORDS = ("mask", "token_type", "segment", "position", "length", "min", "max")


def telling_word(name: str) -> str | None:
    """Return the word in an input's name that decides what `kind_for` says of it, None where there is none."""
    last = name.lower().replace(".", "_").rsplit("/", 1)[-1]
    if last in _SAMPLE_RATES:
        return last
    if last.endswith(("_len", "_lens")):
        return "length"
    return next((word for word in _WORDS if word in name.lower()), None)


def _integer_kind(spec: InputSpec, name: str) -> str:
    if name in _SAMPLE_RATES:
        return "sample rate"
    if "length" in name or name.endswith(("_len", "_lens")):
        return "length"
    if "position" in name:
        return "positions"
    if "token_type" in name or "segment" in name:
        return "zeros"
    return "tokens" if spec.shape else "one"


def fed_kind(spec: InputSpec, kind: str, demand: Demand) -> str:
    """Return what `make_input` will feed, in a word: what operators ask, before what `kind_for` says."""
    return demand.kind or kind_for(spec, kind)


def make_input(
    spec: InputSpec, kind: str, seed: int, demand: Demand = ANYTHING, index: int = 0, longest: int | None = None
) -> Array:
    """Return one input of `spec.shape` and `spec.dtype`.

    kind: one of `KINDS`. demand: what operators ask; tokens that are out of range are folded into it.
    index: the input's place among those that are drawn at random, so that two inputs of one seed differ. longest: what
    a length is set to, the longest axis of its own where None.

    The grey ramp fills sample i of B with i / B, times 255 for uint8 (docs/metric.md).
    Raises UnsupportedError for string inputs and element types that NumPy lacks.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no input {kind!r}; choose one of {', '.join(KINDS)}, or give a file or a folder")
    what = fed_kind(spec, kind, demand)
    rng = np.random.default_rng([seed, index])
    if what == "strings":
        raise UnsupportedError(f"input {spec.name!r} takes strings, and only numbers can be fed")
    dtype = spec.dtype.numpy()
    match what:
        case "ones":
            return np.ones(spec.shape, dtype)
        case "one":
            return folded(np.ones(spec.shape, dtype), demand)
        case "zeros" | "lower bound":
            return np.zeros(spec.shape, dtype)
        case "upper bound":
            return np.full(spec.shape, UPPER_BOUND, dtype)
        case "sample rate":
            return np.full(spec.shape, SAMPLE_RATE, dtype)
        case "length":
            value = demand.value if demand.kind else longest or max(spec.shape, default=1)
            return np.full(spec.shape, value, dtype)
        case "offset":
            return np.full(spec.shape, demand.value, dtype)
        case "offsets":
            return (np.arange(math.prod(spec.shape)) * demand.value).reshape(spec.shape).astype(dtype)
        case "samples":
            return (np.arange(math.prod(spec.shape)) % (demand.high or 1)).reshape(spec.shape).astype(dtype)
        case "positions":
            places = demand.value + np.arange(spec.shape[-1] if spec.shape else 1)
            return np.broadcast_to(places, spec.shape).astype(dtype)
        case "grey":
            return grey_ramp(spec.shape, spec.batch_axis or 0, dtype)
        case "normal" | "uniform":
            draw = _kept_noise if math.prod(spec.shape) <= _MOST_KEPT else _noise
            return draw(what, (seed, index), tuple(spec.shape), dtype)
        case _:
            tokens = rng.integers(0, demand.tokens or UNBOUNDED_TOKENS, spec.shape)
            return folded(tokens, demand).astype(dtype)


_MOST_KEPT = 2**22
"""Entries of noise that is kept for the next model: of one search space all are fed the same, whose drawing takes as
long as a tenth of a score.
"""


@lru_cache(maxsize=2)
def _kept_noise(kind: str, seed: tuple[int, int], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return noise that cannot be written to."""
    made = _noise(kind, seed, shape, dtype)
    made.flags.writeable = False
    return made


def _noise(kind: str, seed: tuple[int, int], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    rng = np.random.default_rng(seed)
    made = rng.standard_normal(shape, np.float32) if kind == "normal" else rng.random(shape, np.float32)
    return made.astype(dtype, copy=False)


def folded(entries: Array, demand: Demand) -> Array:
    """Return integers of which those out of range are counted on from its start; the others stay what they are."""
    low = demand.low or 0
    if demand.high is not None:
        inside = low + (entries - low) % max(1, demand.high - low)
        return np.where((entries < low) | (entries >= demand.high), inside, entries).astype(entries.dtype)
    return entries if demand.low is None else np.maximum(entries, low)


def grey_ramp(shape: tuple[int, ...], batch_axis: int, dtype: npt.DTypeLike = np.float32) -> Array:
    """Return plain grey images: sample i of B is filled with i / B; uint8 images with round(255 i / B).

    It is a view that cannot be written to, of one number a sample.
    """
    batch = shape[batch_axis]
    levels = np.arange(batch) / batch
    if np.dtype(dtype) == np.uint8:
        levels = np.round(255 * levels)
    axes = [1] * len(shape)
    axes[batch_axis] = batch
    return np.broadcast_to(levels.reshape(axes).astype(dtype), shape)


def unstretched(array: Array) -> Array:
    """Return the array with size 1 along the axes that it was broadcast along, where it holds the same entries."""
    return array[tuple(slice(0, 1) if step == 0 else slice(None) for step in array.strides)]


def perturbed(arrays: Mapping[str, Array], seed: int, change: float | None = None) -> dict[str, Array]:
    """Return inputs by name, each as `perturb` moves it."""
    return {name: perturb(array, seed, change) for name, array in arrays.items()}


def perturb(array: Array, seed: int = 0, change: float | None = None) -> Array:
    """Return a float array whose entries moved up or down at random, or the array itself where it holds no floats.

    change: by which share of themselves they move; None for one unit in the last place. Entries that are one in memory
    move together.
    """
    if array.dtype.kind != "f":
        return array
    whole, array = array.shape, unstretched(array)
    up = np.random.default_rng(seed).random(array.shape) < 0.5
    if change is not None:
        moved = array * np.where(up, 1 + change, 1 - change)
    else:
        towards = np.where(up, np.inf, -np.inf).astype(array.dtype)
        moved = np.nextafter(array, towards)
    return np.broadcast_to(np.asarray(moved, dtype=array.dtype), whole)
