"""Operators that work entry by entry equal the operator on expanded operands, whatever the partitions are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epsinas_onnx.lump.partition import Partition
from tests.lump.harness import Array, Operand, check, known, operands

_PLACES = {"rtol": 1e-5, "atol": 1e-6}
"""Both sides run the same kernel on the same numbers; which lane of a vector a number lies in may cost a last bit."""

_EXACT = {"rtol": 1e-9, "atol": 1e-9}


@st.composite
def typed(
    draw: st.DrawFn,
    shape: Sequence[int],
    dtype: npt.DTypeLike,
    constants: int = 1,
    low: float = -2.0,
    high: float = 2.0,
    parts: Sequence[Partition] | None = None,
) -> Operand:
    """Draw an operand of any element type; integers and truth values hit each other often enough to be equal."""
    drawn = draw(operands(shape, constants=constants, low=low, high=high, parts=parts))
    kind = np.dtype(dtype).kind
    if kind == "b":
        drawn.array = drawn.array > 0
    elif kind == "f":
        drawn.array = drawn.array.astype(dtype)
    else:
        drawn.array = np.round(drawn.array).astype(dtype)
    return drawn


@st.composite
def shapes(draw: st.DrawFn, count: int) -> list[tuple[int, ...]]:
    """Draw shapes that ONNX broadcasts, of different ranks, each with ones where another has more."""
    whole = draw(st.lists(st.integers(1, 4), min_size=0, max_size=4))
    found = []
    for _ in range(count):
        own = whole[draw(st.integers(0, len(whole))) :]
        found.append(tuple(draw(st.sampled_from([size, size, 1])) for size in own))
    return found


@dataclass
class Relaid(Operand):
    """An operand whose tensor has another shape than `[constants, *counts]`, as a convolution leaves it."""

    def whole(self, constant: int) -> Array:
        """Return the whole value for one constant."""
        counts = tuple(part.count for part in self.parts)
        rows = self.array.reshape((-1, *counts) if self.varied else counts)
        return Operand(rows, self.parts, self.varied).whole(constant)


@st.composite
def relaid(draw: st.DrawFn, shape: Sequence[int], constants: int) -> Operand:
    """Draw an image `[n, c, h, w]` in its own layout, or with all maps as channels, or as samples."""
    found = draw(operands(shape, constants=constants))
    space = found.array.shape[-2:]
    maps = found.array.size // math.prod(space)
    layout = draw(st.sampled_from([found.array.shape, (1, maps, *space), (maps, 1, *space)]))
    return Relaid(found.array.reshape(layout), found.parts, found.varied, weighted=found.weighted)


_UNARY: dict[str, tuple[float, float]] = {
    "Abs": (-2, 2), "Acos": (-0.9, 0.9), "Acosh": (1.1, 4), "Asin": (-0.9, 0.9), "Asinh": (-2, 2), "Atan": (-2, 2),
    "Atanh": (-0.9, 0.9), "Ceil": (-4, 4), "Celu": (-2, 2), "Cos": (-2, 2), "Cosh": (-2, 2), "Elu": (-2, 2),
    "Erf": (-2, 2), "Exp": (-2, 2), "Floor": (-4, 4), "Gelu": (-2, 2), "HardSigmoid": (-4, 4), "HardSwish": (-4, 4),
    "Identity": (-2, 2), "LeakyRelu": (-2, 2), "Log": (0.1, 4), "Mish": (-2, 2), "Neg": (-2, 2),
    "Reciprocal": (0.5, 4), "Relu": (-2, 2), "Round": (-4, 4), "Selu": (-2, 2), "Shrink": (-2, 2),
    "Sigmoid": (-4, 4), "Sign": (-2, 2), "Sin": (-2, 2), "Sinh": (-2, 2), "Softplus": (-2, 2), "Softsign": (-2, 2),
    "Sqrt": (0.1, 4), "Tan": (-1, 1), "Tanh": (-2, 2), "ThresholdedRelu": (-2, 2),
}  # fmt: skip
_UNARY_ATTRIBUTES: dict[str, dict[str, float | str]] = {
    "Celu": {"alpha": 0.7}, "Elu": {"alpha": 0.3}, "Gelu": {"approximate": "tanh"},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4}, "LeakyRelu": {"alpha": 0.2}, "Selu": {"alpha": 1.2, "gamma": 1.1},
    "Shrink": {"bias": 0.5, "lambd": 0.9}, "ThresholdedRelu": {"alpha": 0.6},
}  # fmt: skip


@pytest.mark.parametrize("op_type", _UNARY)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_unary(op_type: str, data: st.DataObject) -> None:
    low, high = _UNARY[op_type]
    constants = data.draw(st.integers(1, 2))
    (shape,) = data.draw(shapes(1))
    x = data.draw(operands(shape, constants=constants, low=low, high=high))
    attributes = data.draw(st.sampled_from([{}, _UNARY_ATTRIBUTES.get(op_type, {})]))
    node = onnx.helper.make_node(op_type, ["x"], ["y"], **attributes)
    check(node, {"x": x}, opset=20, constants=constants, **_PLACES)
