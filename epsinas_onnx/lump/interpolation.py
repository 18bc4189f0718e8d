"""Owns what a Resize weighs along one axis: a matrix from the entries before to those after (ONNX Resize)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.value import Array
from epsinas_onnx.lump.windows import Along, kept

_ALIKE = 6
"""Decimals to which weights are compared: mirror images differ by the rounding of their coordinates."""


@dataclass(frozen=True)
class Interpolation:
    """How entries are weighed. mode: `nearest`, `linear` or `cubic`. coordinates, rounding, cubic, exclude: as the
    attributes `coordinate_transformation_mode`, `nearest_mode`, `cubic_coeff_a` and `exclude_outside`.
    """

    mode: str
    coordinates: str
    rounding: str
    cubic: float
    exclude: bool


@kept
def interpolated(part: Partition, count: int, scale: float, how: Interpolation) -> Along | None:
    """Return the weights of the classes in `count` entries; None for coordinates of another kind."""
    places = _places(part.size, count, np.float32(scale), how.coordinates)
    if places is None:
        return None
    if how.mode == "nearest":
        taps, weights = _nearest(places, how.rounding)[:, None], np.ones((count, 1))
    elif how.mode == "linear":
        inside = np.clip(places, 0, part.size - 1).astype(np.float64)
        first = np.floor(inside)
        taps, weights = np.stack([first, first + 1], 1), np.stack([first + 1 - inside, inside - first], 1)
    else:
        first = np.floor(places)
        taps = first[:, None] + np.arange(-1, 3)
        weights = _keys(np.abs(places[:, None].astype(np.float64) - taps), how.cubic)
        if how.exclude:
            weights = np.where((taps < 0) | (taps >= part.size), 0, weights)
            weights /= weights.sum(axis=1, keepdims=True)
    at = np.clip(taps, 0, part.size - 1).astype(np.int64)
    rows = np.zeros((count, part.count))
    np.add.at(rows, (np.arange(count)[:, None], part.labels[at]), weights)
    return Along.of(rows, _ALIKE)


def _places(size: int, count: int, scale: np.float32, coordinates: str) -> Array | None:
    """Return where the entries after lie among those before, float32 as in ONNX Runtime."""
    index = np.arange(count, dtype=np.float32)
    half = np.float32(0.5)
    match coordinates:
        case "half_pixel":
            return (index + half) / scale - half
        case "pytorch_half_pixel":
            return (index + half) / scale - half if count > 1 else np.zeros_like(index)
        case "asymmetric":
            return index / scale
        case "align_corners":
            return index * np.float32(size - 1) / np.float32(count - 1) if count > 1 else np.zeros_like(index)
    return None


def _nearest(places: Array, rounding: str) -> Array:
    down = np.floor(places)
    match rounding:
        case "floor":
            return down
        case "ceil":
            return np.ceil(places)
        case "round_prefer_ceil":
            return np.floor(places + np.float32(0.5))
    return np.where(places - down <= 0.5, down, down + 1)


def _keys(distance: Array, a: float) -> Array:
    """Return the weights of Keys' cubic convolution (1981) at distances of less than 2."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))
