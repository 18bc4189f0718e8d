"""Kernels that put entries in places that other operands name, or turn them around."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.kernels.layout import Kernel
from epsinas_onnx.evaluate_lumped.scaled import Array

_JOINS: dict[str, Callable[..., None]] = {
    "add": np.add.at, "mul": np.multiply.at, "max": np.maximum.at, "min": np.minimum.at,
}  # fmt: skip


def _put(made: Array, places: tuple[Any, ...], updates: Array, how: str) -> None:
    if how == "none":
        made[places] = updates
    else:
        _JOINS[how](made, places, updates)


def reduction_of(call: Call) -> str:
    """Return how an entry that is put somewhere joins what is there: `none` where it replaces it."""
    return str(call.attribute("reduction", "none"))


def scatter_nd(call: Call) -> Kernel:
    """Slices put in at tuples of indices."""
    how = reduction_of(call)

    def kernel(x: Array, indices: Array, updates: Array) -> Array:
        made = np.array(x)
        _put(made, tuple(np.moveaxis(indices, -1, 0)), updates, how)
        return made

    return kernel


def scatter_elements(call: Call) -> Kernel:
    """Entry by entry along an axis."""
    axis, how = int(call.attribute("axis", 0)), reduction_of(call)

    def kernel(x: Array, indices: Array, updates: Array) -> Array:
        made = np.array(x)
        places = list(np.ogrid[tuple(map(slice, indices.shape))])
        places[axis] = np.where(indices < 0, indices + x.shape[axis], indices)
        _put(made, tuple(places), updates, how)
        return made

    return kernel


def reverse_sequence(call: Call) -> Kernel:
    """The first so many entries of each sequence in reverse, the rest as they are."""
    batch, time = int(call.attribute("batch_axis", 1)), int(call.attribute("time_axis", 0))

    def kernel(x: Array, lengths: Array) -> Array:
        count = np.arange(x.shape[time])[:, None]
        places = np.where(count < lengths, lengths - 1 - count, count)  # [time, batch]
        shape = [1] * x.ndim
        shape[time], shape[batch] = places.shape
        whole = (places if time < batch else places.T).reshape(shape)
        return np.take_along_axis(x, np.broadcast_to(whole, x.shape), time)

    return kernel
