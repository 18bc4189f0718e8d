"""Reductions weigh classes by their sizes: they equal the operator on expanded operands."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lump.harness import check, examples, known, operands

OPERATORS = (
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceSumSquare",
)  # fmt: skip


@pytest.mark.parametrize("op_type", OPERATORS)
@examples(20)
@given(data=st.data(), opset=st.sampled_from([9, 11, 13, 18]))
def test_reductions(op_type: str, data: st.DataObject, opset: int) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    constants = data.draw(st.integers(1, 2))
    positive = op_type == "ReduceLogSum"
    low = 0.5 if positive else -2.0
    given = {"x": data.draw(operands(shape, constants=constants, low=low, factors=not positive))}
    lowest = 0 if opset < 11 else -len(shape)
    axes = data.draw(st.lists(st.integers(lowest, len(shape) - 1), max_size=len(shape)))
    axes = list({axis % len(shape): axis for axis in axes}.values())
    attributes: dict[str, Any] = {"keepdims": data.draw(st.integers(0, 1))}
    takes_input = opset >= (13 if op_type == "ReduceSum" else 18)
    if takes_input and (axes or data.draw(st.booleans())):
        given["axes"] = known(axes)
        attributes["noop_with_empty_axes"] = data.draw(st.integers(0, 1)) if axes or op_type[6:] == "Sum" else 0
    elif axes:
        attributes["axes"] = axes
    node = onnx.helper.make_node(op_type, list(given), ["y"], **attributes)
    check(node, given, opset=opset, constants=constants, rtol=1e-3)


@examples(20)
@given(data=st.data(), op_type=st.sampled_from(["ReduceSum", "ReduceMean", "ReduceMax"]))
def test_reductions_of_doubles(data: st.DataObject, op_type: str) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    given = {"x": data.draw(operands(shape, dtype=np.float64)), "axes": known([0, -1])}
    check(onnx.helper.make_node(op_type, list(given), ["y"]), given, rtol=1e-12, atol=1e-12)
