"""Kernels of what looks for the largest or smallest along an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.kernels.layout import Kernel
from epsinas_onnx.evaluate_lumped.scaled import Array


def count_of(call: Call, operands: Sequence[Any]) -> int:
    """Return how many entries are asked for: an attribute before operator set 10."""
    return int(np.asarray(operands[1]).reshape(-1)[0]) if len(operands) > 1 else int(call.attribute("k"))


def top(call: Call) -> Kernel:
    """The first so many entries in order, and where they were."""
    axis, largest = int(call.attribute("axis", -1)), bool(call.attribute("largest", 1))

    def kernel(*operands: Any) -> tuple[Array, Array]:
        x = operands[0]
        places = np.argsort(-x if largest else x, axis=axis, kind="stable")
        places = np.take(places, np.arange(count_of(call, operands)), axis)
        return np.take_along_axis(x, places, axis), places

    return kernel


def hard_max(call: Call) -> Kernel:
    """1 for the first of the largest along an axis (along all from one on until operator set 13), 0 for the rest."""
    wide = call.opset < 13
    axis = int(call.attribute("axis", 1 if wide else -1))

    def kernel(x: Array) -> Array:
        flat = x.reshape(math.prod(x.shape[: axis % x.ndim]), -1) if wide else x
        place = -1 if wide else axis
        made = np.zeros(flat.shape, x.dtype)
        np.put_along_axis(made, np.expand_dims(flat.argmax(place), place), 1, place)
        return made.reshape(x.shape)

    return kernel
